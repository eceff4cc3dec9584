"""Cells, all seeds of one setting: the only runs that may be averaged.

Their configurations agree in everything that can change a result except the seed. Cells of one algorithm that differ in
something else than their replay stay apart, and are named by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from analysis.data.runs import FROZEN, Finetuning
from o2o.runs.directory.science import shortened

# The order of the paper's tables; what it does not know comes after, by name.
ALGORITHMS = ("td3", "td3_c", "td3_bc")
REPLAY_INITS = ("offline", "empty")
SPELLED = {
    FROZEN: "frozen policy", "cal_ql": "Cal-QL", "cql_sac": "CQL, then SAC", "bc_top10": "BC on the best 10 %",
    "td3_scratch": "TD3",
}  # fmt: skip
"""The names that are not written in capitals."""

SHOWN_ELSEWHERE = ("algorithm.name", "replay_init.preload", "offline_ratio.value")
"""The settings that figures and tables show by themselves, which are in no variant."""
MOST_NAMED = 3
"""A variant with more settings than this is cut to those that are enough to tell it from the others."""


@dataclass(frozen=True, eq=False)
class Cell:
    """All seeds of one setting, in the order of the seeds."""

    runs: tuple[Finetuning, ...]
    variant: str = field(default="")
    """The settings that tell it from others of its method, such as `pretrain.updates=2000`, or ""."""

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
    def moving_ratio(self) -> bool:
        """Whether the offline share of a batch changes in the course of the finetuning."""
        return self.first.config["offline_ratio"].get("last") is not None

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
        """The method in the paper's spelling, and the variant where there is one: no other of its dataset."""
        return named(display_name(self.first.method), self.variant)

    @property
    def replay(self) -> str:
        """The replay setting in words: `offline`, `empty`, `25 % offline`."""
        return self.first.replay


def into_cells(finetunings: Iterable[Finetuning]) -> tuple[Cell, ...]:
    """The cells of the runs, in the order of the tables, with their variants."""
    groups: dict[str, list[Finetuning]] = {}
    for run in finetunings:
        groups.setdefault(run.settings_key, []).append(run)
    cells = [Cell(tuple(sorted(runs, key=lambda run: run.seed))) for runs in groups.values()]
    variants: dict[int, str] = {}
    for alike in by_dataset(cells).values():
        pretrained = [c.first for c in alike if c.first.source != "imported" and not c.first.from_scratch]
        lengths = {run.switch for run in pretrained}
        for name in dict.fromkeys(display_name(cell.first.method) for cell in alike):
            own = [cell for cell in alike if display_name(cell.first.method) == name]
            always = ("pretrain.updates",) if len(lengths) > 1 and not own[0].first.from_scratch else ()
            found = variants_of([_told(cell.first.settings) for cell in own], always)
            variants |= {id(cell): variant for cell, variant in zip(own, found, strict=True)}
    named_cells = [Cell(cell.runs, variants[id(cell)]) for cell in cells]
    return tuple(sorted(named_cells, key=_order))


