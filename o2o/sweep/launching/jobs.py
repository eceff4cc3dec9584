"""From planned runs to jobs: which seeds share one, and which pretrainings must be made first."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from o2o.config.schema import Config
from o2o.runs.directory.layout import FINETUNE, IDENTITY, PRETRAIN, RESULT, read_object
from o2o.runs.identity import identity
from o2o.runs.sources import code_hash

ACCELERATED_SEEDS = 10


@dataclass(frozen=True)
class PlannedRun:
    """One run, the overrides that compose it, and its directories."""

    config: Config
    overrides: list[str]
    label: str
    """The overrides in which its cell differs from the plan's others."""
    identity: str
    directory: Path
    pretrain_directory: Path | None

    @property
    def done(self) -> bool:
        """Whether it has a result, and its directory is this run's and not one of another whose hash begins alike."""
        return (self.directory / RESULT).is_file() and self._described().get("identity") == self.identity

    @property
    def other_code(self) -> bool:
        """Whether what lies in its directory was made by other code than its result would depend on now."""
        return self._described().get("code_hash") != code_hash(self.config)

    @property
    def phase(self) -> str:
        """Whether it is a pretraining itself."""
        return PRETRAIN if self.directory == self.pretrain_directory else FINETUNE

    @property
    def pretraining(self) -> PlannedRun | None:
        """The run that it finetunes from; None from scratch, and of a pretraining."""
        if self.pretrain_directory is None or self.phase == PRETRAIN:
            return None
        config = dataclasses.replace(
            self.config, finetune=dataclasses.replace(self.config.finetune, env_steps=0)
        )
        place = self.pretrain_directory
        return PlannedRun(config, self.overrides, "pretraining", identity(config), place, place)

    def _described(self) -> dict[str, Any]:
        try:
            return read_object(self.directory / IDENTITY) or {}
        except ValueError:
            return {}


def missing_pretrainings(runs: Iterable[PlannedRun]) -> list[PlannedRun]:
    """The pretrainings that these runs need and that are not there, each once."""
    asked = {run.directory for run in runs}
    needed = {
        run.pretrain_directory: run
        for run in runs
        if run.pretrain_directory is not None and run.pretrain_directory not in asked
    }
    absent = [run.pretraining for place, run in needed.items() if not (place / RESULT).is_file()]
    return [run for run in absent if run is not None]


def pack(runs: Sequence[PlannedRun], seeds_per_job: int) -> list[list[PlannedRun]]:
    """The runs in order, those that differ only in their seeds together, at most so many.

    Those of a cell that are to be run in different ways, as on another device or with another tracker, share none.
    """
    cells: dict[tuple[Path, str, str], list[PlannedRun]] = {}
    for run in runs:
        how = run.config.execution
        way = repr((how.paths, how.tracker, how.records, how.checkpoint, how.device))
        cells.setdefault((run.directory.parent, run.phase, way), []).append(run)
    return [
        cell[start : start + seeds_per_job]
        for cell in cells.values()
        for start in range(0, len(cell), seeds_per_job)
    ]


def seeds_per_job(config: Config, on_cluster: bool) -> int:
    """How many seeds a job trains side by side: what was asked for, or ten where they share a device."""
    asked = config.execution.launch.seeds_per_job
    if asked != "auto":
        return asked
    platform = config.execution.device.platform
    accelerated = platform in ("gpu", "tpu") or (
        platform == "auto" and any(Path("/dev").glob("nvidia[0-9]*"))
    )
    return ACCELERATED_SEEDS if on_cluster or accelerated else 1
