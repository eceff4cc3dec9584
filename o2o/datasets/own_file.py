"""The user's own HDF5 file: what it says of time, refused where it cannot be so.

Transitions are made of rows that follow each other, by flags that nobody can check from outside. Of D4RL's files and
of those that this project writes the bytes are known. Of any other it is asked here whether its flags leave an end to
episodes and a terminal to learn from, and, where it stores successors, whether its rows are in the order of time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Bool

from o2o.datasets.files import hdf5, inspection
from o2o.datasets.files.hdf5 import StoredRows, raise_any

SUCCESSORS = {"next_observations": "matrix"}
UNMARKED_SHARE = 0.01  # of the rows that may have another successor than the next row
TOLERANCE = 0.01  # in standard deviations of an entry of the observation; another row's is about one away
BLOCK = 2**16  # rows of successors that are in memory at a time


def read(
    path: Path,
    *,
    observation_size: int | None = None,
    action_size: int | None = None,
    rows: int | None = None,
    episode_length: int | None = None,
    time_limit: int | None = None,
) -> StoredRows:
    """Returns what `hdf5.read` does, if the flags and the order of the rows can be what they should be.

    Args:
        path: the file; with `episode_length` it may lack timeouts.
        observation_size: the task's; None does not check it.
        action_size: the task's; None does not check it.
        rows: at most the number of rows in the file.
        episode_length: after how many rows an episode was cut, unless a terminal had ended it.
        time_limit: after how many steps the task cuts an episode; None where it is not known to.

    Raises:
        ConfigError: naming file, key, value and way out, if they cannot.
    """
    sizes = {"observations": observation_size, "actions": action_size}
    arrays = hdf5.arrays(path, sizes, rows, may_lack=() if episode_length is None else ("timeouts",))
    terminals = _flags(path, arrays, "terminals")
    timeouts = _flags(path, arrays, "timeouts") if "timeouts" in arrays else np.zeros_like(terminals)
    raise_any(path, _end_problems(terminals, timeouts, episode_length, time_limit))
    if episode_length is not None:
        arrays["timeouts"] = _cut(terminals, episode_length)
    found = hdf5.checked_rows(path, {key: array[:rows] for key, array in arrays.items()})
    raise_any(path, _order_problems(path, found))
    return found


def _flags(path: Path, arrays: dict[str, np.ndarray], key: str) -> Bool[np.ndarray, " N"]:
    """The flags of all rows of the file, of which fewer may be wanted: a short part need not hold an end."""
    raise_any(path, inspection.flag_problems(key, arrays[key]))
    return arrays[key].reshape(-1).astype(bool)


def _end_problems(
    terminals: Bool[np.ndarray, " N"],
    timeouts: Bool[np.ndarray, " N"],
    episode_length: int | None,
    time_limit: int | None,
) -> list[str]:
    """Checks that the flags say where episodes end; at most one problem."""
    count, ended = len(terminals), int(terminals.sum())
    if episode_length is not None and timeouts.any():
        return [
            f"'timeouts' is true in {int(timeouts.sum())} of {count} rows, so dataset.episode_length="
            f"{episode_length} says it twice. Leave dataset.episode_length out, or 'timeouts'."
        ]
    if episode_length is None and count > 1 and not (terminals.any() or timeouts.any()):
        return [
            f"'terminals' and 'timeouts' are false in all {count} rows, so no episode ends and resets would be "
            "learned from. Say with dataset.episode_length=… after how many rows an episode was cut, or set "
            "'timeouts' there."
        ]
    longest, start = _longest(terminals)
    if episode_length is None and time_limit and not timeouts.any() and longest > time_limit:
        return [
            f"'timeouts' is false in all {count} rows, and rows {start} to {start + longest - 1} have no 'terminals' "
            f"either, but the task cuts an episode after {time_limit} steps: resets would be learned from. Say "
            f"with dataset.episode_length=… after how many rows an episode was cut (such as {time_limit}), or set "
            "'timeouts' there: gymnasium's truncated and not terminated."
        ]
    if ended and not (terminals & ~timeouts).any():
        return [
            f"each of its {ended} rows with 'terminals' has 'timeouts' as well, and rows with a timeout are left "
            "out, so no terminal would be learned from. Where the task ended, clear 'timeouts'; where the episode "
            "was only cut, clear 'terminals'."
        ]
    return []


def _longest(terminals: Bool[np.ndarray, " N"]) -> tuple[int, int]:
    """The length of the longest stretch of rows that ends with a terminal or the file, and its first row."""
    ends = np.append(np.flatnonzero(terminals), len(terminals) - 1)
    lengths = np.diff(ends, prepend=-1)
    place = int(lengths.argmax())
    return int(lengths[place]), int(ends[place] - lengths[place] + 1)


def _cut(terminals: Bool[np.ndarray, " N"], episode_length: int) -> Bool[np.ndarray, " N"]:
    """Timeouts after every so many rows without a terminal: D4RL's rule for files that lack them."""
    row = np.arange(len(terminals))
    begins = np.concatenate([[True], terminals])[:-1]
    start = np.maximum.accumulate(np.where(begins, row, 0))
    return ((row - start) % episode_length == episode_length - 1) & ~terminals


def _order_problems(path: Path, rows: StoredRows) -> list[str]:
    """Checks that the next row is the successor which the file itself has; at most one problem.

    Successors are left alone otherwise, so what is wrong with them alone is no problem.
    """
    count = len(rows.observations) - 1
    going_on = ~(rows.terminals | rows.timeouts)[:-1]
    tolerance = TOLERANCE * rows.observations.std(axis=0, dtype=np.float64) + 1e-6
    apart = np.zeros(count, bool)
    with hdf5.opened(path) as file:
        if inspection.storage_problems(file, SUCCESSORS, path.stat().st_size):
            return []
        (stored,) = (file[key] for key in SUCCESSORS)
        if stored.shape[0] < count or stored.shape[1] != rows.observations.shape[1]:
            return []
        for start in range(0, count, BLOCK):
            stop = min(count, start + BLOCK)
            gap = np.abs(stored[start:stop].astype(np.float64) - rows.observations[start + 1 : stop + 1])
            apart[start:stop] = ~(gap <= tolerance).all(axis=1)  # also where it is no number
    apart &= going_on
    if apart.sum() <= UNMARKED_SHARE * going_on.sum():
        return []
    told = (
        f"after {int(apart.sum())} of {int(going_on.sum())} rows that go on, the next row is not what "
        f"'next_observations' says comes next (first: row {int(apart.argmax())}), but successors are the next rows."
    )
    if apart.sum() > going_on.sum() / 2:
        return [f"{told} Put the rows in the order of time, or rename what only has that name."]
    return [f"{told} Set 'timeouts' where an episode was cut."]
