"""The places that runs are read from: directories of runs, parts of them, and tar files of them."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

from o2o.runs.directory.layout import find_runs

Places = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
"""One directory, or several."""


def paths_of(places: Places) -> tuple[Path, ...]:
    """The directories as paths, in the order in which they were named."""
    return (Path(places),) if isinstance(places, str | os.PathLike) else tuple(map(Path, places))


def runs_below(places: Iterable[Path], unreadable: list[str]) -> list[Path]:
    """The run directories below all places, each once; `unreadable` gets a line for what cannot be searched."""
    found: dict[str, Path] = {}
    for place in places:
        for path in find_runs(place, unreadable):
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def unpacked(place: Path, folder: Path) -> Path:
    """The place itself if it is a directory; a tar file is unpacked below `folder`.

    A tar file's directory is named by its content, so that nothing is in it that came out of another file.

    Raises:
        ValueError: it is neither.
    """
    if place.is_dir():
        return place
    if not place.is_file():
        raise ValueError(f"{place} is not a directory: name the directory that holds the runs")
    with place.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    directory = folder / f"{place.name.split('.')[0]}-{content[:8]}"
    try:
        with tarfile.open(place) as file:
            file.extractall(directory, filter="data")
    except tarfile.TarError as error:
        raise ValueError(f"{place} is neither a directory nor a tar file of one: {error}") from None
    return directory
