"""Rlkit's training of SAC, which D4RL's behaviour policies came from.

First 1000 environment steps with the untrained stochastic policy; then epochs of 1000 steps and 1000 updates, each
block of steps starting with a reset, so the last episode of a block is cut short. Several seeds learn side by side,
each from its own steps: processes collect them, and the updates of all are one program on a GPU.

Inputs that are always zero (Ant's) are left out of the networks, and are zero weights of the policies that come out: by
rlkit's initialisation, whose spread depends on a layer's outputs alone, that is the same training.
"""

from __future__ import annotations

import functools
import os
import shutil
import time
import zipfile
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from o2o.algorithms.sac import SAC
from o2o.datasets.regenerated.rollouts import BLOCK, RolloutRows
from o2o.datasets.regenerated.tanh_gaussian import TanhGaussian
from o2o.datasets.regenerated.workers import Workers
from o2o.envs.tasks import TASKS, task_sizes
from o2o.errors import ConfigError
from o2o.machine import device
from o2o.replay.buffer import Online, Replay, pack
from o2o.training import checkpoint
from o2o.training.seeds import make_members
from o2o.types import NO_FACTS, LearningRate, Network, Parameters, State

UPDATES = 250  # in one call: between two of them, a signal to stop is obeyed

RLKIT_SAC = SAC(
    discount=0.99,
    learning_rate=LearningRate(policy=3e-4, critic=3e-4),
    network=Network((256, 256)),
    target_step=0.005,
    target_entropy_per_dim=-1.0,
    initial_temperature=1.0,
    temperature_learning_rate=3e-4,
)


class Epoch(NamedTuple):
    """The results of an epoch for each seed; the first has no updates."""

    number: int
    policies: list[TanhGaussian]
    returns: list[float]
    """The mean returns of the episodes that the epoch's blocks of steps completed."""
    collecting: float = 0.0
    """Seconds that were waited for steps."""
    learning: float = 0.0
    """Seconds that the updates took."""

    @property
    def note(self) -> str:
        """Returns the epoch in a line of text."""
        times = f"collecting {self.collecting:.2f} s, learning {self.learning:.2f} s"
        return f"epoch {self.number}: {times}; returns {' '.join(f'{mean:.0f}' for mean in self.returns)}"


def run(task: str, seeds: Sequence[int], epochs: int, directory: Path) -> Generator[Epoch]:
    """A SAC run a seed, of that many epochs after the first, going on where `directory` says that they were stopped.

    An epoch is yielded when it is saved, and the last saved one once more when a run goes on.

    Raises:
        ConfigError: if what is saved cannot be read, or JAX cannot be had as it must be.
    """
    device.configure()
    sizes = task_sizes(TASKS[task])
    inputs = sizes[0] - TASKS[task].padding
    members = make_members(len(seeds))
    replay = Replay(256, 10**6, 1, inputs, sizes[1])
    keys = [jax.random.key(seed) for seed in seeds]
    learn = members.map(functools.partial(_update, replay), shared=(3, 4), donated=(0,))
    add = members.map(lambda online, rows: (replay.extend(online, rows),), donated=(0,))
    online = members.bundle([replay.init((epochs + 1) * BLOCK) for _ in seeds])
    state = members.bundle(
        [RLKIT_SAC.init(jax.random.fold_in(key, 0), replay.example(), NO_FACTS) for key in keys]
    )
    keys = members.bundle(keys)
    first = 0
    if (saved := directory / "state.npz").is_file():
        tree = _load(saved, {"states": members.values(state), "epoch": np.array(0)})
        first = int(tree["epoch"]) + 1
        state = members.bundle(jax.tree.map(jnp.asarray, tree["states"]))
        for number in range(first):
            (online,) = add(online, members.bundle(list(_packed(block(directory, number), inputs))))
        yield Epoch(
            first - 1, _policies(members.values(state), sizes[0]), _returns(block(directory, first - 1))
        )
    policies = _policies(members.values(state), sizes[0])
    with Workers(task, "collect", min(len(seeds), os.cpu_count() or 1)) as workers:

        def collected(number: int) -> list[Future[RolloutRows]]:
            return [workers.submit(*job, number) for job in zip(policies, seeds, strict=True)]

        pending = collected(first)
        for epoch in range(first, epochs + 1):
            times = [time.monotonic()]
            pieces = [job.result() for job in pending]
            times.append(time.monotonic())
            rows = {key: np.stack([piece[key] for piece in pieces]) for key in pieces[0]}
            (online,) = add(online, members.bundle(list(_packed(rows, inputs))))
            if epoch > 0:
                for start in range(0, BLOCK, UPDATES):
                    (state,) = jax.block_until_ready(learn(state, online, keys, epoch, start))
            states = members.values(
                jax.tree.map(np.array, state)
            )  # a copy: the next update uses the state up
            policies = _policies(states, sizes[0])
            times.append(time.monotonic())
            # The next steps are collected while this epoch is written down and made use of.
            pending = collected(epoch + 1) if epoch < epochs else []
            checkpoint.save(directory / f"{epoch:04d}.npz", rows)
            checkpoint.save(saved, {"states": states, "epoch": np.array(epoch)})
            yield Epoch(epoch, policies, _returns(rows), *np.diff(times).tolist())


