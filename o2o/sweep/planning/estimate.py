"""The cost of a plan, estimated from earlier runs of its kind; none where nothing was measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from o2o.machine.counting import counted
from o2o.runs.directory.layout import FINETUNE, IDENTITY, PRETRAIN, RESULT, find_runs, read_object
from o2o.runs.identity import science
from o2o.sweep.launching.jobs import PlannedRun

SEEDS_READ = 3
"""Of each cell; more would not tell more."""
SHORTEST_SECONDS = 60
"""Of a run that is read: a shorter one mostly starts and compiles, which a longer one does no oftener."""

Kind = tuple[Any, ...]
"""Phase, algorithm, task, layers and batch size: what a step's cost depends on."""


def device_hours(runs: Sequence[PlannedRun], root: Path) -> str:
    """The device-hours that these runs will take, on each device on which their kinds were measured."""
    measured = measure(root)
    devices = sorted({device for device, _ in measured})
    told = []
    for device in devices:
        known = [(run, measured.get((device, _kind(science(run.config))))) for run in runs]
        seconds = [_steps(science(run.config)) * statistics.median(rates) for run, rates in known if rates]
        if seconds:
            hours, missing = sum(seconds) / 3600, len(runs) - len(seconds)
            rest = f", and {counted(missing, 'run')} of unknown cost" if missing else ""
            from_runs = sum(map(len, {id(rates): rates for _, rates in known if rates}.values()))
            told.append(f"{_rounded(hours)} on {device} (measured on {counted(from_runs, 'run')}){rest}")
    return f"device-hours: {'; '.join(told) or 'unknown, for no run of this kind has been measured here'}"


def measure(root: Path) -> dict[tuple[str, Kind], list[float]]:
    """Device-seconds a step, evaluations included, of finished runs below `root`, by device and kind."""
    found: dict[tuple[str, Kind], list[float]] = {}
    cells: dict[Path, int] = {}
    for directory in find_runs(root, unreadable=[]):  # what cannot be read tells nothing
        if cells.get(directory.parent, 0) >= SEEDS_READ:
            continue
        try:
            result = read_object(directory / RESULT) or {}
            described = (read_object(directory / IDENTITY) or {}).get("science", {})
            execution = result["execution"]
            rate = execution["seconds"] / execution["members"] / _steps(described)
            kind = (execution["device"], _kind(described))
            if execution["seconds"] < SHORTEST_SECONDS:
                continue
        except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
            continue  # not done, not ours to read, or made by a version that measured otherwise
        cells[directory.parent] = cells.get(directory.parent, 0) + 1
        found.setdefault(kind, []).append(rate)
    return found


def _kind(science: Mapping[str, Any]) -> Kind:
    phase = FINETUNE if "finetune" in science else PRETRAIN
    algorithm = science["algorithm"] if phase == FINETUNE else science["pretrain"]["algorithm"]
    layers = tuple(_flat(science["network"]["hidden_sizes"]))
    return phase, algorithm["name"], science["dataset"]["task"], layers, science["batch_size"]


def _steps(science: Mapping[str, Any]) -> int:
    return science["finetune"]["env_steps"] if "finetune" in science else science["pretrain"]["updates"]


def _flat(value: Any) -> Iterable[Any]:
    return [item for each in value for item in _flat(each)] if isinstance(value, list | tuple) else [value]


def _rounded(hours: float) -> str:
    return f"{hours:.0f}" if hours >= 10 else f"{hours:.1f}" if hours >= 0.1 else "less than 0.1"
