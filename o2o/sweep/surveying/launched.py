"""Launches joined to the survey: the sweeps and jobs of runs, and runs that have not begun.

What a job wrote down of itself and what SLURM says of it tell more than a run's own files where it never began, or
ended without a word. What they do not know changes nothing.
"""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from o2o.runs import lock
from o2o.runs.recording.failures import Failure
from o2o.sweep.ledger import manifest, slurm, unanswered
from o2o.sweep.ledger.manifest import SbatchCall, Submission
from o2o.sweep.ledger.slurm import Queued, SlurmError
from o2o.sweep.surveying import histories
from o2o.sweep.surveying.histories import UNBEGUN, UNDER_WAY
from o2o.sweep.surveying.survey import Launched, Seen, SeenCell, SeenRun, look_at

ASK_AGAIN_SECONDS = 30.0

_NOT_BEGUN = "the command that was to run it ended before"
_UNANSWERED = "SLURM gave no clear answer when it was submitted"

_ENDINGS = {
    "TIMEOUT": (Seen.INTERRUPTED, Failure.TIME),
    "DEADLINE": (Seen.INTERRUPTED, Failure.TIME),
    "PREEMPTED": (Seen.INTERRUPTED, Failure.PREEMPTION),
    "NODE_FAIL": (Seen.INTERRUPTED, Failure.INFRASTRUCTURE),
    "BOOT_FAIL": (Seen.INTERRUPTED, Failure.INFRASTRUCTURE),
    "OUT_OF_MEMORY": (Seen.FAILED, Failure.MEMORY),
    "FAILED": (Seen.FAILED, Failure.INFRASTRUCTURE),
    "CANCELLED": (Seen.CANCELLED, None),
}
"""The state of a run that says nothing itself, by SLURM's word for the end of its job. A run that raises says so, which
is why a job that FAILED without its saying so was killed."""


def join(root: Path, cells: list[SeenCell]) -> list[str]:
    """Adds sweeps, jobs and unbegun runs to `cells`; what could not be read is returned, a line each."""
    notes: list[str] = []
    launches: list[Submission] = []
    runs = {run.path.relative_to(root).as_posix(): run for cell in cells for run in cell.runs}
    known = {str(cell.path): cell for cell in cells}

    def find(directory: str) -> SeenRun | None:
        if directory not in runs:
            path = root / directory
            seed = path.name.removeprefix("seed-")
            if not seed.isdecimal():
                notes.append(f"{directory} stands in a manifest, but is no directory of a run")
                return None
            cell = known.setdefault(str(path.parent), SeenCell(path.parent))
            if not cell.runs:
                cells.append(cell)
            runs[directory] = SeenRun(path, int(seed), cell)
            cell.runs.append(runs[directory])
        return runs[directory]

    for name in manifest.sweeps(root):
        try:
            asked = manifest.read_manifest(root, name)
            launches += manifest.submissions(root, name)
        except (OSError, ValueError, TypeError, KeyError) as error:
            notes.append(f"sweep {name}: {error}")
            continue
        for entry in asked.runs if asked else []:
            if run := find(entry.directory):
                run.sweeps.append(name)
    for submission in sorted(launches, key=lambda launch: (launch.at, launch.token)):
        lost = {number for batch in unanswered.batches(root, submission) for number in batch.numbers}
        for job in submission.jobs:
            for directory in job.runs:
                if run := find(directory):
                    run.sweeps += [submission.sweep] if submission.sweep not in run.sweeps else []
                    has = job.id or job.number in lost or submission.launcher == "here"
                    if has or not (run.launched and run.launched.job.id):
                        run.launched = Launched(directory, submission, job)
    for cell in cells:
        cell.runs.sort(key=lambda run: run.seed)
    return notes


def seen(root: Path, directory: str) -> SeenRun:
    """One run with what its jobs wrote down; SLURM is not asked."""
    run = look_at(root / directory)
    join(root, [run.cell])
    hear_jobs(root, [run])
    histories.settle(run)
    return run


