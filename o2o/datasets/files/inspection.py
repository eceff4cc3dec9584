"""Checks of an HDF5 file before its arrays are read, and of the arrays afterwards.

A file may come from anywhere. Nothing here follows a link, leaves the file, or allocates what a file merely declares.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5g, h5l, h5o, h5z  # pyright: ignore[reportAttributeAccessIssue]  # compiled, no stubs

FILTERS = {h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32, h5z.FILTER_LZF}
COMPRESSION_LIMIT = 1100  # of one array; deflate cannot do better than 1032 to 1
EXPANSION_LIMIT = 32  # of all arrays over their file; ant's zeros compress to about a fifth
EXPANSION_FREE = 2**28  # bytes of all arrays, up to which their compression does not matter
CHUNK_LIMIT = 2**28  # bytes; D4RL's chunks are below 1 MiB
LINK_LIMIT = 2**20
ELSEWHERE = "keeps its values in other files, which are not read. Store the values in this file."
ACTION_TOLERANCE = 1e-4


def outside_problems(file: Any) -> list[str]:
    """Where the file points to other files, in what nothing will read too; at most one problem."""
    groups, seen, links = [file.id], set(), 0
    while groups:
        group = groups.pop()
        for (
            name
        ) in group:  # h5py's own visitors decode names, and cannot be stopped by those that are damaged
            links += 1
            if links > LINK_LIMIT:
                return [f"it has more than {LINK_LIMIT} links. Make the file again."]
            kind = group.links.get_info(name).type
            if kind not in (h5l.TYPE_HARD, h5l.TYPE_SOFT):
                return [
                    f"{_shown(name)} is a link to another file, which is not read. Store the array itself."
                ]
            if kind == h5l.TYPE_SOFT:
                continue
            item = h5o.open(group, name)
            if isinstance(item, h5d.DatasetID) and _is_elsewhere(item):
                return [f"{_shown(name)} {ELSEWHERE}"]
            place = h5o.get_info(item).addr
            if isinstance(item, h5g.GroupID) and place not in seen:
                seen.add(place)
                groups.append(item)
    return []


def group_problems(file: Any, name: str) -> list[str]:
    """Returns the reason not to read from the group of this name; at most one problem."""
    links = file.id.links
    if not links.exists(name.encode()):
        return [f"no {name!r} (at its root: {_present(file)}). Make or get the file again."]
    if links.get_info(name.encode()).type != h5l.TYPE_HARD or not isinstance(file[name], h5py.Group):
        return [f"{name!r} is not a group of arrays. Make or get the file again."]
    return []


def storage_problems(group: Any, keys: Mapping[str, str], file_bytes: int) -> list[str]:
    """Returns the reasons not to read the arrays of these names and kinds ("matrix", "column" or "flags")."""
    problems = [p for key, kind in keys.items() for p in _array_problems(group, key, kind, keys, file_bytes)]
    return problems or expansion_problems(sum(group[key].nbytes for key in keys), file_bytes)


def expansion_problems(declared: int, file_bytes: int) -> list[str]:
    """Returns a problem where a file of so many bytes holds its arrays only if it was made to fill the memory."""
    if declared <= max(EXPANSION_FREE, EXPANSION_LIMIT * file_bytes):
        return []
    return [
        f"its arrays declare {declared} bytes, more than {EXPANSION_LIMIT} times the file's {file_bytes}: "
        "no such data compress that well. Store them with less compression if they are real."
    ]


def shape_problems(
    shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int | None], rows: int | None
) -> list[str]:
    """How the arrays' shapes contradict each other, the sizes a task wants, and the rows that are asked for."""
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


def flag_problems(key: str, flags: np.ndarray) -> list[str]:
    """Flags that are neither true nor false; at most one problem."""
    wrong = (flags != 0) & (flags != 1)
    if not wrong.any():
        return []
    row = int(np.flatnonzero(wrong)[0])
    return [
        f"{key!r} is {flags.reshape(-1)[row]} in row {row}; it must be true or false (1 or 0). Correct it."
    ]


