"""A plan becomes jobs of SLURM, each run exactly once, whoever else launches it and wherever a launch dies.

The launch is written down before anything is submitted (`o2o.sweep.launching.prepare`), each call of sbatch before it
is made. Only a clear refusal of sbatch is taken for one: the name and the comment of SLURM's jobs point back, so that
a call whose answer was lost is found again in the queue (`o2o.sweep.ledger.unanswered`). One launch at a time
looks into the queue and adds to it, and it leaves out what is there.

A finetuning depends on the very jobs that make its pretrainings, and begins when they have *ended* (`afterany`): with
`afterok`, one failed seed of ten would hold back nine good ones for ever. A run whose pretraining is then missing says
so.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from o2o.errors import ConfigError
from o2o.machine.counting import counted
from o2o.machine.names import sweep_command
from o2o.runs.directory.layout import PRETRAIN
from o2o.sweep.launching import prepare
from o2o.sweep.launching.jobs import PlannedRun
from o2o.sweep.ledger import manifest, slurm, unanswered
from o2o.sweep.ledger.manifest import SbatchCall, Submission
from o2o.sweep.ledger.slurm import Queued


@dataclass(frozen=True)
class SubmissionReport:
    """The outcome of a submission: its jobs, and the reason why any are missing."""

    root: Path
    """The directory of runs."""
    submission: Submission
    already: int
    """Runs that were in the queue when it was this launch's turn."""
    problem: str | None
    unclear: bool = False
    """Whether SLURM may have taken some of what is not known to be submitted."""

    def text(self) -> str:
        """Returns the message to the user."""
        submission, jobs = self.submission, self.submission.jobs
        sent = [job for job in jobs if job.id is not None]
        first = sum(job.phase == PRETRAIN for job in sent)
        lines = []
        if self.already:
            lines.append(f"{counted(self.already, 'run')} in the queue already, by another launch")
        if sent:
            kinds = f"{first} pretraining, {len(sent) - first} finetuning" if first else "finetuning"
            lines += [
                f"submitted {counted(len(sent), 'job')} as {submission.job_name} ({kinds})",
                f"  {sweep_command(self.root, 'status', submission.sweep)}",
                f"  {shlex.join(['squeue', '--name', submission.job_name])}",
            ]
        if self.problem:
            lines += [
                f"not {'known to be ' * self.unclear}submitted: {len(jobs) - len(sent)} of {counted(len(jobs), 'job')}",
                *(f"  {line}" for line in self.problem.splitlines()),
                f"  The same command {'looks for them by name, and ' * self.unclear}submits what is missing.",
            ]
        return "\n".join(lines)


def to_slurm(
    asked: Sequence[PlannedRun], due: Sequence[PlannedRun], name: str, seeds: int, settings: Mapping[str, Any]
) -> SubmissionReport:
    """Submits what of the `due` runs is not in the queue, `seeds` to a job, and returns.

    Args:
        asked: all runs of the sweep, those that are done among them.
        due: those that are to be run.
        name: the sweep's.
        seeds: how many a job trains side by side.
        settings: the launcher's: submitit's names for what sbatch is to be told.

    Raises:
        ConfigError: nothing was submitted, and why. What sbatch refused stays on record, for `retry`.
    """
    from o2o.sweep.launching.job_array import Array  # not above: submitit sets up logging when it is imported

    slurm.require()
    root = due[0].config.execution.paths.runs.absolute()
    Array(root, settings, [], [])  # a setting that there is not is refused before anything is written
    try:
        with prepare.locked(root):
            largest = slurm.array_size()
            known = in_queue(root, record=True)
            mine = [run for run in due if prepare.relative(root, run.directory) not in known]
            submission = prepare.launch(root, mine, name, seeds, "slurm", settings, known)
            manifest.add_runs(root, name, [prepare.entry(root, run) for run in asked])
            ids, error = _send(root, submission, known, largest)
    except OSError as error:
        raise ConfigError([prepare.unwritten(error, root)]) from None
    jobs = [replace(job, id=ids.get(job.number)) for job in submission.jobs]
    problem = prepare.unwritten(error, root) if isinstance(error, OSError) else error and str(error)
    unclear = isinstance(error, slurm.NoAnswerError)
    return SubmissionReport(root, replace(submission, jobs=jobs), len(due) - len(mine), problem, unclear)


