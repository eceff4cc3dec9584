"""The files of a launch, for whoever follows it: their names, fields, writer and reader.

```
runs/.sweeps/<name>/manifest.json                        every run that was ever asked for under this name
runs/.sweeps/<name>/code/<hash>/                         the project's files as they were at a launch
runs/.sweeps/<name>/submissions/<token>/submission.json  one launch: its jobs, written before the first is submitted
runs/.sweeps/<name>/submissions/<token>/jobs/<n>.json    what job n runs: a frozen configuration and its seeds
runs/.sweeps/<name>/submissions/<token>/batch-<k>.json   one call of sbatch: written before it, and again with its id
runs/.sweeps/<name>/submissions/<token>/logs/            its jobs' output, as submitit names it
runs/.jobs/<id>/job.json                                 which job of which launch this is
runs/.jobs/<id>/stdout, stderr                           links to the output of all attempts, one after the other
runs/.jobs/<id>/attempts.jsonl                           when an attempt began, how it ended, what was then decided
```

Directories of runs are written relative to `runs/`, so that a copy of it can be read elsewhere. Files are written as
those of a run are (`o2o.runs.directory.writer`): whole and atomically, or by appended lines. Whether a job is still
in the queue is not written anywhere: SLURM knows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from o2o.runs.directory.layout import RESULT, read_object, told_at
from o2o.runs.directory.reader import read_rows
from o2o.runs.directory.writer import RunDirectory

SWEEPS = ".sweeps"
JOBS = ".jobs"
MANIFEST = "manifest.json"
CODE = "code"
SUBMISSIONS = "submissions"
SUBMISSION = "submission.json"
JOB = "job.json"
STDOUT = "stdout"
STDERR = "stderr"
JOB_ATTEMPTS = "attempts.jsonl"
LOGS = "logs"


@dataclass(frozen=True)
class ManifestEntry:
    """One run of a sweep."""

    directory: str
    """Relative to `runs/`."""
    identity: str
    seed: int
    cell: str
    """The overrides that tell its cell from the sweep's others; may be empty."""


@dataclass(frozen=True)
class Manifest:
    """All that was ever asked for under a name, by however many launches."""

    name: str
    updated_at: str
    runs: list[ManifestEntry]


@dataclass(frozen=True)
class SubmittedJob:
    """Runs that differ only in their seeds, in one process."""

    number: int
    phase: str
    """`pretrain` or `finetune`."""
    runs: list[str]
    """Directories relative to `runs/`, one a seed."""
    seeds: list[int]
    needs: list[str]
    """Directories of the pretrainings that its runs start from; empty from scratch."""
    id: str | None = None
    """SLURM's, such as `123_4`, or `local-<token>-<number>`; None if not submitted, and of jobs `here`."""


@dataclass(frozen=True)
class Submission:
    """One launch."""

    sweep: str
    token: str
    """Also in the name of its SLURM jobs, `<sweep>-<token>`, by which they are found when nothing was recorded."""
    launcher: Literal["slurm", "local", "here"]
    """`here` is the process that was started, which runs its jobs itself, one after the other."""
    at: str
    host: str
    user: str
    command: list[str]
    code: str
    """The directory of the code that its jobs run, relative to `runs/`; empty where it is not copied."""
    settings: dict[str, Any]
    """The launcher's."""
    jobs: list[SubmittedJob]
    redo: bool = False
    """Whether its jobs take away the results that are there when they begin."""

    @property
    def job_name(self) -> str:
        """The name of all of its jobs in SLURM."""
        return f"{self.sweep}-{self.token}"


