"""How far everything is: one row a cell, with its seeds, states, step, rate, remaining time and score at equal step."""

from __future__ import annotations

import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from o2o.layout import FINETUNE, PRETRAIN
from o2o.sweep.filters import select
from o2o.sweep.survey import Cell, Run, Seen, survey

BROKEN = (Seen.FAILED, Seen.DAMAGED)
FINAL = (Seen.DONE, Seen.CANCELLED, *BROKEN)
LISTED_NOTES = 8
REFRESH_SECONDS = 10.0
ASK_SECONDS = 30.0
"""SLURM is not asked more often than this, however often the picture is refreshed."""

_COLUMNS = {
    "phase": "phase",
    "dataset": "dataset.name",
    "algorithm": "algorithm.name",
    "replay": "replay_init.name",
    "ratio": "offline_ratio.value",
}
_ALWAYS = ("dataset", "algorithm")
# A choice's name stands for its values: they tell two cells apart only where both made the same choice.
_CHOICES = ("dataset", "algorithm", "pretrain.algorithm", "replay_init")


@dataclass(frozen=True)
class Score:
    """The mean score of a cell at the largest step that all of its begun seeds were evaluated at."""

    step: int
    mean: float
    deviation: float
    """Of the sample; 0 for one seed."""
    seeds: int


class Row:
    """What is said of one cell."""

    def __init__(self, cell: Cell, runs: Sequence[Run]) -> None:
        """About those `runs` of the cell that were asked for."""
        self.cell, self.runs = cell, runs
        self.states = Counter(run.state for run in runs)
        self.done = self.states[Seen.DONE]

    @property
    def steps(self) -> list[int]:
        """How far its unfinished runs are, those of all runs where none is unfinished."""
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
    def score(self) -> Score | None:
        """The score at equal step."""
        begun = [run for run in self.runs if run.evaluations is not None and run.evaluations.last is not None]
        if not begun:
            return None
        slowest = min(begun, key=lambda run: _step(run.evaluations.last))  # type: ignore[union-attr]
        for row in slowest.evaluations or ():
            if not isinstance(row.get("step"), int):
                continue
            found = [run.evaluations.at_step(row["step"]) for run in begun if run.evaluations]
            scores = [
                other["score"] for other in found if other and isinstance(other.get("score"), int | float)
            ]
            if len(scores) == len(begun):
                mean = math.fsum(scores) / len(scores)
                spread = math.fsum((score - mean) ** 2 for score in scores)
                return Score(row["step"], mean, math.sqrt(spread / max(1, len(scores) - 1)), len(scores))
        return None

    @property
    def notes(self) -> list[str]:
        """What a reader should know of its runs, in a line for all that say the same."""
        said: dict[str, list[Run]] = defaultdict(list)
        for run in self.runs:
            if run.state in (*BROKEN, Seen.STALLED, Seen.CANCELLED):
                said[explained(run)].append(run)
        return [f"{seeds([run.seed for run in runs])} {line}" for line, runs in said.items()]


