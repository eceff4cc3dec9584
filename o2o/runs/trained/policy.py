"""The policies of a run: those that it kept, and the one that it ended with, also as a function of observations."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from o2o.config.build import load
from o2o.config.schema import Config
from o2o.envs.tasks import Task, find_task, make, task_sizes
from o2o.errors import ConfigError
from o2o.machine import device
from o2o.replay.buffer import Replay
from o2o.runs.directory.layout import CHECKPOINTS, CONFIG, FINAL_STATE
from o2o.training import checkpoint, policies
from o2o.types import NO_FACTS, Algorithm, State


@dataclass(frozen=True)
class Trained:
    """A state that a run came to, and whose it is."""

    config: Config
    algorithm: Algorithm
    """The finetuning one, or the pretraining's where the run is a pretraining."""
    task: Task
    state: State


def load_trained(directory: Path) -> Trained:
    """The final state of the run in `directory`, a finetuning or a pretraining.

    Raises:
        ConfigError: it is not the directory of a finished run of this version, its state holds values that are not
            finite, or JAX cannot be had as it must be.
    """
    trained, _ = _untrained(directory)
    return replace(trained, state=_final(directory, trained.state))


def load_kept(directory: Path) -> dict[int, Trained]:
    """The policies of the run in `directory` by their env steps: those it kept, and the final one if it is finished.

    Of the states of those it kept, what acting does not read is zeros.

    Raises:
        ConfigError: it is not a run directory of this version, one of them cannot be read, or there is none; or JAX
            cannot be had as it must be.
    """
    trained, observation = _untrained(directory)
    like, kept = trained.state, directory / CHECKPOINTS
    read = policies.arrays_read(trained.algorithm, like, observation)
    try:
        found = {step: policies.load(kept, step, like, read) for step in policies.steps(kept)}
    except checkpoint.CheckpointError as error:
        raise ConfigError([str(error)]) from None
    last = trained.config.finetune.env_steps
    if last not in found and ((directory / FINAL_STATE).exists() or not found):
        found[last] = _final(directory, like)
    return {step: replace(trained, state=state) for step, state in found.items()}


def _untrained(directory: Path) -> tuple[Trained, Float[Array, " O"]]:
    """A run with the shapes of its state in place of one, and an observation."""
    device.configure()
    if not (directory / CONFIG).is_file():
        raise ConfigError([f"{directory} is not a run directory: it has no {CONFIG}"])
    config = load(directory / CONFIG)
    algorithm = config.algorithm if config.finetune.env_steps else config.pretrain.algorithm
    try:
        task = find_task(config.dataset.task)
    except LookupError as error:
        raise ConfigError([f"{directory}: dataset.{error}"]) from None
    example = Replay(1, 1, 1, *task_sizes(task)).example()
    like = jax.eval_shape(algorithm.init, jax.random.key(0), example, NO_FACTS)
    return Trained(config, algorithm, task, like), example.observation


def _final(directory: Path, like: State) -> State:
    if not (directory / FINAL_STATE).exists():
        raise ConfigError([f"{directory / FINAL_STATE} is not there: is the run finished?"])
    try:
        state = jax.tree.map(jnp.asarray, checkpoint.load(directory / FINAL_STATE, like))
    except checkpoint.CheckpointError as error:
        raise ConfigError([str(error)]) from None
    if not all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)):
        raise ConfigError(
            [f"{directory / FINAL_STATE} holds values that are not finite: the policy says nothing"]
        )
    return state


@dataclass(frozen=True, eq=False)
class Policy:
    """A trained policy without noise: called with one observation [O], or many [B, O], it returns the actions.

    Observations are the environment's, of which ant's may lack the zeros that D4RL's have; actions lie between the
    environment's bounds.
    """

    config: Config = field(repr=False)
    """The run's."""
    observation_size: int
    action_size: int
    _padding: int = field(repr=False)
    _bounds: tuple[np.ndarray, np.ndarray] = field(repr=False)
    _act: Any = field(repr=False)

    def __call__(self, observation: Any) -> Float[np.ndarray, "*B A"]:
        """The actions for the observations.

        Raises:
            ValueError: the last axis of `observation` has another size.
        """
        given = np.asarray(observation, dtype=np.float32)
        size = given.shape[-1] if given.ndim else 0
        if self._padding and size == self.observation_size - self._padding:
            given = np.concatenate([given, np.zeros((*given.shape[:-1], self._padding), np.float32)], axis=-1)
        elif size != self.observation_size:
            raise ValueError(f"an observation has {self.observation_size} numbers, not {size}")
        low, high = self._bounds
        return low + (np.asarray(self._act(given)) + 1) * (0.5 * (high - low))


def load_policy(run: str | os.PathLike[str]) -> Policy:
    """The policy that a finished run ended with, of any algorithm, and of a finetuning or a pretraining.

        policy = o2o.load_policy("runs/…/seed-0")
        action = policy(observation)

    Raises:
        ConfigError: `run` is not the directory of a finished run of this version.
    """
    trained = load_trained(Path(run))
    environment = make(trained.task)
    space = environment.action_space
    environment.close()
    algorithm, state = trained.algorithm, trained.state
    act = jax.jit(lambda observation: algorithm.act(state, observation, jax.random.key(0), evaluate=True))
    sizes = task_sizes(trained.task)
    return Policy(trained.config, *sizes, trained.task.padding, (space.low, space.high), act)
