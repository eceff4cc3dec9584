"""The program that SLURM and the local pool start: one job of a launch, and the care for its end.

```
python -P -m o2o.sweep.launching.entry run SUBMISSION NUMBER ID         exit codes as launch.py's
python -P -m o2o.sweep.launching.entry end SUBMISSION NUMBER ID CODE    has the job requeued, or not; exits with CODE
```

A job reads its runs from its own file, frozen at the launch, and where they stand from their directories. So it can be
started again at any time and place, and does what is left.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import o2o
from o2o.errors import ConfigError
from o2o.machine import terminal
from o2o.machine.signals import signals
from o2o.runs import lock
from o2o.runs.directory.layout import RESULT, STATUS, RunState, read_object, read_state
from o2o.runs.recording import failures
from o2o.runs.recording.failures import RETRYABLE, Failure
from o2o.sweep.ledger import manifest, slurm, unanswered
from o2o.sweep.ledger.manifest import Submission, SubmittedJob
from o2o.sweep.surveying import launched
from o2o.sweep.surveying.survey import Seen

if TYPE_CHECKING:
    from o2o.config.schema import Config

LOG_END = 8000
"""Bytes of an attempt's stderr that tell how it was killed."""

Answer = TypeVar("Answer")


class MissingPretrainingError(Exception):
    """A run cannot begin, for what it finetunes from was not made by the job that was to make it."""


class Place:
    """A job and where its files are."""

    def __init__(self, submission: Path, number: int, job_id: str) -> None:
        """Reads the launch from its directory."""
        self.runs = submission.parents[3]
        self.submission: Submission = manifest.read_submission(
            self.runs, submission.parents[1].name, submission.name
        )
        self.job: SubmittedJob = replace(self.submission.jobs[number], id=job_id)
        self.id = job_id

    @property
    def history(self) -> list[dict[str, Any]]:
        """The notes of the job's earlier attempts."""
        return manifest.read_attempts(self.runs, self.id)

    @property
    def endings(self) -> list[dict[str, Any]]:
        """The notes of their ends."""
        return [row for row in self.history if row["event"] == "ended"]

    @property
    def log(self) -> Path:
        """The file of its attempts' stderr."""
        return manifest.job_directory(self.runs, self.id) / manifest.STDERR

    def steps(self) -> int:
        """The steps of its runs, all together."""
        found = [read_object(self.runs / run / STATUS) or {} for run in self.job.runs]
        return sum(int(status.get("step", 0)) for status in found)

    def lacks(self, run: str) -> str | None:
        """The pretraining that one of its runs lacks; None where it is there or none is needed."""
        needed = dict(zip(self.job.runs, self.job.needs, strict=False)).get(run)
        return None if needed is None or (self.runs / needed / RESULT).is_file() else needed

    def failed(self) -> dict[str, Failure]:
        """The runs that failed, and how."""
        statuses = {run: read_object(self.runs / run / STATUS) or {} for run in self.job.runs}
        return {
            run: Failure(status.get("failure") or failures.classify(str(status.get("error", ""))))
            for run, status in statuses.items()
            if read_state(self.runs / run) is RunState.FAILED
        }


def run(place: Place) -> int:
    """Runs what is left of the job, and gives the exit code."""
    for number in signals():
        signal.signal(number, _leave)  # until training takes them over, there is nothing to save
    manifest.write_job(place.runs, place.submission, place.job)
    unanswered.record_job(place.runs, place.submission, place.job.number, place.id)
    attempt = 1 + sum(row["event"] == "started" for row in place.history)
    node = os.environ.get("SLURMD_NODENAME", platform.node())
    log_size = place.log.stat().st_size if place.log.exists() else 0
    started = {"attempt": attempt, "node": node, "pid": os.getpid(), "steps": place.steps()}
    manifest.note_attempt(place.runs, place.id, "started", **started, log_size=log_size)
    print(f"attempt {attempt} of job {place.id} on {node}, {manifest.now()}", flush=True)
    print(f"  code {Path(o2o.__file__).parents[1]}", flush=True)
    try:
        configs = _configurations(place)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return failures.BAD_INPUT
    ready = [config for run, config in configs.items() if _pretrained(place, run, config)]
    done = len(ready) == len(place.job.runs)
    side_by_side = failures.side_by_side(len(configs), [row.get("failure") for row in place.endings])
    for start in range(0, len(ready), side_by_side):
        done &= _run_members(ready[start : start + side_by_side])
    return 0 if done else failures.RUNS_FAILED


def end_in_slurm(place: Place, exit_code: int) -> None:
    """Calls `end`, and puts the job back where it is to be tried again.

    A controller that gives no answer is asked again for as long as `slurm.PATIENCE_SECONDS`.
    """
    until = time.monotonic() + slurm.PATIENCE_SECONDS
    known: dict[str, str] = {}
    if exit_code:
        with contextlib.suppress(slurm.NoAnswerError):
            known = _answer(place, exit_code, until, lambda: slurm.describe(place.id))
    if not end(place, exit_code, known):
        return
    try:
        _answer(place, exit_code, until, lambda: slurm.requeue(place.id, known))
    except slurm.SlurmError as error:
        manifest.note_attempt(place.runs, place.id, "not requeued", reason=str(error))
        print(f"job {place.id} is not requeued: {error}", file=sys.stderr, flush=True)
    else:
        if place.history[-1]["event"] == "unanswered":
            manifest.note_attempt(place.runs, place.id, "requeued")


