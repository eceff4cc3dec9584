"""SLURM's commands: what is in the queue, what the controller says of a job, a job to requeue."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from o2o.errors import ConfigError

ANSWER_SECONDS = 60.0
"""How long a command may take to answer; a busy controller needs some."""
DEFAULT_ARRAY_SIZE = 1001  # SLURM's own
FORMAT = "%F|%K|%i|%T|%r|%k|%j|%N"


class SlurmError(ConfigError):
    """A command of SLURM failed, with what it said."""


class NoAnswerError(SlurmError):
    """A command of SLURM was ended for it took too long; what it asked for may happen or not."""


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
    """Why it is pending."""
    comment: str
    name: str
    node: str


def require() -> None:
    """That jobs can be submitted from here.

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


def queue(names: Iterable[str]) -> list[Queued]:
    """The jobs of these names that wait, run or are about to end, each task of an array by itself.

    Raises:
        SlurmError: squeue does not answer.
    """
    names = sorted(names)
    found = []
    for start in range(0, len(names), 100):
        lines = ask(
            "squeue",
            "--noheader",
            "--array",
            "--format",
            FORMAT,
            "--name",
            ",".join(names[start : start + 100]),
        )
        for line in lines.splitlines():
            array, task, own, *rest = (word.strip() for word in line.split("|"))
            found.append(Queued(own if task == "N/A" else f"{array}_{task}", *rest))
    return found


def array_size() -> int:
    """How many tasks a job array may have."""
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"), re.MULTILINE)
    return max(1, int(match.group(1))) if match else DEFAULT_ARRAY_SIZE


def describe(job_id: str) -> dict[str, str]:
    """What the controller says of a job: JobState, TimeLimit, PreemptTime and more; empty if it does not know it."""
    try:
        words = ask("scontrol", "--oneliner", "show", "job", job_id).split()
    except SlurmError:
        return {}
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def requeue(job_id: str) -> None:
    """Puts a job back into the queue under its own id.

    Raises:
        SlurmError: the cluster does not allow it.
    """
    ask("scontrol", "requeue", job_id)


def ask(*command: str) -> str:
    """What one of SLURM's commands prints.

    Raises:
        SlurmError: it failed, or gave no answer.
    """
    # Inside a job, its own settings would become those of the jobs it submits.
    ours = ("SLURM_", "SBATCH_", "SRUN_")
    environment = {
        key: value for key, value in os.environ.items() if key == "SLURM_CONF" or not key.startswith(ours)
    }
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False
        )
    except FileNotFoundError:
        raise SlurmError([f"{command[0]} not found: this is no machine of a SLURM cluster"]) from None
    except subprocess.TimeoutExpired:
        raise NoAnswerError(
            [f"{command[0]} gave no answer for {ANSWER_SECONDS:g} s; is the controller up?"]
        ) from None
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        said = re.sub(rf"(?m)^{command[0]}: (error: )?", "", said)
        raise SlurmError([f"{command[0]}: {said}"])
    return done.stdout
