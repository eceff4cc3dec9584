"""Figures of why a policy collapsed: Q-values and the policy's movement, aligned at the switch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.data.cells import Cell
from analysis.data.runs import Finetuning
from analysis.figures.style import (
    PAGE_WIDTH,
    STYLE,
    NothingToDrawError,
    Powers,
    Steps,
    add_legend,
    add_steps_label,
    colors_of,
    dataset_title,
    mark_switch,
    new_figure,
    over_seeds,
    step_axis,
    steps_of,
    styled,
)
from o2o.collapse import HORIZON

# A column of panels: its title (a panel is 17 letters wide), the metrics in it, whether its axis may be logarithmic.
COLUMNS = (
    ("score", ("score",), False),
    ("Q − discounted\nreturn earned", ("q_minus_return",), False),
    ("TD error on fresh\n(– –: offline) rows", ("td_error_fresh", "td_error_offline"), True),
    ("distance from\npretrained policy", ("policy_distance",), False),
    ("TD3-C:\nmultiplier λ", ("lambda",), True),
    ("TD3-C:\nconstraint", ("constraint",), True),
)
DASHES = ("solid", (0, (4, 1.5)))
WIDE = 5.0
"""The largest over the smallest value from which on an axis is logarithmic."""
BEFORE = 0.06
"""The part that is shown before the switch, as a share of what is shown after it, so that the line is seen."""


def why(cells: Sequence[Cell], colors: Mapping[str, str] | None = None) -> tuple[Figure, list[str]]:
    """One dataset: a row per replay init, a column per quantity, the first 50 000 env steps; means over seeds.

    Fixed ratios are left out: they would be three rows more of the same. `colors` are those of the labels in other
    figures, where there are any.
    """
    cells = [cell for cell in cells if not cell.first.from_scratch and cell.offline_ratio is None]
    if not cells:
        raise NothingToDrawError("no finished run with what the buffer gives")
    drawn = [column for column in COLUMNS if any(_has(cell, column[1]) for cell in cells)]
    if len(drawn) < 2:
        raise NothingToDrawError("no run has diagnostics in train.jsonl")
    replays = list(dict.fromkeys(cell.replay for cell in cells))
    legend: dict[str, Artist] = {}
    axis, colors = steps_of(cells), colors or colors_of(cells)
    style: dict[Any, Any] = STYLE | {"axes.titlesize": 6.5, "xtick.labelsize": 6, "ytick.labelsize": 6}
    with styled(style):
        figure = new_figure(PAGE_WIDTH, 1.45 * len(replays) + 0.6)
        grid = figure.subplots(len(replays), len(drawn), squeeze=False, sharex=True, sharey="col")
        for row, replay in enumerate(replays):
            members = [cell for cell in cells if cell.replay == replay]
            for column, (title, metrics, _) in enumerate(drawn):
                axes = grid[row, column]
                legend |= _draw_panel(axes, members, metrics, axis, colors)
                if row == 0:
                    axes.set_title(title)
            grid[row, 0].set_ylabel(f"replay: {replay}", fontsize=7)
        for column, (_, _, logarithmic) in enumerate(drawn):
            if logarithmic and _spans(list(grid[:, column])):
                grid[0, column].set_yscale("log")
                for axes in grid[:, column]:
                    axes.yaxis.set_major_formatter(Powers())
                    axes.yaxis.set_minor_formatter(Powers(labelOnlyBase=False))
        title = dataset_title(cells).replace("\n", " ")
        add_steps_label(figure, f"{axis.label.partition(';')[0]}; dotted: the switch", 7)
        add_legend(figure, legend, title)
    return figure, []


def reasons(cell: Cell) -> dict[str, tuple[Int[np.ndarray, " E"], Float[np.ndarray, " E"]]]:
    """The curves that `why` draws of a cell, but for the score: by metric, env steps and means over its seeds."""
    found = {}
    for metric in (metric for _, metrics, _ in COLUMNS[1:] for metric in metrics):
        curves = [curve for run in cell.runs if (curve := _metric(run, metric)) is not None]
        if curves:
            steps, values = over_seeds(curves)
            early = steps <= HORIZON
            found[metric] = steps[early], values.mean(0)[early]
    return found


def _draw_panel(
    axes: Axes, cells: Sequence[Cell], metrics: Sequence[str], axis: Steps, colors: Mapping[str, str]
) -> dict[str, Artist]:
    legend: dict[str, Artist] = {}
    shown = min(HORIZON, max(int(cell.first.env_steps[-1]) for cell in cells))
    for cell in cells:
        for metric, dashes in zip(metrics, DASHES, strict=False):
            curves = [curve for run in cell.runs if (curve := _metric(run, metric)) is not None]
            if curves:
                steps, values = over_seeds(curves)
                early = steps <= shown
                (line,) = axes.plot(
                    axis.switch + steps[early],
                    values.mean(0)[early],
                    color=colors[cell.label],
                    linestyle=dashes,
                    linewidth=1.0,
                )
                legend.setdefault(cell.label, line)
    mark_switch(axes, axis.switch)
    step_axis(axes, axis.switch - BEFORE * shown, axis.switch + shown, intervals=2)
    return legend


def _spans(panels: Sequence[Axes]) -> bool:
    """Whether the curves in them differ by so much that a logarithmic axis tells more."""
    # The switch is an axis's last line.
    curves = [np.asarray(line.get_ydata()) for axes in panels for line in axes.get_lines()[:-1]]
    values = np.concatenate(curves) if curves else np.ones(1)
    return bool(values.min() > 0 and values.max() > WIDE * values.min())


def _has(cell: Cell, metrics: Sequence[str]) -> bool:
    return any(_metric(run, metric) is not None for run in cell.runs for metric in metrics)


def _metric(run: Finetuning, name: str) -> tuple[Int[np.ndarray, " E"], Float[np.ndarray, " E"]] | None:
    """Env steps since the switch and finite values of a column of eval.jsonl or train.jsonl, where it is there."""
    columns = run.evaluations if name in run.evaluations else run.train
    if name not in columns:
        return None
    values = columns[name].astype(np.float64)
    finite = np.isfinite(values)
    return (columns["step"][finite] - run.switch, values[finite]) if finite.any() else None
