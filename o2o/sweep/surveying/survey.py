"""A survey of a directory of runs: every run's state, step, rate and evaluations, read as little as possible.

Ten thousand runs are looked at in seconds, also on a network file system: a run costs a listing and two or three small
reads, of the appended files only their ends, and cells are read side by side. Nothing is asked of SLURM here, and
nothing of other machines: a copy of a directory of runs says the same as the original, except that nothing runs in
it, which shows by the age of the heartbeats.
"""

from __future__ import annotations

import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from o2o.errors import ConfigError
from o2o.runs import lock
from o2o.runs.directory.layout import (
    EVAL,
    FINETUNE,
    PRETRAIN,
    RESULT,
    STATUS,
    TIMING,
    RunState,
    find_cells,
    read_object,
)
from o2o.runs.recording.failures import classify
from o2o.sweep.surveying import described
from o2o.sweep.surveying.tail import TailRows

if TYPE_CHECKING:
    from o2o.sweep.ledger.manifest import Submission, SubmittedJob

EVAL_TAIL_BYTES, TIMING_TAIL_BYTES = 4096, 1024
"""Some eight evaluations of ten episodes, and some eight rows of the clock."""
READERS = 8
STALLED_SECONDS = 300.0
"""Without a sign of life for so long, a run that says it is running is not; a living one beats every ten seconds."""
CLOCKS_AGREE_SECONDS = 120.0
"""By so much a file's modification time may differ from the time in it, for clocks of two machines do."""


class Seen(StrEnum):
    """The states that a run can have, as seen from outside."""

    PLANNED = "PLANNED"
    QUEUED = "QUEUED"
    WAITING = "WAITING"
    RUNNING = "RUNNING"
    STALLED = "STALLED"
    INTERRUPTED = "INTERRUPTED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"
    DAMAGED = "DAMAGED"
    DONE = "DONE"


@dataclass(frozen=True)
class Launched:
    """The newest job that was to run a run."""

    directory: str
    """The run's, as manifests have it."""
    submission: Submission
    job: SubmittedJob


@dataclass(frozen=True)
class End:
    """The end of an attempt."""

    state: Seen
    failure: str | None
    note: str


@dataclass(eq=False)
class SeenRun:
    """One run as it was seen."""

    path: Path
    seed: int
    cell: SeenCell
    state: Seen = Seen.PLANNED
    step: int | None = None
    rate: float | None = None
    """Steps a second, evaluation included, over the last rows of its clock."""
    alive_at: datetime | None = None
    """Its last sign of life."""
    note: str = ""
    """The reason why it stopped, the file that is damaged, or why a run that is done was not redone."""
    failure: str | None = None
    """The class of its failure."""
    before: End | None = None
    """Its last end, where a job has it again."""
    spent: bool = False
    """Whether its job will not try it again, though that may go on with others."""
    sweeps: list[str] = field(default_factory=list)
    """The names it was asked for under."""
    launched: Launched | None = None
    evaluations: TailRows | None = None

    @property
    def phase(self) -> str:
        """Whether it pretrains or finetunes."""
        return self.cell.phase

    @property
    def remaining_seconds(self) -> float | None:
        """The seconds that it will take at this rate."""
        total = self.cell.total
        if self.state is not Seen.RUNNING or not self.rate or self.step is None or total is None:
            return None
        return max(0, total - self.step) / self.rate


