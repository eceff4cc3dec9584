"""Which algorithm is best depends on how many env steps one may take: ranks and crossovers over the budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from analysis.data.cells import Cell, by_dataset, display_name
from analysis.figures.style import COLORS, PAGE_WIDTH, SPARE_COLORS, NothingToDrawError, new_figure, styled

BUDGETS = np.array([1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000])
"""Env steps one may take online (paper, section 6)."""


def budgets(cells: Sequence[Cell]) -> tuple[Figure, list[str]]:
    """Draws the gain of finetuning when the budget ends, and the algorithms' ranks by it: a row per replay setting.

    Both are means over the datasets that have all of a row's algorithms; rank 1 is best. The notes tell where two
    algorithms change places.
    """
    rows = [row for replay in ("offline", "empty") if (row := _gains(cells, replay))]
    if not rows:
        raise NothingToDrawError(
            "no two algorithms have finished runs on one dataset with one replay setting"
        )
    notes = []
    with styled():
        figure = new_figure(PAGE_WIDTH, 1.8 * len(rows) + 0.5)
        grid = figure.subplots(len(rows), 2, squeeze=False, sharex=True)
        legend = {}
        for (left, right), (replay, reached, datasets, gains) in zip(grid, rows, strict=True):
            ranks = (-np.stack(list(gains.values()))).argsort(0).argsort(0) + 1.0
            spare = iter(SPARE_COLORS)
            for algorithm, gain, rank in zip(gains, gains.values(), ranks, strict=True):
                color = COLORS.get(algorithm) or next(spare, "0.2")
                style = {"color": color, "marker": "o", "markersize": 3, "linewidth": 1.2}
                (legend[display_name(algorithm)],) = left.plot(reached, gain.mean(1), **style)
                right.plot(reached, rank.mean(1), **style)
            left.axhline(0.0, color="0.3", linewidth=0.8, linestyle=(0, (5, 3)))
            left.set_ylabel(f"replay {replay}:\nscore − offline score")
            right.set_ylabel(f"mean rank over\n{len(datasets)} dataset{'s' * (len(datasets) > 1)}")
            right.set_ylim(len(gains) + 0.2, 0.8)
            right.set_yticks(range(1, len(gains) + 1))
            notes += [f"replay {replay}: {change}" for change in _crossovers(reached, gains)]
        grid[0, 0].set_xscale("log")
        for axes in grid[-1]:
            axes.set_xticks(BUDGETS[axes.get_xlim()[1] >= BUDGETS])
            axes.minorticks_off()
            axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step / 1000:g}k"))
        figure.supxlabel("env steps allowed after the switch", fontsize=8)
        regenerated = any(cell.first.regenerated for cell in cells)
        title = "regenerated data, not D4RL's" if regenerated else None
        figure.legend(
            legend.values(), legend.keys(), loc="outside upper center", ncols=5, frameon=False, title=title
        )
    return figure, notes


def _gains(
    cells: Sequence[Cell], replay: str
) -> tuple[str, np.ndarray, list[str], dict[str, Float[np.ndarray, "B D"]]] | None:
    """The budgets that were reached, the datasets, and each algorithm's mean gain at each of them."""
    cells = [
        cell
        for cell in cells
        if not cell.first.from_scratch and cell.replay == replay and cell.algorithm != "frozen"
    ]
    algorithms = list(dict.fromkeys(cell.algorithm for cell in cells))
    first: dict[tuple[str, str], Cell] = {}  # of the variants that look the same, the first
    for cell in cells:
        first.setdefault((cell.dataset, cell.algorithm), cell)
    datasets = [d for d in by_dataset(cells) if all((d, name) in first for name in algorithms)]
    if len(algorithms) < 2 or not datasets:
        return None
    used = [first[dataset, name] for dataset in datasets for name in algorithms]
    reached = BUDGETS[min(int(cell.first.env_steps[-1]) for cell in used) >= BUDGETS]
    if not len(reached):
        return None
    gains = {
        name: np.stack([_gain(first[dataset, name], reached) for dataset in datasets], axis=1)
        for name in algorithms
    }
    return replay, reached, datasets, gains


def _gain(cell: Cell, budgets: np.ndarray) -> Float[np.ndarray, " B"]:
    curves = [np.interp(budgets, run.env_steps, run.scores) - run.scores[0] for run in cell.runs]
    return np.mean(curves, axis=0)


def _crossovers(reached: np.ndarray, gains: dict[str, np.ndarray]) -> list[str]:
    """Returns where an algorithm overtakes another in the mean gain, between which budgets."""
    names = list(gains)
    found = []
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            ahead = gains[one].mean(1) > gains[other].mean(1)
            for place in np.flatnonzero(np.diff(ahead)):
                winner, loser = (one, other) if ahead[place + 1] else (other, one)
                low, high = reached[place], reached[place + 1]
                found.append(
                    f"{display_name(winner)} overtakes {display_name(loser)} between {low:,} and {high:,} env steps"
                )
    return found
