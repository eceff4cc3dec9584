"""Which algorithm is best depends on how many env steps one may take: ranks and crossovers over the budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from analysis.data.cells import Cell, by_dataset
from analysis.data.runs import FROZEN
from analysis.figures.style import (
    PAGE_WIDTH,
    NothingToDrawError,
    add_legend,
    colors_of,
    new_figure,
    shared_caveat,
    styled,
)
from analysis.tables.budget import budgets_until
from o2o.machine.counting import counted


def budgets(cells: Sequence[Cell]) -> tuple[Figure, list[str]]:
    """Draws the gain of finetuning when the budget ends, and the settings' ranks by it.

    A row is a replay setting and the datasets that have the same settings: both are means over those; rank 1 is best.
    The notes tell where two settings change places.
    """
    rows = [row for replay in ("offline", "empty") for row in _gains(cells, replay)]
    if not rows:
        raise NothingToDrawError(
            "no two algorithms have finished runs on one dataset with one replay setting"
        )
    notes = []
    colors = colors_of(cells)
    with styled():
        figure = new_figure(PAGE_WIDTH, 1.8 * len(rows) + 0.3)
        grid = figure.subplots(len(rows), 2, squeeze=False, sharex=True)
        legend = {}
        for (left, right), (replay, reached, datasets, gains) in zip(grid, rows, strict=True):
            ranks = (-np.stack(list(gains.values()))).argsort(0).argsort(0) + 1.0
            for label, gain, rank in zip(gains, gains.values(), ranks, strict=True):
                style = {"color": colors[label], "marker": "o", "markersize": 3, "linewidth": 1.2}
                (legend[label],) = left.plot(reached, gain.mean(1), **style)
                right.plot(reached, rank.mean(1), **style)
            left.axhline(0.0, color="0.3", linewidth=0.8, linestyle=(0, (5, 3)))
            left.set_ylabel(f"replay {replay}:\nscore − offline score")
            over = datasets[0] if len(datasets) == 1 else counted(len(datasets), "dataset")
            right.set_ylabel(f"mean rank over\n{over}")
            right.set_ylim(len(gains) + 0.2, 0.8)
            right.set_yticks(range(1, len(gains) + 1))
            notes += [f"replay {replay}: {change}" for change in _crossovers(reached, gains)]
        grid[0, 0].set_xscale("log")
        for axes in grid[-1]:
            axes.set_xticks(max((reached for _, reached, _, _ in rows), key=lambda steps: steps[-1]))
            axes.minorticks_off()
            axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step / 1000:g}k"))
        figure.supxlabel("env steps allowed after the switch", fontsize=8)
        add_legend(figure, legend, shared_caveat(cells) or None)
    return figure, notes


def _gains(
    cells: Sequence[Cell], replay: str
) -> list[tuple[str, np.ndarray, list[str], dict[str, Float[np.ndarray, "B D"]]]]:
    """For datasets that have the same settings: the budgets that were reached, the datasets, and the mean gains."""
    cells = [
        cell
        for cell in cells
        if not cell.first.from_scratch and cell.replay == replay and cell.algorithm != FROZEN
    ]
    groups: dict[tuple[str, ...], dict[str, dict[str, Cell]]] = {}
    for dataset, alike in by_dataset(cells).items():
        own = {cell.label: cell for cell in alike}
        groups.setdefault(tuple(own), {})[dataset] = own
    found = []
    for labels, datasets in groups.items():
        last = min(int(cell.first.env_steps[-1]) for own in datasets.values() for cell in own.values())
        if len(labels) > 1 and last:
            reached = np.array(budgets_until(last))
            gains = {
                label: np.stack([_gain(own[label], reached) for own in datasets.values()], axis=1)
                for label in labels
            }
            found.append((replay, reached, list(datasets), gains))
    return found


def _gain(cell: Cell, budgets: np.ndarray) -> Float[np.ndarray, " B"]:
    curves = [np.interp(budgets, run.env_steps, run.scores) - run.scores[0] for run in cell.runs]
    return np.mean(curves, axis=0)


def _crossovers(reached: np.ndarray, gains: dict[str, np.ndarray]) -> list[str]:
    """Returns where a setting overtakes another in the mean gain, between which budgets."""
    names = list(gains)
    found = []
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            ahead = gains[one].mean(1) > gains[other].mean(1)
            for place in np.flatnonzero(np.diff(ahead)):
                winner, loser = (one, other) if ahead[place + 1] else (other, one)
                low, high = reached[place], reached[place + 1]
                found.append(f"{winner} overtakes {loser} between {low:,} and {high:,} env steps")
    return found
