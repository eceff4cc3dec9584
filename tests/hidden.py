"""A search path on which some programs are not found, though this machine has them."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

SLURM = ("sbatch", "squeue", "scontrol", "scancel", "srun", "sacct", "sinfo", "sacctmgr")


def path_without(programs: Collection[str], path: str, place: Path) -> str:
    """The search path `path` without `programs`.

    A directory that has one of them is replaced by links to everything else in it, which are made in `place`.
    """
    shown = []
    for number, directory in enumerate(path.split(os.pathsep)):
        if not any(os.path.exists(os.path.join(directory, name)) for name in programs):
            shown.append(directory)
            continue
        links = place / str(number)
        links.mkdir()
        for entry in Path(directory).iterdir():
            if entry.name not in programs:
                (links / entry.name).symlink_to(entry.absolute())
        shown.append(str(links))
    return os.pathsep.join(shown)