@dataclass(frozen=True)
class SbatchCall:
    """One call of sbatch: a job array whose task i is the job `numbers[i]` of the submission.

    A batch without an id was refused by sbatch (`error`), or it is not known what became of it: its submitter died, or
    SLURM gave no clear answer.
    """

    index: int
    numbers: list[int]
    after: list[str]
    """Ids of the jobs that must have ended before."""
    id: str | None = None
    error: str | None = None

    @property
    def comment(self) -> str:
        """The comment of its jobs in SLURM."""
        return f"batch-{self.index}"

    def ids(self) -> dict[int, str | None]:
        """The ids of its jobs by their numbers."""
        return {number: self.id and f"{self.id}_{task}" for task, number in enumerate(self.numbers)}


def sweep_directory(runs: Path, name: str) -> Path:
    """Returns the directory of the sweep's files."""
    return runs / SWEEPS / name


def submission_directory(runs: Path, sweep: str, token: str) -> Path:
    """Returns the directory of the launch's files."""
    return sweep_directory(runs, sweep) / SUBMISSIONS / token


def job_directory(runs: Path, job_id: str) -> Path:
    """Returns the directory of the job's files."""
    return runs / JOBS / job_id


def sweeps(runs: Path) -> list[str]:
    """The names of all sweeps below `runs`, sorted."""
    return sorted(path.parent.name for path in (runs / SWEEPS).glob(f"*/{MANIFEST}"))


def read_manifest(runs: Path, name: str) -> Manifest | None:
    """The sweep's manifest; None where there is none.

    Raises:
        ValueError: the file is damaged.
    """
    path = sweep_directory(runs, name) / MANIFEST
    content = read_object(path)
    if content is None:
        return None
    with _damage_named(path):
        return Manifest(**{**content, "runs": [ManifestEntry(**entry) for entry in content["runs"]]})


def add_runs(runs: Path, name: str, entries: Iterable[ManifestEntry]) -> None:
    """Adds runs to the sweep's manifest; those of a directory that is already in it are replaced."""
    known = read_manifest(runs, name)
    merged = {entry.directory: entry for entry in [*(known.runs if known else []), *entries]}
    manifest = Manifest(name, now(), list(merged.values()))
    RunDirectory(sweep_directory(runs, name)).write(MANIFEST, dataclasses.asdict(manifest))


def submissions(runs: Path, name: str | None = None) -> Iterator[Submission]:
    """All launches, or those of one sweep, oldest first, with the ids of the jobs that were submitted.

    Raises:
        ValueError: a file is damaged.
    """
    found = (runs / SWEEPS).glob(f"{name or '*'}/{SUBMISSIONS}/*/{SUBMISSION}")
    read = [submission for path in found if (submission := _read_submission(path)) is not None]
    yield from sorted(read, key=lambda submission: (submission.at, submission.token))


def awaited(runs: Path, submission: Submission, run: str) -> bool:
    """Whether a launch's run has no result, or, of a redo, the one that was there before it.

    A run that was redone says when; of a result without a time it is not known, so that it may be awaited.
    """
    if not (runs / run / RESULT).is_file():
        return True
    if not submission.redo:
        return False
    told = told_at(runs / run)
    return told is None or told < datetime.fromisoformat(submission.at).replace(microsecond=0)


def write_submission(runs: Path, submission: Submission, specs: Mapping[int, Mapping[str, Any]]) -> None:
    """Writes a launch before anything of it is submitted; `specs` are what its jobs run, by their numbers."""
    directory = RunDirectory(submission_directory(runs, submission.sweep, submission.token))
    for number, spec in specs.items():
        directory.write(f"jobs/{number}.json", spec)
    directory.write(SUBMISSION, dataclasses.asdict(submission))


def read_spec(runs: Path, submission: Submission, number: int) -> dict[str, Any]:
    """Returns the content of a job: `config`, the container of its first run, and `seeds`.

    Raises:
        FileNotFoundError, ValueError: it is not there, or damaged.
    """
    path = submission_directory(runs, submission.sweep, submission.token) / "jobs" / f"{number}.json"
    spec = read_object(path)
    if spec is None:
        raise FileNotFoundError(f"{path} is not there")
    return spec


