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
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from analysis.data.cells import Cell, pretraining_names
from analysis.data.collect import Collection
from analysis.data.measures import Arm, Measured
from analysis.data.runs import Finetuning
from analysis.figures import Drawn
from analysis.figures.causes import COLUMNS, reasons
from analysis.figures.style import caveat, colors_of, over_seeds, steps_of
from analysis.tables.collapse_tables import collapse_table
from analysis.tables.forms import NOTHING, Entry, Table, mean, number, thousands, words
from analysis.tables.headline import headline
from analysis.tables.paper_tables import CAVEATS
from o2o import collapse

TEMPLATES = Path(__file__).parent / "templates"
DECIMALS = 2
"""Of a score in the page: a hundredth of a point."""
POINTS = 80
"""A curve of a reason has at most so many."""
MARKS = dict(zip(CAVEATS, "†‡", strict=True))
"""The mark of a caveat, which is told once, behind the name of a dataset, by its source."""

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
        page.cell(
            cell, measured.get(id(cell)), rows.get(id(cell), _scratch_row(cell, lost.columns)), lost.columns
        )
        for cell in collection.cells
    ]
    runs, datasets = len(collection.finetunings), len({cell.dataset for cell in collection.cells})
    axis = steps_of(collection.cells)
    content = {
        "summary": f"runs: {runs}, settings: {len(cells)}, datasets: {datasets}, "
        f"runs left out: {len(collection.left_out)}",
        "headline": [[page.marked(dataset), sentences] for dataset, sentences in headline(arms).items()],
        "caveats": page.caveats,
        "horizon": collapse.HORIZON,
        "switch": axis.switch,
        "axis": axis.label.partition(":")[0].partition(";")[0],
        "reasons": [
            {"title": title.replace("\n", " "), "metrics": metrics, "log": log}
            for title, metrics, log in COLUMNS[1:]
        ],
        "grids": page.grids,
        "pretrainings": page.pretrainings,
        "columns": _with_online(lost.columns, "online", lost.columns),
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
        self._colors = colors_of(cells)
        self._sources: dict[str, set[str]] = {}
        for cell in cells:
            if not cell.first.without_data:
                self._sources.setdefault(cell.dataset, set()).add(cell.first.source)
        self._names = pretraining_names(cells)
        self.caveats = [
            [mark, caveat(cell.first)]
            for source, mark in MARKS.items()
            for cell in [c for c in cells if c.first.source == source and caveat(c.first)][:1]
        ]
        self.pretrainings = [self._pretraining(key, cells) for key in self._names]

    @property
    def grids(self) -> list[tuple[int, ...]]:
        """The env steps of evaluations; a run names its own by number."""
        return list(self._grid_numbers)

    def marked(self, dataset: str) -> str:
        """The dataset's name, with the mark of its caveat if all that is there of it has that."""
        sources = self._sources.get(dataset, set())
        return dataset + (MARKS.get(next(iter(sources)), "") if len(sources) == 1 else "")

    def cell(
        self, cell: Cell, arm: Arm | None, row: Sequence[Entry], columns: Sequence[str]
    ) -> dict[str, Any]:
        """A setting: its mean curve, its row in the collapse table, and its seeds."""
        steps, values = over_seeds([(run.env_steps, run.scores) for run in cell.runs])
        online = mean([run.online_score for run in cell.runs], cell.runs)
        measured = arm.runs if arm else [None] * len(cell.runs)
        return {
            "id": self._numbers[id(cell)],
            "dataset": cell.dataset,
            "label": cell.label,
            "replay": cell.replay,
            "name": cell.dataset + ("" if cell.first.without_data else MARKS.get(cell.first.source, "")),
            "color": self._colors[cell.label],
            "switch": cell.first.switch,
            "grid": self._grid(steps),
            "mean": _rounded(values.mean(0)),
            "deviation": _rounded(values.std(0, ddof=1)) if len(values) > 1 else None,
            "pretraining": None
            if cell.first.from_scratch
            else list(self._names).index(cell.first.pretraining_key),
            "why": {} if cell.first.from_scratch else self._reasons(cell),
            "row": [[entry.text, entry.value] for entry in _with_online(row, online, columns)],
            "runs": [self._run(run, own) for run, own in zip(cell.runs, measured, strict=True)],
        }

    def table(self, table: Table) -> dict[str, Any]:
        """A table whose numbers name the setting whose runs they were made from."""
        rows = [
            [
                [
                    _shortened(entry.text),
                    entry.bold,
                    self._cell_of.get(entry.runs[0]) if entry.runs else None,
                    entry.value is not None or entry.text == NOTHING,
                ]
                for entry in row
            ]
            for row in table.rows
        ]
        idle = [row for place, row in enumerate(rows) if place in table.idle]
        rows = [row for place, row in enumerate(rows) if place not in table.idle]
        told = {"name": table.name, "title": table.title, "columns": table.columns, "notes": table.notes}
        return told | {"rows": rows, "idle": idle}

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

    def _pretraining(self, key: str, cells: Sequence[Cell]) -> dict[str, Any]:
        """The pretrainings of one setting: name, mean offline score, mean curve over updates until the switch."""
        runs = [run for cell in cells if cell.first.pretraining_key == key for run in cell.runs]
        scores = {run.pretraining_identity: run.offline_score for run in runs}
        found = {run.pretraining: run.pretraining_curve for run in runs if run.pretraining}
        curves = [curve for curve in found.values() if len(curve[0])]
        steps, values = over_seeds(curves) if curves else (np.empty(0), np.empty((1, 0)))
        return {
            "label": self._names[key],
            "offline": _rounded(np.mean([score for score in scores.values() if score is not None])),
            "steps": steps.tolist(),
            "scores": _rounded(values.mean(0)),
        }

    def _reasons(self, cell: Cell) -> dict[str, Any]:
        found = {}
        for metric, (steps, values) in reasons(cell).items():
            every = -(-len(steps) // POINTS)
            digits = [float(f"{value:.4g}") for value in values[::every]]
            found[metric] = {"grid": self._grid(steps[::every]), "values": digits}
        return found


def _scratch_row(cell: Cell, columns: Sequence[str]) -> tuple[Entry, ...]:
    """A setting that was not pretrained, so that nothing can be lost."""
    known = (words(cell.dataset), words(cell.label), words(cell.replay), number(len(cell.runs), 0))
    return known + (Entry(NOTHING),) * (len(columns) - len(known))


def _with_online(row: Sequence[Any], online: Any, columns: Sequence[str]) -> list[Any]:
    """The online score has its place behind the offline one."""
    place = columns.index("offline") + 1
    return [*row[:place], online, *row[place:]]


def _shortened(text: str) -> str:
    """A dataset's name with the mark of its caveat instead of the caveat."""
    for source, told in CAVEATS.items():
        text = text.replace(told, MARKS[source])
    return text


def _figure(drawn: Drawn, folder: Path) -> dict[str, Any]:
    png = quote(os.path.relpath(drawn.png, folder)) if drawn.png else None
    pdf = quote(os.path.relpath(drawn.png.with_suffix(".pdf"), folder)) if drawn.png else None
    return {"title": drawn.title, "png": png, "pdf": pdf, "notes": list(drawn.notes)}


def _rounded(values: Any) -> Any:
    return np.round(np.asarray(values, dtype=np.float64), DECIMALS).tolist()


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
