"""Rows of cells as text for people and as JSON for machines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from o2o.machine.counting import counted
from o2o.machine.names import sweep_command
from o2o.runs.directory.layout import PRETRAIN
from o2o.sweep.following.summary import COLUMNS, CellScore, Row, settings
from o2o.sweep.surveying.survey import Seen

LISTED_NOTES, WIDEST_NOTE = 8, 160

_ALWAYS = ("dataset", "algorithm")
"""Columns that are shown even where all cells have the same in them."""


def text(root: Path, rows: Sequence[Row], notes: Sequence[str], width: int | None = None) -> str:
    """The table that is shown to the user, in no more than `width` columns where it can be."""
    runs = [run for row in rows for run in row.runs]
    told, usual = settings(rows)
    lines = [summary(root, rows), *([f"unless said otherwise: {_said(usual, ', ')}"] if usual else [])]
    lines += _table(rows, told, width)
    broken = Counter(run.failure or "no reason known" for run in runs if run.state is Seen.FAILED)
    if broken:
        kinds = ", ".join(f"{kind} {count}" for kind, count in broken.most_common())
        lines.append(f"failed: {kinds}; {sweep_command(root, 'why', 'state=failed')} says more")
    places: dict[str, list[str]] = {}
    for row in rows:
        for note in row.notes:
            places.setdefault(note, []).append(str(row.cell.path.relative_to(root)))
    remarks = [
        f"{alike[0] if len(alike) == 1 else counted(len(alike), 'cell')}: {note}"
        for note, alike in places.items()
    ]
    lines += [*(shortened(line) for line in remarks[:LISTED_NOTES]), *notes]
    if len(remarks) > LISTED_NOTES:
        lines.append(
            f"… and {counted(len(remarks) - LISTED_NOTES, 'more such line')}; {sweep_command(root, 'why')} lists them"
        )
    return "\n".join(lines)


def summary(root: Path, rows: Sequence[Row]) -> str:
    """Everything in one line."""
    states = sum((row.states for row in rows), Counter())
    total = sum(states.values())
    left = max((row.remaining_seconds or 0 for row in rows), default=0)
    ending = f"; what runs will be done in {duration(left)}" if left else ""
    return f"{root}: {counted(total, 'run')} in {counted(len(rows), 'cell')}: {_states(states)}{ending}"


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


def span(steps: Sequence[int]) -> str:
    """From the first of the sorted `steps` to the last."""
    if not steps:
        return ""
    return count(steps[0]) if steps[0] == steps[-1] else f"{count(steps[0])}–{count(steps[-1])}"


def _table(rows: Sequence[Row], told: Sequence[dict[str, Any]], width: int | None) -> list[str]:
    """The lines of the table: one a row, or where they would be wider than `width` two, what it is and how it is."""
    described, measured = _described(rows, told), _measured(rows)
    lines = _aligned(described | measured)
    if width is None or max(map(len, lines)) <= width:
        return lines
    shared = {name: words[0] for name, words in described.items() if len(set(words)) == 1}
    above = [f"in all rows: {', '.join(f'{name} {word}' for name, word in shared.items())}"] if shared else []
    described = {name: words for name, words in described.items() if name not in shared}
    lines = _aligned(described | measured)
    if described and max(map(len, lines)) > width:
        pairs = zip(_aligned(described), _aligned(measured), strict=True)
        lines = [line for what, how in pairs for line in (what, f"    {how}")]
    return above + lines


def _described(rows: Sequence[Row], told: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """The columns that say what the rows are."""
    columns = {
        name: [row.cell.phase if name == "phase" else row.cell.facts.get(key) for row in rows]
        for name, key in COLUMNS.items()
    }
    for i, row in enumerate(rows):
        if row.cell.phase == PRETRAIN:
            columns["algorithm"][i] = row.cell.facts.get("pretrain.algorithm.name")
    shown = {name: values for name, values in columns.items() if name in _ALWAYS or len(set(values)) > 1}
    settings = {"settings": [_said(own) for own in told]} if any(told) else {}
    return {name: [_word(value) for value in values] for name, values in shown.items()} | settings


def _measured(rows: Sequence[Row]) -> dict[str, list[str]]:
    """The columns that say how the rows are; without those that say nothing of any."""
    columns = {
        "seeds": [f"{row.done}/{len(row.runs)}" for row in rows],
        "state": [_states(row.states) for row in rows],
        "step": [span(row.steps) for row in rows],
        "rate": [f"{row.rate:.3g}/s" if row.rate else "" for row in rows],
        "left": [
            duration(row.remaining_seconds) if row.remaining_seconds is not None else "" for row in rows
        ],
        "score at equal step": [_scored(row.score) for row in rows],
    }
    return {name: words for name, words in columns.items() if any(words)}


def shortened(line: str) -> str:
    """The line, cut where it is too long to be read at a glance."""
    return line if len(line) <= WIDEST_NOTE else line[: WIDEST_NOTE - 1] + "…"


def _aligned(columns: dict[str, list[str]]) -> list[str]:
    """A line of the columns' names, and one for each of their rows."""
    filled = []
    for name, words in columns.items():
        width = max(map(len, [name, *words]))
        filled.append([word.ljust(width) for word in (name, *words)])
    return ["  ".join(row).rstrip() for row in zip(*filled, strict=True)]


def _states(states: Counter[Seen]) -> str:
    present = [state for state in reversed(Seen) if states[state]]
    return "  ".join(f"{state} {states[state]}" for state in present)


def _scored(score: CellScore | None) -> str:
    if score is None:
        return ""
    spread = f" ± {score.deviation:.1f}" if score.seeds > 1 else ""
    return f"{score.mean:.1f}{spread} ({score.seeds}) at {count(score.step)}"


def _word(value: Any) -> str:
    return "" if value is None else str(value)


def _said(values: dict[str, Any], between: str = " ") -> str:
    """Keys and values as the command line has them, but for `algorithm.`, which the row says."""
    words = []
    for key, value in values.items():
        choice, space, path = key.rpartition(" ")
        words.append(f"{choice}{space}{path.removeprefix('algorithm.')}={json.dumps(value)}".replace('"', ""))
    return between.join(words)


def _cell_as_json(root: Path, row: Row, told: dict[str, Any]) -> dict[str, Any]:
    facts = row.cell.facts
    return {
        "path": str(row.cell.path.relative_to(root)),
        "phase": row.cell.phase,
        "keys": {key: facts[key] for key in COLUMNS.values() if key in facts} | told,
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
                "before": vars(run.before) if run.before else None,
                "sweeps": run.sweeps,
                "job": run.launched.job.id if run.launched else None,
            }
            for run in row.runs
        ],
    }
