"""The depth of collapses: over algorithm and replay setting, and over how diverse the data are."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis.data.cells import Cell, by_dataset
from analysis.figures.style import (
    COLUMN_WIDTH,
    PAGE_WIDTH,
    STYLE,
    NothingToDrawError,
    add_legend,
    caveat,
    colors_of,
    dataset_title,
    fitted_title,
    new_figure,
    styled,
)
from o2o import collapse
from o2o.config.dataset_names import stands_for

NAMES_WIDTH = 1.2
"""The inches of a heat map beside its panels: names of the rows, and the colour bar."""
# D4RL's words for how its data were collected, from the least diverse to the most.
QUALITIES = ("expert", "medium-expert", "medium", "medium-replay", "full-replay")
REPLAYS = {"offline": "solid", "empty": (0, (4, 1.5))}


def mean_depth(cell: Cell) -> float:
    """The collapse depth in points (o2o/collapse.py), mean over the seeds; NaN from scratch."""
    found = [
        collapse.summarise(run.env_steps, run.scores, run.offline_score)["depth"]
        for run in cell.runs
        if run.offline_score is not None
    ]
    return float(np.mean(found)) if found else float("nan")


def heat_map(cells: Sequence[Cell]) -> tuple[Figure, list[str]]:
    """Collapse depth over algorithm (rows) and replay setting (columns), a panel per dataset, one scale for all."""
    datasets = by_dataset(cell for cell in cells if not cell.first.from_scratch)
    if not datasets:
        raise NothingToDrawError("no finished run that was pretrained")
    depths = {cell: mean_depth(cell) for alike in datasets.values() for cell in alike}
    top = max(1.0, *depths.values())
    columns = min(4, len(datasets))
    rows = -(-len(datasets) // columns)
    arms = list(dict.fromkeys(cell.label for cell in depths))
    replays = list(dict.fromkeys(cell.replay for cell in sorted(depths, key=_replay_order)))
    names = [textwrap.fill(arm, 26, break_long_words=False) for arm in arms]
    lines = max(1.0, sum(1 + name.count("\n") for name in names) / len(names))
    width = COLUMN_WIDTH if columns == 1 else PAGE_WIDTH
    style: dict[Any, Any] = STYLE | {"axes.grid": False}
    with styled(style):
        figure = new_figure(width, rows * (0.75 + 0.05 * len(arms) + 0.16 * lines * len(arms)) + 0.3)
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes, alike in zip(grid.flat, datasets.values(), strict=False):
            values = np.full((len(arms), len(replays)), np.nan)
            for cell in alike:
                values[arms.index(cell.label), replays.index(cell.replay)] = depths[cell]
            axes.imshow(values, cmap="cividis_r", vmin=0.0, vmax=top, aspect="auto")
            for (row, column), value in np.ndenumerate(values):
                text, ink = ("–", "0.5") if np.isnan(value) else (f"{value:.0f}", _ink(value / top))
                axes.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)
            axes.set_title(fitted_title(dataset_title(alike), (width - NAMES_WIDTH) / columns, 7), fontsize=7)
            axes.set_xticks(range(len(replays)), replays, rotation=40, ha="right", rotation_mode="anchor")
            axes.set_yticks(range(len(arms)), names)
            axes.tick_params(length=0)
        for axes in grid.flat[len(datasets) :]:
            axes.set_axis_off()
        bar = figure.colorbar(grid[0, 0].images[0], ax=grid, fraction=0.03, pad=0.02)
        bar.set_label("collapse depth (points)", fontsize=7)
    return figure, []


def diversity(cells: Sequence[Cell]) -> tuple[Figure, list[str]]:
    """Collapse depth of the datasets of one task, from the least diverse to the most, by how they were collected."""
    tasks: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if not cell.first.from_scratch and _quality(cell.dataset) is not None and cell.offline_ratio is None:
            tasks.setdefault((cell.first.task, caveat(cell.first)), []).append(cell)
    tasks = {
        task: alike for task, alike in tasks.items() if len({_quality(cell.dataset) for cell in alike}) > 1
    }
    if not tasks:
        raise NothingToDrawError(f"no task has finished runs on two of its datasets ({', '.join(QUALITIES)})")
    columns = min(4, len(tasks))
    rows = -(-len(tasks) // columns)
    legend = {}
    colors = colors_of(cells)
    with styled():
        figure = new_figure(COLUMN_WIDTH if columns == 1 else PAGE_WIDTH, 1.9 * rows + 0.2)
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axes, ((task, told), alike) in zip(grid.flat, tasks.items(), strict=False):
            datasets = sorted({cell.dataset for cell in alike}, key=lambda name: _quality(name) or 0)
            lines: dict[tuple[str, str], list[Cell]] = {}
            for cell in alike:
                lines.setdefault((cell.label, cell.replay_init), []).append(cell)
            for (label, replay_init), own in lines.items():
                points = sorted((datasets.index(cell.dataset), mean_depth(cell)) for cell in own)
                (line,) = axes.plot(
                    *zip(*points, strict=True),
                    color=colors[label],
                    linestyle=REPLAYS.get(replay_init, "solid"),
                    marker="o",
                    markersize=3,
                    linewidth=1.2,
                )
                legend[f"{label}, replay {replay_init}"] = line
            axes.set_xticks(range(len(datasets)), [_short(name, task) for name in datasets])
            axes.set_xlim(-0.3, len(datasets) - 0.7)
            axes.set_title(f"{task}\n({told})" if told else task)
        for axes in grid.flat[len(tasks) :]:
            axes.set_axis_off()
        for row in grid:
            row[0].set_ylabel("collapse depth (points)")
            row[0].set_ylim(bottom=0.0)
        figure.supxlabel("dataset, more diverse to the right", fontsize=8)
        add_legend(figure, legend)
    return figure, []


def _quality(dataset: str) -> int | None:
    """The place among `QUALITIES` of a set of D4RL's, or one generated in its place."""
    name = stands_for(dataset).partition("-")[2]
    return QUALITIES.index(name) if name in QUALITIES else None


def _short(dataset: str, task: str) -> str:
    return stands_for(dataset).removeprefix(f"{task}-").replace("-", "-\n")


def _replay_order(cell: Cell) -> float:
    """From much offline data in a batch to none."""
    if cell.offline_ratio is not None:
        return 1.0 - cell.offline_ratio
    return 0.0 if cell.replay_init == "offline" else 1.0


def _ink(share: float) -> str:
    return "white" if share > 0.55 else "black"
