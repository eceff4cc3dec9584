"""One HDF5 file in D4RL's layout, read with suspicion, and what is made of its rows.

A file may come from anywhere, so nothing in it is trusted: where it points, its shapes, types and sizes are checked
before an array is read, values after. Reading never executes, unpickles, or leaves the file.

Files that this project writes carry a seal: the SHA-256 of everything else in the file, in the block at the file's
head that HDF5 leaves to applications. A sealed file in which a single byte has changed is refused.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from jaxtyping import Bool, Float32

from o2o.datasets.files import inspection
from o2o.datasets.files.digest import sha256
from o2o.errors import ConfigError
from o2o.types import Transition

KINDS = {
    "observations": "matrix",
    "actions": "matrix",
    "rewards": "column",
    "terminals": "flags",
    "timeouts": "flags",
}
DAMAGE = (OSError, RuntimeError, LookupError, TypeError, ValueError)
"""The exceptions that h5py raises for damage, by where it sits."""
HEAD_BYTES = 512  # the smallest user block that HDF5 allows
SEAL = b"o2o set; SHA-256 of the bytes after these 512: "


class StoredRows(NamedTuple):
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
) -> StoredRows:
    """The first `rows` rows of the file (all for None), float64 cast to float32, (N, 1) columns squeezed.

    Args:
        path: an HDF5 file with observations, actions, rewards, terminals and timeouts at its root.
        observation_size: the task's; None does not check it.
        action_size: the task's; None does not check it.
        rows: at most the number of rows in the file.

    Raises:
        ConfigError: naming file, key, value and way out, if anything about the file is not as it should be.
    """
    found = arrays(path, {"observations": observation_size, "actions": action_size}, rows)
    return checked_rows(path, {key: array[:rows] for key, array in found.items()})


def arrays(
    path: Path, sizes: Mapping[str, int | None], rows: int | None, may_lack: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """The arrays of the file by name, as they are stored: the first `rows` rows, but all flags.

    Raises:
        ConfigError: if they cannot be read safely, or their shapes are not those of `sizes` and of each other.
    """
    with opened(path) as file:
        raise_any(path, inspection.outside_problems(file))
        kinds = {
            key: kind
            for key, kind in KINDS.items()
            if key not in may_lack or file.id.links.exists(key.encode())
        }
        raise_any(path, inspection.storage_problems(file, kinds, path.stat().st_size))
        raise_any(path, inspection.shape_problems({key: file[key].shape for key in kinds}, sizes, rows))
        return {key: file[key][:] if kind == "flags" else file[key][:rows] for key, kind in kinds.items()}


def checked_rows(path: Path, arrays: dict[str, np.ndarray]) -> StoredRows:
    """The arrays as rows, if their values can be learned from.

    Raises:
        ConfigError: naming the first value of each array that cannot.
    """
    flags = [key for key, kind in KINDS.items() if kind == "flags"]
    raise_any(path, [p for key in flags for p in inspection.flag_problems(key, arrays[key])])
    with np.errstate(over="ignore"):  # what overflows float32 becomes inf, and is reported as such
        rows = StoredRows(**{key: _as_kind(arrays[key], kind) for key, kind in KINDS.items()})
    raise_any(path, inspection.value_problems(rows._asdict()))
    return rows


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file, open for reading, if its seal, where it has one, is intact.

    Raises:
        ConfigError: if it is not, or if what is read from it turns out to be damaged.
    """
    _check_is_hdf5(path)
    try:
        if (seal := _seal(path)) is not None and seal != sha256(path, HEAD_BYTES).encode():
            raise ConfigError(
                [f"{path}: altered or damaged since it was written. Get or make the file again."]
            )
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except MemoryError:
        raise ConfigError([f"{path}: does not fit into memory. Read fewer rows with dataset.rows."]) from None
    except DAMAGE as error:
        detail = " ".join(str(error).split())[:200]
        raise ConfigError([f"{path}: truncated or damaged ({detail}). Get or make the file again."]) from None


@contextmanager
def create(path: Path) -> Iterator[Any]:
    """A new HDF5 file to write to, which is sealed and appears at `path` when it is complete, and only then.

    Raises:
        OSError: if it cannot be written; nothing is left then.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with h5py.File(partial, "w", userblock_size=HEAD_BYTES) as file:
            yield file
        with partial.open("r+b") as written:
            written.seek(HEAD_BYTES)
            digest = hashlib.file_digest(written, "sha256").hexdigest()
            written.seek(0)
            written.write((SEAL + digest.encode()).ljust(HEAD_BYTES, b"\n"))
            written.flush()
            os.fsync(written.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def is_sealed(path: Path) -> bool:
    """Whether the file carries a seal, which reading it checks.

    Raises:
        OSError: if it cannot be read.
    """
    return _seal(path) is not None


def transitions(rows: StoredRows) -> Transition:
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


def statistics(rows: StoredRows) -> Statistics:
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


def raise_any(path: Path, problems: list[str]) -> None:
    """Raises `ConfigError` with the problems of the file, if there are any."""
    if problems:
        raise ConfigError([f"{path}: {problem}" for problem in problems])


def _take(array: np.ndarray, indices: np.ndarray) -> Any:  # Transition's fields are declared as jax's arrays
    return array.take(indices, axis=0)


def _as_kind(array: np.ndarray, kind: str) -> np.ndarray:
    if kind == "flags":
        return array.reshape(-1).astype(bool)
    flat = array if kind == "matrix" else array.reshape(-1)
    return flat.astype(np.float32, copy=False)


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


def _seal(path: Path) -> bytes | None:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    return head[len(SEAL) :].strip() if head.startswith(SEAL) else None
