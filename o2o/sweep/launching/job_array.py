"""A job array of SLURM, by way of submitit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from submitit.slurm.slurm import SlurmExecutor

from o2o.sweep.ledger import slurm
from o2o.sweep.ledger.slurm import LimitError, NoAnswerError, SlurmError

OURS = ("job_name", "comment", "array", "dependency", "output", "error", "open_mode")
"""Options of sbatch that are set here and nowhere else."""


class Array(SlurmExecutor):
    """A job array whose tasks run a command. submitit writes and sends the script; nothing is pickled."""

    def __init__(
        self, logs: Path, settings: Mapping[str, Any], setup: Sequence[str], teardown: Sequence[str]
    ):
        """An array that writes to `logs`.

        Raises:
            SlurmError: a setting is none of submitit's.
        """
        super().__init__(logs)
        given = {key: value for key, value in settings.items() if value is not None}
        given["additional_parameters"] = {"requeue": True, **given.get("additional_parameters", {})}
        ours = [key for key in given["additional_parameters"] if key.replace("-", "_") in OURS]
        if ours:  # jobs are found again by their name and comment
            told = f"hydra.launcher.additional_parameters: {', '.join(ours)} is for this program to set"
            raise SlurmError([f"{told}; launch.name names jobs"])
        given["setup"] = [*given.get("setup", ()), *setup]
        try:
            self.update_parameters(**self._convert_parameters(given), teardown=[*teardown])
        except ValueError as error:
            first, known = str(error).partition("\n")[0], re.findall(r"^ *- (\w+)", str(error), re.MULTILINE)
            there = f"; there are {', '.join(known)}" if known else ""
            raise SlurmError([f"hydra.launcher: {first}{there}"]) from None

    @classmethod
    def affinity(cls) -> int:
        """Returns 1: scripts can be written anywhere; whether they can be sent is `slurm.require`'s to say."""
        return 1

    def send(self, command: str, count: int, name: str, comment: str, after: Sequence[str]) -> str:
        """Submits `count` tasks of a shell's command, to begin when the jobs `after` have ended; gives the array's id.

        Raises:
            LimitError: not now.
            NoAnswerError: whether SLURM took it is not known.
            SlurmError: sbatch refused it, with its words.
        """
        parameters = {**self.parameters, "job_name": name, "comment": comment, "map_count": count}
        if after:
            parameters["dependency"] = f"afterany:{':'.join(after)}"
        self.parameters, before = parameters, self.parameters
        try:
            text = self._make_submission_file_text(command, "")
        finally:
            self.parameters = before
        self.folder.mkdir(parents=True, exist_ok=True)  # SLURM would not
        script = self.folder.parent / f"{comment}.sh"
        script.write_text(text, encoding="utf-8")
        try:
            return slurm.submit(str(script))
        except NoAnswerError:
            raise
        except SlurmError as error:
            if re.search(r"[Ll]imit|QOS policy|AssocGrp|temporarily unable to accept", str(error)):
                raise LimitError(error.problems) from None
            raise
