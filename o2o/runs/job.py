"""One job: runs that differ only in their seeds, from data to result.

A job's members train side by side; each has a run directory of its own, which the job owns while it runs. A
pretraining is a run too, shared by every run that finetunes from it; where it is not there yet, it is made
first. What was interrupted goes on from its last checkpoint.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from o2o import envs
from o2o.config.build import container
from o2o.config.schema import Config, Dataset, Paths, algorithm_name
from o2o.config.validation import starvation
from o2o.datasets import loading
from o2o.datasets.columns import columns
from o2o.envs.tasks import Task, find_task, task_sizes
from o2o.errors import ConfigError
from o2o.machine import device, terminal
from o2o.machine.counting import counted
from o2o.machine.signals import Interruption
from o2o.replay.buffer import Replay, Rows, pack, row_width
from o2o.runs import memory
from o2o.runs.directory.layout import RESULT
from o2o.runs.directory.writer import RunDirectory
from o2o.runs.identity import describe, refuse_other_run, run_directory
from o2o.runs.lock import HeldError, Leases, LostError, Owner, clear_leftovers
from o2o.runs.phases import Job, finetune, parts, pretrain, pretraining
from o2o.runs.recording.divergence import DivergedError, explained, failure_of
from o2o.runs.resume import cohort, store_of
from o2o.training import contract
from o2o.types import NO_FACTS, Algorithm, Facts

WAITING_SECONDS = 30.0


class MembersFailed(Exception):  # noqa: N818 (it says what happened to the members)
    """Some runs of a job failed; `failures` has each one's error, by its seed. The others are done."""

    def __init__(self, failures: dict[int, BaseException], members: int) -> None:
        """An error that lists them."""
        self.failures = failures
        lines = [f"  seed {seed}: {explained(error)}" for seed, error in sorted(failures.items())]
        super().__init__("\n".join([f"{len(failures)} of {counted(members, 'seed')} failed:", *lines]))


def run(config: Config) -> None:
    """Runs one run to its result, and first the pretraining it needs where that is not there yet.

    What was interrupted, by a signal or a crash, goes on from its last checkpoint and writes what it would have
    written. A first Ctrl-C, SIGTERM, SIGHUP or SIGUSR2 asks for a checkpoint at the next safe point, a second one
    ends at once. A pretraining that another process is making is waited for.

    Raises:
        ConfigError: bad input, before anything is computed; it is recorded as FAILED.
        HeldError: another process is running this run.
        KeyboardInterrupt, SystemExit: if it was asked to stop; it is recorded as INTERRUPTED.
        Exception: whatever stopped the run; it is recorded as FAILED, with the traceback.
    """
    run_members([config])


def run_members(configs: Sequence[Config]) -> None:
    """Runs runs that differ only in their seeds, side by side (see `run`).

    What is done is left out, and a run that fails does not stop the others.

    Raises:
        MembersFailed: at the end, if some of several failed.
    """
    terminal.forgive()
    with Interruption() as stop, Leases() as leases:
        try:
            job = _job(configs[0], stop, leases)
            planned = memory.plan(configs[0], job.replay, len(configs))
            memory.check(planned)
        except Exception as error:
            for config in configs:
                _record_failure(config, leases, error)
            raise
        if len(configs) > 1:
            print(planned, file=sys.stderr)
        failures: dict[int, BaseException] = {}
        started = list(configs)
        if configs[0].pretrain.updates:
            pretrainings = [pretraining(config) for config in configs]
            asked_for = configs[0].finetune.env_steps == 0
            failures |= _complete(pretrainings, job, asked_for)
            started = [config for config in configs if config.seed not in failures and not asked_for]
        if started:
            failures |= _complete(started, job, asked_for=True)
    if failures and len(configs) == 1:
        raise failures[configs[0].seed]
    if failures:
        raise MembersFailed(failures, len(configs))


def _job(config: Config, stop: Interruption, leases: Leases) -> Job:
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


def _record_failure(config: Config, leases: Leases, error: Exception) -> None:
    """Marks a run as FAILED that could not begin, unless it is done, another's, or no run can be named by it."""
    try:
        directory = run_directory(config)
        if (directory / RESULT).is_file():
            return
        refuse_other_run(config)
        leases.take(directory)
        attempt = RunDirectory(directory)
        attempt.start(container(config), describe(config))
        words = str(error) if isinstance(error, ConfigError) else explained(error)
        attempt.fail("".join(traceback.format_exception(error)), words, failure_of(error))
        leases.release(directory)
    except (ConfigError, HeldError, OSError, ValueError) as second:
        print(f"the failure of seed {config.seed} could not be recorded: {second}", file=sys.stderr)


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


def _complete(configs: Sequence[Config], job: Job, asked_for: bool) -> dict[int, BaseException]:
    """Brings runs of one phase to their results; the errors of those that failed, by seed.

    One that is not `asked_for` is a pretraining: it is waited for where another process makes it, and never made again.
    """
    failures: dict[int, BaseException] = {}
    due = []
    # In one order, so that no two jobs wait for each other.
    for config in sorted(configs, key=lambda config: config.seed):
        try:
            if _take(config, job, asked_for):
                due.append(config)
        except HeldError as error:
            failures[config.seed] = error
    while due:
        group = cohort(due)
        try:
            (finetune if group[0].finetune.env_steps else pretrain)(group, job)
            ended = group
        except DivergedError as error:
            ended = [group[i] for i in error.members]
            failures |= {group[i].seed: FloatingPointError(text) for i, text in error.members.items()}
        except LostError as error:
            ended = [config for config in group if run_directory(config) == error.directory]
            failures |= {config.seed: error for config in ended}
            if not ended:
                raise
        except (KeyboardInterrupt, SystemExit, ConfigError):
            raise
        except Exception as error:
            if len(configs) == 1:
                raise
            ended = group
            failures |= {config.seed: error for config in group}
        due = [config for config in due if config not in ended]
    for config in configs:
        job.leases.release(run_directory(config))
    return failures


def _take(config: Config, job: Job, asked_for: bool) -> bool:
    """Becomes the owner of a run that is to be run; False if it is done.

    Raises:
        ConfigError: if what was begun or done in its directory is another run.
        HeldError: if it was asked for, and another process is running it.
    """
    directory = run_directory(config)
    redo = asked_for and config.execution.launch.redo
    done = (directory / RESULT).is_file()
    if not done or redo:
        job.leases.take(directory, while_waiting=None if asked_for else _Wait(directory, job.stop))
        done = (directory / RESULT).is_file()
    if done:
        if asked_for and not redo:
            refuse_other_run(config, done=True)
        store_of(config).forget()  # what a kill behind the result left, or what a redo begins without
        if not redo:
            job.leases.release(directory)
            return False
    refuse_other_run(config)
    clear_leftovers(directory)
    return True


class _Wait:
    """Tells the user, every now and then, whose pretraining is waited for."""

    def __init__(self, directory: Path, stop: Interruption) -> None:
        self._directory, self._stop, self._said = directory, stop, float("-inf")

    def __call__(self, owner: Owner) -> None:
        self._stop.obey()
        if time.monotonic() - self._said > WAITING_SECONDS:
            self._said = time.monotonic()
            print(f"waiting for {self._directory}, made by {owner}", file=sys.stderr, flush=True)


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
