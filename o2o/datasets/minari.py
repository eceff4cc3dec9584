"""A local Minari dataset of an environment whose observations and actions are boxes, read from its files.

Minari itself need not be installed. Its `mujoco/…` sets are new data, collected on gymnasium's `-v5` tasks: none is a
copy of one of D4RL's, and there is no medium-replay among them.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from o2o.datasets.files import hdf5, inspection
from o2o.datasets.files.hdf5 import StoredRows, raise_any
from o2o.errors import ConfigError

KINDS = {
    "observations": "matrix",
    "actions": "matrix",
    "rewards": "column",
    "terminations": "flags",
    "truncations": "flags",
}


class _Bounds(NamedTuple):
    """Of the actions, as the set's environment takes them."""

    low: np.ndarray
    high: np.ndarray


def file_path(identifier: str) -> Path:
    """Returns the path of the set's file, where Minari keeps it, whether it is there or not."""
    root = os.environ.get("MINARI_DATASETS_PATH") or os.path.expanduser("~/.minari/datasets")
    return Path(root) / identifier / "data" / "main_data.hdf5"


def read(
    identifier: str,
    *,
    observation_size: int | None = None,
    action_size: int | None = None,
    rows: int | None = None,
) -> StoredRows:
    """The set's first `rows` steps (all for None), in D4RL's layout, actions mapped to [-1, 1].

    An episode that does not end in a termination ends in a timeout: its last step has no successor within the rows.

    Args:
        identifier: as Minari names it, such as mujoco/hopper/medium-v0.
        observation_size: the task's; None does not check it.
        action_size: the task's; None does not check it.
        rows: at most the number of steps in the set.

    Raises:
        ConfigError: naming file, key, value and way out, if it is missing or anything about it is not as it should be.
    """
    path = file_path(identifier)
    if not path.is_file():
        raise ConfigError(
            [
                f"dataset.id={identifier}: {path} is missing. Get it with `minari download {identifier}`, or say "
                "where Minari's sets are with MINARI_DATASETS_PATH. (Its mujoco sets are not D4RL's, and "
                "medium-replay does not exist there.)"
            ]
        )
    about = _metadata(path)
    with hdf5.opened(path) as file:
        episodes, steps = [], 0
        for episode in _episodes(path, file):
            episodes.append(episode)
            steps += len(episode["rewards"])
            if rows is not None and steps >= rows:
                break
    if not episodes:
        raise ConfigError([f"{path}: no episode has a step. Make or get the set again."])
    arrays = {key: np.concatenate([episode[key] for episode in episodes]) for key in hdf5.KINDS}
    available, announced = len(arrays["rewards"]), about.get("total_steps")
    if rows is None and announced not in (None, available):
        raise ConfigError(
            [f"{path}: {available} steps, but its metadata say {announced}: damaged. Download it again."]
        )
    sizes = {"observations": observation_size, "actions": action_size}
    raise_any(path, inspection.shape_problems({key: a.shape for key, a in arrays.items()}, sizes, rows))
    bounds = _bounds(path, about, arrays["actions"].shape[1])
    if bounds is not None:
        arrays["actions"] = 2 * (arrays["actions"] - bounds.low) / (bounds.high - bounds.low) - 1
    return hdf5.checked_rows(path, {key: array[:rows] for key, array in arrays.items()})


def _episodes(path: Path, file: Any) -> Iterator[dict[str, np.ndarray]]:
    """The arrays of one episode after the other, under D4RL's names."""
    file_bytes, declared, first_columns = path.stat().st_size, 0, None
    for number in itertools.count():
        name = f"episode_{number}"
        if number == len(file) and number:
            return
        raise_any(path, inspection.group_problems(file, name))
        group = file[name]
        raise_any(path, [f"{name}: {p}" for p in inspection.storage_problems(group, KINDS, file_bytes)])
        declared += sum(group[key].nbytes for key in KINDS)
        raise_any(path, inspection.expansion_problems(declared, file_bytes))
        steps = len(group["rewards"])
        lengths = {key: len(group[key]) - (key == "observations") for key in KINDS}
        if set(lengths.values()) != {steps}:
            raise_any(path, [f"{name}: it should have one more observation than steps, but has {lengths}."])
        columns = [group[key].shape[1] for key in ("observations", "actions")]
        first_columns = first_columns or columns
        if columns != first_columns:
            raise_any(path, [f"{name}: {columns} columns, but the first episode has {first_columns}."])
        arrays = {key: group[key][:steps] for key in KINDS}
        ends = {key: arrays.pop(key).reshape(-1) for key in ("terminations", "truncations")}
        raise_any(path, [f"{name}: {p}" for key in ends for p in inspection.flag_problems(key, ends[key])])
        if any(flags[:-1].any() for flags in ends.values()):
            raise_any(path, [f"{name}: it ends before its last step. Make the set again."])
        if steps:
            timeouts = np.zeros(steps, bool)
            timeouts[-1] = not ends["terminations"][-1]
            yield arrays | {"terminals": ends["terminations"], "timeouts": timeouts}


def _metadata(path: Path) -> dict[str, Any]:
    """Returns the metadata beside the file; older sets have none."""
    place = path.with_name("metadata.json")
    try:
        about = json.loads(place.read_text()) if place.exists() else {}
    except (OSError, ValueError) as error:
        raise ConfigError([f"{place}: damaged ({error}). Download the set again."]) from None
    if not isinstance(about, dict):
        raise ConfigError([f"{place}: damaged (no keys). Download the set again."])
    if about.get("data_format", "hdf5") != "hdf5":
        raise ConfigError(
            [f"{place}: the data format is {about['data_format']}, and only hdf5 is read. Convert the set."]
        )
    for key in ("observation_space", "action_space"):
        kind = _space(place, about, key).get("type", "Box")
        if kind != "Box":
            raise ConfigError([f"{place}: its {key} is a {kind}; only boxes are read. Choose another set."])
    return about


def _space(place: Path, about: dict[str, Any], key: str) -> dict[str, Any]:
    """A space as Minari writes it: JSON within JSON."""
    try:
        space = json.loads(about.get(key, "{}"))
    except (TypeError, ValueError):
        space = None
    if not isinstance(space, dict):
        raise ConfigError([f"{place}: {key} is damaged. Download the set again."])
    return space


def _bounds(path: Path, about: dict[str, Any], action_size: int) -> _Bounds | None:
    """The bounds of its actions, where they are known and are not -1 and 1."""
    place = path.with_name("metadata.json")
    space = _space(place, about, "action_space")
    if "low" not in space or "high" not in space:
        return None
    try:
        bounds = _Bounds(*(np.array(space[key], np.float64).reshape(action_size) for key in ("low", "high")))
    except (TypeError, ValueError):
        raise ConfigError([f"{place}: action_space does not fit the actions. Download it again."]) from None
    if not (np.isfinite(bounds).all() and (bounds.low < bounds.high).all()):
        raise ConfigError([f"{place}: actions without bounds cannot be learned from by a tanh policy."])
    return None if (bounds.low == -1).all() and (bounds.high == 1).all() else bounds
