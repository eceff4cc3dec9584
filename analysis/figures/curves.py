"""Learning curves: the paper's Figures 1 to 4, and all that is there in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.data.cells import Cell, by_dataset, display_name, named, pretraining_names
from analysis.data.runs import Finetuning
from analysis.figures.style import (
    COLUMN_WIDTH,
    MARGINS,
    PAGE_WIDTH,
    PANEL_HEIGHT,
    PRETRAINING_COLOR,
    NothingToDrawError,
    Steps,
    add_legend,
    add_steps_label,
    colors_of,
    dataset_title,
    fitted_title,
    line_label,
    mark_switch,
    new_figure,
    over_seeds,
    palette,
    step_axis,
    steps_of,
    styled,
)

TAIL = 0.25
"""The part of the pretraining that is shown before the switch, as a share of the online steps shown after it."""

EMPTY_DASHES = (0, (4, 1.5))
RATIO_COLORS = {0.25: "#56B4E9", 0.5: "#E69F00", 0.75: "#CC79A7"}
OFFLINE_DASHES = (0, (5, 3))
PRETRAININGS = (
    ("0.35", "solid"), ("0.55", (0, (5, 1))), ("0.25", (0, (3, 1, 1, 1))), ("0.65", (0, (1, 1))), ("0.45", (0, (8, 2))),
)  # fmt: skip
"""Greys and dashes of pretrainings where a figure has several."""


@dataclass(frozen=True)
class Series:
    """A cell as one line of a panel."""

    cell: Cell
    label: str
    color: str
    dashes: object = "solid"


@dataclass(frozen=True)
class Panel:
    """One coordinate system: lines of one dataset."""

    title: str
    series: tuple[Series, ...]


def learning_curves(cells: Sequence[Cell]) -> tuple[Figure, list[str]]:
    """Everything there is: a panel per dataset and replay setting, a line per cell, and its seeds."""
    if not cells:
        raise NothingToDrawError("no finished run")
    panels, colors = [], colors_of(cells)
    for alike in by_dataset(cells).values():
        for replay in dict.fromkeys(cell.replay for cell in alike):
            members = [cell for cell in alike if cell.replay == replay]
            panels.append(Panel(f"{dataset_title(members)}\n{_arm_name(replay)}", _lines(members, colors)))
    return draw(panels, columns=4 if len(panels) > 4 else 2, seeds=True), []


def figure1(cells: Sequence[Cell]) -> tuple[Figure, list[str]]:
    """TD3 and TD3-BC with the offline data in the replay, and TD3 from scratch, whose curve starts at the switch."""
    scratch: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.first.without_data and cell.algorithm == "td3":
            scratch.setdefault(cell.first.task, []).append(cell)
    panels, notes, colors = [], [], colors_of(cells)
    for dataset, alike in _pretrained(cells).items():
        members = _select(alike, ("td3", "td3_bc"), replay_init="offline")
        if not members:
            continue
        series = [*_lines(members, colors)]
        beginners = scratch.get(alike[0].first.task, [])
        for beginner, grey in zip(beginners, _greys(len(beginners)), strict=True):
            name = named("TD3 from scratch", beginner.variant)
            series.append(Series(beginner, name, grey, EMPTY_DASHES))
        notes += _missing(dataset, {cell.algorithm for cell in members}, {"td3", "td3_bc"})
        notes += [] if beginners else [f"{dataset}: no TD3 from scratch"]
        panels.append(Panel(dataset_title(alike), tuple(series)))
    return draw(_needed(panels, "TD3 or TD3-BC with the offline data in the replay")), notes


def figure2(cells: Sequence[Cell]) -> tuple[Figure, list[str]]:
    """TD3 and TD3-BC, with (solid) and without (dashed) the offline data in the replay; no bands, as in the paper."""
    panels, notes, colors = [], [], colors_of(cells)
    for dataset, alike in _pretrained(cells).items():
        series: list[Series] = []
        lacking: list[str] = []
        for replay_init, dashes in (("offline", "solid"), ("empty", EMPTY_DASHES)):
            members = _select(alike, ("td3", "td3_bc"), replay_init=replay_init)
            there = {cell.algorithm for cell in members}
            lacking += _missing(f"{dataset}, replay {replay_init}", there, {"td3", "td3_bc"})
            series += [
                Series(s.cell, f"{s.label}, replay {replay_init}", s.color, dashes)
                for s in _lines(members, colors)
            ]
        if series:
            notes += lacking
            panels.append(Panel(dataset_title(alike), tuple(series)))
    return draw(_needed(panels, "TD3 or TD3-BC"), bands=False), notes


def figure3(cells: Sequence[Cell]) -> tuple[Figure, list[str]]:
    """TD3, TD3-BC and TD3-C, in a panel with and in one without the offline data in the replay."""
    names = ("td3", "td3_c", "td3_bc")
    panels, notes, colors = [], [], colors_of(cells)
    for dataset, alike in _pretrained(cells).items():
        arms = {arm: _select(alike, names, replay_init=arm) for arm in ("offline", "empty")}
        if not any(arms.values()):
            continue
        for arm, members in arms.items():
            notes += _missing(f"{dataset}, replay {arm}", {cell.algorithm for cell in members}, set(names))
            panels.append(Panel(f"{dataset_title(alike)}\n{_arm_name(arm)}", _lines(members, colors)))
    columns = 4 if len(panels) > 4 else 2
    return draw(_needed(panels, "TD3, TD3-BC or TD3-C"), columns=columns), notes


def figure4(cells: Sequence[Cell]) -> tuple[Figure, list[str]]:
    """TD3 and TD3-BC with a fixed share of offline rows in every batch, beside what the buffer gives."""
    panels, notes = [], []
    shares = [cell for cell in cells if cell.offline_ratio is not None]
    colors = palette(
        {
            _share(cell): None if cell.moving_ratio else RATIO_COLORS.get(cell.offline_ratio or 0.0)
            for cell in shares
        }
    )
    for dataset, alike in _pretrained(cells).items():
        for name in ("td3", "td3_bc"):
            fixed = [cell for cell in alike if cell.algorithm == name and cell.offline_ratio is not None]
            if not fixed:
                continue
            series = [Series(cell, _share(cell), colors[_share(cell)]) for cell in fixed]
            uniform = _select(alike, (name,), replay_init="offline")
            series += [
                Series(cell, _share(cell), grey, EMPTY_DASHES)
                for cell, grey in zip(uniform, _greys(len(uniform)), strict=True)
            ]
            notes += [] if uniform else [f"{dataset}: no {display_name(name)} with what the buffer gives"]
            panels.append(Panel(f"{dataset_title(alike)}\n{display_name(name)}", tuple(series)))
    columns = 4 if len(panels) > 4 else 2
    return draw(_needed(panels, "a fixed offline ratio"), columns=columns), notes


def draw(panels: Sequence[Panel], columns: int = 4, bands: bool = True, seeds: bool = False) -> Figure:
    """The panels, in rows; lines are means over seeds, bands one standard deviation.

    Thin lines are seeds, where they are wanted instead of bands. Dashed lines are the mean offline scores, one for each
    pretraining, the dotted one is the switch from pretraining to finetuning.
    """
    cells = [series.cell for panel in panels for series in panel.series]
    steps, pretrainings = steps_of(cells), pretraining_names(cells)
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    width = COLUMN_WIDTH if columns == 1 else PAGE_WIDTH
    legend: dict[str, Artist] = {}
    with styled():
        size = 7 if columns > 2 else 8
        titles = [fitted_title(panel.title, (width - MARGINS) / columns, size) for panel in panels]
        extra = 0.13 * max(title.count("\n") for title in titles)
        figure = new_figure(width, (PANEL_HEIGHT + extra) * rows + 0.25)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, panel, title in zip(grid.flat, panels, titles, strict=False):
            axes.set_title(title, fontsize=size)
            if panel.series:
                legend |= _draw_panel(axes, panel, steps, pretrainings, bands and not seeds, seeds)
            else:
                axes.set_axis_off()
                axes.text(0.5, 0.5, "no runs", ha="center", transform=axes.transAxes, color="0.4")
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for row in grid:
            row[0].set_ylabel("score (normalised)")
        add_steps_label(figure, steps.label)
        if len(set(pretrainings.values())) > 1:
            legend["thin: the offline score of a pretraining"] = Line2D([], [], color="0.45", linewidth=0.8)
        drawn = [series.label for panel in panels for series in panel.series]
        add_legend(figure, {label: legend[label] for label in dict.fromkeys([*drawn, *legend])})
    return figure


def _draw_panel(
    axes: Axes, panel: Panel, axis: Steps, pretrainings: Mapping[str, str], bands: bool, seeds: bool
) -> dict[str, Artist]:
    legend: dict[str, Artist] = {}
    groups: dict[str, list[Finetuning]] = {}
    for run in (run for series in panel.series for run in series.cell.runs if not run.from_scratch):
        groups.setdefault(pretrainings[run.pretraining_key], []).append(run)
    names = list(dict.fromkeys(pretrainings.values()))
    switch = axis.switch if groups else 0  # what is alone and from scratch has none
    alone = len(names) == 1
    for name, runs in groups.items():
        color, dashes = PRETRAININGS[names.index(name) % len(PRETRAININGS)]
        before = {run.pretraining: run.pretraining_curve for run in runs if run.pretraining}
        curves = [(switch + steps, scores) for steps, scores in before.values() if len(steps)]
        style = (PRETRAINING_COLOR, "solid") if alone else (color, dashes)
        if curves:
            legend[name] = _draw_curves(axes, curves, *style, bands=False, seeds=seeds and alone)
        scores = {run.pretraining_identity: run.offline_score for run in runs}
        mean = float(np.mean([score for score in scores.values() if score is not None]))
        level = axes.axhline(mean, linewidth=0.8, zorder=1)
        level.set(color="0.3" if alone else color, linestyle=OFFLINE_DASHES if alone else dashes)
        legend.setdefault("offline score" if alone else name, level)
    if groups:
        legend["switch to online"] = mark_switch(axes, switch)
    for series in panel.series:
        curves = [(switch + run.env_steps, run.scores) for run in series.cell.runs]
        legend[series.label] = _draw_curves(axes, curves, series.color, series.dashes, bands, seeds)
    longest = max((run.switch for runs in groups.values() for run in runs), default=0)
    last = switch + max(int(series.cell.first.env_steps[-1]) for series in panel.series)
    step_axis(axes, switch - min(longest, TAIL * (last - switch)), last)
    lowest = min(float(run.scores.min()) for series in panel.series for run in series.cell.runs)
    axes.set_ylim(bottom=min(0.0, lowest))
    return legend


def _draw_curves(
    axes: Axes, curves: Sequence, color: str, dashes: object, bands: bool, seeds: bool
) -> Line2D:
    steps, values = over_seeds(list(curves))
    if len(curves) > 1 and seeds:
        for own_steps, own in curves:
            axes.plot(own_steps, own, color=color, linewidth=0.5, alpha=0.35, zorder=2)
    mean = values.mean(0)
    if len(curves) > 1 and bands:
        spread = values.std(0, ddof=1)
        axes.fill_between(steps, mean - spread, mean + spread, color=color, alpha=0.18, linewidth=0)
    (line,) = axes.plot(steps, mean, color=color, linewidth=1.3, linestyle=dashes, zorder=3)
    return line


def _lines(cells: Sequence[Cell], colors: Mapping[str, str]) -> tuple[Series, ...]:
    return tuple(Series(cell, line_label(cell, cells), colors[cell.label]) for cell in cells)


def _pretrained(cells: Sequence[Cell]) -> Mapping[str, list[Cell]]:
    return by_dataset(cell for cell in cells if not cell.first.from_scratch)


def _select(cells: Sequence[Cell], algorithms: Sequence[str], replay_init: str) -> list[Cell]:
    """The cells of these algorithms that sample from the whole buffer."""
    return [
        cell
        for cell in cells
        if cell.algorithm in algorithms and cell.replay_init == replay_init and cell.offline_ratio is None
    ]


def _needed(panels: list[Panel], what: str) -> list[Panel]:
    if not panels:
        raise NothingToDrawError(f"no finished run of {what}")
    return panels


def _missing(where: str, found: set[str], wanted: set[str]) -> list[str]:
    missing = sorted(wanted - found)
    return [f"{where}: no {', '.join(map(display_name, missing))}"] if missing else []


def _greys(count: int) -> list[str]:
    return [str(grey) for grey in np.linspace(0.25, 0.7, count).round(2)]


def _share(cell: Cell) -> str:
    name = "what the buffer gives" if cell.offline_ratio is None else f"{cell.replay} rows"
    return named(name, cell.variant)


def _arm_name(replay: str) -> str:
    """The words for a cell's `replay` above a panel."""
    starts = {"offline": "replay starts with offline data", "empty": "replay starts empty"}
    return starts.get(replay) or f"{replay.removesuffix(' offline')} of a batch offline"