def seeds(numbers: Sequence[int]) -> str:
    """Seeds in a few letters: seed 3, seeds 0-4,7."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and spans[-1][-1] == number - 1:
            spans[-1][1:] = [number]
        else:
            spans.append([number])
    return f"seed{'s' if len(numbers) > 1 else ''} " + ",".join("-".join(map(str, span)) for span in spans)


def explained(run: Run) -> str:
    """The state of a run with what there is to say of it, in one line."""
    first = run.note.strip().splitlines()[0] if run.note.strip() else ""
    if run.state is Seen.STALLED and run.alive_at:
        first = f"since {run.alive_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    kind = f" ({run.failure})" if run.failure else ""
    return f"{run.state}{kind}{': ' if first and run.state is not Seen.STALLED else ' '}{first}".rstrip()


def look(root: Path, filters: Sequence[str], slurm: bool = True) -> tuple[list[Run], list[str]]:
    """The runs below `root` that `filters` ask for, and what could not be read or asked.

    Raises:
        ConfigError: there is no such directory, or a filter names nothing.
    """
    cells = survey(root)
    notes: list[str] = []
    launched = (root / ".sweeps").is_dir()
    if launched:
        from o2o.sweep import launched as launches  # it needs NumPy

        notes = launches.join(root, cells)
        runs = [run for cell in cells for run in cell.runs]
        launches.hear_jobs(root, runs)
        if slurm:
            notes += launches.ask_slurm(runs)
    return select([run for cell in cells for run in cell.runs], filters, root), notes


def rows_of(runs: Iterable[Run]) -> list[Row]:
    """One row a cell, pretrainings before what finetunes from them."""
    cells: dict[int, list[Run]] = defaultdict(list)
    for run in runs:
        cells[id(run.cell)].append(run)
    rows = [Row(members[0].cell, members) for members in cells.values()]
    return sorted(rows, key=lambda row: (row.cell.path.parts[:-2], row.cell.phase != PRETRAIN, row.cell.path))


def text(root: Path, rows: Sequence[Row], notes: Sequence[str]) -> str:
    """The table that is shown to the user."""
    runs = [run for row in rows for run in row.runs]
    told, usual = settings(rows)
    lines = [summary(root, rows), *([f"unless said otherwise: {_said(usual, ', ')}"] if usual else [])]
    lines += _aligned(_cells_of_table(rows, told))
    broken = Counter(run.failure or "no reason known" for run in runs if run.state is Seen.FAILED)
    if broken:
        kinds = ", ".join(f"{kind} {count}" for kind, count in broken.most_common())
        lines.append(f"failed: {kinds}; python -m o2o.sweep why state=failed says more")
    remarks = [f"{row.cell.path.relative_to(root)}: {note}" for row in rows for note in row.notes]
    lines += [*remarks[:LISTED_NOTES], *notes]
    if len(remarks) > LISTED_NOTES:
        lines.append(
            f"… and {len(remarks) - LISTED_NOTES} more such lines; python -m o2o.sweep why lists them"
        )
    return "\n".join(lines)


def summary(root: Path, rows: Sequence[Row]) -> str:
    """Everything in one line."""
    states = sum((row.states for row in rows), Counter())
    total = sum(states.values())
    left = max((row.remaining_seconds or 0 for row in rows), default=0)
    ending = f"; what runs will be done in {duration(left)}" if left else ""
    return f"{root}: {total} runs in {len(rows)} cells: {_states(states)}{ending}"


def as_json(root: Path, rows: Sequence[Row], notes: Sequence[str]) -> str:
    """The same for machines; times in seconds and ISO 8601, `null` where nothing is known."""
    told, usual = settings(rows)
    content = {
        "runs": str(root),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "states": sum((row.states for row in rows), Counter()),
        "usual": usual,
        "cells": [_cell_as_json(root, row, own) for row, own in zip(rows, told, strict=True)],
        "notes": list(notes),
    }
    return json.dumps(content, indent=1, ensure_ascii=False, default=str)


def exit_code(runs: Iterable[Run]) -> int:
    """1 if something failed or is damaged, else 0."""
    return int(any(run.state in BROKEN for run in runs))


def settings(rows: Sequence[Row]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What tells each cell from the others besides what has a column, and what most of them have of that.

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
            if key in (*_COLUMNS.values(), "offline_ratio.name", "dataset.task"):
                continue
            choice = next((name for name in _CHOICES if key.startswith(f"{name}.")), None)
            for i in members:
                own = (
                    rows[i].cell.facts.get(f"{choice}.name") if choice and not key.endswith(".name") else None
                )
                if key in rows[i].cell.facts or own is None:
                    groups[key, phase, own].append(i)
    return groups


def duration(seconds: float) -> str:
    """A length of time in a few letters: 45s, 12m, 3h05, 2d04h."""
    minutes = int(seconds // 60)
    if seconds < 60:
        return f"{seconds:.0f}s"
    if minutes < 60:
        return f"{minutes}m"
    hours = minutes // 60
    return f"{hours}h{minutes % 60:02}" if hours < 48 else f"{hours // 24}d{hours % 24:02}h"


def count(number: int) -> str:
    """A count of steps in a few letters: 500, 12.5k, 512k, 1M."""
    for size, letter in ((10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.4g}{letter}"
    return str(number)


def run_status(root: Path, filters: Sequence[str], json_wanted: bool) -> int:
    """`status`: prints the table; returns the exit code."""
    runs, notes = look(root, filters)
    rows = rows_of(runs)
    if json_wanted:
        print(as_json(root, rows, notes))
    elif not runs:
        print("\n".join([f"{root}: no runs {'match' if filters else 'yet'}", *notes]))
    else:
        print(text(root, rows, notes))
    return exit_code(runs)


def watch(root: Path, filters: Sequence[str], interval: float) -> int:
    """`status --watch`: the table in place, until nothing is left that could change or Ctrl-C."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    runs: list[Run] = []
    asked = -math.inf
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        try:
            while not runs or any(run.state not in FINAL for run in runs):
                ask = time.monotonic() - asked >= ASK_SECONDS
                asked = time.monotonic() if ask else asked
                runs, notes = look(root, filters, slurm=ask)
                rows = rows_of(runs)
                shown = text(root, rows, notes).splitlines()
                if len(shown) >= console.height:  # what is done is what one needs least
                    shown = text(root, [row for row in rows if row.done < len(row.runs)], notes).splitlines()
                    shown = [summary(root, rows), *shown[1 : console.height - 3], "…"]
                at = f"{datetime.now():%H:%M:%S}, every {interval:g} s, Ctrl-C ends"
                live.update(Text("\n".join([*shown, at]), no_wrap=True, overflow="ellipsis"), refresh=True)
                time.sleep(interval)
        except KeyboardInterrupt:
            pass
    return exit_code(runs)


