"""The records of a run: the columns of its appended files, and the reader of its directory.

Numbers read back as they were written (`o2o.runs.directory.writer`), NaN and the infinities too, which JSON holds as
text. `null` stands for "no value" and is read as NaN in a column of numbers.

Nothing heavy is imported here: the analysis reads a thousand runs without JAX.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from o2o.runs.directory.layout import (
    CONFIG,
    EPISODES,
    EVAL,
    IDENTITY,
    RESULT,
    REWOUND,
    TIMING,
    TRAIN,
    RunState,
    read_object,
    read_state,
)

EVAL_COLUMNS = {
    "phase": "pretrain or finetune",
    "step": "pretraining updates + env_steps: the paper's x axis",
    "updates": "gradient updates of this phase so far",
    "env_steps": "environment steps so far; 0 while pretraining and at the switch",
    "return_mean": "mean undiscounted return over the evaluation episodes",
    "return_std": "their standard deviation (population)",
    "score": "D4RL-normalised return_mean: 0 is the random policy, 100 the expert",
    "returns": "the return of each episode, in the order of the episodes' seeds",
    "length_mean": "mean episode length in environment steps",
    "q_minus_return": "overestimation: mean over visited states of Q(s, π(s)) minus the discounted return then earned; "
    "none of the last states of an episode that was cut, so empty where all are short and cut",
}

EPISODE_COLUMNS = {
    "env_step": "the environment step that ended the training episode",
    "return": "undiscounted return under the exploring policy",
    "length": "environment steps in the episode",
}

# train.jsonl has phase and step, then whichever metrics there are. Those of the algorithm (`Algorithm.metrics`) are
# means over the updates since the row before, each over its own batch; at the switch, what the first update would
# report. The diagnostics (o2o/training/diagnostics.py) are there where a finetuning run is evaluated.

# The same language in C where PyYAML was built with it, six times as fast.
_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True)
class Run:
    """A run directory as it was read: dictionaries, and columns of equal length for the appended files.

    A column holds int64, float64 (NaN where a row lacks it), text, or, for lists such as `returns`, one array
    per row.
    """

    path: Path
    state: RunState
    config: dict[str, Any]
    identity: dict[str, Any]
    result: dict[str, Any] | None
    train: dict[str, np.ndarray]
    eval: dict[str, np.ndarray]
    episodes: dict[str, np.ndarray]
    timing: dict[str, np.ndarray]
    notes: tuple[str, ...] = field(default=())
    """One line for every row that could not be read and was left out."""


def read_run(path: str | os.PathLike[str]) -> Run:
    """Reads a run directory in whatever state it is; files that do not exist yet give empty columns.

    Raises:
        FileNotFoundError: there is no `config.yaml`, so that this is not a run directory.
        ValueError: a file that is written whole is damaged.
    """
    path = Path(path)
    if not (path / CONFIG).exists():
        raise FileNotFoundError(f"{path} is not a run directory: it has no {CONFIG}.")
    notes: list[str] = []
    columns = {file: as_columns(read_rows(path / file, notes)) for file in REWOUND}
    return Run(
        path=path,
        state=read_state(path),
        config=read_config(path / CONFIG),
        identity=read_object(path / IDENTITY) or {},
        result=read_object(path / RESULT),
        train=columns[TRAIN],
        eval=columns[EVAL],
        episodes=columns[EPISODES],
        timing=columns[TIMING],
        notes=tuple(notes),
    )


def as_columns(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Turns rows, which may differ in their keys, into one array per key, in order of first appearance."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: _as_column([row.get(name) for row in rows]) for name in names}


def _as_column(values: list[Any]) -> np.ndarray:
    present = [value for value in values if value is not None]
    if any(isinstance(value, list) for value in present):
        column = np.empty(len(values), dtype=object)
        for i, value in enumerate(values):
            column[i] = np.array([_number(v) for v in value or ()], dtype=np.float64)
        return column
    if any(isinstance(value, str) and value not in _NON_FINITE for value in present):
        return np.array(["" if value is None else str(value) for value in values])
    if len(present) == len(values) and all(isinstance(value, int) for value in values):
        return np.array(values, dtype=np.int64)
    return np.array([_number(value) for value in values], dtype=np.float64)


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    return _NON_FINITE[value] if isinstance(value, str) else float(value)


def read_columns(path: str | os.PathLike[str], notes: list[str]) -> dict[str, np.ndarray]:
    """The columns of one appended file, empty where there is no file; a line in `notes` for every row left out."""
    return as_columns(read_rows(Path(path), notes))


def read_rows(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The rows of an appended file; `notes` gets a line for each that could not be read."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    try:  # all rows in one go: reading many runs is three times as fast
        rows = json.loads(b"[" + b",".join(line for line in lines if line) + b"]")
        if all(isinstance(row, dict) for row in rows) and len(rows) == sum(map(bool, lines)):
            return rows
    except ValueError:
        pass
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            notes.append(f"{path}: row {number} is cut or damaged and was left out")
    return rows


def read_config(path: Path) -> dict[str, Any]:
    """The keys of a YAML file.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _YAML_LOADER)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is damaged: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it holds no keys")
    return content