def hear(root: Path, runs: Sequence[SeenRun]) -> list[str]:
    """Adds the word of runs' jobs, and SLURM's; returns a line if that is silent."""
    hear_jobs(root, runs)
    notes = ask_slurm(root, runs)
    for run in runs:
        histories.settle(run)
    return notes


def hear_jobs(root: Path, runs: Sequence[SeenRun]) -> None:
    """Adds the notes of unfinished runs' jobs, and the reason why runs that were launched have none.

    Runs that a redo is to make again are unfinished, beside the result that they have.
    """
    for run in runs:
        its = run.launched if run.state is Seen.DONE else None
        if its and its.submission.redo and manifest.awaited(root, its.submission, its.directory):
            histories.put_back(run, Seen.PLANNED)
    for job, members in _by_job(runs).items():
        try:
            history = manifest.read_attempts(root, job)
        except OSError:
            history = []
        for launched, run in ((run.launched, run) for run in members if run.launched):
            histories.hear(run, launched.submission.at, history)
    _hear_pools(root, runs)
    _hear_processes(root, runs)
    _hear_batches(root, runs)


def _hear_pools(root: Path, runs: Sequence[SeenRun]) -> None:
    """A local pool holds its launch: where neither it nor a job of it is alive, none that is queued will be started."""
    of_launch: dict[Path, list[SeenRun]] = defaultdict(list)
    for run in runs:
        if run.launched is not None and run.launched.submission.launcher == "local":
            of_launch[_directory(root, run.launched.submission)].append(run)
    for directory, members in of_launch.items():
        if not (lock.is_held(directory) or any(run.state in (Seen.RUNNING, Seen.WAITING) for run in members)):
            for run in members:
                if run.state is Seen.QUEUED:
                    histories.left(run, "the pool that was to run it has ended")


def _hear_processes(root: Path, runs: Sequence[SeenRun]) -> None:
    """A process that runs its plan itself holds that; where it does not any more, what has not begun will not."""
    waiting = [run for run in runs if run.state is Seen.PLANNED and run.launched]
    of_launch: dict[Path, list[SeenRun]] = defaultdict(list)
    for run in waiting:
        launch = run.launched.submission if run.launched else None
        if launch is not None and launch.launcher == "here":
            of_launch[_directory(root, launch)].append(run)
    for directory, members in of_launch.items():
        alive = lock.is_held(directory)
        for run in members:
            run.state, run.note = (Seen.QUEUED, "") if alive else (Seen.PLANNED, _NOT_BEGUN)


def _hear_batches(root: Path, runs: Iterable[SeenRun]) -> None:
    """Says why runs have no job that were given to SLURM, or that it is not known."""
    for launch, members in _without_job(runs):
        calls = manifest.batches(root, launch)
        refused = next((batch.error for batch in calls if batch.error), "its launch has not come to it")
        lost = {number for batch in calls if not (batch.id or batch.error) for number in batch.numbers}
        for run in members:
            if run.launched and run.state is Seen.PLANNED:
                run.note = _UNANSWERED if run.launched.job.number in lost else f"not submitted: {refused}"


def ask_slurm(root: Path, runs: Sequence[SeenRun]) -> list[str]:
    """Adds SLURM's word on the jobs of unfinished runs, where it has any; returns a line if it is silent."""
    jobs = {job: members for job, members in _by_job(runs).items() if _launcher(members) == "slurm"}
    lost = [
        (launch, members, batches)
        for launch, members in _without_job(runs)
        if (batches := unanswered.batches(root, launch))
    ]
    if not (jobs or lost) or not slurm.present():
        return []
    names = {run.launched.submission.job_name for members in jobs.values() for run in members if run.launched}
    names |= {launch.job_name for launch, _, _ in lost}
    try:
        queued, ended = _answers(tuple(jobs), tuple(sorted(names)), int(time.monotonic() / ASK_AGAIN_SECONDS))
    except SlurmError as error:
        return [f"{error}: what is queued or has ended since is not known"]
    for launch, members, batches in lost:
        _find(launch, members, batches, queued)
    for job, members in _by_job(runs).items():
        for run in members:
            if job in queued:
                _tell_queued(run, queued[job])
            elif job in ended and run.launched and ended[job][0] == run.launched.submission.job_name:
                _tell_ended(run, ended[job][1])
            elif job in jobs and job not in ended and run.state is Seen.QUEUED:
                histories.left(run, f"its job {job} is not in the queue")
    return []


