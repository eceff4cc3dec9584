"""SLURM's commands: what is in the queue and what has left it, a job to requeue, jobs to cancel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from o2o.errors import ConfigError

ANSWER_SECONDS = 60.0
"""The seconds that a command may take to answer; a busy controller needs some."""
LOOK_SECONDS = 10.0
"""The same for whoever only looks, and can say that it is not known."""
PATIENCE_SECONDS, PAUSE_SECONDS = 3600.0, 5.0
"""So long, and so often, a job whose process has ended asks what is to become of it."""
DEFAULT_ARRAY_SIZE = 1001  # SLURM's own
A_CALL = 500
"""So many names or ids fit into one command line."""
FORMAT = "%F|%K|%i|%T|%r|%k|%j|%N"

_UNANSWERED = re.compile(
    r"timed? ?out|unable to contact|not responding|connect|communicat|(send|receive|shutdown) failure"
    r"|transmitted|message|protocol|socket|standby|authentication|credential|internal error",
    re.IGNORECASE,
)
"""Messages that tell that a command and the controller did not understand each other."""
_REFUSED = re.compile(
    r"invalid|denied|violates|limit|exceed|\bthan\b|\bmust\b|can ?not be|unrecognized|required|disabled|in use"
    r"|not (permitted|available|specified|supported|usable|allowed|found|in this|provided|accessible)"
    r"|dependency|no partition|no such|unable to open|unable to accept|QOS policy|AssocGrp",
    re.IGNORECASE,
)
"""Messages that tell that the job was refused."""


class SlurmError(ConfigError):
    """A command of SLURM failed, with what it said."""


class NoAnswerError(SlurmError):
    """A command of SLURM got no answer, or none that is clear; what it asked for may have happened or not."""


class LimitError(SlurmError):
    """SLURM takes no more jobs of this user for now."""


@dataclass(frozen=True)
class Queued:
    """A job that SLURM knows of."""

    id: str
    """Such as `123_4`."""
    state: str
    """Such as PENDING or RUNNING."""
    reason: str
    """The reason why it is pending."""
    comment: str
    name: str
    node: str


def require() -> None:
    """Checks that jobs can be submitted from here.

    Raises:
        SlurmError: a command is missing.
    """
    missing = [name for name in ("sbatch", "squeue", "scontrol", "srun") if not shutil.which(name)]
    if missing:
        raise SlurmError(
            [
                f"hydra/launcher=slurm: {', '.join(missing)} not found; this is no login node of a SLURM cluster. "
                "hydra/launcher=local runs on this machine"
            ]
        )


def present() -> bool:
    """Whether this machine can ask a SLURM."""
    return shutil.which("squeue") is not None


def queue(names: Iterable[str], seconds: float | None = None) -> list[Queued]:
    """The jobs of these names that wait, run or are about to end, each task of an array by itself.

    Raises:
        SlurmError: squeue does not answer within so many seconds.
    """
    found = []
    for listed in _lists(names):
        command = ("squeue", "--noheader", "--array", f"--format={FORMAT}", f"--name={listed}")
        for array, task, own, *rest in _rows(ask(*command, seconds=seconds), 8):
            found.append(Queued(own if task == "N/A" else f"{array}_{task}", *rest))
    return found


def ended(jobs: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Names and states of the jobs with these ids, as accounting has them; empty where there is none."""
    found = {}
    for listed in _lists(jobs):
        command = (
            "sacct",
            "-X",
            "--noheader",
            "--parsable2",
            "--format=JobID,JobName,State",
            f"--jobs={listed}",
        )
        try:
            rows = _rows(ask(*command, seconds=LOOK_SECONDS), 3)
        except SlurmError:
            break
        for job, name, state in rows:
            found[job] = name, state.partition(" ")[0]  # "CANCELLED by 1000" is meant by the first word
    return found


def cancel(jobs: Iterable[str]) -> None:
    """Cancels jobs.

    Raises:
        SlurmError: scancel refuses.
    """
    for listed in _lists(jobs):
        ask("scancel", *listed.split(","))


def array_size() -> int:
    """Returns the number of tasks that a job array may have."""
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"), re.MULTILINE)
    return max(1, int(match.group(1))) if match else DEFAULT_ARRAY_SIZE


def submit(script: str) -> str:
    """Submits a script to sbatch, and gives the number of its job.

    Raises:
        NoAnswerError: whether the job was taken is not known.
        SlurmError: it was clearly refused.
    """
    try:
        said = ask("sbatch", script)
    except NoAnswerError:
        raise
    except SlurmError as error:
        if _REFUSED.search(str(error)):
            raise
        raise NoAnswerError(error.problems) from None
    match = re.search(r"Submitted batch job (\d+)", said)
    if match is None:
        raise NoAnswerError([f"sbatch: {said.strip() or 'it said nothing'}"])
    return match[1]


def describe(job_id: str) -> dict[str, str]:
    """Returns the controller's fields of a job: JobState, TimeLimit, PreemptTime and more; empty if unknown.

    Raises:
        NoAnswerError: it says nothing.
    """
    try:
        words = ask("scontrol", "--oneliner", "show", "job", job_id).split()
    except NoAnswerError:
        raise
    except SlurmError:
        return {}
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def requeue(job_id: str, before: Mapping[str, str]) -> None:
    """Puts a job back into the queue under its own id; not again where a call that got no answer has done so.

    Args:
        job_id: the job's.
        before: what `describe` said of it before the first call.

    Raises:
        NoAnswerError: whether it is put back is not known.
        SlurmError: the cluster does not allow it.
    """
    try:
        ask("scontrol", "requeue", job_id)
    except NoAnswerError:
        raise
    except SlurmError:
        restarts = describe(job_id).get("Restarts")
        if not before or restarts in (None, before.get("Restarts")):
            raise


def ask(*command: str, seconds: float | None = None) -> str:
    """Returns the output of one of SLURM's commands.

    Raises:
        NoAnswerError: the controller gave no clear answer within so many seconds.
        SlurmError: it failed for another reason.
    """
    seconds = ANSWER_SECONDS if seconds is None else seconds
    # Inside a job, its own settings would become those of the jobs it submits; a user's for squeue would hide some.
    ours = ("SLURM_", "SBATCH_", "SRUN_", "SQUEUE_", "SACCT_")
    environment = {
        key: value for key, value in os.environ.items() if key == "SLURM_CONF" or not key.startswith(ours)
    }
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=seconds, check=False
        )
    except FileNotFoundError:
        raise SlurmError([f"{command[0]} not found: this is no machine of a SLURM cluster"]) from None
    except subprocess.TimeoutExpired:
        raise NoAnswerError(
            [f"{command[0]} gave no answer for {seconds:g} s; is the controller up?"]
        ) from None
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        said = re.sub(rf"(?m)^{command[0]}: (error: )?", "", said)
        unclear = done.returncode < 0 or _UNANSWERED.search(said)
        raise (NoAnswerError if unclear else SlurmError)([f"{command[0]}: {said}"])
    return done.stdout


def _lists(words: Iterable[str]) -> list[str]:
    words = sorted(set(words))
    return [",".join(words[start : start + A_CALL]) for start in range(0, len(words), A_CALL)]


def _rows(text: str, columns: int) -> list[list[str]]:
    rows = ([word.strip() for word in line.split("|")] for line in text.splitlines())
    return [row for row in rows if len(row) == columns]
