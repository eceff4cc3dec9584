"""SLURM's commands: what is in the queue, a job array to submit, a job to requeue. The only place that calls them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submitit.slurm.slurm import SlurmExecutor

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
        lines = _ask(
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
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", _ask("scontrol", "show", "config"), re.MULTILINE)
    return max(1, int(match.group(1))) if match else DEFAULT_ARRAY_SIZE


def describe(job_id: str) -> dict[str, str]:
    """What the controller says of a job: JobState, TimeLimit, PreemptTime and more; empty if it does not know it."""
    try:
        words = _ask("scontrol", "--oneliner", "show", "job", job_id).split()
    except SlurmError:
        return {}
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def requeue(job_id: str) -> None:
    """Puts a job back into the queue under its own id.

    Raises:
        SlurmError: the cluster does not allow it.
    """
    _ask("scontrol", "requeue", job_id)


class Array(SlurmExecutor):
    """A job array whose tasks run a command. submitit writes and sends the script; nothing is pickled."""

    def __init__(
        self, logs: Path, settings: Mapping[str, Any], setup: Sequence[str], teardown: Sequence[str]
    ):
        """An array that writes to `logs`, which is created here: SLURM would not."""
        logs.mkdir(parents=True, exist_ok=True)
        super().__init__(logs)
        given = {key: value for key, value in settings.items() if value is not None}
        given["additional_parameters"] = {"requeue": True, **given.get("additional_parameters", {})}
        given["setup"] = [*given.get("setup", ()), *setup]
        try:
            self.update_parameters(**self._convert_parameters(given), teardown=[*teardown])
        except ValueError as error:
            raise SlurmError([f"hydra.launcher: {error}"]) from None

    def send(self, command: str, count: int, name: str, comment: str, after: Sequence[str]) -> str:
        """Submits `count` tasks of a shell's command, to begin when the jobs `after` have ended; gives the array's id.

        Raises:
            LimitError: not now.
            SlurmError: sbatch refused it, with its words, or gave no answer.
        """
        parameters = {**self.parameters, "job_name": name, "comment": comment, "map_count": count}
        if after:
            parameters["dependency"] = f"afterany:{':'.join(after)}"
        self.parameters, before = parameters, self.parameters
        try:
            text = self._make_submission_file_text(command, "")
        finally:
            self.parameters = before
        script = self.folder.parent / f"{comment}.sh"
        script.write_text(text, encoding="utf-8")
        try:
            return self._get_job_id_from_submission_command(_ask("sbatch", str(script)))
        except SlurmError as error:
            if re.search(r"[Ll]imit|QOS policy|AssocGrp|temporarily unable to accept", str(error)):
                raise LimitError(error.problems) from None
            raise


def _ask(*command: str) -> str:
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
        raise SlurmError([f"{command[0]}: {said}"])
    return done.stdout
