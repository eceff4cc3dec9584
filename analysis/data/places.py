"""The places that runs are read from: directories of runs, parts of them, and tar files of them."""

from __future__ import annotations

import hashlib
import lzma
import os
import tarfile
import zlib
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
        ValueError: it is neither, or a damaged tar file.
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
            while file.fileobj and file.fileobj.read(1 << 20):  # the checksum is at the end
                pass
    except tarfile.ReadError:
        raise ValueError(f"{place} is neither a directory nor a tar file of one") from None
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        if getattr(error, "errno", None) is not None:  # the disk's, not the file's
            raise
        raise ValueError(f"{place} cannot be unpacked: {error}") from None
    return directory
