"""The look of every figure: drawn at the width at which it is printed, in colours safe for the colour-blind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

from analysis.data.cells import Cell
from analysis.data.runs import Finetuning

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
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
}

# Okabe and Ito's palette; an algorithm has the same colour in every figure.
COLORS = {"td3": "#D55E00", "td3_bc": "#0072B2", "td3_c": "#009E73", "sac": "#CC79A7", "frozen": "#7F7F7F"}
SPARE_COLORS = ("#E69F00", "#56B4E9", "#CC79A7", "#000000")
PRETRAINING_COLOR = "0.45"
PAGE_WIDTH, COLUMN_WIDTH, PANEL_HEIGHT = 7.0, 3.5, 1.75  # inches
STEPS_LABEL = "learner steps (thousands): pretraining updates + env steps"


class NothingToDrawError(Exception):
    """There is nothing that the figure could show; the text says what is missing."""


@contextmanager
def styled(style: Mapping[Any, Any] = STYLE) -> Iterator[None]:
    """Draws in a style on top of matplotlib's own defaults, whatever the user's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(style)
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches, in the style."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(wspace=0.04, hspace=0.04))


def save(figure: Figure, stem: Path) -> Path:
    """Writes the figure as PNG and PDF, the same bytes for the same figure, and returns the PNG's path."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    png = stem.with_name(f"{stem.name}.png")
    with styled():
        figure.savefig(png)
        figure.set_layout_engine("none")  # laid out once, not once a format
        figure.savefig(stem.with_name(f"{stem.name}.pdf"), metadata={"CreationDate": None})
    return png


def caveat(run: Finetuning) -> str:
    """Returns what a reader must know of the data wherever the dataset is named; "" for D4RL's own."""
    if run.regenerated:
        return "regenerated data, not D4RL's"
    return "imported curves" if run.source == "imported" else ""


def dataset_title(cell: Cell) -> str:
    """The dataset's name, with the caveat on a line of its own."""
    found = caveat(cell.first)
    return f"{cell.dataset}\n({found})" if found else cell.dataset


def step_axis(axes: Axes, first: float, last: float) -> None:
    """Learner steps, labelled in thousands."""
    axes.set_xlim(first, last)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step / 1000:g}"))


def mark_switch(axes: Axes, switch: int) -> Any:
    """A dotted line where finetuning starts."""
    return axes.axvline(switch, color="0.3", linewidth=0.8, linestyle=":", zorder=1)


def over_seeds(
    curves: list[tuple[Int[np.ndarray, " E"], Float[np.ndarray, " E"]]],
) -> tuple[Int[np.ndarray, " E"], Float[np.ndarray, "S E"]]:
    """The steps at which all seeds were evaluated, and every seed's values there."""
    first = curves[0][0]
    if all(np.array_equal(steps, first) for steps, _ in curves):
        return first, np.stack([values for _, values in curves])
    shared = np.array(sorted(set.intersection(*(set(steps.tolist()) for steps, _ in curves))), np.int64)
    return shared, np.stack([values[np.isin(steps, shared)] for steps, values in curves])
