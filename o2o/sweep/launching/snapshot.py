"""The code as it is at a launch, copied aside, so that editing the tree changes nothing that is queued."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from o2o.machine.installation import CONF_INSTALLED, ROOT

HASH_DIGITS = 12
LARGEST_FILE = 20_000_000
"""Bytes; what is larger is no code."""
PACKAGES = ("o2o", "hydra_plugins/o2o")
"""The part of an installed package that is copied. Around it are others, and perhaps a repository of the user."""
ALWAYS = (*PACKAGES, "conf", "launch.py", "pyproject.toml")
"""The part of a checkout that is copied where git cannot say what belongs to the project."""


def take(directory: Path, root: Path = ROOT) -> Path:
    """Copies the project at `root`, uncommitted and untracked files included, to a directory named by its content.

    What git ignores stays behind, and so do files that are too large to be code. A copy that is there is used again.
    """
    files = _files(root)
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.as_posix()}\0".encode() + hashlib.sha256((root / file).read_bytes()).digest())
    target = directory / digest.hexdigest()[:HASH_DIGITS]
    if target.is_dir():
        return target
    partial = directory / f".{target.name}.{os.getpid()}"
    try:
        for file in files:
            (partial / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / file, partial / file)
        partial.rename(target)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        if not target.is_dir():  # somebody else was not faster, with the same content
            raise
    return target


def _files(root: Path) -> list[Path]:
    installed = (root / CONF_INSTALLED).is_dir()
    named = [] if installed else _known_to_git(root)
    if not any(file.parts[0] == "o2o" for file in named):
        here = [root / name for name in (PACKAGES if installed else ALWAYS)]
        found = [path for top in here for path in ([top] if top.is_file() else sorted(top.rglob("*")))]
        named = [path.relative_to(root) for path in found if "__pycache__" not in path.parts]
    return sorted(
        file
        for file in set(named)
        if (root / file).is_file() and (root / file).stat().st_size <= LARGEST_FILE
    )


def _known_to_git(root: Path) -> list[Path]:
    listing = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        said = subprocess.run(listing, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [Path(name) for name in said.split("\0") if name]
