"""Methods against each other over all datasets: how they are trained, what comes of it, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from analysis.data.cells import Cell, display_name
from analysis.data.measures import Arm
from analysis.data.runs import FROZEN, Finetuning
from analysis.tables.forms import NOTHING, Entry, Table, mean, whole, words
from analysis.tables.paper_tables import dataset_name, most_seeds, seeds_entry
from o2o.runs.directory import layout
from o2o.runs.directory.protocol import protocol, updates_per_step

ENTRIES = (
    "offline", "online", "δ", "regret", "depth", "updates per env step", "finetuning (device hours)",
    "pretraining (device hours)",
)  # fmt: skip
"""The columns after those that name a setting."""


def methods_table(cells: Sequence[Cell], arms: Sequence[Arm]) -> Table:
    """A row for each method and dataset, and the mean over the datasets of each method that has several."""
    measured = {id(arm.cell): arm for arm in arms}
    most = most_seeds(cells)
    devices = {_device(_execution(run)) for cell in cells for run in cell.runs}
    rows: list[tuple[Entry, ...]] = []
    methods: dict[tuple[str, str, str], list[tuple[Cell, tuple[Entry, ...]]]] = {}
    for cell in cells:
        entries = _entries(cell, measured.get(id(cell)), with_device=len(devices) > 1)
        name = _pretraining(cell), cell.label, cell.replay
        methods.setdefault(name, []).append((cell, entries))
        rows.append((words(dataset_name(cell)), *map(words, name), seeds_entry(cell, most), *entries))
    for name, own in methods.items():
        if len(own) > 1:
            columns = zip(*(entries for _, entries in own), strict=True)
            seeds = [len(cell.seeds) for cell, _ in own]
            shown = str(seeds[0]) if len(set(seeds)) == 1 else f"{min(seeds)} to {max(seeds)}"
            means = (
                _mean_of(entries, sign="+" if name == "δ" else "")
                for name, entries in zip(ENTRIES, columns, strict=True)
            )
            rows.append(
                (words(f"mean of {len(own)} datasets"), *map(words, name), Entry(shown, min(seeds)), *means)
            )
    columns = ("dataset", "pretraining", "finetuning", "replay", "seeds", *ENTRIES)
    notes = (
        "Mean ± one standard deviation over seeds; regret and depth as in the collapse table. In a mean over datasets "
        "each of them counts the same.",
        "Device hours: of one seed, by the clock, training and evaluating; a job's are divided by the seeds in it. "
        "A pretraining is paid once for all that finetune from it. "
        f"Recorded on: {', '.join(sorted(devices)) or 'nothing'}.",
    )
    return Table("methods", "Methods and datasets", columns, tuple(rows), notes)


def protocols_table(cells: Sequence[Cell]) -> Table:
    """A row for each protocol: what is carried over the switch, who acts first, how much is learned from what."""
    rows: dict[tuple[str, ...], list[Cell]] = {}
    items: tuple[str, ...] = ()
    for cell in (cell for cell in cells if cell.first.source != "imported"):  # whose protocol nobody recorded
        found = protocol(cell.first.settings)
        items = tuple(item for item in found if item != "data")
        name = _pretraining(cell), cell.label, cell.replay
        rows.setdefault((*name, *(found[item] for item in items)), []).append(cell)
    entries = tuple(
        (*map(words, row), words(", ".join(dict.fromkeys(map(dataset_name, alike)))))
        for row, alike in rows.items()
    )
    columns = ("trained by", "finetuning", "replay init", *items, "datasets")
    notes = (
        "Each column has changed results in a published code base, or differed between two that were compared.",
    )
    return Table("protocols", "Protocols", columns, entries, notes)


def _entries(cell: Cell, arm: Arm | None, with_device: bool) -> tuple[Entry, ...]:
    """The scores, the updates per env step and the costs of a cell, which name the device where there are several."""
    runs = cell.runs
    online = mean([run.online_score for run in runs], runs)
    if arm:
        offline, delta = mean(arm.scores()[0], runs), mean(arm.values("delta"), runs, sign="+")
        lost = [mean(arm.values(metric), runs) for metric in ("regret", "depth")]
    else:
        offline, delta, lost = Entry(NOTHING), Entry(NOTHING), [Entry(NOTHING)] * 2
    updates = updates_per_step(cell.first.settings)
    executions = list(map(_execution, runs)), [_executed(run.pretraining) for run in runs]
    costs = [_hours(own, runs, with_device) for own in executions]
    return (offline, online, delta, *lost, Entry(updates, updates_of(cell)), *costs)


def updates_of(cell: Cell) -> int:
    """Updates per env step; the frozen policy, whatever it is configured to, makes none."""
    return 0 if cell.algorithm == FROZEN else cell.first.updates_per_step


def update_columns(cells: Sequence[Cell]) -> tuple[tuple[str, ...], dict[int, tuple[Entry, ...]]]:
    """A column of the updates an env step, where settings differ in it, and its entry of each cell."""
    if len({cell.first.updates_per_step for cell in cells if cell.algorithm != FROZEN}) < 2:
        return (), {id(cell): () for cell in cells}
    return ("updates per env step",), {id(cell): (whole(updates_of(cell)),) for cell in cells}


def _hours(executions: Sequence[dict[str, Any]], runs: Sequence[Finetuning], with_device: bool) -> Entry:
    """The mean over the seeds of which they are recorded, with two digits."""
    known = [execution for execution in executions if not np.isnan(_seconds(execution))]
    if not known:
        return Entry(NOTHING)
    hours = float(np.mean([_seconds(execution) / 3600 for execution in known]))
    text = np.format_float_positional(float(f"{hours:.2g}"), trim="-")
    if with_device:
        text += f" ({', '.join(dict.fromkeys(map(_device, known)))})"
    return Entry(text, hours, runs=tuple(run.path for run in runs))


def _device(execution: dict[str, Any]) -> str:
    """Its name without its kind: "gpu: NVIDIA H200" is NVIDIA H200."""
    return str(execution.get("device", "unknown")).split(": ")[-1]


def _seconds(execution: dict[str, Any]) -> float:
    """Of one seed; NaN where it is not recorded."""
    return float(execution.get("seconds", np.nan)) / max(1, execution.get("members", 1))


def _execution(run: Finetuning) -> dict[str, Any]:
    return run.result.get("execution") or {}


@cache
def _executed(path: Path | None) -> dict[str, Any]:
    result = layout.read_object(path / layout.RESULT) if path else None
    return (result or {}).get("execution") or {}


def _mean_of(entries: Sequence[Entry], sign: str) -> Entry:
    if len({entry.text for entry in entries}) == 1:
        return entries[0]
    values = [float(entry.value) for entry in entries if entry.value is not None]
    if len(values) < len(entries):
        return Entry(NOTHING)
    decimals = max(len(entry.text.split(" ")[0].partition(".")[2]) for entry in entries)
    found = mean([float(np.mean(values))], sign=sign, decimals=decimals)
    return Entry(found.text, found.value, runs=tuple(path for entry in entries for path in entry.runs))


def _pretraining(cell: Cell) -> str:
    return NOTHING if cell.first.from_scratch else display_name(cell.first.pretraining_algorithm)
