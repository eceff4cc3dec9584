"""Summaries of the seeds of one setting, and of settings beside each other."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC
from functools import cached_property
from typing import Any

from o2o.machine.counting import named_seeds
from o2o.runs.directory.layout import FINETUNE, PRETRAIN
from o2o.sweep.surveying.survey import Seen, SeenCell, SeenRun

BROKEN = (Seen.FAILED, Seen.DAMAGED)
FINAL = (Seen.DONE, Seen.CANCELLED, *BROKEN)

COLUMNS = {
    "phase": "phase",
    "dataset": "dataset.name",
    "algorithm": "algorithm.name",
    "replay": "replay_init.name",
    "ratio": "offline_ratio.value",
}
# A choice's name stands for its values: they tell two cells apart only where both made the same choice.
_CHOICES = ("dataset", "algorithm", "pretrain.algorithm", "replay_init")


@dataclass(frozen=True)
class CellScore:
    """The mean score of a cell at the largest step that all of its begun seeds were evaluated at."""

    step: int
    mean: float
    deviation: float
    """Of the sample; 0 for one seed."""
    seeds: int


class Row:
    """The summary of one cell."""

    def __init__(self, cell: SeenCell, runs: Sequence[SeenRun]) -> None:
        """About those `runs` of the cell that were asked for."""
        self.cell, self.runs = cell, runs
        self.states = Counter(run.state for run in runs)
        self.done = self.states[Seen.DONE]

    @property
    def steps(self) -> list[int]:
        """The steps of its unfinished runs; of all runs where none is unfinished."""
        begun = [run for run in self.runs if run.step is not None]
        unfinished = [run for run in begun if run.state is not Seen.DONE]
        return sorted(run.step for run in unfinished or begun if run.step is not None)

    @property
    def rate(self) -> float | None:
        """The mean steps a second of its running runs."""
        rates = [run.rate for run in self.runs if run.state is Seen.RUNNING and run.rate]
        return sum(rates) / len(rates) if rates else None

    @property
    def remaining_seconds(self) -> float | None:
        """Until the last of its running runs is done."""
        return max((left for run in self.runs if (left := run.remaining_seconds) is not None), default=None)

    @cached_property
    def score(self) -> CellScore | None:
        """The score at equal step."""
        begun = [run.evaluations for run in self.runs if run.evaluations and run.evaluations.last_step >= 0]
        for row in min(begun, key=lambda rows: rows.last_step) if begun else ():
            step = row.get("step")
            found = [rows.at_step(step) for rows in begun] if isinstance(step, int) else []
            scores = [same["score"] for same in found if same and isinstance(same.get("score"), int | float)]
            if scores and len(scores) == len(begun):
                mean = math.fsum(scores) / len(scores)
                spread = math.fsum((score - mean) ** 2 for score in scores)
                return CellScore(row["step"], mean, math.sqrt(spread / max(1, len(scores) - 1)), len(scores))
        return None

    @property
    def notes(self) -> list[str]:
        """Remarks on its runs, one line for all that have the same."""
        alike: dict[str, list[SeenRun]] = defaultdict(list)
        for run in self.runs:
            waits = run.state in (Seen.PLANNED, Seen.WAITING) and run.note
            if waits or run.state in (*BROKEN, Seen.STALLED, Seen.CANCELLED):
                alike[kind(explained(run))].append(run)
        return [f"{named_seeds([run.seed for run in runs])} {explained(runs[0])}" for runs in alike.values()]


def kind(message: str) -> str:
    """Returns what messages about different runs have in common: all but their numbers."""
    return re.sub(r"\d+", "#", message)


def explained(run: SeenRun) -> str:
    """The state of a run with what there is to say of it, in one line."""
    first = run.note.strip().splitlines()[0] if run.note.strip() else ""
    if run.state is Seen.STALLED and run.alive_at:
        first = f"since {run.alive_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    kind = f" ({run.failure})" if run.failure else ""
    return f"{run.state}{kind}{': ' if first and run.state is not Seen.STALLED else ' '}{first}".rstrip()


def rows_of(runs: Iterable[SeenRun]) -> list[Row]:
    """One row a cell, pretrainings before what finetunes from them."""
    cells: dict[int, list[SeenRun]] = defaultdict(list)
    for run in runs:
        cells[id(run.cell)].append(run)
    rows = [Row(members[0].cell, members) for members in cells.values()]
    return sorted(rows, key=lambda row: (row.cell.path.parts[:-2], row.cell.phase != PRETRAIN, row.cell.path))


def settings(rows: Sequence[Row]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Returns the settings without a column in which cells differ, and those that most of them have.

    What more than half of those have that could differ in it is left out of the first and stands in the second.
    """
    told: list[dict[str, Any]] = [{} for _ in rows]
    usual: dict[str, Any] = {}
    for (key, _, choice), members in _comparable(rows).items():
        values = Counter(rows[i].cell.facts.get(key) for i in members)
        if len(values) == 1:
            continue
        value, most = values.most_common(1)[0]
        if most > len(members) / 2:
            usual[f"{choice} {key}" if choice else key] = value
        for i in members:
            own = rows[i].cell.facts.get(key)
            if own != value or most <= len(members) / 2:
                told[i][key] = own
    return told, usual


def _comparable(rows: Sequence[Row]) -> dict[tuple[str, str, Any], list[int]]:
    """For every key without a column, the rows that can differ in it: of one phase and of the same choice."""
    groups: dict[tuple[str, str, Any], list[int]] = defaultdict(list)
    by_phase = {
        phase: [i for i, row in enumerate(rows) if row.cell.phase == phase] for phase in (PRETRAIN, FINETUNE)
    }
    for phase, members in by_phase.items():
        for key in dict.fromkeys(key for i in members for key in rows[i].cell.facts):
            if key in (*COLUMNS.values(), "offline_ratio.name", "dataset.task"):
                continue
            choice = next((name for name in _CHOICES if key.startswith(f"{name}.")), None)
            for i in members:
                own = rows[i].cell.facts.get(f"{choice}.name") if choice and key != f"{choice}.name" else None
                if key in rows[i].cell.facts or own is None:
                    groups[key, phase, own].append(i)
    return groups