def in_queue(root: Path, record: bool = False) -> dict[str, Queued]:
    """The runs that wait or run in SLURM, by their directories relative to `root`, with their jobs.

    Jobs whose submitter died before it noted their ids are found by their name; `record` notes the ids.

    Raises:
        ConfigError: SLURM does not answer.
    """
    launches = [
        (launch, lost)
        for launch in manifest.submissions(root)
        if launch.launcher == "slurm" and _unfinished(root, launch)
        if (lost := unanswered.batches(root, launch)) or any(job.id for job in launch.jobs)
    ]
    if not launches:
        return {}
    jobs = slurm.queue(launch.job_name for launch, _ in launches)
    by_id = {job.id: job for job in jobs}
    known = {}
    for launch, lost in launches:
        ids = {job.number: job.id for job in launch.jobs}
        for batch in lost:
            if (there := unanswered.found(launch, batch, jobs)) is not None:
                ids |= there.ids()
                if record:
                    unanswered.record(root, launch, there)
        for job in launch.jobs:
            if (queued := by_id.get(ids[job.number] or "")) is not None:
                known |= dict.fromkeys(job.runs, queued)
    return known


def _send(
    root: Path, submission: Submission, known: Mapping[str, Queued], largest: int
) -> tuple[dict[int, str], Exception | None]:
    """Submits the jobs in arrays of at most `largest`; gives the jobs' ids, and what kept it from the rest.

    Raises:
        ConfigError: SLURM refused the first of them.
    """
    ids: dict[int, str] = {}
    makers = {run: job.number for job in submission.jobs if job.phase == PRETRAIN for run in job.runs}
    waiting: dict[tuple[str, ...], list[int]] = {}
    index = 0
    try:
        for phase_is_first in (True, False):
            waiting.clear()
            for job in submission.jobs:
                if (job.phase == PRETRAIN) == phase_is_first:
                    made = {makers[need] for need in job.needs if need in makers}
                    after = {known[need].id for need in job.needs if need in known} | {ids[i] for i in made}
                    waiting.setdefault(tuple(sorted(after)), []).append(job.number)
            for after, numbers in waiting.items():
                while numbers:
                    batch = _send_batch(root, submission, SbatchCall(index, numbers[:largest], list(after)))
                    sent = {number: job_id for number, job_id in batch.ids().items() if job_id}
                    ids |= sent
                    manifest.write_batch(root, submission, batch)
                    for number, job_id in sent.items():
                        manifest.write_job(root, submission, replace(submission.jobs[number], id=job_id))
                    numbers, index = numbers[len(batch.numbers) :], index + 1
    except (slurm.SlurmError, OSError) as error:
        if not ids and not isinstance(error, slurm.NoAnswerError):
            raise
        return ids, error
    return ids, None


def _send_batch(root: Path, submission: Submission, batch: SbatchCall) -> SbatchCall:
    """Submits an array, or as much of it as SLURM takes for now; its id is still to be written down."""
    from o2o.sweep.launching.job_array import Array

    directory = manifest.submission_directory(root, submission.sweep, submission.token)
    python = f"{shlex.quote(sys.executable)} -P -u -m o2o.sweep.launching.entry"
    job = f'{shlex.quote(str(directory))} "$number" "$id"'
    while True:
        manifest.write_batch(root, submission, batch)
        array = Array(
            directory / manifest.LOGS,
            submission.settings,
            setup=[
                "trap : TERM  # this shell outlives what it started, and sees how that ended",
                f"export PYTHONPATH={shlex.quote(str(root / submission.code))}${{PYTHONPATH:+:$PYTHONPATH}}",
                f"numbers=({' '.join(map(str, batch.numbers))})",
                "number=${numbers[$SLURM_ARRAY_TASK_ID]} id=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID",
            ],
            teardown=["code=$?", f'{python} end {job} "$code"'],
        )
        count = len(batch.numbers)
        try:
            array_id = array.send(
                f"{python} run {job}", count, submission.job_name, batch.comment, batch.after
            )
        except slurm.LimitError as error:
            if count == 1:
                manifest.write_batch(root, submission, replace(batch, error=str(error)))
                raise
            batch = replace(batch, numbers=batch.numbers[: count // 2])
            continue
        except slurm.NoAnswerError:
            if (there := unanswered.look_for(submission, batch)) is not None:
                return there
            raise
        except slurm.SlurmError as error:
            manifest.write_batch(root, submission, replace(batch, error=str(error)))
            raise
        return replace(batch, id=array_id)


def _unfinished(root: Path, submission: Submission) -> bool:
    return any(manifest.awaited(root, submission, run) for job in submission.jobs for run in job.runs)