def _answer(place: Place, exit_code: int, until: float, question: Callable[[], Answer]) -> Answer:
    """SLURM's answer, asked for again until there is one; notes that it is waited for.

    Raises:
        NoAnswerError: time is up.
    """
    while True:
        try:
            return question()
        except slurm.NoAnswerError as error:
            if time.monotonic() > until:
                raise
            if not place.history or place.history[-1]["event"] != "unanswered":
                told = {"exit_code": exit_code, "reason": str(error)}
                manifest.note_attempt(place.runs, place.id, "unanswered", **told)
                print(f"{error}; it is asked until it answers", file=sys.stderr, flush=True)
            time.sleep(slurm.PAUSE_SECONDS)


def end(place: Place, exit_code: int, known: Mapping[str, str]) -> bool:
    """Notes how an attempt ended and decides whether the job is to be tried again.

    Args:
        place: the job.
        exit_code: of its process, as a shell has it.
        known: what SLURM's controller says of the job; empty where there is none.
    """
    history = place.history
    began = max((index for index, row in enumerate(history) if row["event"] == "started"), default=None)
    started = {} if began is None else history[began]
    failed = place.failed()
    begun = {run: how for run, how in failed.items() if not place.lacks(run)}
    log = _end_of(place.log, started.get("log_size", 0))
    cancelled = any(row["event"] == "cancelled" for row in history[began:])
    failure = None if cancelled else failures.of_job(exit_code, (begun or failed).values(), log, known)
    steps = place.steps()
    gained = steps > started.get("steps", 0)
    reason = None
    if failure is not None:
        reason = failures.try_again(failure, place.endings, len(place.job.runs), gained)
        if exit_code == failures.RUNS_FAILED and failed and not begun:
            reason = "what it finetunes from is not there"
    again = failure is not None and reason is None
    decision = "requeued" if again else "done" if exit_code == 0 else "given up" if failure else "cancelled"
    manifest.note_attempt(
        place.runs,
        place.id,
        "ended",
        attempt=started.get("attempt", 0),
        exit_code=exit_code,
        failure=failure,
        failed=begun,
        steps=steps,
        gained=gained,
        decision=decision,
        reason=reason,
    )
    if failure is not None:
        print(f"job {place.id} ended with {exit_code} ({failure}): {decision}", file=sys.stderr, flush=True)
    return again


def _configurations(place: Place) -> dict[str, Config]:
    """The job's runs by their directories, but those that an earlier attempt of it found to be beyond help.

    Of a redo those are to be made again whose result is of before its launch; an earlier attempt, or whoever else made
    one since, has done the others.

    Raises:
        ConfigError: what was frozen is not there any more, or does not fit the code.
    """
    from o2o.config.build import build

    try:
        spec = manifest.read_spec(place.runs, place.submission, place.job.number)
    except (OSError, ValueError) as error:
        raise ConfigError([str(error)]) from None
    hopeless = {run for row in place.endings for run, how in row["failed"].items() if how not in RETRYABLE}
    configs = {}
    for run, seed in zip(place.job.runs, spec["seeds"], strict=True):
        if run not in hopeless:
            redo = spec["redo"] and manifest.awaited(place.runs, place.submission, run)
            launch = {**spec["config"]["launch"], "redo": redo}
            configs[run] = build({**spec["config"], "seed": seed, "launch": launch})
    return configs


def _pretrained(place: Place, run: str, config: Config) -> bool:
    """Whether a run can begin. If its pretraining, another job's work, was not made, it is FAILED as that is."""
    from o2o.config.build import container
    from o2o.runs.directory.writer import RunDirectory
    from o2o.runs.identity import describe

    needed = place.lacks(run)
    if needed is None:
        return True
    state, note, failure = _ended_as(place.runs, needed)
    error = MissingPretrainingError(f"{needed} is {state}, not DONE{note and ': '}{note}")
    directory = RunDirectory(place.runs / run)
    directory.start(container(config), describe(config))
    directory.fail(f"{type(error).__name__}: {error}\n", str(error), failure)
    print(f"{run}: {error}", file=sys.stderr)
    return False


def _ended_as(runs: Path, pretraining: str) -> tuple[Seen, str, str]:
    """Returns the end of a pretraining whose job has ended: state, note, class; a kill if nothing is on record."""
    run = launched.seen(runs, pretraining)
    owner = lock.read(run.path)
    state = run.state
    if state is Seen.RUNNING and not (owner and owner.alive):
        state = Seen.STALLED  # its last heartbeat may be fresh
    if state is Seen.QUEUED:
        state = Seen.PLANNED
    return state, run.note.strip(), run.failure or Failure.INFRASTRUCTURE


def _run_members(configs: Sequence[Config]) -> bool:
    """Whether all of them are done; what failed is recorded in the runs' directories."""
    from o2o.runs import job

    try:
        job.run_members(configs)
    except Exception:
        traceback.print_exc()
        return False
    return True


def _end_of(path: Path, start: int) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as stream:
        stream.seek(max(start, path.stat().st_size - LOG_END))
        return stream.read().decode(errors="replace")


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def main(words: Sequence[str]) -> int:
    """The exit code of one of the two commands."""
    terminal.forgive()
    command, submission, *rest = words
    if command == "run":
        number, job_id = rest
        return run(Place(Path(submission), int(number), job_id))
    number, job_id, code = rest
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # SLURM sends it to what it puts back, before this is noted
    end_in_slurm(Place(Path(submission), int(number), job_id), int(code))
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