@dataclass(eq=False)
class SeenCell:
    """The runs of one directory, which differ in nothing but their seed."""

    path: Path
    runs: list[SeenRun] = field(default_factory=list)

    @property
    def phase(self) -> str:
        """Whether its runs pretrain or finetune."""
        return PRETRAIN if self.path.parent.name == PRETRAIN else FINETUNE

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The science of its configuration, without the seed, by dotted keys; what its path says if that is lost."""
        return next(filter(None, map(_facts, self.runs)), None) or described.of_path(self.path)

    @property
    def total(self) -> int | None:
        """The step at which its runs are done."""
        updates, env_steps = self.facts.get("pretrain.updates"), self.facts.get("finetune.env_steps", 0)
        return None if updates is None else updates + env_steps


def survey(root: Path, notes: list[str]) -> list[SeenCell]:
    """All cells below `root`, sorted by their paths, with their runs sorted by seed.

    A line in `notes` for what could not be searched.

    Raises:
        ConfigError: there is no such directory.
    """
    if not root.is_dir():
        raise ConfigError(
            [f"{root} is no directory; name the one that holds the runs: --runs …, or O2O_RUNS"]
        )
    with ThreadPoolExecutor(READERS) as readers:
        cells = list(readers.map(_look_at_cell, find_cells(root, notes)))
    return sorted(cells, key=lambda cell: cell.path)


def look_at(path: Path) -> SeenRun:
    """The run of a directory, without the others of its cell."""
    seed = int(path.name.removeprefix("seed-"))
    if path.is_dir():
        (run,) = _look_at_cell((str(path.parent), [(seed, str(path))])).runs
        return run
    cell = SeenCell(path.parent)
    cell.runs.append(SeenRun(path, seed, cell))
    return cell.runs[0]


def _look_at_cell(found: tuple[str, list[tuple[int, str]]]) -> SeenCell:
    folder, seeds = found
    cell = SeenCell(Path(folder))
    for seed, path in seeds:
        run = SeenRun(Path(path), seed, cell)
        try:
            _look(run, path)
        except (OSError, ValueError) as error:
            run.state, run.note = Seen.DAMAGED, str(error)
        cell.runs.append(run)
    return cell


def _look(run: SeenRun, path: str) -> None:
    """Fills in what the run's own files say.

    Raises:
        OSError, ValueError: one of them is damaged.
    """
    names = set(os.listdir(path))
    if EVAL in names:
        run.evaluations = TailRows(f"{path}/{EVAL}", EVAL_TAIL_BYTES)
        run.step = run.evaluations.last_step if run.evaluations.last_step >= 0 else None
    if RESULT in names:
        run.state = Seen.DONE
        return
    status = read_object(run.path / STATUS)
    if status is None:
        return
    try:
        state = RunState(status["state"])
        run.alive_at = datetime.fromisoformat(status["updated_at"]) if "updated_at" in status else None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{run.path / STATUS} is damaged: {error}") from None
    run.step = status.get("step", run.step)
    run.note = str(status.get("error") or _stopped_by(status.get("reason")))
    # DONE without a result: killed between the two writes, and to be resumed.
    run.state = Seen.INTERRUPTED if state is RunState.DONE else Seen(state)
    if run.state is Seen.FAILED:
        run.failure = status.get("failure") or classify(run.note)
    if run.state is Seen.RUNNING:
        if TIMING in names:
            run.rate = _rate(TailRows(f"{path}/{TIMING}", TIMING_TAIL_BYTES).tail())
        if not _lives(run, names):
            run.state = Seen.STALLED


def _lives(run: SeenRun, names: set[str]) -> bool:
    """Whether a run that says it is running is, as far as can be seen from here.

    Its owner is asked where that is a process of this machine. Else the last sign of life decides: what the run wrote,
    or the beat of its lease. A beat is a modification time, which a copy has of its own; so it counts only where the
    file beside it was modified when it says it was.
    """
    owner = lock.read(run.path) if any(name.startswith("lease-") for name in names) else None
    if owner is not None and owner.alive is not None:
        return owner.alive
    if run.alive_at is None or (owner is None and any(name.endswith(".released") for name in names)):
        return False
    said = run.alive_at.timestamp()
    if owner is not None and abs((run.path / STATUS).stat().st_mtime - said) < CLOCKS_AGREE_SECONDS:
        run.alive_at = datetime.fromtimestamp(max(said, lock.beat_at(run.path, owner)), UTC)
    return (datetime.now(UTC) - run.alive_at).total_seconds() < STALLED_SECONDS


def _stopped_by(reason: Any) -> str:
    """Returns the reason of an interruption in words: an exception that stands for a signal is named by it."""
    if reason == "KeyboardInterrupt()":
        return "stopped by SIGINT"
    code = re.fullmatch(r"SystemExit\((\d+)\)", str(reason or ""))
    try:
        return f"stopped by {signal.Signals(int(code[1]) - 128).name}" if code else str(reason or "")
    except ValueError:
        return str(reason)


def _rate(rows: list[dict[str, Any]]) -> float | None:
    """Steps a second over rows of the clock, newest first, as far as they are of one phase."""
    clock = [
        (row["step"], row["training_seconds"] + row["evaluation_seconds"])
        for row in rows
        if row.get("phase") == rows[0].get("phase")
        and row.keys() >= {"step", "training_seconds", "evaluation_seconds"}
    ]
    if len(clock) < 2 or clock[0][1] <= clock[-1][1]:
        return None
    return (clock[0][0] - clock[-1][0]) / (clock[0][1] - clock[-1][1])


def _facts(run: SeenRun) -> dict[str, Any] | None:
    """Returns the run's settings, from its directory or from its launch."""
    found = described.of_run(run.path)
    if found or run.launched is None:
        return found
    runs = Path(str(run.path).removesuffix(run.launched.directory))
    return described.of_launch(runs, run.launched.submission, run.launched.job.number, run.phase)
