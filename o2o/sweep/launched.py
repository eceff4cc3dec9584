"""What was launched, joined to what was seen: the sweeps and jobs of runs, and runs that have not begun.

What a job wrote down of itself and what SLURM says of it tell more than a run's own files where it never began, or
ended without a word. What they do not know changes nothing.
"""

from __future__ import annotations

import functools
import platform
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from o2o.sweep import manifest, slurm
from o2o.sweep.failures import Failure
from o2o.sweep.slurm import Queued, SlurmError
from o2o.sweep.survey import STALLED_SECONDS, Cell, Launched, Run, Seen

ASK_AGAIN_SECONDS = 30.0

_UNBEGUN = (Seen.PLANNED, Seen.QUEUED, Seen.WAITING)
_UNDER_WAY = (Seen.RUNNING, Seen.STALLED)

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
"""What a job's end in SLURM's words means for a run of it that says nothing itself. A run that raises says so, which
is why a job that FAILED without its saying so was killed."""


def join(root: Path, cells: list[Cell]) -> list[str]:
    """Adds sweeps, jobs and unbegun runs to `cells`; what could not be read is returned, a line each."""
    notes: list[str] = []
    runs = {str(run.path)[len(str(root)) + 1 :]: run for cell in cells for run in cell.runs}
    known = {str(cell.path): cell for cell in cells}

    def find(directory: str) -> Run | None:
        if directory not in runs:
            path = root / directory
            seed = path.name.removeprefix("seed-")
            if not seed.isdecimal():
                notes.append(f"{directory} stands in a manifest, but is no directory of a run")
                return None
            cell = known.setdefault(str(path.parent), Cell(path.parent))
            if not cell.runs:
                cells.append(cell)
            runs[directory] = Run(path, int(seed), cell)
            cell.runs.append(runs[directory])
        return runs[directory]

    for name in manifest.sweeps(root):
        try:
            asked = manifest.read_manifest(root, name)
            launches = list(manifest.submissions(root, name))
        except (OSError, ValueError, TypeError, KeyError) as error:
            notes.append(f"sweep {name}: {error}")
            continue
        for entry in asked.runs if asked else []:
            if run := find(entry.directory):
                run.sweeps.append(name)
        for submission in launches:
            for job in submission.jobs:
                for directory in job.runs:
                    if run := find(directory):
                        run.sweeps += [name] if name not in run.sweeps else []
                        run.launched = Launched(directory, submission, job)
    for cell in cells:
        cell.runs.sort(key=lambda run: run.seed)
    return notes


def hear_jobs(root: Path, runs: Sequence[Run]) -> None:
    """What the jobs of unfinished runs wrote down of themselves."""
    for job, members in _by_job(runs).items():
        try:
            history = manifest.read_attempts(root, job)
        except OSError:
            history = []
        last: dict[str, Any] = history[-1] if history else {}
        for run in members:
            _hear(run, last)
    _hear_pools(runs)


def _hear_pools(runs: Sequence[Run]) -> None:
    """A local pool waits for its jobs: where none of them is alive, none that is queued will be started."""
    of_launch: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        if run.launched is not None and run.launched.submission.launcher == "local":
            of_launch[run.launched.submission.token].append(run)
    for members in of_launch.values():
        if not any(run.state in (Seen.RUNNING, Seen.WAITING) for run in members):
            for run in members:
                if run.state is Seen.QUEUED:
                    run.state, run.note = Seen.PLANNED, "the pool that was to run it has ended"


def ask_slurm(runs: Iterable[Run]) -> list[str]:
    """What SLURM says of the jobs of unfinished runs, where any were given to it; returns a line if it is silent."""
    jobs = {job: members for job, members in _by_job(runs).items() if _launcher(members) == "slurm"}
    if not jobs or not slurm.present():
        return []
    names = {run.launched.submission.job_name for members in jobs.values() for run in members if run.launched}
    try:
        queued, ended = _answers(tuple(jobs), tuple(sorted(names)), int(time.monotonic() / ASK_AGAIN_SECONDS))
    except SlurmError as error:
        return [f"{error}: what is queued or has ended since is not known"]
    for job, members in jobs.items():
        for run in members:
            if job in queued:
                _tell_queued(run, queued[job])
            elif job in ended and run.launched and ended[job][0] == run.launched.submission.job_name:
                _tell_ended(run, ended[job][1])
            elif job not in ended and run.state is Seen.QUEUED:
                run.state, run.note = Seen.PLANNED, f"its job {job} is not in the queue"
    return []


@functools.lru_cache(maxsize=1)
def _answers(
    jobs: tuple[str, ...], names: tuple[str, ...], period: int
) -> tuple[dict[str, Queued], dict[str, tuple[str, str]]]:
    """What the queue, and of those that left it the accounting, say; who asks again soon gets the same answer."""
    queued = {job.id: job for job in slurm.queue(names, slurm.LOOK_SECONDS)}
    return queued, slurm.ended(job for job in jobs if job not in queued)


def _by_job(runs: Iterable[Run]) -> dict[str, list[Run]]:
    jobs: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        if run.launched is not None and run.state is not Seen.DONE:
            if run.launched.job.id is None:
                continue
            jobs[run.launched.job.id].append(run)
    return jobs


def _launcher(members: Sequence[Run]) -> str | None:
    return members[0].launched.submission.launcher if members[0].launched else None


def _hear(run: Run, last: dict[str, Any]) -> None:
    if run.state is Seen.PLANNED:
        run.state = Seen.QUEUED
        if last.get("event") == "started":
            run.state, run.note = (
                (Seen.WAITING, "") if _may_live(last) else (Seen.STALLED, "its job died before the run began")
            )
    if last.get("event") == "cancelled" and run.state in _UNBEGUN:
        run.state, run.note = Seen.CANCELLED, "its job was cancelled"
    if last.get("event") != "ended":
        return
    begun_since = run.alive_at is not None and run.alive_at > datetime.fromisoformat(last["at"])
    if begun_since or run.state not in (*_UNBEGUN, *_UNDER_WAY, Seen.INTERRUPTED):
        return
    reason = last.get("reason") or last.get("failure") or f"exit code {last.get('exit_code')}"
    if last.get("decision") == "requeued":
        run.state, run.note = Seen.QUEUED, f"requeued: {reason}"
    elif run.state is Seen.INTERRUPTED:
        return
    elif last.get("decision") == "given up":
        run.state, run.failure, run.note = Seen.FAILED, last.get("failure"), f"its job ended: {reason}"
    elif last.get("decision") == "cancelled":
        run.state, run.note = Seen.CANCELLED, "its job was cancelled"


def _may_live(started: dict[str, Any]) -> bool:
    """Whether the process of a job may be there: seen where it is this machine's, else for as long as others are."""
    if started.get("node") == platform.node():
        return Path(f"/proc/{started.get('pid')}").exists()
    return (datetime.now(UTC) - datetime.fromisoformat(started["at"])).total_seconds() < STALLED_SECONDS


def _tell_queued(run: Run, job: Queued) -> None:
    if job.state == "PENDING" and run.state is not Seen.RUNNING:
        run.state, run.note = Seen.QUEUED, job.reason
    elif job.state == "RUNNING" and (run.state in (*_UNBEGUN, Seen.INTERRUPTED) or run.alive_at is None):
        run.state, run.note = Seen.WAITING, "its job runs, and it has not begun"


def _tell_ended(run: Run, state: str) -> None:
    if state in _ENDINGS and run.state in (*_UNBEGUN, *_UNDER_WAY):
        run.state, run.failure = _ENDINGS[state]
        run.note = f"SLURM ended its job: {state}"
