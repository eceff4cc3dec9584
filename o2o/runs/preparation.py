"""The beginning of a job: platform, caches, task, data and replay, and whether they fit each other."""

from __future__ import annotations

import functools
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from o2o import envs
from o2o.config.schema import Config, Dataset, Paths, algorithm_name
from o2o.config.validation import starvation
from o2o.datasets import loading
from o2o.datasets.columns import columns
from o2o.envs.tasks import Task, find_task, task_sizes
from o2o.errors import ConfigError
from o2o.machine import device
from o2o.machine.signals import Interruption
from o2o.replay.buffer import Replay, Rows, pack, row_width
from o2o.runs.lock import Leases
from o2o.runs.phases import Job, parts
from o2o.training import contract
from o2o.types import NO_FACTS, Algorithm, Facts


def prepare(config: Config, stop: Interruption, leases: Leases) -> Job:
    """Returns what the phases of a job work with; its members differ in their seeds alone.

    Raises:
        ConfigError: the data are not there or not usable, or something does not fit the algorithm; with all reasons.
    """
    configure(config)
    task = _task(config.dataset.task)
    sizes = task_sizes(task)
    offline, facts = jnp.zeros((0, row_width(*sizes))), NO_FACTS
    replay = make_replay(config, sizes)
    problems = _protocol_problems(config, replay)
    if problems:
        raise ConfigError(problems)
    if config.pretrain.updates or config.replay_init.preload:
        wanted = _Wanted(config.dataset, config.execution.paths, sizes, replay.columns, config.discount)
        offline, facts = _offline_rows(wanted)
    problems = starvation(config, len(offline)) + _unknown_columns(config, replay, offline)
    if facts.lowest_return == facts.highest_return and any(
        getattr(a, "needs_returns", False) for a in _algorithms(config)
    ):
        problems.append(
            f"dataset={config.dataset.name}: all its trajectories return {facts.lowest_return:g}, so "
            "reward_scale=return_range has no range: set algorithm.reward_scale=none"
        )
    if problems:
        raise ConfigError(problems)
    return Job(task, replay, offline, facts, stop, leases)


def configure(config: Config) -> None:
    """Takes the platform, and keeps on disk what is compiled, so that only a machine's first start compiles."""
    device.configure(config.execution.device.platform)
    caches = config.execution.paths.runs.absolute() / ".cache"
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(caches / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    # numba's own place is beside the module, else below the user's home; there may be neither. It reads this when it
    # is imported, which happens with the first environments.
    if not os.environ.get("NUMBA_CACHE_DIR") and not _can_write_to(Path(envs.__file__).parent):
        os.environ["NUMBA_CACHE_DIR"] = str(caches / "numba")


def _can_write_to(directory: Path) -> bool:
    try:
        tempfile.TemporaryFile(dir=directory).close()  # permissions alone do not tell
    except OSError:
        return False
    return True


def make_replay(config: Config, sizes: tuple[int, int]) -> Replay:
    """Returns the replay of a run's online phase, for a task of these sizes of observations and actions."""
    return Replay(
        batch_size=config.finetune.batch_size or config.batch_size,
        capacity=config.replay_init.capacity,
        min_size=config.replay_init.min_size,
        observation_size=sizes[0],
        action_size=sizes[1],
        offline_share=config.offline_ratio.value,
        last_share=config.offline_ratio.last,
        share_steps=config.offline_ratio.steps or 1,
        columns=tuple(sorted({column for a in _algorithms(config) for column in getattr(a, "columns", ())})),
    )


def _unknown_columns(config: Config, replay: Replay, offline: Rows) -> list[str]:
    """Returns a line for each column that the dataset knows of none of its rows."""
    found = replay.transitions(offline).columns if len(offline) else {}
    return [
        f"dataset={config.dataset.name}: no row's {name} is known, which the algorithm needs; returns are known where "
        "the task ended an episode, and far from where a time limit did: choose another set, or another algorithm"
        for name, column in found.items()
        if bool(jnp.isnan(column).all())
    ]


def _algorithms(config: Config) -> list[Algorithm]:
    """Returns the algorithms of the phases that a run has."""
    phases = (
        (config.pretrain.updates, config.pretrain.algorithm),
        (config.finetune.env_steps, config.algorithm),
    )
    return [algorithm for length, algorithm in phases if length]


def _protocol_problems(config: Config, replay: Replay) -> list[str]:
    """Returns what is wrong with the algorithms' code; before pretraining, which may take hours."""
    found = [problem for algorithm in _algorithms(config) for problem in contract.problems(algorithm, replay)]
    if config.finetune.env_steps and not found:
        key, facts = jax.random.key(0), Facts(jnp.zeros(()), jnp.ones(()))
        state = jax.eval_shape(config.algorithm.init, key, replay.example(), facts)
        found += [
            f"finetune.reset={part}: algorithm={algorithm_name(config.algorithm)} has none; leave it out"
            for part in config.finetune.reset
            if not parts(state, part)
        ]
    if len(_algorithms(config)) > 1 and not found:
        found += contract.adoption_problems(config.algorithm, config.pretrain.algorithm, replay)
    return found


def _task(name: str) -> Task:
    try:
        return find_task(name)
    except LookupError as error:
        raise ConfigError([f"dataset.{error}"]) from None


@dataclass(frozen=True)
class _Wanted:
    """The dataset and columns that a job needs."""

    dataset: Dataset
    paths: Paths
    sizes: tuple[int, int]
    columns: tuple[str, ...]
    discount: float


@functools.lru_cache(maxsize=1)
def _offline_rows(wanted: _Wanted) -> tuple[Rows, Facts]:
    """The dataset with its columns on the device and its facts, kept for the process's next run."""
    paths = wanted.paths
    transitions = loading.load(wanted.dataset, paths.data, *wanted.sizes, paths.mirrors)
    rows = pack(*map(np.asarray, transitions[:5]))
    if wanted.columns:
        rows = np.hstack([rows, columns(transitions, wanted.columns, wanted.discount)])
    return jnp.asarray(rows), loading.facts(transitions)