def block(directory: Path, epoch: int) -> RolloutRows:
    """The steps that an epoch of a saved run collected; the first axis is the seeds.

    Raises:
        ConfigError: if they cannot be read.
    """
    path = directory / f"{epoch:04d}.npz"
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {key: file[key] for key in file.files if key != "version"}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError([f"{path} cannot be read ({error}): delete {directory} to begin anew"]) from None


def forget(directory: Path) -> None:
    """Deletes what only an unfinished run needs."""
    shutil.rmtree(directory, ignore_errors=True)


def exported(policy: Parameters, observation_size: int) -> TanhGaussian:
    """A tanh-Gaussian policy's parameters as D4RL's files hold theirs (weights output × input).

    Inputs that the network was trained without have weights of zero.
    """
    first = np.asarray(policy["hidden_0"]["kernel"]).T
    mean, log_std = np.split(np.asarray(policy["output"]["kernel"]).T, 2)
    mean_bias, log_std_bias = np.split(np.asarray(policy["output"]["bias"]), 2)
    return TanhGaussian(
        {
            "fc0/weight": np.pad(first, ((0, 0), (0, observation_size - first.shape[1]))),
            "fc0/bias": np.asarray(policy["hidden_0"]["bias"]),
            "fc1/weight": np.asarray(policy["hidden_1"]["kernel"]).T,
            "fc1/bias": np.asarray(policy["hidden_1"]["bias"]),
            "last_fc/weight": mean,
            "last_fc/bias": mean_bias,
            "last_fc_log_std/weight": log_std,
            "last_fc_log_std/bias": log_std_bias,
        }
    )


def _policies(states: list[State], observation_size: int) -> list[TanhGaussian]:
    return [exported(state.policy, observation_size) for state in states]


def _packed(rows: RolloutRows, inputs: int) -> Float[np.ndarray, "M N W"]:
    """Every seed's steps as rows of a replay, without the inputs that are always zero."""
    observations, following = (rows[name][..., :inputs] for name in ("observations", "next_observations"))
    return pack(observations, rows["actions"], rows["rewards"], rows["terminals"], following)


def _returns(rows: RolloutRows) -> list[float]:
    """Each seed's mean return of the episodes that its block completed; of the cut one, if it completed none."""
    means = []
    for rewards, terminals in zip(rows["rewards"], rows["terminals"], strict=True):
        ends = np.flatnonzero(terminals) + 1
        starts = np.concatenate([[0], ends])
        sums = np.add.reduceat(rewards, starts[starts < BLOCK])
        means.append(float(sums[: max(1, len(ends))].mean()))
    return means


def _update(
    replay: Replay,
    state: State,
    online: Online,
    key: Key[Array, ""],
    epoch: int | Int[Array, ""],
    start: int | Int[Array, ""],
) -> tuple[State]:
    nothing = online.ring[:0]
    key = jax.random.fold_in(key, epoch + 1)

    def one(state: State, i: Array) -> tuple[State, None]:
        sample_key, update_key = jax.random.split(jax.random.fold_in(key, i))
        batches = jax.tree.map(lambda x: x[None], replay.sample(nothing, online, sample_key))
        return RLKIT_SAC.update(state, batches, update_key, (True,))[0], None

    return (jax.lax.scan(one, state, start + jnp.arange(UPDATES))[0],)


def _load(path: Path, like: Any) -> Any:
    try:
        return checkpoint.load(path, like)
    except checkpoint.CheckpointError as error:
        raise ConfigError([f"{error}: delete {path.parent} to begin anew"]) from None
