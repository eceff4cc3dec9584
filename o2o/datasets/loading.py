"""Offline data: D4RL's own files, sets that this project generates, the user's HDF5 files, and Minari's sets.

`dataset.source` alone decides which kind is read. There is no way from one to another: a D4RL file that is missing
is an error, never a reason to generate something like it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from o2o.config.schema import Dataset
from o2o.datasets import columns, d4rl, minari, mix, own_file
from o2o.datasets.files import hdf5
from o2o.datasets.files.hdf5 import StoredRows
from o2o.datasets.regenerated import recipes
from o2o.envs import episodes
from o2o.envs.scores import REFERENCE_RETURNS
from o2o.errors import ConfigError
from o2o.types import Facts, Transition

ANT_OBSERVED = 27
"""Of 111 entries; the contact forces after them are zero in D4RL's data (its issue #143) and in ours."""


def load(
    dataset: Dataset,
    data_directory: Path,
    observation_size: int | None = None,
    action_size: int | None = None,
    mirrors: str | None = None,
) -> Transition:
    """The transitions of a set as numpy arrays of N rows; what is not there is downloaded, or generated, first.

    Raises:
        ConfigError: if the set is missing, or anything about its file is not as it should be.
    """
    found = hdf5.transitions(load_rows(dataset, data_directory, observation_size, action_size, mirrors))
    return found if dataset.top_fraction is None else columns.best(found, dataset.top_fraction)


def load_rows(
    dataset: Dataset,
    data_directory: Path,
    observation_size: int | None = None,
    action_size: int | None = None,
    mirrors: str | None = None,
) -> StoredRows:
    """The rows of a set's file, as `load`, from which statistics and transitions are made."""
    if dataset.mix:
        sizes = observation_size, action_size
        own = (load_rows(part, data_directory, *sizes, mirrors) for part, _ in mix.parts(dataset))
        return mix.mixed(dataset, own)
    wanted: Any = {
        "observation_size": observation_size,
        "action_size": action_size,
        "rows": dataset.rows,
    }
    if dataset.source == "minari":
        return minari.read(str(dataset.id), **wanted)
    path = _obtain(dataset, data_directory, mirrors)
    if dataset.source == "file":
        limits = {"episode_length": dataset.episode_length, "time_limit": time_limit(dataset.task)}
        return own_file.read(path, **wanted, **limits)
    rows = hdf5.read(path, **wanted)
    if dataset.made_here:
        recipes.verify(path, dataset)
    if dataset.task == "ant" and rows.observations[:, ANT_OBSERVED:].any():
        raise ConfigError(
            [
                f"{path}: observations[:, {ANT_OBSERVED}:] are not all zero, so it has contact forces, which "
                "neither D4RL's ant sets nor this project's task have. Use dataset=file for other data."
            ]
        )
    return rows


def load_for_task(dataset: Dataset, data_directory: Path) -> StoredRows:
    """The rows of a set, as `load_rows`, if their sizes are the task's, which are looked up where they may differ.

    Raises:
        ConfigError: also if there is no such task.
    """
    sizes = None, None
    if dataset.source in ("file", "minari"):
        from o2o.envs.tasks import find_task, task_sizes  # loads the simulator

        try:
            sizes = task_sizes(find_task(dataset.task))
        except LookupError as error:
            raise ConfigError([f"dataset.{error}"]) from None
    return load_rows(dataset, data_directory, *sizes)


def time_limit(task: str) -> int | None:
    """After how many steps a task cuts an episode; None where it does not, or there is no such task."""
    if task in REFERENCE_RETURNS:
        return episodes.DEFAULT_TIME_LIMIT
    from o2o.envs.tasks import find_task, own_time_limit  # loads the simulator

    try:
        return own_time_limit(find_task(task))
    except LookupError:
        return None


def facts(transitions: Transition) -> Facts:
    """Returns the constants of a set that methods need."""
    returns, _ = columns.trajectories(transitions)
    return Facts(float(returns.min()), float(returns.max()))


def locate(dataset: Dataset, data_directory: Path) -> Path | None:
    """The set's file if it is there, else None; of a mixture, that of its first part, if all are there.

    It is neither generated nor checked.

    Raises:
        ConfigError: if there can be no such set.
    """
    if dataset.mix:
        paths = [locate(part, data_directory) for part in mix.stored(dataset)]
        return paths[0] if all(paths) else None
    match dataset.source:
        case "d4rl":
            path = d4rl.file_path(d4rl.set_name(dataset), data_directory)
        case "regenerated" | "snapshots" | "retrain":
            path = recipes.file_path(dataset, data_directory)
        case "minari":
            path = minari.file_path(str(dataset.id))
        case _:
            path = _own_file(dataset)
    return path if path.is_file() else None


def _obtain(dataset: Dataset, data_directory: Path, mirrors: str | None) -> Path:
    match dataset.source:
        case "d4rl":
            return d4rl.obtain(dataset, data_directory, mirrors)
        case "regenerated" | "snapshots" | "retrain":
            return recipes.obtain(dataset, data_directory)
        case _:
            return _own_file(dataset)


def _own_file(dataset: Dataset) -> Path:
    if dataset.path is None:
        raise ConfigError(
            ["dataset.path=null: dataset=file needs the path of an HDF5 file in D4RL's layout."]
        )
    return dataset.path
