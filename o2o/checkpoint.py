"""States on disk: arrays by name in one `.npz`, without pickle, written whole or not at all."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np


class CheckpointError(Exception):
    """A state on disk that cannot be read as what is expected."""


def save(path: Path, state: Any) -> None:
    """Writes a tree of arrays atomically; the name of an array is its place in the tree."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {_name(place): np.asarray(leaf) for place, leaf in jax.tree_util.tree_leaves_with_path(state)}
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
    """The tree that was saved at `path`, in the structure of `like` (arrays or their shapes).

    Raises:
        CheckpointError: if the file is missing, damaged, or holds other names, shapes or types than `like`.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
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


def _name(place: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(place, simple=True, separator="/")