def _find(
    launch: Submission,
    members: Sequence[SeenRun],
    batches: Sequence[SbatchCall],
    queued: Mapping[str, Queued],
) -> None:
    """Gives runs the jobs that SLURM made of the launch's calls that it did not answer."""
    there = [unanswered.found(launch, batch, queued.values()) for batch in batches]
    ids = {number: job_id for batch in there if batch for number, job_id in batch.ids().items()}
    for run in members:
        if run.launched and (job_id := ids.get(run.launched.job.number)):
            run.launched = replace(run.launched, job=replace(run.launched.job, id=job_id))
            run.note = "" if run.note == _UNANSWERED else run.note
        elif run.note == _UNANSWERED:
            run.note += ", and it has no such job in its queue"


@functools.lru_cache(maxsize=1)
def _answers(
    jobs: tuple[str, ...], names: tuple[str, ...], period: int
) -> tuple[dict[str, Queued], dict[str, tuple[str, str]]]:
    """Returns the answers of the queue, and of the accounting on jobs that left it; they are kept for a while."""
    queued = {job.id: job for job in slurm.queue(names, slurm.LOOK_SECONDS)}
    return queued, slurm.ended(job for job in jobs if job not in queued)


def _by_job(runs: Iterable[SeenRun]) -> dict[str, list[SeenRun]]:
    jobs: dict[str, list[SeenRun]] = defaultdict(list)
    for run in runs:
        if run.launched is not None and run.launched.job.id is not None and run.state is not Seen.DONE:
            jobs[run.launched.job.id].append(run)
    return jobs


def _without_job(runs: Iterable[SeenRun]) -> list[tuple[Submission, list[SeenRun]]]:
    """The launches for SLURM that have no job for unfinished runs, with those."""
    found: dict[str, tuple[Submission, list[SeenRun]]] = {}
    for run in runs:
        launched = run.launched
        if launched is None or launched.job.id is not None or run.state is Seen.DONE:
            continue
        if launched.submission.launcher == "slurm":
            found.setdefault(launched.submission.token, (launched.submission, []))[1].append(run)
    return list(found.values())


def _directory(root: Path, launch: Submission) -> Path:
    return manifest.submission_directory(root, launch.sweep, launch.token)


def _launcher(members: Sequence[SeenRun]) -> str | None:
    return members[0].launched.submission.launcher if members[0].launched else None


def _tell_queued(run: SeenRun, job: Queued) -> None:
    if job.state == "PENDING" and run.state is not Seen.RUNNING and not run.spent:
        histories.put_back(run, Seen.QUEUED, job.reason)
    elif job.state == "RUNNING":
        unbegun = run.state is Seen.STALLED and (run.alive_at is None or run.before is not None)
        if unbegun or run.state in (Seen.PLANNED, Seen.QUEUED, Seen.INTERRUPTED, Seen.CANCELLED):
            histories.put_back(run, Seen.WAITING)


def _tell_ended(run: SeenRun, state: str) -> None:
    if state in _ENDINGS and run.state in (*UNBEGUN, *UNDER_WAY):
        run.state, run.failure = _ENDINGS[state]
        run.note = f"SLURM ended its job: {state}"
    elif state == "COMPLETED" and run.state in UNBEGUN:
        histories.left(run, "its job has ended")
