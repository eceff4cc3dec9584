"""One job: runs that differ only in their seeds, from data to result.

A job's members train side by side; each has a run directory of its own, which the job owns while it runs. A
pretraining is a run too, shared by every run that finetunes from it; where it is not there yet, it is made
first. What was interrupted goes on from its last checkpoint.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from o2o.config.build import container
from o2o.config.schema import Config
from o2o.errors import ConfigError
from o2o.machine import terminal
from o2o.machine.counting import counted
from o2o.machine.signals import Interruption
from o2o.runs import memory, preparation
from o2o.runs.directory.layout import RESULT
from o2o.runs.directory.writer import RunDirectory
from o2o.runs.identity import describe, refuse_other_run, run_directory
from o2o.runs.lock import HeldError, Leases, LostError, Owner, clear_leftovers
from o2o.runs.phases import Job, finetune, pretrain, pretraining
from o2o.runs.recording.divergence import DivergedError, explained, failure_of
from o2o.runs.resume import cohort, store_of

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
        ConfigError: if all were refused, or none could begin.
        MembersFailed: at the end, if some of several failed.
    """
    terminal.forgive()
    with Interruption() as stop, Leases() as leases:
        try:
            job = preparation.prepare(configs[0], stop, leases)
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
            for config in configs:
                if isinstance(error := failures.get(config.seed), ConfigError) and not asked_for:
                    _record_failure(config, leases, error)
            started = [config for config in configs if config.seed not in failures and not asked_for]
        if started:
            failures |= _complete(started, job, asked_for=True)
    if failures and len(configs) == 1:
        raise failures[configs[0].seed]
    refused = [error for error in failures.values() if isinstance(error, ConfigError)]
    if len(refused) == len(configs):
        raise ConfigError(problem for error in refused for problem in error.problems)
    if failures:
        raise MembersFailed(failures, len(configs))


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
        except (HeldError, ConfigError) as error:
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
    refuse_other_run(config, done=done and not redo)
    if done:
        store_of(config).forget()  # what a kill behind the result left, or what a redo begins without
        if not redo:
            job.leases.release(directory)
            return False
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
