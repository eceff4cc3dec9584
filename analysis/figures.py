"""Figures for a paper: drawn at the width at which they are printed, in colours safe for the colour-blind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.collect import Cell, by_dataset, display_name

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.grid": True,
    "grid.color": "0.92",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,
}

# Okabe and Ito's palette; an algorithm has the same colour in every figure.
COLORS = {"td3": "#D55E00", "td3_bc": "#0072B2", "td3_c": "#009E73", "sac": "#CC79A7"}
SPARE_COLORS = ("#E69F00", "#56B4E9", "#000000")
PRETRAINING_COLOR = "0.45"
PAGE_WIDTH, COLUMN_WIDTH, PANEL_HEIGHT = 7.0, 3.5, 2.1  # inches
TAIL = 0.25
"""How much of the pretraining is shown before the switch, as a share of the online steps shown after it."""


def learning_curves(cells: Sequence[Cell]) -> Figure:
    """Score against learner steps: a row per dataset, a panel per replay initialisation, a line per setting.

    Thin lines are seeds, the bold line is their mean; the dashed line is the offline score, the vertical line the
    switch from pretraining to finetuning.
    """
    datasets = by_dataset(cells)
    arms = list(dict.fromkeys((cell.replay_init, cell.offline_ratio) for cell in cells))
    width = COLUMN_WIDTH if len(arms) == 1 else PAGE_WIDTH
    with mpl.rc_context(STYLE):
        size = (width, PANEL_HEIGHT * len(datasets) + 0.45)
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(wspace=0.06))
        panels = figure.subplots(len(datasets), len(arms), sharex="row", sharey="row", squeeze=False)
        legend: dict[str, Line2D] = {}
        for row, (dataset, alike) in enumerate(datasets.items()):
            for column, arm in enumerate(arms):
                axes = panels[row, column]
                members = [cell for cell in alike if (cell.replay_init, cell.offline_ratio) == arm]
                if members:
                    legend |= _draw_panel(axes, members)
                else:
                    axes.set_axis_off()
                if row == 0:
                    axes.set_title(_arm_name(*arm))
            source = "\n(regenerated data)" if alike[0].first.regenerated else ""
            panels[row, 0].set_ylabel(f"{dataset}{source}\nscore (normalised)")
            panels[row, 0].set_ylim(
                bottom=min(0.0, *(float(run.scores.min()) for cell in alike for run in cell.runs))
            )
        figure.supxlabel("learner steps (thousands): pretraining updates + env steps", fontsize=8)
        figure.legend(
            legend.values(),
            legend.keys(),
            loc="outside upper center",
            ncols=6 if width == PAGE_WIDTH else 3,
            frameon=False,
        )
    return figure


def save(figure: Figure, stem: Path) -> Path:
    """Writes the figure as PNG and PDF, the same bytes for the same figure, and returns the PNG's path."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        figure.savefig(stem.with_suffix(".pdf"), metadata={"CreationDate": None})
        figure.savefig(stem.with_suffix(".png"))
    return stem.with_suffix(".png")


def _draw_panel(axes: Axes, cells: Sequence[Cell]) -> dict[str, Line2D]:
    legend: dict[str, Line2D] = {}
    spare = iter(SPARE_COLORS * len(cells))
    used: set[str] = set()
    finetunings = [run for cell in cells for run in cell.runs]
    switch = finetunings[0].switch
    offline_scores = [run.offline_score for run in finetunings if run.offline_score is not None]
    if switch:
        label = f"{display_name(finetunings[0].pretraining_algorithm)} pretraining"
        curves = {run.seed: run.pretraining_curve for run in finetunings if len(run.pretraining_curve[0])}
        if curves:
            legend[label] = _draw_curves(axes, list(curves.values()), PRETRAINING_COLOR)
        legend["switch"] = axes.axvline(switch, color="0.3", linewidth=0.8, linestyle=":", zorder=1)
    if offline_scores:
        legend["offline score"] = axes.axhline(
            float(np.mean(offline_scores)), color="0.3", linewidth=0.8, linestyle=(0, (5, 3)), zorder=1
        )
    for cell in cells:
        algorithm = cell.algorithm
        color = COLORS[algorithm] if algorithm in COLORS and algorithm not in used else next(spare)
        used.add(algorithm)
        legend[cell.label] = _draw_curves(axes, [run.curve for run in cell.runs], color)
    last = max(int(run.curve[0][-1]) for run in finetunings)
    axes.set_xlim(switch - min(switch, TAIL * (last - switch)), last)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step / 1000:g}"))
    return legend


def _draw_curves(
    axes: Axes, curves: Sequence[tuple[Int[np.ndarray, " E"], Float[np.ndarray, " E"]]], color: str
) -> Line2D:
    """Draws each seed thinly and their mean, where all were evaluated, boldly; returns the mean's line."""
    if len(curves) > 1:
        for steps, scores in curves:
            axes.plot(steps, scores, color=color, linewidth=0.5, alpha=0.35, zorder=2)
    shared = sorted(set.intersection(*(set(steps.tolist()) for steps, _ in curves)))
    mean = np.mean([scores[np.isin(steps, shared)] for steps, scores in curves], axis=0)
    (line,) = axes.plot(shared, mean, color=color, linewidth=1.4, zorder=3)
    return line


def _arm_name(replay_init: str, offline_ratio: float | None) -> str:
    start = {"offline": "replay starts with the offline data", "empty": "replay starts empty"}
    name = start.get(replay_init, f"replay init: {replay_init}")
    return name if offline_ratio is None else f"{name}, {offline_ratio:.0%} of each batch offline"
