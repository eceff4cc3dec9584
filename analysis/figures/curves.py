"""Learning curves: the paper's Figures 1 to 4, and all that is there in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.data.cells import Cell, by_dataset, display_name
from analysis.figures.style import (
    COLORS,
    COLUMN_WIDTH,
    PAGE_WIDTH,
    PANEL_HEIGHT,
    PRETRAINING_COLOR,
    SPARE_COLORS,
    STEPS_LABEL,
    NothingToDrawError,
    dataset_title,
    mark_switch,
    new_figure,
    over_seeds,
    step_axis,
    styled,
)

TAIL = 0.25
"""The part of the pretraining that is shown before the switch, as a share of the online steps shown after it."""

EMPTY_DASHES = (0, (4, 1.5))
RATIO_COLORS = {0.25: "#56B4E9", 0.5: "#E69F00", 0.75: "#CC79A7"}


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
    panels = []
    for alike in by_dataset(cells).values():
        for arm in dict.fromkeys((cell.replay_init, cell.offline_ratio) for cell in alike):
            members = [cell for cell in alike if (cell.replay_init, cell.offline_ratio) == arm]
            panels.append(Panel(f"{dataset_title(alike[0])}\n{_arm_name(*arm)}", _one_color_each(members)))
    return draw(panels, columns=4 if len(panels) > 4 else 2, seeds=True), []


def figure1(cells: Sequence[Cell]) -> tuple[Figure, list[str]]:
    """TD3 and TD3-BC with the offline data in the replay, and TD3 from scratch, whose curve starts at the switch."""
    scratch = {cell.first.task: cell for cell in cells if cell.first.from_scratch and cell.algorithm == "td3"}
    panels, notes = [], []
    for dataset, alike in _pretrained(cells).items():
        members = _select(alike, ("td3", "td3_bc"), replay_init="offline")
        if not members:
            continue
        series = [*_one_color_each(members)]
        beginner = scratch.get(alike[0].first.task)
        if beginner:
            series.append(Series(beginner, "TD3 from scratch", "0.25", EMPTY_DASHES))
        notes += _missing(dataset, {cell.algorithm for cell in members}, {"td3", "td3_bc"})
        notes += [] if beginner else [f"{dataset}: no TD3 from scratch"]
        panels.append(Panel(dataset_title(alike[0]), tuple(series)))
    return draw(_needed(panels, "TD3 or TD3-BC with the offline data in the replay")), notes


def figure2(cells: Sequence[Cell]) -> tuple[Figure, list[str]]:
    """TD3 and TD3-BC, with (solid) and without (dashed) the offline data in the replay; no bands, as in the paper."""
    panels, notes = [], []
    for dataset, alike in _pretrained(cells).items():
        series: list[Series] = []
        lacking: list[str] = []
        for replay_init, dashes in (("offline", "solid"), ("empty", EMPTY_DASHES)):
            members = _select(alike, ("td3", "td3_bc"), replay_init=replay_init)
            there = {cell.algorithm for cell in members}
            lacking += _missing(f"{dataset}, replay {replay_init}", there, {"td3", "td3_bc"})
            series += [
                Series(s.cell, f"{s.label}, replay {replay_init}", s.color, dashes)
                for s in _one_color_each(members)
            ]
        if series:
            notes += lacking
            panels.append(Panel(dataset_title(alike[0]), tuple(series)))
    return draw(_needed(panels, "TD3 or TD3-BC"), bands=False), notes


def figure3(cells: Sequence[Cell]) -> tuple[Figure, list[str]]:
    """TD3, TD3-BC and TD3-C, in a panel with and in one without the offline data in the replay."""
    names = ("td3", "td3_c", "td3_bc")
    panels, notes = [], []
    for dataset, alike in _pretrained(cells).items():
        arms = {arm: _select(alike, names, replay_init=arm) for arm in ("offline", "empty")}
        if not any(arms.values()):
            continue
        for arm, members in arms.items():
            notes += _missing(f"{dataset}, replay {arm}", {cell.algorithm for cell in members}, set(names))
            panels.append(
                Panel(f"{dataset_title(alike[0])}\n{_arm_name(arm, None)}", _one_color_each(members))
            )
    columns = 4 if len(panels) > 4 else 2
    return draw(_needed(panels, "TD3, TD3-BC or TD3-C"), columns=columns), notes


def figure4(cells: Sequence[Cell]) -> tuple[Figure, list[str]]:
    """TD3 and TD3-BC with a fixed share of offline rows in every batch, beside what the buffer gives."""
    panels, notes = [], []
    for dataset, alike in _pretrained(cells).items():
        for name in ("td3", "td3_bc"):
            fixed = [cell for cell in alike if cell.algorithm == name and cell.offline_ratio is not None]
            if not fixed:
                continue
            spare = cycle(SPARE_COLORS)
            series = [
                Series(cell, _share(cell), RATIO_COLORS.get(cell.offline_ratio or 0.0) or next(spare))
                for cell in fixed
            ]
            uniform = _select(alike, (name,), replay_init="offline")
            series += [Series(cell, _share(cell), "0.25", EMPTY_DASHES) for cell in uniform]
            notes += [] if uniform else [f"{dataset}: no {display_name(name)} with what the buffer gives"]
            panels.append(Panel(f"{dataset_title(alike[0])}\n{display_name(name)}", tuple(series)))
    columns = 4 if len(panels) > 4 else 2
    return draw(_needed(panels, "a fixed offline ratio"), columns=columns), notes


def draw(panels: Sequence[Panel], columns: int = 4, bands: bool = True, seeds: bool = False) -> Figure:
    """The panels, in rows; lines are means over seeds, bands one standard deviation.

    Thin lines are seeds, where they are wanted instead of bands. The dashed line is the mean offline score, the
    dotted one the switch from pretraining to finetuning.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    width = COLUMN_WIDTH if columns == 1 else PAGE_WIDTH
    legend: dict[str, Artist] = {}
    with styled():
        extra = 0.13 * max(panel.title.count("\n") for panel in panels)
        figure = new_figure(width, (PANEL_HEIGHT + extra) * rows + 0.55)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, panel in zip(grid.flat, panels, strict=False):
            axes.set_title(panel.title, fontsize=7 if columns > 2 else 8)
            if panel.series:
                legend |= _draw_panel(axes, panel, bands and not seeds, seeds)
            else:
                axes.set_axis_off()
                axes.text(0.5, 0.5, "no runs", ha="center", transform=axes.transAxes, color="0.4")
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        for row in grid:
            row[0].set_ylabel("score (normalised)")
        figure.supxlabel(STEPS_LABEL, fontsize=8)
        legend = {label: artist for label, artist in legend.items() if artist}
        figure.legend(
            legend.values(),
            legend.keys(),
            loc="outside upper center",
            ncols=4 if width == PAGE_WIDTH else 2,
            frameon=False,
        )
    return figure


