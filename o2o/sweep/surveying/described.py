"""What tells one cell of runs from another: the science of a configuration by dotted keys, such as `algorithm.name`.

It is read from a run's directory, from what was frozen at a launch, or, where nothing else is left, from a path.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from o2o.runs.directory.layout import CONFIG, PRETRAIN

if TYPE_CHECKING:
    from o2o.sweep.ledger.manifest import Submission

NOT_SCIENCE = frozenset(
    ("seed", "conventions", "paths", "tracker", "launch", "records", "checkpoint", "device")
)
ONLINE_SCIENCE = frozenset(("algorithm", "finetune", "replay_init", "offline_ratio", "evaluation"))
"""What a pretraining's configuration also holds, of whichever run asked for it first."""

_BLOCK = re.compile(r"^(?=\w+:)", re.MULTILINE)


def of_run(path: Path, phase: str) -> dict[str, Any] | None:
    """What the configuration in a run's directory says; None where it cannot be read."""
    try:
        text = (path / CONFIG).read_text(encoding="utf-8")
        return of_tree({key: value for block in _BLOCK.split(text) for key, value in _parsed(block)}, phase)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def of_launch(runs: Path, submission: Submission, number: int, phase: str) -> dict[str, Any] | None:
    """What the configuration says that was frozen for a job; None where it cannot be read."""
    from o2o.sweep.ledger import manifest  # only where there are sweeps: it needs NumPy

    try:
        return of_tree(manifest.read_spec(runs, submission, number)["config"], phase)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def of_path(cell: Path) -> dict[str, Any]:
    """What can be said of a cell of which nothing but the path is left."""
    place, algorithm, name = cell.parts[-3:]
    if algorithm == PRETRAIN:
        return {"dataset.name": place, "pretrain.algorithm.name": name.rpartition("-")[0]}
    return {"dataset.name": place, "algorithm.name": algorithm, "replay_init.name": name.partition("-")[0]}


def of_tree(tree: dict[str, Any], phase: str) -> dict[str, Any]:
    """What a configuration says, without the seed; lists are text."""
    facts: dict[str, Any] = {}
    for key, value in tree.items():
        if key not in NOT_SCIENCE and not (phase == PRETRAIN and key in ONLINE_SCIENCE):
            _flatten(key, value, facts)
    if facts.get("pretrain.updates") == 0:
        # From scratch only the task of a dataset counts, and it names the place.
        facts = {key: value for key, value in facts.items() if not key.startswith(("dataset.", "pretrain.a"))}
        task = tree["dataset"]["task"]
        facts |= {"dataset.name": task, "dataset.task": task}
    return facts


def _flatten(key: str, value: Any, facts: dict[str, Any]) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            _flatten(f"{key}.{name}", item, facts)
    else:
        facts[key] = json.dumps(value, separators=(",", ":")) if isinstance(value, list) else value


@functools.cache
def _parsed(block: str) -> list[tuple[str, Any]]:
    """The keys and values of a top-level part of a YAML file; cells share most of theirs, so each is parsed once.

    Raises:
        ValueError: it is not YAML, or holds no keys.
    """
    import yaml  # only where there is a run to describe

    try:
        tree = yaml.load(block, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    if not isinstance(tree, dict):
        raise ValueError("no keys")
    return list(tree.items())
