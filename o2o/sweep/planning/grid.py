"""The cells of a sweep: products of overrides, some of them zipped, less what is excluded; all keys but the seed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from o2o.errors import ConfigError

DEFAULT_SEED = ""
"""Stands among the overrides of the seed for the configuration's own."""

Axes = dict[str, list[str]]
"""Key to its overrides, each a valid word of the command line; one entry where the key is not swept."""


@dataclass(frozen=True)
class Product:
    """A grid: the product of its axes."""

    axes: Axes
    zipped: list[list[str]] = field(default_factory=list)
    """Keys whose values go together, the first with the first, instead of each with each."""
    exclude: list[dict[str, list[str]]] = field(default_factory=list)
    """Combinations to leave out: key to values, any of them."""


@dataclass(frozen=True)
class PlannedCell:
    """Runs that differ only in their seed; `label` is what tells this cell from the plan's others."""

    overrides: list[str]
    seeds: list[str]
    label: str = ""


def union(products: Sequence[Product]) -> list[PlannedCell]:
    """The cells of all products, one product after the other, each in the order of its axes.

    Raises:
        ConfigError: zip or exclude name what is not swept, or lists of unequal length.
    """
    cells = [cell for product in products for cell in _cells(product)]
    shared = set(cells[0].overrides).intersection(*(cell.overrides for cell in cells)) if cells else set()
    return [
        replace(cell, label=" ".join(word for word in cell.overrides if word not in shared)) for cell in cells
    ]


def _cells(product: Product) -> list[PlannedCell]:
    columns, problems = _columns(product)
    known = {key: {_value(word) for word in words} for key, words in product.axes.items()}
    for entry in product.exclude:
        for key, values in entry.items():
            missing = [value for value in values if _canonical(value) not in known.get(key, ())]
            problems += [f"exclude: {key}={value} is not in the grid" for value in missing]
    if problems:
        raise ConfigError(problems)
    seeds = product.axes.get("seed", [DEFAULT_SEED])
    cells: dict[tuple[str, ...], list[str]] = {}
    for row in itertools.product(*columns):
        pairs = dict(itertools.chain.from_iterable(row))
        kept = cells.setdefault(tuple(word for key, word in pairs.items() if key != "seed"), [])
        for seed in [pairs["seed"]] if "seed" in pairs else seeds:
            if not any(_matches(pairs | {"seed": seed}, entry) for entry in product.exclude):
                kept.append(seed)
    return [PlannedCell(list(words), kept) for words, kept in cells.items()]


def count(product: Product) -> int:
    """How many runs the product has before anything is excluded."""
    columns, _ = _columns(product)
    zipped = any("seed" in keys for keys in product.zipped)
    return math.prod(map(len, columns)) * (1 if zipped else len(product.axes.get("seed", [DEFAULT_SEED])))


def shape(product: Product) -> str:
    """The product in words, such as `2 algorithm × 10 seed`; empty if nothing is swept."""
    partners = {key: keys for keys in product.zipped for key in keys}
    factors: dict[str, int] = {}
    for key, words in product.axes.items():
        keys = [other for other in partners.get(key, [key]) if len(product.axes.get(other, ())) > 1]
        if keys:
            name = keys[0] if len(keys) == 1 else f"({', '.join(keys)})"
            factors[name] = max(len(words), factors.get(name, 0))
    return " × ".join(f"{number} {name}" for name, number in factors.items())


def _columns(product: Product) -> tuple[list[list[list[tuple[str, str]]]], list[str]]:
    """One column for each key or zipped keys, each of rows of (key, word); and what is wrong with the zips."""
    problems = []
    partners: dict[str, Sequence[str]] = {}
    for keys in product.zipped:
        problems += [f"zip: {key} is not in the grid" for key in keys if key not in product.axes]
        lengths = {key: len(product.axes[key]) for key in keys if len(product.axes.get(key, ())) > 1}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{length} of {key}" for key, length in lengths.items())
            problems.append(f"zip: what goes together must have equally many values, not {told}")
        partners |= {key: [other for other in keys if other in product.axes] for key in keys}
    columns, taken = [], set()
    for key in product.axes:
        keys = partners.get(key, [key])
        if key in taken or keys == ["seed"]:
            continue
        taken.update(keys)
        length = max(len(product.axes[each]) for each in keys)
        columns.append([[(each, _nth(product.axes[each], i)) for each in keys] for i in range(length)])
    return columns, problems


def _nth(words: Sequence[str], index: int) -> str:
    return words[0] if len(words) == 1 else words[min(index, len(words) - 1)]


def _matches(pairs: Mapping[str, str], entry: Mapping[str, Iterable[str]]) -> bool:
    return all(_value(pairs.get(key, "")) in map(_canonical, values) for key, values in entry.items())


def _value(word: str) -> str:
    return _canonical(word.partition("=")[2])


def _canonical(text: str) -> str:
    """The text of a value that equal values share: `0.90` and `0.9`, `True` and `true`."""
    with suppress(ValueError):
        return f"{int(text)}"
    with suppress(ValueError):
        value = float(text)
        return f"{int(value)}" if value.is_integer() else f"{value}"
    return text.lower() if text.lower() in ("true", "false", "null") else text