def _draw_panel(axes: Axes, panel: Panel, bands: bool, seeds: bool) -> dict[str, Artist]:
    legend: dict[str, Artist] = {}
    pretrained = [series.cell for series in panel.series if not series.cell.first.from_scratch]
    switch = pretrained[0].first.switch if pretrained else 0
    runs = [run for cell in pretrained for run in cell.runs]
    before = list({run.pretraining: run.pretraining_curve for run in runs if run.pretraining}.values())
    if switch:
        if before:
            name = f"{display_name(runs[0].pretraining_algorithm)} pretraining"
            legend[name] = _draw_curves(axes, before, PRETRAINING_COLOR, "solid", bands=False, seeds=seeds)
        legend["switch to online"] = mark_switch(axes, switch)
        offline_scores = {run.pretraining_identity: run.offline_score for run in runs}
        mean = float(np.mean([score for score in offline_scores.values() if score is not None]))
        legend["offline score"] = axes.axhline(
            mean, color="0.3", linewidth=0.8, linestyle=(0, (5, 3)), zorder=1
        )
    for series in panel.series:
        curves = [(switch + run.env_steps, run.scores) for run in series.cell.runs]
        legend[series.label] = _draw_curves(axes, curves, series.color, series.dashes, bands, seeds)
    last = switch + max(int(series.cell.first.env_steps[-1]) for series in panel.series)
    step_axis(axes, switch - min(switch, TAIL * (last - switch)), last)
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


def _one_color_each(cells: Sequence[Cell]) -> tuple[Series, ...]:
    """An algorithm's own colour, or a spare one where it is taken by another setting of it."""
    spare = cycle(SPARE_COLORS)
    used: set[str] = set()
    series = []
    for cell in cells:
        known = cell.algorithm in COLORS and cell.algorithm not in used
        series.append(Series(cell, cell.label, COLORS[cell.algorithm] if known else next(spare)))
        used.add(cell.algorithm)
    return tuple(series)


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


def _share(cell: Cell) -> str:
    ratio = cell.offline_ratio
    name = "what the buffer gives" if ratio is None else f"{100 * ratio:g} % offline rows"
    return f"{name} ({cell.variant})" if cell.variant else name


def _arm_name(replay_init: str, offline_ratio: float | None) -> str:
    if offline_ratio is not None:
        return f"{100 * offline_ratio:g} % of a batch offline"
    return "replay starts with offline data" if replay_init == "offline" else "replay starts empty"
