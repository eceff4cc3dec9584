"""States on disk, from which a run goes on exactly where it was: arrays by name, without pickle.

A state is one `.npz`, whose parts carry checksums, written whole or not at all. The checkpoints of a run are the two
newest of these, `checkpoints/<step>.npz`, and beside them the online rows, which are only ever appended to
(`online.f32`): a checkpoint says how many of them it knows, and their checksum. The offline data is not in it; the
identity of the run says which it is.
"""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from jaxtyping import Float32

VERSION = 3
OLD_VERSION = 2  # of states from before the critics were stacked
KEPT = 2  # a damaged newest one leaves the one before
ROWS = "online.f32"
_VERSION = "version"
_ENSEMBLES = {"critics": "critics", "target_critics": "target_critics", "optimizers": "critic_optimizers"}


class CheckpointError(Exception):
    """A state on disk that cannot be read as what is expected."""


def save(path: Path, state: Any) -> None:
    """Writes a tree of arrays atomically; the name of an array is its place in the tree."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {_name(place): np.asarray(leaf) for place, leaf in jax.tree_util.tree_leaves_with_path(state)}
    arrays[_VERSION] = np.array(VERSION)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            np.savez(stream, **cast(Any, arrays))
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path, like: Any) -> Any:
    """Returns the tree that was saved at `path`, in the structure of `like` (arrays or their shapes).

    Raises:
        CheckpointError: if the file is missing, damaged, of another version, or holds other names, shapes or types
            than `like`.
    """
    arrays = _read(path)
    expected = {_name(place): leaf for place, leaf in jax.tree_util.tree_leaves_with_path(like)}
    differing = sorted(arrays.keys() ^ expected.keys()) or sorted(
        name
        for name, leaf in expected.items()
        if arrays[name].shape != leaf.shape or arrays[name].dtype != leaf.dtype
    )
    if differing:
        raise CheckpointError(
            f"{path} does not hold the state that is expected; these arrays differ: {', '.join(differing[:8])}"
        )
    return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in expected])


def _read(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays in a file, all of them read and their checksums compared."""
    try:
        # Not by its path: of a damaged archive np.load would leave the file open.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            if any(member.compress_type != zipfile.ZIP_STORED for member in file.zip.infolist()):
                raise ValueError("it is compressed, and what it would grow to is not known")
            # By itself numpy reads as far as a header says, which may be short of what the checksum is compared at.
            if damaged := file.zip.testzip():
                raise ValueError(f"{damaged} does not have its checksum")
            arrays = {name: np.asarray(file[name]) for name in file.files}
        version = arrays.pop(_VERSION, None)
        if version is not None and not version.shape and version == OLD_VERSION:
            return _renamed(arrays)
    except Exception as error:  # whatever a damaged file makes the readers raise
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if version is None or version.shape or version != VERSION:
        raise CheckpointError(f"{path} has format {version}, and this version of o2o reads {VERSION}")
    return arrays


def _renamed(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays of an old version's state by their names of today.

    It had two parts, `critics` and `actor`, and a tree of its own for each critic.
    """
    found: dict[str, np.ndarray] = {}
    ensembles: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        part, _, rest = name.partition("/")
        head, _, tail = rest.partition("/")
        if part == "critics" and head in _ENSEMBLES:
            number, _, place = tail.partition("/")
            ensembles.setdefault(f"{_ENSEMBLES[head]}/{place}", {})[number] = array
        elif part == "actor":
            found[f"policy_{rest}" if head == "optimizer" else rest] = array
        else:
            found[name] = array
    for name, own in ensembles.items():
        numbers = [str(i) for i in range(len(own))]
        if own.keys() != set(numbers):
            raise ValueError(f"{name} is of the critics {', '.join(own)}")
        found[name] = np.stack([own[number] for number in numbers])
    return found


class Checkpoints:
    """The checkpoints in one run directory."""

    def __init__(self, directory: Path):
        """Names the directory; nothing is created before something is saved."""
        self.directory = directory

    def steps(self) -> list[int]:
        """Returns the steps that there are checkpoints of, newest first."""
        return sorted((int(p.stem) for p in self.directory.glob("*.npz") if p.stem.isdecimal()), reverse=True)

    def save(self, step: int, state: Any) -> None:
        """Adds a checkpoint, and drops old ones."""
        save(self._path(step), state)
        for old in self.steps()[KEPT:]:
            _remove(self._path(old))

    def load(self, step: int, like: Any) -> Any:
        """Returns the state of that step, in the structure of `like`; raises what the module's `load` does."""
        return load(self._path(step), like)

    def readable(self) -> set[int]:
        """Returns the steps whose checkpoints are whole."""
        found = set()
        for step in self.steps():
            try:
                _read(self._path(step))
            except CheckpointError:
                continue
            found.add(step)
        return found

    def rows(self, count: int, width: int, checksum: int) -> Float32[np.ndarray, "N W"]:
        """Returns the first `count` online rows.

        Raises:
            CheckpointError: if there are fewer, or they have another checksum.
        """
        path = self.directory / ROWS
        rows = np.zeros(0, np.float32)
        if count and path.is_file():
            rows = np.fromfile(path, np.float32, count * width)
        if rows.size != count * width:
            raise CheckpointError(f"{path} has fewer than the {count} rows that the checkpoint knows")
        if zlib.crc32(rows.tobytes()) != checksum:
            raise CheckpointError(f"{path} is damaged: its first {count} rows have another checksum")
        return rows.reshape(count, width)

    def append_rows(self, rows: Float32[np.ndarray, "N W"], known: int, checksum: int) -> int:
        """Writes online `rows` behind the first `known` ones, over whatever a run that was killed wrote there.

        Takes the checksum of the known rows and returns that of all.
        """
        content = np.ascontiguousarray(rows, np.float32).tobytes()
        self.directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.directory / ROWS, os.O_RDWR | os.O_CREAT, 0o666)
        with os.fdopen(descriptor, "r+b") as stream:
            stream.truncate(known * rows.shape[1] * rows.itemsize)
            stream.seek(0, os.SEEK_END)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        return zlib.crc32(content, checksum)

    def forget(self, after: int = -1) -> None:
        """Drops the checkpoints of later steps than `after`; by default all of them, and the online rows."""
        for step in self.steps():
            if step > after:
                _remove(self._path(step))
        if after < 0:
            (self.directory / ROWS).unlink(missing_ok=True)

    def _path(self, step: int) -> Path:
        return self.directory / f"{step}.npz"


def _remove(path: Path) -> None:
    """Removes a file or a directory: nothing may be in the way of a later checkpoint of that name."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _name(place: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(place, simple=True, separator="/")
