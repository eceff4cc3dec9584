"""The files of a run directory and its state: the part that is needed to look at runs, without NumPy."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

CONFIG = "config.yaml"
IDENTITY = "identity.json"
STATUS = "status.json"
EVENTS = "events.jsonl"
TRAIN = "train.jsonl"
EVAL = "eval.jsonl"
EPISODES = "episodes.jsonl"
TIMING = "timing.jsonl"
CHECKPOINTS = "checkpoints"
FINAL_STATE = f"{CHECKPOINTS}/final.npz"
ATTEMPTS = "attempts"
RESULT = "result.json"

# The files whose length a checkpoint stores, so that a resumed run continues them from there.
REWOUND = (TRAIN, EVAL, EPISODES, TIMING)

_SEED = re.compile(r"seed-(\d+)")

PRETRAIN = "pretrain"
FINETUNE = "finetune"


class RunState(StrEnum):
    """The states of a run. One whose process died without a word still says RUNNING; starting it again goes on."""

    PLANNED = "PLANNED"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    INTERRUPTED = "INTERRUPTED"


def read_state(path: str | os.PathLike[str]) -> RunState:
    """The state of a run directory; PLANNED where nothing has been written yet."""
    path = Path(path)
    if (path / RESULT).exists():
        return RunState.DONE
    status = read_object(path / STATUS)
    if status is None:
        return RunState.PLANNED
    state = RunState(status["state"])
    # Killed between the two writes of `finish`: without a result the run is to be resumed.
    return RunState.INTERRUPTED if state is RunState.DONE else state


def find_runs(root: str | os.PathLike[str], unreadable: list[str]) -> list[Path]:
    """The run directories below `root`, or `root` itself, sorted; `unreadable` gets what cannot be searched."""
    if os.path.isfile(os.path.join(root, CONFIG)):
        return [Path(root)]
    return sorted(Path(path) for _, seeds in find_cells(root, unreadable) for _, path in seeds)


def find_cells(
    root: str | os.PathLike[str], unreadable: list[str]
) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """The directories below `root` that have runs in them, with the seeds and directories of those.

    Links are followed, and hidden folders (`.jobs`, `.sweeps`) are not searched. A line in `unreadable` for each
    directory that could not be.
    """
    return _search(os.fspath(root), (os.path.realpath(root),), unreadable)


def _search(
    folder: str, come_by: tuple[str, ...], unreadable: list[str]
) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """Searches for `find_cells`; links that were `come_by` are not followed again, nor to what they are in."""
    try:
        with os.scandir(folder) as entries:
            subfolders = [entry for entry in entries if entry.name[0] != "." and entry.is_dir()]
    except FileNotFoundError:
        return  # removed while it was looked at
    except OSError as error:
        unreadable.append(f"{folder} cannot be searched: {error.strerror}")
        return
    seeds = [(int(match[1]), entry.path) for entry in subfolders if (match := _SEED.fullmatch(entry.name))]
    if seeds:
        yield folder, sorted(seeds)
        return
    for entry in subfolders:
        inside = come_by
        if entry.is_symlink():
            target = os.path.realpath(entry.path)
            if any(os.path.commonpath((target, place)) == target for place in come_by):
                continue  # round in a circle
            inside = (*come_by, target)
        yield from _search(entry.path, inside, unreadable)


def told_at(run: str | os.PathLike[str]) -> datetime | None:
    """The time of a run's last words in `status.json`; None where it has none that can be read."""
    try:
        return datetime.fromisoformat((read_object(Path(run, STATUS)) or {})["updated_at"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_object(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is no file.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds no object")
    return content
