"""The report that people send to each other: one HTML file that needs no network and nothing beside it.

Curves are drawn by the page itself as SVG (templates/report.js). A plotting library would add its megabytes to every
report, and has no notion of what is asked for here: seeds that appear when one points at their mean, panels that the
arrow keys walk through. Everything that comes from a run is data in the page, never markup: it is escaped on the way
into the file, enters the page as text only, and the page's own policy forbids it to load anything.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from analysis.collect import Cell, Collection, Finetuning
from analysis.figures import Drawn
from analysis.figures.style import COLORS, SPARE_COLORS, caveat, over_seeds
from analysis.statistics import restricted_mean
from o2o import collapse

TEMPLATES = Path(__file__).parent / "templates"
DECIMALS = 2
"""Of a score in the page: a hundredth of a point."""


@dataclass(frozen=True)
class StaticTable:
    """A table that the page shows as it is."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def write_report(
    collection: Collection,
    path: Path,
    figures: Iterable[Drawn] = (),
    tables: Iterable[StaticTable] = (),
    notes: Iterable[str] = (),
) -> Path:
    """Writes the report to `path` and returns it; links in it lead to the run directories from there."""
    page = _Page(path.parent)
    cells = [{"id": number, **page.cell(cell)} for number, cell in enumerate(collection.cells)]
    runs, datasets = len(collection.finetunings), len({cell.dataset for cell in collection.cells})
    caveats = dict.fromkeys(c for cell in collection.cells if (c := caveat(cell.first)))
    content = {
        "summary": f"{runs} finished runs, {len(cells)} settings, {datasets} datasets; {len(collection.left_out)} left out",
        "caveat": "; ".join(f"Contains {c}" for c in caveats),
        "horizon": collapse.HORIZON,
        "grids": page.grids,
        "pretrainings": page.pretrainings,
        "cells": cells,
        "tables": [vars(table) for table in tables],
        "figures": [_figure(drawn, path.parent) for drawn in figures],
        "notes": [*notes, *collection.notes, *(f"left out: {run}" for run in collection.left_out)],
    }
    parts = {
        "style": _template("report.css"),
        "script": _template("report.js"),
        "data": as_script(content),
    }
    html = _template("report.html")
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
    """Turns cells into what the page draws; grids and pretrainings that are shared are kept once."""

    def __init__(self, folder: Path):
        self._folder = folder.resolve()
        self._grid_numbers: dict[tuple[int, ...], int] = {}
        self._colors: dict[str, str] = {}
        self._spare = cycle(SPARE_COLORS[:-1])  # black would not be seen on a dark page
        self.pretrainings: dict[str, Any] = {}

    @property
    def grids(self) -> list[tuple[int, ...]]:
        """The env steps of evaluations; a run names its own by number."""
        return list(self._grid_numbers)

    def cell(self, cell: Cell) -> dict[str, Any]:
        """A setting: its mean curve and its numbers, and the same of every seed."""
        runs = [self._run(run) for run in cell.runs]
        steps, values = over_seeds([(run.env_steps, run.scores) for run in cell.runs])
        offline = [run.offline_score for run in cell.runs if run.offline_score is not None]
        return {
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
            "runs": runs,
            "numbers": _numbers(cell, runs),
        }

    def _run(self, run: Finetuning) -> dict[str, Any]:
        lost = None
        if run.offline_score is not None:
            lost = collapse.summarise(run.env_steps, run.scores, run.offline_score)
        return {
            "seed": run.seed,
            "path": str(run.path),
            "href": quote(os.path.relpath(run.path.resolve(), self._folder)),
            "grid": self._grid(run.env_steps),
            "scores": _rounded(run.scores),
            "offline_score": run.offline_score,
            "online_score": run.online_score,
            "delta": None if run.offline_score is None else run.online_score - run.offline_score,
            "regret": lost and lost["regret"],
            "depth": lost and lost["depth"],
            "recovery": lost and lost["recovery_env_steps"],
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


def _numbers(cell: Cell, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds of each number; None where there is none."""
    numbers = {}
    for name in ("offline_score", "online_score", "delta", "regret", "depth"):
        values = [run[name] for run in runs if run[name] is not None]
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        numbers[name] = {"mean": float(np.mean(values)), "deviation": deviation} if values else None
    numbers["recovery"] = None
    if cell.first.offline_score is not None:
        until = min(int(run.env_steps[-1]) for run in cell.runs)
        times = np.array([until if run["recovery"] is None else run["recovery"] for run in runs], np.float64)
        seen = np.array([run["recovery"] is not None for run in runs])
        mean = restricted_mean(times, seen, float(until))
        numbers["recovery"] = {"mean": mean, "deviation": None, "never": int(np.sum(~seen))}
    return numbers


def _figure(drawn: Drawn, folder: Path) -> dict[str, Any]:
    png = quote(os.path.relpath(drawn.png, folder)) if drawn.png else None
    pdf = quote(os.path.relpath(drawn.png.with_suffix(".pdf"), folder)) if drawn.png else None
    return {"title": drawn.title, "png": png, "pdf": pdf, "notes": list(drawn.notes)}


def _rounded(values: Any) -> Any:
    return np.round(np.asarray(values, dtype=np.float64), DECIMALS).tolist()


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
