"""The look of every figure: drawn at the width at which it is printed, in colours safe for the colour-blind."""

from __future__ import annotations

import colorsys
import io
import itertools
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, LogFormatterSciNotation, MaxNLocator

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
    "text.parse_math": False,  # names may have dollars
}

# Okabe and Ito's palette, and after it Tol's; an algorithm has the same colour in every figure.
COLORS = {
    "td3": "#D55E00", "td3_bc": "#0072B2", "td3_c": "#009E73", "sac": "#CC79A7", "iql": "#E69F00", "awac": "#56B4E9",
    "bc": "#999933", "cql": "#882255", "cal_ql": "#6A5ACD", "rlpd": "#44AA99",
    "wsrl": "#AA4499", "frozen": "#8C6239",
}  # fmt: skip
SPARE_COLORS = (
    "#E69F00", "#56B4E9", "#CC79A7", "#882255", "#999933", "#6A5ACD", "#DDCC77", "#117733", "#44AA99", "#AA4499",
    "#661100",
)  # fmt: skip
PRETRAINING_COLOR = "0.45"
PAGE_WIDTH, COLUMN_WIDTH, PANEL_HEIGHT = 7.0, 3.5, 1.75  # inches
LEARNER_STEPS = "learner steps (thousands): pretraining updates + env steps"
ENV_STEPS = "env steps since the switch (thousands); left of it, pretraining updates"
SUPERSCRIPTS = str.maketrans("-−0123456789", "⁻⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MARGINS = 0.9
"""The inches beside panels that hold no title: labels of the axes, and some air."""
LETTER, HANDLE, LEGEND_ROW = 4.5, 34.0, 0.17
"""The width of a legend's letter and of a line beside it, in points, and the height of its row, in inches."""


class NothingToDrawError(ValueError):
    """There is nothing that the figure could show; the text says what is missing."""


@contextmanager
def styled(style: Mapping[Any, Any] = STYLE) -> Iterator[None]:
    """Draws in a style on top of matplotlib's own defaults, whatever the user's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(style)
        yield


class Picture(Figure):
    """A figure that a notebook shows as it would be saved."""

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        with styled():
            self.savefig(stream, format="png")
        return stream.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches, in the style."""
    return Picture(figsize=(width, height), layout=ConstrainedLayoutEngine(wspace=0.04, hspace=0.04))


def add_legend(figure: Figure, entries: Mapping[str, Artist], title: str | None = None) -> None:
    """Adds the legend above all panels, in as many columns as its labels allow, and makes the figure higher for it."""
    width = 72 * figure.get_figwidth()
    labels = [textwrap.fill(label, int((width / (1 + (width > 300)) - HANDLE) / LETTER)) for label in entries]
    columns = next(count for count in (5, 4, 3, 2, 1) if count == 1 or _columns_width(labels, count) <= width)
    rows = max(sum(1 + label.count("\n") for label in part) for part in _in_columns(labels, columns))
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW * (rows + (title is not None)))
    figure.legend(
        entries.values(), labels, loc="outside upper center", ncols=columns, frameon=False, title=title
    )


def add_steps_label(figure: Figure, label: str, size: float = 8) -> None:
    """Writes below all panels what their x axes count, in as many lines as it takes."""
    letters = int(72 * figure.get_figwidth() / (LETTER * size / 8))
    figure.supxlabel(textwrap.fill(label, letters), fontsize=size)


def fitted_title(title: str, width: float, size: float = 8) -> str:
    """A panel's title with no line longer than so many inches; names are broken at their hyphens."""
    lines = []
    for line in title.split("\n"):
        letters = len(line)
        while letters > 10 and any(_inches(part, size) > width for part in textwrap.wrap(line, letters)):
            letters -= 1
        lines += textwrap.wrap(line, letters)
    return "\n".join(lines)


def _inches(text: str, size: float) -> float:
    return TextPath((0, 0), text, size=size).get_extents().width / 72