def read_submission(runs: Path, sweep: str, token: str) -> Submission:
    """One launch, with the ids of the jobs that were submitted.

    Raises:
        FileNotFoundError, ValueError: it is not there, or damaged.
    """
    path = submission_directory(runs, sweep, token) / SUBMISSION
    submission = _read_submission(path)
    if submission is None:
        raise FileNotFoundError(f"{path} is not there")
    return submission


def batches(runs: Path, submission: Submission) -> list[SbatchCall]:
    """The launch's calls of sbatch, in order."""
    return _read_batches(submission_directory(runs, submission.sweep, submission.token))


def write_batch(runs: Path, submission: Submission, batch: SbatchCall) -> None:
    """Writes one call of sbatch: before it, without an id, and after it, with one."""
    directory = submission_directory(runs, submission.sweep, submission.token)
    RunDirectory(directory).write(f"batch-{batch.index}.json", dataclasses.asdict(batch))


def write_job(runs: Path, submission: Submission, job: SubmittedJob) -> None:
    """Writes what a job with an id is into its own directory, and links its logs there."""
    assert job.id is not None
    directory = job_directory(runs, job.id)
    content = {"sweep": submission.sweep, "token": submission.token, **dataclasses.asdict(job)}
    RunDirectory(directory).write(JOB, content)
    logs = Path("..", "..", SWEEPS, submission.sweep, SUBMISSIONS, submission.token, LOGS)
    for name, ending in ((STDOUT, "out"), (STDERR, "err")):
        with contextlib.suppress(FileExistsError):
            (directory / name).symlink_to(logs / f"{job.id}_0_log.{ending}")


def read_job(runs: Path, job_id: str) -> dict[str, Any] | None:
    """The fields of `SubmittedJob`, with `sweep` and `token`; None where there is no such job.

    Raises:
        ValueError: the file is damaged.
    """
    return read_object(job_directory(runs, job_id) / JOB)


def note_attempt(runs: Path, job_id: str, event: str, **details: Any) -> None:
    """Appends a dated line to the job's history.

    Events are `started` (attempt, node, pid, steps, log_size), `cancelled` (by somebody, who then ends it) and `ended`
    (attempt, exit_code, failure: a `Failure` of `o2o.runs.recording.failures` or null, failed: the runs that did
    after they had begun, with their classes, steps, gained, decision: `done`, `requeued`, `given up` or `cancelled`,
    reason). An attempt that was killed with its node has no end. Where SLURM gives no answer to what is asked at the
    end of an attempt, that is `unanswered` (exit_code, reason). A job that was put back after that is `requeued`; one
    that could not be put back is `not requeued` (reason).
    """
    RunDirectory(job_directory(runs, job_id)).append(JOB_ATTEMPTS, {"at": now(), "event": event, **details})


def read_attempts(runs: Path, job_id: str) -> list[dict[str, Any]]:
    """The job's history, oldest first; empty if it has not begun."""
    return read_rows(job_directory(runs, job_id) / JOB_ATTEMPTS, [])


def user() -> str:
    """Returns this process's user: a name, or the number where the machine has no name for it, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def now() -> str:
    """The time as all records have it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _read_submission(path: Path) -> Submission | None:
    content = read_object(path)
    if content is None:
        return None
    with _damage_named(path):
        ids = {job["number"]: job["id"] for job in content["jobs"]}
        for batch in _read_batches(path.parent):
            ids |= batch.ids()
        jobs = [SubmittedJob(**{**job, "id": ids[job["number"]]}) for job in content["jobs"]]
        return Submission(**{**content, "jobs": jobs})


def _read_batches(directory: Path) -> list[SbatchCall]:
    read = []
    for path in directory.glob("batch-*.json"):
        with _damage_named(path):
            read.append(SbatchCall(**(read_object(path) or {})))
    return sorted(read, key=lambda batch: batch.index)


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
