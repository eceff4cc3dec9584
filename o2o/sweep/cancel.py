"""Stopping what runs or waits: jobs of these sweeps in SLURM, and processes of this user on this machine.

Nothing else is touched: a job is cancelled only where SLURM knows its id under the name that its launch gave it, and a
process is sent a signal only where it is this project's. Both save a checkpoint first; `retry` goes on from there.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from o2o.errors import ConfigError
from o2o.sweep import scheduler
from o2o.sweep.status import look
from o2o.sweep.summary import seeds
from o2o.sweep.survey import Run, Seen
from o2o.sweep.why import last_attempt

ALIVE = (Seen.RUNNING, Seen.WAITING, Seen.QUEUED, Seen.STALLED)


def run_cancel(root: Path, filters: Sequence[str], yes: bool) -> int:
    """`cancel`: asks, then stops what of the chosen runs is alive; 1 if something could not be stopped."""
    runs = [run for run in look(root, filters)[0] if run.state in ALIVE]
    everyone = look(root, [])[0]
    jobs = _jobs(runs)
    processes, elsewhere = _processes([run for run in runs if _slurm_job(run) not in jobs])
    lines = [f"job {job}: {_members(root, job, everyone, runs)}" for job in jobs]
    lines += [
        f"process {pid}: {', '.join(str(run.path.relative_to(root)) for run in members)}"
        for pid, members in processes.items()
    ]
    for line in elsewhere:
        print(line)
    if not lines:
        print(f"{root}: nothing to cancel{' among what matches' if filters else ''}")
        return int(bool(elsewhere))
    print("\n".join(lines))
    if not yes and not _confirmed(f"cancel {len(jobs)} jobs and {len(processes)} processes?"):
        print("nothing was cancelled")
        return 0
    try:
        if jobs:
            scheduler.cancel(jobs)
    except scheduler.SilentError as error:
        print(f"not cancelled: {error}", file=sys.stderr)
        return 1
    for pid in processes:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            print(f"process {pid} had ended")
    print(f"asked {len(jobs)} jobs and {len(processes)} processes to stop; they save a checkpoint first")
    return int(bool(elsewhere))


def _jobs(runs: Sequence[Run]) -> list[str]:
    """The jobs of the runs that SLURM has in its queue under the names of their launches."""
    wanted = {
        job: run.launched.submission for run in runs if run.launched is not None and (job := _slurm_job(run))
    }
    if not wanted:
        return []
    try:
        answers = scheduler.ask(wanted, {submission.user for submission in wanted.values()})
    except scheduler.SilentError as error:
        raise ConfigError([f"{error}; nothing was cancelled"]) from None
    return [
        job
        for job, submission in wanted.items()
        if job in answers and answers[job].queued and answers[job].name == submission.job_name
    ]


def _slurm_job(run: Run) -> str | None:
    return run.launched.job.id if run.launched and run.launched.submission.launcher == "slurm" else None


def _members(root: Path, job: str, everyone: Sequence[Run], chosen: Sequence[Run]) -> str:
    members = [run for run in everyone if _slurm_job(run) == job]
    named = f"{members[0].cell.path.relative_to(root)} {seeds([run.seed for run in members])}"
    paths = {run.path for run in chosen}
    others = [run.seed for run in members if run.path not in paths and run.state is not Seen.DONE]
    return named + (f"; stops also {seeds(others)}, which was not asked for" if others else "")


def _processes(runs: Sequence[Run]) -> tuple[dict[int, list[Run]], list[str]]:
    """The living processes on this machine that have the runs, and a line for each run that another machine has."""
    found: dict[int, list[Run]] = defaultdict(list)
    elsewhere = []
    for run in runs:
        attempt = last_attempt(run)
        pid, host = attempt.get("pid"), attempt.get("host")
        if "ended_at" in attempt or not isinstance(pid, int):
            continue
        if host != platform.node():
            if run.state is Seen.RUNNING:
                elsewhere.append(f"{run.path}: process {pid} on {host} has it; cancel it there")
        elif _is_ours(pid):
            found[pid].append(run)
    return dict(found), elsewhere


def _is_ours(pid: int) -> bool:
    """Whether the process lives and is this project's, and not another that was given the number since."""
    try:
        os.kill(pid, 0)
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except ProcessLookupError:
        return False
    except OSError:
        return sys.platform != "linux"  # no /proc: what lives under the noted number is taken for it
    return any(word.endswith(b"launch.py") or word.startswith(b"o2o.") for word in words)


def _confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise ConfigError([f"{question} Nobody can be asked here: say --yes"])
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
