"""One HDF5 file in D4RL's layout, read with suspicion, and what is made of its rows.

A file may come from anywhere, so nothing in it is trusted: shapes, types and sizes are checked before an array
is read, values after. Reading never executes, unpickles, or leaves the file.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from h5py import h5l, h5z  # pyright: ignore[reportAttributeAccessIssue]  # compiled, no stubs
from jaxtyping import Bool, Float32

from o2o.config import ConfigError
from o2o.types import Transition

RANKS = {"observations": 2, "actions": 2, "rewards": 1, "terminals": 1, "timeouts": 1}
FLAGS = ("terminals", "timeouts")
FILTERS = {h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32, h5z.FILTER_LZF}
COMPRESSION_LIMIT = 1100  # deflate cannot do better than 1032 to 1
CHUNK_LIMIT = 2**28  # bytes; D4RL's chunks are below 1 MiB
ACTION_TOLERANCE = 1e-4


class Rows(NamedTuple):
    """The rows of a file, in file order: episodes one after the other, the last perhaps cut off."""

    observations: Float32[np.ndarray, "N O"]
    actions: Float32[np.ndarray, "N A"]
    rewards: Float32[np.ndarray, " N"]
    terminals: Bool[np.ndarray, " N"]
    timeouts: Bool[np.ndarray, " N"]


@dataclass(frozen=True)
class Statistics:
    """Sizes of a set, and undiscounted returns over its complete episodes (NaN without any)."""

    rows: int
    complete_rows: int
    episodes: int
    return_mean: float
    return_std: float
    return_min: float
    return_max: float
    terminal_share: float
    timeout_share: float


def read(
    path: Path,
    *,
    observation_size: int | None = None,
    action_size: int | None = None,
    rows: int | None = None,
) -> Rows:
    """The first `rows` rows of the file (all for None), float64 cast to float32, (N, 1) columns squeezed.

    Args:
        path: an HDF5 file with observations, actions, rewards, terminals and timeouts at its root.
        observation_size: the task's; None does not check it.
        action_size: the task's; None does not check it.
        rows: at most the number of rows in the file.

    Raises:
        ConfigError: naming file, key, value and way out, if anything about the file is not as it should be.
    """
    _check_is_hdf5(path)
    try:
        with h5py.File(path, "r", locking=False) as opened:
            file: Any = opened
            _raise_any(path, [p for key in RANKS for p in _storage_problems(file, key, path.stat().st_size)])
            sizes = {"observations": observation_size, "actions": action_size}
            _raise_any(path, _shape_problems({key: file[key].shape for key in RANKS}, sizes, rows))
            arrays = {key: file[key][:rows] for key in RANKS}
    except (
        OSError,
        RuntimeError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:  # what h5py raises for damage, by where it sits
        detail = " ".join(str(error).split())[:200]
        raise ConfigError([f"{path}: truncated or damaged ({detail}). Get or make the file again."]) from None
    _raise_any(path, [p for key in FLAGS for p in _flag_problems(key, arrays[key])])
    with np.errstate(over="ignore"):  # what overflows float32 becomes inf, and is reported as such
        result = Rows(
            **{
                key: array.reshape(-1).astype(bool)
                if key in FLAGS
                else array.reshape(array.shape[:rank]).astype(np.float32, copy=False)
                for (key, rank), array in zip(RANKS.items(), arrays.values(), strict=True)
            }
        )
    _raise_any(path, _value_problems(result))
    return result


def transitions(rows: Rows) -> Transition:
    """D4RL's q-learning transitions, as numpy arrays.

    The successor of row i is row i + 1. The last row and the rows that end in a timeout have no successor and are
    left out. Terminal rows stay: theirs is the next episode's first observation, which no target uses.
    """
    kept = np.flatnonzero(~rows.timeouts[:-1])
    return Transition(
        observation=_take(rows.observations, kept),
        action=_take(rows.actions, kept),
        reward=_take(rows.rewards, kept),
        terminated=_take(rows.terminals, kept),
        next_observation=_take(rows.observations, kept + 1),
    )


def statistics(rows: Rows) -> Statistics:
    """Sizes and returns; an episode is complete if a terminal or a timeout ends it."""
    ends = np.flatnonzero(rows.terminals | rows.timeouts) + 1
    returns = np.full(1, np.nan)
    if ends.size:
        starts = np.concatenate([[0], ends[:-1]])
        returns = np.add.reduceat(rows.rewards[: ends[-1]].astype(np.float64), starts)
    return Statistics(
        rows=len(rows.rewards),
        complete_rows=int(ends[-1]) if ends.size else 0,
        episodes=len(ends),
        return_mean=float(returns.mean()),
        return_std=float(returns.std()),
        return_min=float(returns.min()),
        return_max=float(returns.max()),
        terminal_share=float(rows.terminals.mean()),
        timeout_share=float(rows.timeouts.mean()),
    )


def _take(array: np.ndarray, indices: np.ndarray) -> Any:  # Transition's fields are declared as jax's arrays
    return array.take(indices, axis=0)


def _raise_any(path: Path, problems: list[str]) -> None:
    if problems:
        raise ConfigError([f"{path}: {problem}" for problem in problems])


def _check_is_hdf5(path: Path) -> None:
    if not path.exists():
        raise ConfigError(
            [f"{path}: no such file. Check the path (dataset.path, or the data directory O2O_DATA)."]
        )
    if not path.is_file():
        raise ConfigError([f"{path}: not a file. Name the HDF5 file itself."])
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigError([f"{path}: cannot be opened ({error.strerror}). Check its permissions."]) from None
    if not h5py.is_hdf5(path):
        raise ConfigError([f"{path}: not an HDF5 file, or its head is damaged. Get or make the file again."])


def _storage_problems(file: Any, key: str, file_bytes: int) -> list[str]:
    """What forbids reading the array `key` at all; at most one problem."""
    links = file.id.links  # h5py's own look-ups would follow a link before telling what it is
    if not links.exists(key.encode()):
        present = ", ".join(ascii(name) for name in itertools.islice(file, 12)) or "nothing"
        return [
            f"no {key!r} (at its root: {present}). A set in D4RL's layout has all of: {', '.join(RANKS)}."
        ]
    if links.get_info(key.encode()).type != h5l.TYPE_HARD:
        return [f"{key!r} is a link, which is not followed. Store the array itself (h5repack, or copy it)."]
    array = file[key]
    if not isinstance(array, h5py.Dataset):
        return [
            f"{key!r} is a {type(array).__name__.lower()}, not an array. Store the array under this name."
        ]
    layout = array.id.get_create_plist()
    if array.is_virtual or layout.get_external_count():
        return [
            f"{key!r} keeps its values in other files, which are not read. Store the values in this file."
        ]
    if not _readable_dtype(key, array.dtype):
        wanted = "bool" if key in FLAGS else "float32 (or float64)"
        return [f"{key!r} has dtype {array.dtype}; it must be {wanted}. Cast it."]
    if not (
        len(array.shape or ()) == RANKS[key] or (RANKS[key] == 1 and array.shape and array.shape[1:] == (1,))
    ):
        wanted = "(rows, size)" if RANKS[key] == 2 else "(rows,)"
        return [f"{key!r} has shape {array.shape}; it must be {wanted}. Reshape it."]
    filters = {layout.get_filter(i)[0] for i in range(layout.get_nfilters())}
    if filters - FILTERS:
        return [
            f"{key!r} is packed with HDF5 filter {min(filters - FILTERS)}. Repack it with gzip (h5repack)."
        ]
    stored = min(array.id.get_storage_size(), file_bytes)
    if array.nbytes > stored * (COMPRESSION_LIMIT if filters else 1):
        return [
            f"{key!r} declares shape {array.shape}, {array.nbytes} bytes, but {stored} bytes are stored: "
            "its values were never written or the file is damaged. Make the file again."
        ]
    if array.chunks and math.prod(array.chunks) * array.dtype.itemsize > CHUNK_LIMIT:
        return [
            f"{key!r} has chunks of shape {array.chunks}, above {CHUNK_LIMIT} bytes. Repack it (h5repack)."
        ]
    return []


def _readable_dtype(key: str, dtype: np.dtype) -> bool:
    if key in FLAGS:
        return dtype.kind in "biu" or (dtype.kind == "f" and dtype.itemsize in (4, 8))
    return dtype.kind == "f" and dtype.itemsize in (4, 8)


def _shape_problems(
    shapes: dict[str, tuple[int, ...]], sizes: dict[str, int | None], rows: int | None
) -> list[str]:
    lengths = {key: shape[0] for key, shape in shapes.items()}
    available = lengths["observations"]
    problems = []
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{key} {length}" for key, length in lengths.items())
        problems.append(f"the arrays disagree about the number of rows ({listed}). Give all the same length.")
    elif rows is not None and not 0 < rows <= available:
        problems.append(
            f"dataset.rows={rows}, but it has {available} rows. Ask for 1 to {available}, or null for all."
        )
    for key, size in sizes.items():
        actual = shapes[key][1]
        if actual < 1 or (size is not None and actual != size):
            wanted = "at least 1" if size is None else f"{size}, the task's"
            problems.append(
                f"{key!r} has {actual} columns instead of {wanted}. Check dataset.task and the file."
            )
    return problems


def _flag_problems(key: str, flags: np.ndarray) -> list[str]:
    wrong = (flags != 0) & (flags != 1)
    if not wrong.any():
        return []
    row = int(np.flatnonzero(wrong)[0])
    return [
        f"{key!r} is {flags.reshape(-1)[row]} in row {row}; it must be true or false (1 or 0). Correct it."
    ]


def _value_problems(rows: Rows) -> list[str]:
    problems = []
    for key in ("observations", "actions", "rewards"):
        array = getattr(rows, key)
        finite = np.isfinite(array)
        if not finite.all():
            where = tuple(int(i) for i in np.argwhere(~finite)[0])
            problems.append(
                f"{key}[{', '.join(map(str, where))}] is {array[where]} as float32, the first of "
                f"{finite.size - np.count_nonzero(finite)} such values. Remove the episodes they are in."
            )
    largest = np.abs(rows.actions).max(initial=0)
    if largest > 1 + ACTION_TOLERANCE and np.isfinite(largest):
        problems.append(
            f"'actions' reach {largest:g}; policies act in [-1, 1]. Rescale them from the task's own bounds."
        )
    if rows.timeouts[:-1].all():
        problems.append(
            f"no transition is left of {len(rows.timeouts)} rows: the last row and rows with a timeout "
            "have no successor. Check 'timeouts'."
        )
    return problems
