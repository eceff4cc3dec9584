"""Stopping what runs or waits: jobs of these sweeps in SLURM, and processes of this user on this machine.

Nothing else is touched: a job is cancelled only where SLURM knows its id under the name that its launch gave it, and a
process is sent a signal only where it owns the run's lease. Both save a checkpoint first; `retry` goes on from there.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from o2o.errors import ConfigError
from o2o.machine.counting import counted, named_seeds
from o2o.runs import lock
from o2o.sweep.following.status import look
from o2o.sweep.ledger import slurm, unanswered
from o2o.sweep.surveying.survey import Seen, SeenRun

ALIVE = (Seen.RUNNING, Seen.WAITING, Seen.QUEUED, Seen.STALLED)


def run_cancel(root: Path, filters: Sequence[str], yes: bool) -> int:
    """`cancel`: asks, then stops what of the chosen runs is alive; 1 if something could not be stopped."""
    runs = [run for run in look(root, filters)[0] if run.state in ALIVE]
    everyone = look(root, [])[0]
    jobs = _jobs(runs)
    processes, beyond = _processes([run for run in runs if _slurm_job(run) not in jobs])
    owned = _processes([run for run in everyone if run.state in ALIVE])[0] if processes else {}
    of_job = {job: [run for run in everyone if _slurm_job(run) == job] for job in jobs}
    lines = [f"job {job}: {_members(root, of_job[job], runs)}" for job in jobs]
    lines += [f"process {pid}: {_members(root, owned.get(pid, own), runs)}" for pid, own in processes.items()]
    for line in beyond:
        print(line)
    if not lines:
        print(f"{root}: nothing to cancel{' among what matches' if filters else ''}")
        return int(bool(beyond))
    print("\n".join(lines))
    chosen = f"{counted(len(jobs), 'job')} and {counted(len(processes), 'process')}"
    if not yes and not _confirmed(f"cancel {chosen}?"):
        print("nothing was cancelled")
        return 0
    for run in runs:  # one that is cancelled before it begins could not say whose it was
        if (job := _slurm_job(run)) in jobs and run.launched and job:
            unanswered.record_job(root, run.launched.submission, run.launched.job.number, job)
    _note(
        root, [*jobs, *(job for members in processes.values() for run in members if (job := _local_job(run)))]
    )
    try:
        if jobs:
            slurm.cancel(jobs)
    except slurm.SlurmError as error:
        unclear = isinstance(error, slurm.NoAnswerError)
        print(f"{'not known to be' if unclear else 'not'} cancelled: {error}", file=sys.stderr)
        return 1
    for pid in processes:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            print(f"process {pid} had ended")
    print(f"asked {chosen} to stop; they save a checkpoint first")
    return int(bool(beyond))


def _jobs(runs: Sequence[SeenRun]) -> list[str]:
    """The jobs of the runs that SLURM has in its queue under the names of their launches."""
    wanted = {
        job: run.launched.submission for run in runs if run.launched is not None and (job := _slurm_job(run))
    }
    if not wanted:
        return []
    try:
        queued = {job.id: job for job in slurm.queue(launch.job_name for launch in wanted.values())}
    except slurm.SlurmError as error:
        raise ConfigError([f"{error}; nothing was cancelled"]) from None
    return [job for job, launch in wanted.items() if job in queued and queued[job].name == launch.job_name]


def _note(root: Path, jobs: Sequence[str]) -> None:
    """Leaves word that it was meant, or a job that is slow to stop and killed for it would be tried again."""
    if jobs:
        from o2o.sweep.ledger import manifest

        for job in dict.fromkeys(jobs):
            manifest.note_attempt(root, job, "cancelled", by=manifest.user())


def _local_job(run: SeenRun) -> str | None:
    return run.launched.job.id if run.launched and run.launched.submission.launcher == "local" else None


def _slurm_job(run: SeenRun) -> str | None:
    return run.launched.job.id if run.launched and run.launched.submission.launcher == "slurm" else None


def _members(root: Path, members: Sequence[SeenRun], chosen: Sequence[SeenRun]) -> str:
    """The seeds of a job or process by their cell, and those that would be stopped without being chosen."""
    paths = {run.path for run in chosen}
    others = [run.seed for run in members if run.path not in paths and run.state is not Seen.DONE]
    named = f"{members[0].cell.path.relative_to(root)} {named_seeds([run.seed for run in members])}"
    return named + (f"; stops also {named_seeds(others)}, not asked for" if others else "")


def _processes(runs: Sequence[SeenRun]) -> tuple[dict[int, list[SeenRun]], list[str]]:
    """The living processes on this machine that own the runs, and a line for each run that cannot be reached."""
    found: dict[int, list[SeenRun]] = defaultdict(list)
    beyond = []
    for run in runs:
        owner = lock.read(run.path)
        if owner is not None and owner.alive:
            found[owner.pid].append(run)
        elif owner is not None and owner.alive is None and run.state is Seen.RUNNING:
            beyond.append(f"{run.path}: {owner} has it; cancel it there")
        elif run.state is Seen.QUEUED and _slurm_job(run) is None:
            beyond.append(
                f"{run.path}: it waits behind others of its launch on this machine; Ctrl-C there ends that"
            )
    return dict(found), beyond


def _confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise ConfigError([f"{question} Nobody can be asked here: say --yes"])
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
