"""A run's directory as the start of its first attempt leaves it."""

from __future__ import annotations

from pathlib import Path

from o2o.runs.directory.writer import RunDirectory

CONFIG = {"seed": 3, "learning_rate": {"policy": 3e-4}, "network": {"hidden_sizes": (256, 256)}}
IDENTITY = {"hash": "0123abcd"}


def started(path: Path) -> RunDirectory:
    directory = RunDirectory(path)
    directory.start(CONFIG, IDENTITY)
    return directory