def _in_columns(labels: Sequence[str], count: int) -> list[list[str]]:
    """The labels as matplotlib fills columns with them."""
    parts = np.array_split(np.arange(len(labels)), count)
    return [[labels[int(i)] for i in part] for part in parts]


def _columns_width(labels: Sequence[str], count: int) -> float:
    lines = [[line for label in part for line in label.split("\n")] for part in _in_columns(labels, count)]
    return sum(LETTER * max(map(len, part), default=0) + HANDLE for part in lines)


def palette(wishes: Mapping[str, str | None]) -> dict[str, str]:
    """A colour for each label that no other has: the one it wishes, if it is the first who does, else a spare one."""
    wished = {color for color in wishes.values() if color}
    spare = itertools.chain((color for color in SPARE_COLORS if color not in wished), _more_colors())
    found: dict[str, str] = {}
    for label, color in wishes.items():
        found[label] = next(spare) if color is None or color in found.values() else color
    return found


def colors_of(cells: Iterable[Cell]) -> dict[str, str]:
    """The colour of every label among the cells."""
    return palette({c.label: COLORS.get(c.first.method) or COLORS.get(c.algorithm) for c in cells})


def _more_colors() -> Iterator[str]:
    """Colours without end, neighbours far apart: hues at multiples of the golden ratio."""
    for number in itertools.count():
        yield to_hex(colorsys.hls_to_rgb(number * 0.618034 % 1, 0.35 + 0.1 * (number % 3), 0.6))


@dataclass(frozen=True)
class Steps:
    """The x axis that all panels of a figure share."""

    switch: int
    """The place of the switch on it."""
    label: str


def steps_of(cells: Iterable[Cell]) -> Steps:
    """The paper's learner steps where all pretrainings have one length and an env step one update, else env steps.

    A length of 1 is that of imported curves whose own is not known.
    """
    runs = [cell.first for cell in cells]
    lengths = {run.switch for run in runs if not run.from_scratch}
    if len(lengths) == 1 and lengths != {1} and all(run.updates_per_step == 1 for run in runs):
        return Steps(lengths.pop(), LEARNER_STEPS)
    return Steps(0, ENV_STEPS if lengths else "env steps (thousands)")


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


def shared_caveat(cells: Iterable[Cell]) -> str:
    """Returns the caveat of all cells; of some only, says so."""
    found = {caveat(cell.first) for cell in cells if not cell.first.without_data}
    told = " and ".join(sorted(filter(None, found)))
    return f"in part {told}" if told and len(found) > 1 else told


def dataset_title(cells: Sequence[Cell]) -> str:
    """The name of the cells' dataset, with the caveat on a line of its own."""
    found = shared_caveat(cells)
    return f"{cells[0].dataset}\n({found})" if found else cells[0].dataset


def line_label(cell: Cell, cells: Iterable[Cell]) -> str:
    """The cell's label, with its caveat where that of the other cells is another one."""
    own = caveat(cell.first)
    return f"{cell.label} ({own})" if own and own != shared_caveat(cells) else cell.label


def step_axis(axes: Axes, first: float, last: float, intervals: int = 5) -> None:
    """Steps, labelled in thousands; at most so many intervals have room for their labels."""
    axes.set_xlim(first, last)
    axes.xaxis.set_major_locator(MaxNLocator(intervals, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step / 1000:g}".replace("-", "−")))


class Powers(LogFormatterSciNotation):
    """The labels of a logarithmic axis without mathematical text, which `STYLE` turns off."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Returns `2×10⁻³`, or nothing where there is no room."""
        text = (
            super()
            .__call__(x, pos)
            .removeprefix("$\\mathdefault{")
            .removesuffix("}$")
            .replace("\\times", "×")
        )
        return re.sub(r"\^\{(.*)\}", lambda found: found[1].translate(SUPERSCRIPTS), text)


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
