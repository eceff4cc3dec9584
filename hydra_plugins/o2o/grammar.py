"""Hydra's override grammar: the sweeps of a command line, joined with a preset's grids, as lists of plain words."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import ConfigCompositionException

from o2o.sweep.planning.grid import Product

WHOLE = ("launch.", "paths.")
"""Keys that hold for all runs of a plan: their names and places."""


def expand(
    arguments: Sequence[str],
    grids: Sequence[dict[str, Any]],
    options: Callable[[str], list[str]],
    zipped: Sequence[Any] = (),
    exclude: Sequence[dict[str, Any]] = (),
) -> list[Product]:
    """One product for each grid.

    Args:
        arguments: the command line; it wins over a grid's same key.
        grids: of {override: values}, where the values are a list, or one value, or one of Hydra's sweeps as text; `zip`
            and `exclude` among the keys hold for this grid.
        options: of a configuration group, for glob(…).
        zipped: keys, or lists of keys, whose values go together, in all grids.
        exclude: of {override: values}; combinations to leave out of all grids.
    """
    if not isinstance(grids, list) or not all(isinstance(grid, dict) for grid in grids):
        raise ConfigCompositionException(f"hydra.sweeper.grids={grids}: a list of {{override: values}}.")
    return [
        Product(
            axes=_axes([*_grid_words(grid), *arguments], options),
            zipped=[*_key_lists(zipped), *_key_lists(grid.get("zip", ()))],
            exclude=[_excluded(entry) for entry in [*exclude, *_listed(grid.get("exclude", ()))]],
        )
        for grid in grids or [{}]
    ]


def _axes(words: list[str], options: Callable[[str], list[str]]) -> dict[str, list[str]]:
    axes: dict[str, list[str]] = {}
    for override in OverridesParser.create().parse_overrides(words):
        key = override.get_key_element().lstrip("+")
        if key == "launch.seeds":
            raise ConfigCompositionException(
                f"{override.input_line}: this is how a plan tells a job its seeds. Ask for seeds with seed=…"
            )
        if key.startswith(WHOLE) and override.is_sweep_override():
            raise ConfigCompositionException(
                f"{override.input_line}: {key} holds for all runs of a plan, so it cannot be swept."
            )
        if key == "experiment" and override.is_sweep_override():
            raise ConfigCompositionException(
                f"{override.input_line}: an experiment is a grid of its own, so one cannot sweep over several. "
                "Start them one after the other; what they share is run once."
            )
        axes.pop(key, None)  # the later word wins, and stands later
        axes[key] = _choices(override, options)
    return axes


def _choices(override: Override, options: Callable[[str], list[str]]) -> list[str]:
    key = override.get_key_element()
    if not override.is_sweep_override():
        if isinstance(override.value(), list) and options(override.key_or_group):
            raise ConfigCompositionException(
                f"{override.input_line}: a group takes one option; without brackets they are swept."
            )
        return [override.input_line or ""]
    if not override.is_discrete_sweep():
        raise ConfigCompositionException(
            f"{override.input_line}: only lists, range(…), choice(…) and glob(…) can be swept."
        )
    value = override.value()
    if isinstance(value, Glob):
        known = options(override.key_or_group)
        if not (chosen := value.filter(known)):
            raise ConfigCompositionException(
                f"{override.input_line}: none of the options matches: {', '.join(known)}."
            )
        return [f"{key}={option}" for option in chosen]
    try:
        return [f"{key}={item}" for item in override.sweep_string_iterator()]
    except ValueError as error:
        raise ConfigCompositionException(f"{override.input_line}: {error}.") from None


def _grid_words(grid: dict[str, Any]) -> list[str]:
    for key in grid:
        if key == "experiment" or key.startswith(("hydra.", "hydra/", *WHOLE)):
            raise ConfigCompositionException(
                f"hydra.sweeper.grids: {key} cannot be swept. Say it on the command line."
            )
    return [
        f"{key}={','.join(map(_word, values)) if isinstance(values, list) else _word(values)}"
        for key, values in grid.items()
        if key not in ("zip", "exclude")
    ]


def _key_lists(value: Sequence[Any]) -> list[list[str]]:
    """[a, b] as well as [[a, b], [c, d]]."""
    if all(isinstance(item, str) for item in value):
        return [[str(item) for item in value]] if value else []
    return [list(item) for item in value]


def _excluded(entry: dict[str, Any]) -> dict[str, list[str]]:
    return {key: [_word(value) for value in _listed(values)] for key, values in entry.items()}


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _word(value: Any) -> str:
    """A value as the command line has it; text stands as it is."""
    if isinstance(value, list):
        return f"[{','.join(map(_word, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_word(item)}' for key, item in value.items())}}}"
    return value if isinstance(value, str) else json.dumps(value)