def by_dataset(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """The cells of each dataset."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.dataset, []).append(cell)
    return groups


def pretraining_names(cells: Sequence[Cell]) -> dict[str, str]:
    """The name of every pretraining by its `pretraining_key`: what tells it from the others of its dataset.

    Those of one algorithm are told apart by the methods that go on from them, or else by their settings.
    """
    found: dict[str, str] = {}
    for alike in by_dataset(cell for cell in cells if not cell.first.from_scratch).values():
        lengths = {cell.first.switch for cell in alike if cell.first.source != "imported"}
        for algorithm in dict.fromkeys(cell.first.pretraining_algorithm for cell in alike):
            own: dict[str, Finetuning] = {}
            methods: dict[str, dict[str, None]] = {}
            for run in (c.first for c in alike if c.first.pretraining_algorithm == algorithm):
                own[run.pretraining_key] = run
                methods.setdefault(run.pretraining_key, {})[display_name(run.method)] = None
            settings = [
                {key.removeprefix("pretrain."): value for key, value in run.pretraining_settings.items()}
                for run in own.values()
            ]
            variants = variants_of(settings, ("updates",) if len(lengths) > 1 else ())
            name = f"{display_name(algorithm)} pretraining"
            if len(own) > 1 and len(set().union(*methods.values())) == sum(map(len, methods.values())):
                found |= {key: f"{name} for {' and for '.join(names)}" for key, names in methods.items()}
                continue
            found |= {key: named(name, variant) for key, variant in zip(own, variants, strict=True)}
    return found


def display_name(algorithm: str) -> str:
    """The paper's spelling of an algorithm or a method: td3_bc is TD3-BC."""
    return SPELLED.get(algorithm) or algorithm.upper().replace("_", "-")


def named(name: str, variant: str) -> str:
    """A name, and what tells its bearer from others of that name, where there is anything."""
    return f"{name}, {variant}" if variant else name


def variants_of(settings: Sequence[Mapping[str, Any]], always: Sequence[str] = ()) -> list[str]:
    """For each of some settings that share a name, what tells it from the others: `key=value, …` or "".

    What comes with an algorithm's name is not told beside it, nor how they were evaluated where the rest tells them
    apart. A key that one lacks is not told of it, nor that it is false where all have it: the others' values are told.
    … stands for what was cut. `always` are told whether they differ or not.
    """
    keys = [key for key, values in _differing(settings).items() if len(set(map(word, values))) > 1]
    told = [key for key in keys if not _comes_with_a_name(key, keys, settings)]
    learned = [key for key in told if not key.startswith("evaluation.")]
    if len(told) <= MOST_NAMED and _parts(settings, learned) == len(settings):
        told = learned
    told.sort(key=lambda key: (not key.startswith("pretrain."), keys.index(key)))
    kept = list(dict.fromkeys([*always, *(told if len(told) <= MOST_NAMED else _enough(told, settings))]))
    more = ["…"] if set(told) - set(kept) else []
    said = [[key for key in kept if _needs_saying(key, own, settings)] for own in settings]
    return [
        ", ".join([*(f"{_short(key)}={word(own[key])}" for key in keys), *more])
        for own, keys in zip(settings, said, strict=True)
    ]


def differing(cells: Iterable[Cell]) -> dict[str, list[Any]]:
    """The keys in which the cells differ, with each one's value, in the cells' order."""
    return _differing([cell.first.settings for cell in cells])


def word(value: Any) -> str:
    """A value of a configuration as it is typed; a digest by its beginning."""
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(shortened(value))


def _differing(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    keys = dict.fromkeys(key for own in settings for key in own)
    values = {key: [own.get(key, "absent") for own in settings] for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def _told(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in SHOWN_ELSEWHERE}


def _comes_with_a_name(key: str, keys: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the key, such as an algorithm's hyperparameter, has one value under each value of its `name`."""
    name = f"{key.rpartition('.')[0]}.name"
    if key == name or name not in keys:
        return False
    values: dict[str, set[str]] = {}
    for own in settings:
        values.setdefault(word(own.get(name)), set()).add(word(own.get(key, "absent")))
    return all(len(found) == 1 for found in values.values())


def _needs_saying(key: str, own: Mapping[str, Any], settings: Sequence[Mapping[str, Any]]) -> bool:
    """Whether it has the key, and another value than false, which goes without saying where all have the key."""
    return key in own and not (own[key] is False and all(key in other for other in settings))


def _enough(keys: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The first of the keys by which all settings differ that differ by all of them."""
    kept: list[str] = []
    for key in keys:
        if _parts(settings, [*kept, key]) > _parts(settings, kept):
            kept.append(key)
    return kept


def _parts(settings: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> int:
    """How many of the settings the keys tell apart."""
    return len({tuple(word(own.get(key, "absent")) for key in keys) for own in settings})


def _short(key: str) -> str:
    """A key as it is typed, but for what is said of the algorithm that is named before it."""
    return re.sub(r"^algorithm\.|\.name$", "", key)


def _order(cell: Cell) -> tuple[Any, ...]:
    def rank(name: str, known: tuple[str, ...]) -> tuple[int, str]:
        return (known.index(name) if name in known else len(known), name)

    ratio = cell.offline_ratio
    return (
        cell.dataset,
        rank(cell.replay_init, REPLAY_INITS),
        -1.0 if ratio is None else ratio,
        rank(cell.algorithm, ALGORITHMS),
        [(int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", cell.variant)],
        cell.label,
        cell.first.path,
    )
