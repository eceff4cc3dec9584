"""Cells, all seeds of one setting: the only runs that may be averaged.

Their configurations agree in everything that can change a result except the seed. Cells that look the same in a figure
(dataset, algorithm, replay) but differ in something else stay apart, and say in what.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from analysis.data.runs import FROZEN, Finetuning
from o2o.runs.directory.science import shortened

# The order of the paper's tables; what it does not know comes after, by name.
ALGORITHMS = ("td3", "td3_c", "td3_bc")
REPLAY_INITS = ("offline", "empty")


@dataclass(frozen=True, eq=False)
class Cell:
    """All seeds of one setting, in the order of the seeds."""

    runs: tuple[Finetuning, ...]
    variant: str = field(default="")
    """The settings that tell it from cells that look the same, such as `constraint_epsilon=0.0001`, or ""."""

    @property
    def first(self) -> Finetuning:
        """Any one of its runs: they differ in the seed alone."""
        return self.runs[0]

    @property
    def dataset(self) -> str:
        """The dataset's name, or the task's where training was from scratch."""
        return self.first.dataset

    @property
    def algorithm(self) -> str:
        """The finetuning algorithm's name."""
        return self.first.algorithm

    @property
    def replay_init(self) -> str:
        """The content that the online replay starts with."""
        return self.first.replay_init

    @property
    def offline_ratio(self) -> float | None:
        """The offline share of every batch; None for whatever the buffer gives."""
        return self.first.offline_ratio

    @property
    def look(self) -> tuple[str, str, str, float | None]:
        """The look of a cell in figures and tables: dataset, algorithm, replay initialisation, offline ratio."""
        return self.dataset, self.algorithm, self.replay_init, self.offline_ratio

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that are there."""
        return tuple(run.seed for run in self.runs)

    @property
    def label(self) -> str:
        """The algorithm in the paper's spelling, and the variant in brackets where there is one."""
        name = display_name(self.algorithm)
        return f"{name} ({self.variant})" if self.variant else name

    @property
    def replay(self) -> str:
        """The replay setting in words: `offline`, `empty`, `25 % offline`."""
        ratio = self.offline_ratio
        return self.replay_init if ratio is None else f"{100 * ratio:g} % offline"


def into_cells(finetunings: Iterable[Finetuning]) -> tuple[Cell, ...]:
    """The cells of the runs, in the order of the tables, with their variants."""
    groups: dict[str, list[Finetuning]] = {}
    for run in finetunings:
        groups.setdefault(run.settings_key, []).append(run)
    cells = [Cell(tuple(sorted(runs, key=lambda run: run.seed))) for runs in groups.values()]
    looks: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        looks.setdefault(cell.look, []).append(cell)
    named = [Cell(cell.runs, _variant(cell, looks[cell.look])) for cell in cells]
    return tuple(sorted(named, key=_order))


def by_dataset(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """The cells of each dataset."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.dataset, []).append(cell)
    return groups


def display_name(algorithm: str) -> str:
    """The paper's spelling of an algorithm: td3_bc is TD3-BC."""
    if algorithm == FROZEN:
        return "frozen policy"
    return algorithm.upper().replace("_", "-")


def differing(cells: Iterable[Cell]) -> dict[str, list[Any]]:
    """The keys in which the cells differ, with each one's value, in the cells' order."""
    settings = [cell.first.settings for cell in cells]
    keys = dict.fromkeys(key for own in settings for key in own)
    values = {key: [own.get(key, "absent") for own in settings] for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def _variant(cell: Cell, alike: list[Cell]) -> str:
    differ = differing([cell, *(other for other in alike if other is not cell)])
    if len(differ) > 3:  # too long for a legend; the notes have all of them
        return cell.first.setting.name.rsplit("-", 1)[-1]
    return ", ".join(f"{key.rsplit('.', 1)[-1]}={word(found[0])}" for key, found in differ.items())


def word(value: Any) -> str:
    """A value of a configuration as it is typed; a digest by its beginning."""
    return "null" if value is None else str(shortened(value))


def _order(cell: Cell) -> tuple[Any, ...]:
    def rank(name: str, known: tuple[str, ...]) -> tuple[int, str]:
        return (known.index(name) if name in known else len(known), name)

    ratio = cell.offline_ratio
    return (
        cell.dataset,
        rank(cell.replay_init, REPLAY_INITS),
        -1.0 if ratio is None else ratio,
        rank(cell.algorithm, ALGORITHMS),
        cell.variant,
        cell.first.path,
    )