def value_problems(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Values that nothing can be learned from: not finite, beyond the bounds of actions, or without successors."""
    problems = []
    for key in ("observations", "actions", "rewards"):
        finite = np.isfinite(arrays[key])
        if not finite.all():
            where = tuple(int(i) for i in np.argwhere(~finite)[0])
            problems.append(
                f"{key}[{', '.join(map(str, where))}] is {arrays[key][where]} as float32, the first of "
                f"{finite.size - np.count_nonzero(finite)} such values. Remove the episodes they are in."
            )
    largest = max(arrays["actions"].max(initial=0), -arrays["actions"].min(initial=0))
    if largest > 1 + ACTION_TOLERANCE and np.isfinite(largest):
        problems.append(
            f"'actions' reach {largest:g}; policies act in [-1, 1]. Rescale them from the task's own bounds."
        )
    if arrays["timeouts"][:-1].all():
        problems.append(
            f"no transition is left of {len(arrays['timeouts'])} rows: the last row and rows with a timeout "
            "have no successor. Check 'timeouts'."
        )
    return problems


def _array_problems(
    group: Any, key: str, kind: str, wanted_keys: Iterable[str], file_bytes: int
) -> list[str]:
    """Returns the reason not to read the array `key`; at most one problem."""
    links = group.id.links  # h5py's own look-ups would follow a link before telling what it is
    if not links.exists(key.encode()):
        derived = (
            " Say with dataset.episode_length=… after how many rows an episode was cut, and they are derived, or "
            "store them: true in the rows after which one was, which is gymnasium's truncated and not terminated."
        )
        return [
            f"no {key!r} (there is: {_present(group)}). A set in this layout has all of: "
            f"{', '.join(wanted_keys)}.{derived if key == 'timeouts' else ''}"
        ]
    if links.get_info(key.encode()).type != h5l.TYPE_HARD:
        return [f"{key!r} is a link, which is not followed. Store the array itself (h5repack, or copy it)."]
    array = group[key]
    if not isinstance(array, h5py.Dataset):
        return [
            f"{key!r} is a {type(array).__name__.lower()}, not an array. Store the array under this name."
        ]
    if _is_elsewhere(array.id):
        return [f"{key!r} {ELSEWHERE}"]
    if not _readable_dtype(kind, array.dtype):
        wanted = "bool" if kind == "flags" else "float32 (or float64)"
        return [f"{key!r} has dtype {array.dtype}; it must be {wanted}. Cast it."]
    shape = array.shape or ()
    if not (len(shape) == (2 if kind == "matrix" else 1) or (kind != "matrix" and shape[1:] == (1,))):
        wanted = "(rows, size)" if kind == "matrix" else "(rows,)"
        return [f"{key!r} has shape {array.shape}; it must be {wanted}. Reshape it."]
    return _layout_problems(array, key, file_bytes)


def _layout_problems(array: Any, key: str, file_bytes: int) -> list[str]:
    layout = array.id.get_create_plist()
    filters = {layout.get_filter(i)[0] for i in range(layout.get_nfilters())}
    if filters - FILTERS:
        return [
            f"{key!r} is packed with HDF5 filter {min(filters - FILTERS)}. Repack it with gzip (h5repack)."
        ]
    stored = min(array.id.get_storage_size(), file_bytes)
    if array.nbytes > stored * (COMPRESSION_LIMIT if filters else 1) or _lacks_chunks(array):
        return [
            f"{key!r} declares shape {array.shape}, {array.nbytes} bytes, but {stored} bytes are stored: "
            "some of its values were never written or the file is damaged. Make the file again."
        ]
    if array.chunks and math.prod(array.chunks) * array.dtype.itemsize > CHUNK_LIMIT:
        return [
            f"{key!r} has chunks of shape {array.chunks}, above {CHUNK_LIMIT} bytes. Repack it (h5repack)."
        ]
    return []


def _lacks_chunks(array: Any) -> bool:
    """Whether parts of a chunked array would be read as its fill value."""
    if not array.chunks:
        return False
    needed = math.prod(-(-length // chunk) for length, chunk in zip(array.shape, array.chunks, strict=True))
    return array.id.get_num_chunks() < needed


def _is_elsewhere(array: Any) -> bool:
    """Whether a dataset, as HDF5's identifier, is virtual or stored in other files."""
    layout = array.get_create_plist()
    return layout.get_layout() == h5d.VIRTUAL or layout.get_external_count() > 0


def _readable_dtype(kind: str, dtype: np.dtype) -> bool:
    if kind == "flags":
        return dtype.kind in "biu" or (dtype.kind == "f" and dtype.itemsize in (4, 8))
    return dtype.kind == "f" and dtype.itemsize in (4, 8)


def _present(group: Any) -> str:
    return ", ".join(ascii(name) for name in itertools.islice(group, 12)) or "nothing"


def _shown(name: bytes) -> str:
    return ascii(name.decode(errors="replace"))
