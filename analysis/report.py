"""The report that people send to each other: one HTML file that needs no network and nothing beside it.

Curves are drawn by the page itself as SVG (templates/report.js). A plotting library would add its megabytes to every
report, and has no notion of what is asked for here: seeds that appear when one points at their mean, panels that the
arrow keys walk through. Everything that comes from a run is data in the page, never markup: it is escaped on the way
into the file, enters the page as text only, and the page's own policy forbids it to load anything.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from analysis.data.cells import Cell
from analysis.data.collect import Collection
from analysis.data.measures import Arm, Measured
from analysis.data.runs import Finetuning
from analysis.figures import Drawn
from analysis.figures.style import COLORS, SPARE_COLORS, caveat, over_seeds
from analysis.tables.every import collapse_table
from analysis.tables.forms import NOTHING, Entry, Table, mean, number, thousands, words
from o2o import collapse

TEMPLATES = Path(__file__).parent / "templates"
DECIMALS = 2
"""Of a score in the page: a hundredth of a point."""

RUN_COLUMNS = (
    "offline",
    "online",
    "regret",
    "null 99 %",
    "effect",
    "collapsed",
    "depth",
    "recovery (env steps)",
    "δ",
    "area",
)
"""The columns of a single seed, below the row of its setting."""


def write_report(
    collection: Collection,
    arms: Sequence[Arm],
    path: Path,
    figures: Iterable[Drawn] = (),
    tables: Iterable[Table] = (),
) -> Path:
    """Writes the report to `path` and returns it; links in it lead to the run directories from there.

    Args:
        collection: the cells whose curves are shown, and what was left out.
        arms: the same cells, measured (measures.py).
        path: the file.
        figures: what was drawn beside it.
        tables: what the page shows below its own, the collapse table.
    """
    page = _Page(collection.cells, path.parent)
    measured = {id(arm.cell): arm for arm in arms}
    lost = collapse_table(arms)
    rows = {id(arm.cell): row for arm, row in zip(arms, lost.rows, strict=True)}
    cells = [
        page.cell(cell, measured.get(id(cell)), rows.get(id(cell), _scratch_row(cell, len(lost.columns))))
        for cell in collection.cells
    ]
    runs, datasets = len(collection.finetunings), len({cell.dataset for cell in collection.cells})
    caveats = dict.fromkeys(c for cell in collection.cells if (c := caveat(cell.first)))
    content = {
        "summary": f"finished runs: {runs}, settings: {len(cells)}, datasets: {datasets}, "
        f"runs left out: {len(collection.left_out)}",
        "caveat": "; ".join(f"Contains {c}" for c in caveats),
        "horizon": collapse.HORIZON,
        "grids": page.grids,
        "pretrainings": page.pretrainings,
        "columns": _with_online(lost.columns, "online"),
        "run_columns": RUN_COLUMNS,
        "cells": cells,
        "collapse_notes": lost.notes,
        "tables": [page.table(table) for table in tables],
        "figures": [_figure(drawn, path.parent) for drawn in figures],
        "notes": [*collection.notes, *(f"left out: {run}" for run in collection.left_out)],
    }
    html = _template("report.html")
    parts = {"style": _template("report.css"), "script": _template("report.js"), "data": as_script(content)}
    for name, text in parts.items():
        html = html.replace("{{" + name + "}}", text, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")
    return path


def as_script(content: Any) -> str:
    """JSON that may stand within a script element: nothing in it can end the element or open another."""
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class _Page:
    """Turns cells and tables into what the page draws; grids and pretrainings that are shared are kept once."""

    def __init__(self, cells: Sequence[Cell], folder: Path):
        self._folder = folder.resolve()
        self._numbers = {id(cell): number for number, cell in enumerate(cells)}
        self._cell_of = {run.path: number for number, cell in enumerate(cells) for run in cell.runs}
        self._grid_numbers: dict[tuple[int, ...], int] = {}
        self._colors: dict[str, str] = {}
        self._spare = cycle(SPARE_COLORS[:-1])  # black would not be seen on a dark page
        self.pretrainings: dict[str, Any] = {}

    @property
    def grids(self) -> list[tuple[int, ...]]:
        """The env steps of evaluations; a run names its own by number."""
        return list(self._grid_numbers)

    def cell(self, cell: Cell, arm: Arm | None, row: Sequence[Entry]) -> dict[str, Any]:
        """A setting: its mean curve, its row in the collapse table, and its seeds."""
        steps, values = over_seeds([(run.env_steps, run.scores) for run in cell.runs])
        offline = [run.offline_score for run in cell.runs if run.offline_score is not None]
        online = mean([run.online_score for run in cell.runs], cell.runs)
        measured = arm.runs if arm else [None] * len(cell.runs)
        return {
            "id": self._numbers[id(cell)],
            "dataset": cell.dataset,
            "label": cell.label,
            "replay": cell.replay,
            "caveat": caveat(cell.first),
            "color": self._color(cell),
            "switch": cell.first.switch,
            "offline": _rounded(np.mean(offline)) if offline else None,
            "grid": self._grid(steps),
            "mean": _rounded(values.mean(0)),
            "deviation": _rounded(values.std(0, ddof=1)) if len(values) > 1 else None,
            "pretraining": self._pretraining(cell),
            "row": [[entry.text, entry.value] for entry in _with_online(row, online)],
            "runs": [self._run(run, own) for run, own in zip(cell.runs, measured, strict=True)],
        }

    def table(self, table: Table) -> dict[str, Any]:
        """A table whose numbers name the setting whose runs they were made from."""
        rows = [
            [
                [entry.text, entry.bold, self._cell_of.get(entry.runs[0]) if entry.runs else None]
                for entry in row
            ]
            for row in table.rows
        ]
        return {"title": table.title, "columns": table.columns, "rows": rows, "notes": table.notes}

    def _run(self, run: Finetuning, lost: Measured | None) -> dict[str, Any]:
        texts = [number(run.offline_score).text, number(run.online_score).text]
        if lost:
            back = "never" if lost.recovery is None else thousands(lost.recovery)
            texts += [
                number(lost.regret).text,
                number(lost.threshold).text,
                number(lost.effect).text,
                {"collapsed": "yes", "detectable": "no, detectable", "none": "no"}[lost.outcome],
            ]
            texts += [
                number(lost.depth).text,
                back,
                number(lost.delta, sign="+").text,
                number(lost.area).text,
            ]
        place = os.path.relpath(run.path.resolve(), self._folder)  # says nothing of the machine
        return {
            "seed": run.seed,
            "path": place,
            "href": quote(place),
            "grid": self._grid(run.env_steps),
            "scores": _rounded(run.scores),
            "texts": texts + [NOTHING] * (len(RUN_COLUMNS) - len(texts)),
        }

    def _grid(self, steps: np.ndarray) -> int:
        return self._grid_numbers.setdefault(tuple(steps.tolist()), len(self._grid_numbers))

    def _pretraining(self, cell: Cell) -> str | None:
        """The mean curve of the pretrainings of its seeds, in env steps: less than 0."""
        found = {run.pretraining: run.pretraining_curve for run in cell.runs if run.pretraining}
        curves = [curve for curve in found.values() if len(curve[0])]
        if not curves:
            return None
        name = "|".join(sorted(str(path) for path in found))
        if name not in self.pretrainings:
            steps, values = over_seeds(curves)
            self.pretrainings[name] = {
                "steps": (steps - cell.first.switch).tolist(),
                "scores": _rounded(values.mean(0)),
            }
        return name

    def _color(self, cell: Cell) -> str:
        """An algorithm's own; its variants, which a label tells apart, get spare ones."""
        if cell.label not in self._colors:
            own = None if cell.variant else COLORS.get(cell.algorithm)
            self._colors[cell.label] = own or next(self._spare)
        return self._colors[cell.label]


def _scratch_row(cell: Cell, width: int) -> tuple[Entry, ...]:
    """A setting that was not pretrained, so that nothing can be lost."""
    known = (words(cell.dataset), words(cell.label), words(cell.replay), number(len(cell.runs), 0))
    return known + (Entry(NOTHING),) * (width - len(known))


def _with_online(row: Sequence[Any], online: Any) -> list[Any]:
    """The online score has its place behind the offline one, the fifth."""
    return [*row[:5], online, *row[5:]]


def _figure(drawn: Drawn, folder: Path) -> dict[str, Any]:
    png = quote(os.path.relpath(drawn.png, folder)) if drawn.png else None
    pdf = quote(os.path.relpath(drawn.png.with_suffix(".pdf"), folder)) if drawn.png else None
    return {"title": drawn.title, "png": png, "pdf": pdf, "notes": list(drawn.notes)}


def _rounded(values: Any) -> Any:
    return np.round(np.asarray(values, dtype=np.float64), DECIMALS).tolist()


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
