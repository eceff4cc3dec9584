"""The settings of a cell of runs by dotted keys, such as `algorithm.name`, without the seed.

They are read from a run's directory, from what was frozen at a launch, or, where nothing else is left, from a path.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from o2o.runs.directory import science
from o2o.runs.directory.layout import PRETRAIN

if TYPE_CHECKING:
    from o2o.sweep.ledger.manifest import Submission


def of_run(path: Path) -> dict[str, Any] | None:
    """The settings of the run in a directory; None where they cannot be read."""
    try:
        return _shown(science.read(path)["settings"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def of_launch(runs: Path, submission: Submission, number: int, phase: str) -> dict[str, Any] | None:
    """The settings of a job's runs of one phase, as they were frozen for it; None where they cannot be read."""
    from o2o.sweep.ledger import manifest  # only where there are sweeps: it needs NumPy

    try:
        config = manifest.read_spec(runs, submission, number)["config"]
        if phase == PRETRAIN:
            config = config | {"finetune": {"env_steps": 0}}
        return _shown(science.settings(config))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def of_path(cell: Path) -> dict[str, Any]:
    """Settings that the path of a cell tells, where nothing else is left."""
    place, algorithm, name = ("", "", "", *cell.parts)[-3:]
    if algorithm == PRETRAIN:
        return {"dataset.name": place, "pretrain.algorithm.name": name.rpartition("-")[0]}
    return {"dataset.name": place, "algorithm.name": algorithm, "replay_init.name": name.partition("-")[0]}


def _shown(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with lists as text, and with the names under which cells are shown."""
    facts = {
        key: json.dumps(value, separators=(",", ":")) if isinstance(value, list) else science.shortened(value)
        for key, value in settings.items()
    }
    # From scratch only the task of a dataset counts, and it names the place.
    facts.setdefault("dataset.name", settings["dataset.task"])
    if "replay_init.preload" in facts:
        facts["replay_init.name"] = "offline" if facts["replay_init.preload"] else "empty"
    return facts
