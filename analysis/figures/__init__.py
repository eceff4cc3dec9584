"""Figures for a paper, as PNG and PDF. Each is drawn from the cells, and says what it lacks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from analysis.data.cells import Cell, by_dataset, into_cells
from analysis.data.collect import collect
from analysis.data.frames import Runs
from analysis.data.places import Places
from analysis.figures.budgets import budgets
from analysis.figures.causes import why
from analysis.figures.curves import figure1, figure2, figure3, figure4, learning_curves
from analysis.figures.depths import diversity, heat_map
from analysis.figures.style import NothingToDrawError, colors_of, save
from o2o.machine.progress import Progress

Draw = Callable[[Sequence[Cell]], tuple[Figure, list[str]]]

FIGURES: dict[str, tuple[str, Draw]] = {
    "figure1": ("Figure 1: TD3, TD3-BC, and TD3 from scratch", figure1),
    "figure2": ("Figure 2: with and without the offline data in the replay", figure2),
    "figure3": ("Figure 3: TD3, TD3-BC and TD3-C", figure3),
    "figure4": ("Figure 4: a fixed offline ratio", figure4),
    "learning_curves": ("All learning curves", learning_curves),
    "collapse_depth": ("Collapse depth over algorithm and replay setting", heat_map),
    "diversity": ("Collapse depth against the diversity of the data", diversity),
    "budgets": ("Gains and ranks over the online budget", budgets),
}
"""Each figure's name, title, and the function that draws it; `why_<dataset>` come on top, one for every dataset."""


@dataclass(frozen=True)
class Drawn:
    """One figure, or why it could not be drawn."""

    name: str
    title: str
    png: Path | None
    """None where it could not be drawn; `notes` then say why."""
    notes: tuple[str, ...] = ()
    """Remarks on what is missing in it, or must be known of it."""


def plot(
    runs: Runs | Places = "runs",
    figure: str = "learning_curves",
    env_steps: int | None = None,
) -> Figure:
    """Draws one figure of finished finetunings, or of the first env steps of all that have got so far.

    Args:
        runs: what `load_runs` returned, as a whole or a part of it (`Runs.only`), or the directory of runs, or several.
        figure: the name of one of `FIGURES`, or `why_<dataset>`; `why` is enough where there is one dataset.
        env_steps: where to cut every run, which then need not have ended; None for whole runs.

    Raises:
        ValueError: there is no figure of that name, or nothing that it could show.
    """
    places = runs.places if isinstance(runs, Runs) else runs
    finetunings = collect(places, env_steps=env_steps).finetunings
    if isinstance(runs, Runs):
        kept = set(runs.runs.index)
        finetunings = [run for run in finetunings if str(run.path) in kept]
    cells = into_cells(finetunings)
    draws: dict[str, Callable[[], tuple[Figure, list[str]]]] = {
        name: partial(draw, cells) for name, (_, draw) in FIGURES.items()
    }
    reasons = by_dataset(cell for cell in cells if not cell.first.from_scratch)
    colored_why = partial(why, colors=colors_of(cells))
    draws |= {f"why_{_file_name(dataset)}": partial(colored_why, alike) for dataset, alike in reasons.items()}
    if len(reasons) == 1:
        draws["why"] = draws[f"why_{_file_name(*reasons)}"]
    if figure not in draws:
        raise ValueError(f"there is no figure {figure!r} of these runs, but {', '.join(draws)}")
    return draws[figure]()[0]


def draw_all(cells: Sequence[Cell], out: Path) -> list[Drawn]:
    """Draws every figure that the cells allow into `out`, and shows how far it is."""
    figures: list[tuple[str, str, Draw, Sequence[Cell]]] = [
        (name, title, draw, cells) for name, (title, draw) in FIGURES.items()
    ]
    colored_why = partial(why, colors=colors_of(cells))
    for dataset, alike in by_dataset(cell for cell in cells if not cell.first.from_scratch).items():
        figures.append((f"why_{_file_name(dataset)}", f"Why: {dataset}", colored_why, alike))
    for name in (*FIGURES, "why_*"):  # of an earlier report
        for old in (*out.glob(f"{name}.png"), *out.glob(f"{name}.pdf")):
            old.unlink()
    drawn: list[Drawn] = []
    with closing(Progress(["drawing"], len(figures), "figures", stays=False)) as progress:
        for name, title, draw, own in figures:
            drawn.append(_draw(name, title, draw, own, out))
            progress.at(len(drawn), name)
    return drawn


def _draw(name: str, title: str, draw: Draw, cells: Sequence[Cell], out: Path) -> Drawn:
    try:
        figure, notes = draw(cells)
    except NothingToDrawError as reason:
        return Drawn(name, title, None, (str(reason),))
    return Drawn(name, title, save(figure, out / name), tuple(notes))


def _file_name(dataset: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", dataset)
