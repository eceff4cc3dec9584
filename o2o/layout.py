"""What lies where in a run directory, and its state: the part that who only looks needs, without NumPy."""

from __future__ import annotations

import json
import os
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
ATTEMPTS = "attempts"
RESULT = "result.json"

# The files whose length a checkpoint stores, so that a resumed run continues them from there.
REWOUND = (TRAIN, EVAL, EPISODES, TIMING)

PRETRAIN = "pretrain"
FINETUNE = "finetune"


class State(StrEnum):
    """Where a run stands. A run whose process died without a word still says RUNNING; starting it again goes on."""

    PLANNED = "PLANNED"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    INTERRUPTED = "INTERRUPTED"


def read_state(path: str | os.PathLike[str]) -> State:
    """The state of a run directory; PLANNED where nothing has been written yet."""
    path = Path(path)
    if (path / RESULT).exists():
        return State.DONE
    status = read_object(path / STATUS)
    if status is None:
        return State.PLANNED
    state = State(status["state"])
    # Killed between the two writes of `finish`: without a result the run is to be resumed.
    return State.INTERRUPTED if state is State.DONE else state


def find_runs(root: str | os.PathLike[str]) -> list[Path]:
    """The run directories below `root`, sorted; hidden folders (`.jobs`, `.sweeps`) hold none."""
    found = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        if CONFIG in files:
            found.append(Path(folder))
            subfolders.clear()
    return sorted(found)


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
