"""Calls of sbatch whose answer was lost: their submitter died, or SLURM was too slow to say whether it took the jobs.

Such a call is on record without an id and without an error (`manifest.SbatchCall`). If SLURM took it, its jobs have the
launch's name and the batch's comment, by which they are found in the queue; one that has begun notes the id itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from o2o.sweep.ledger import manifest, slurm
from o2o.sweep.ledger.manifest import SbatchCall, Submission
from o2o.sweep.ledger.slurm import Queued, SlurmError

LOOKS, PAUSE_SECONDS = 5, 1.0


def batches(root: Path, submission: Submission) -> list[SbatchCall]:
    """The launch's calls of sbatch of which it is not known what became of them."""
    if submission.launcher != "slurm" or all(job.id for job in submission.jobs):
        return []
    return [batch for batch in manifest.batches(root, submission) if batch.id is None and batch.error is None]


def found(submission: Submission, batch: SbatchCall, queue: Iterable[Queued]) -> SbatchCall | None:
    """The batch with its id, where its jobs are in the queue."""
    wanted = submission.job_name, batch.comment
    job = next((job for job in queue if (job.name, job.comment) == wanted), None)
    return job and replace(batch, id=job.id.partition("_")[0])


def look_for(submission: Submission, batch: SbatchCall) -> SbatchCall | None:
    """Calls `found` a few times after a call that was made just now; gives up where SLURM still says nothing."""
    for look in range(LOOKS):
        if look:
            time.sleep(PAUSE_SECONDS)
        try:
            queue = slurm.queue([submission.job_name])
        except SlurmError:
            return None
        if (there := found(submission, batch, queue)) is not None:
            return there
    return None


def record(root: Path, submission: Submission, batch: SbatchCall) -> None:
    """Notes the id that a batch was found to have, and so its jobs'."""
    manifest.write_batch(root, submission, batch)
    for number, job_id in batch.ids().items():
        manifest.write_job(root, submission, replace(submission.jobs[number], id=job_id))


def record_job(root: Path, submission: Submission, number: int, job_id: str) -> None:
    """Calls `record` with what one of the batch's jobs knows of itself."""
    for batch in batches(root, submission):
        if number in batch.numbers:
            record(root, submission, replace(batch, id=job_id.partition("_")[0]))