def _cells_of_table(rows: Sequence[Row], told: Sequence[dict[str, Any]]) -> list[list[str]]:
    columns = {
        name: [row.cell.phase if name == "phase" else row.cell.facts.get(key) for row in rows]
        for name, key in _COLUMNS.items()
    }
    for i, row in enumerate(rows):
        if row.cell.phase == PRETRAIN:
            columns["algorithm"][i] = row.cell.facts.get("pretrain.algorithm.name")
    shown = {name: values for name, values in columns.items() if name in _ALWAYS or len(set(values)) > 1}
    telling = any(told)
    heads = [
        *shown,
        *(["settings"] if telling else []),
        "seeds",
        "state",
        "step",
        "rate",
        "left",
        "score at equal step",
    ]
    table = [heads]
    for i, row in enumerate(rows):
        table.append(
            [
                *(_word(values[i]) for values in shown.values()),
                *([_said(told[i])] if telling else []),
                f"{row.done}/{len(row.runs)}",
                _states(row.states),
                _span(row.steps),
                f"{row.rate:.3g}/s" if row.rate else "",
                duration(row.remaining_seconds) if row.remaining_seconds is not None else "",
                _scored(row.score),
            ]
        )
    return table


def _aligned(table: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


def _states(states: Counter[Seen]) -> str:
    present = [state for state in reversed(Seen) if states[state]]
    return "  ".join(f"{state} {states[state]}" for state in present)


def _span(steps: list[int]) -> str:
    if not steps:
        return ""
    return count(steps[0]) if steps[0] == steps[-1] else f"{count(steps[0])}–{count(steps[-1])}"


def _scored(score: Score | None) -> str:
    if score is None:
        return ""
    spread = f" ± {score.deviation:.1f}" if score.seeds > 1 else ""
    return f"{score.mean:.1f}{spread} ({score.seeds}) at {count(score.step)}"


def _word(value: Any) -> str:
    return "" if value is None else str(value)


def _said(values: dict[str, Any], between: str = " ") -> str:
    """Keys by their last part, where no other key has the same; before them the choice they are said of."""
    paths = {key.rpartition(" ")[2] for key in values}
    lasts = Counter(path.rpartition(".")[2] for path in paths)
    words = []
    for key, value in values.items():
        choice, space, path = key.rpartition(" ")
        last = path.rpartition(".")[2]
        words.append(
            f"{choice}{space}{last if lasts[last] == 1 else path}={json.dumps(value)}".replace('"', "")
        )
    return between.join(words)


def _cell_as_json(root: Path, row: Row, told: dict[str, Any]) -> dict[str, Any]:
    facts = row.cell.facts
    return {
        "path": str(row.cell.path.relative_to(root)),
        "phase": row.cell.phase,
        "keys": {key: facts[key] for key in _COLUMNS.values() if key in facts} | told,
        "total_steps": row.cell.total,
        "done": row.done,
        "seeds": len(row.runs),
        "states": row.states,
        "rate": row.rate,
        "remaining_seconds": row.remaining_seconds,
        "score": vars(row.score) if row.score else None,
        "runs": [
            {
                "path": str(run.path.relative_to(root)),
                "seed": run.seed,
                "state": run.state,
                "step": run.step,
                "rate": run.rate,
                "remaining_seconds": run.remaining_seconds,
                "alive_at": run.alive_at.isoformat() if run.alive_at else None,
                "failure": run.failure,
                "note": run.note,
                "sweeps": run.sweeps,
                "job": run.launched.job.id if run.launched else None,
            }
            for run in row.runs
        ],
    }
