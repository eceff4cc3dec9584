"""The run directory: the names of its files, their columns, the writer and the reader.

The run directory is the truth about a run; the terminal, wandb, resuming, the sweep's status and the analysis
all read it or mirror it. Appended files hold one JSON object per line; every other file is written atomically,
so that a reader never sees half of one. `result.json` is written last, and its existence means "done".

JSON has no words for NaN and the infinities. They are written as the strings `"NaN"`, `"Infinity"` and
`"-Infinity"`, which every JSON parser accepts, and are read back as floats; `null` stands for "no value" and is
read as NaN in a column of numbers. All finite floats read back exactly (Python's shortest repr).

Nothing heavy is imported here: the analysis reads a thousand runs without JAX.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from o2o.layout import (
    ATTEMPTS,
    CONFIG,
    EPISODES,
    EVAL,
    EVENTS,
    IDENTITY,
    RESULT,
    REWOUND,
    STATUS,
    TIMING,
    TRAIN,
    State,
    read_object,
    read_state,
)
from o2o.layout import CHECKPOINTS as CHECKPOINTS
from o2o.layout import FINETUNE as FINETUNE
from o2o.layout import PRETRAIN as PRETRAIN
from o2o.layout import find_runs as find_runs

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
    "q_minus_return": "overestimation: mean over visited states of Q(s, π(s)) minus the discounted return then earned",
}

EPISODE_COLUMNS = {
    "env_step": "the environment step that ended the training episode",
    "return": "undiscounted return under the exploring policy",
    "length": "environment steps in the episode",
}

# train.jsonl: phase and step, then whichever of these there are. What the algorithm reports is a mean over the updates
# since the row before, each over its own batch; at the switch it is what the first policy step would report. The
# diagnostics are taken where a finetuning run is evaluated.
METRICS = {
    "critic_loss": "squared TD error, mean over the batch and both critics",
    "q_mean": "mean Q of the first critic on the batch's actions",
    "policy_loss": "the loss that the policy descends",
    "action_gradient_norm": "mean L2 norm of dQ/da before clipping",
    "clipped_share": "share of samples whose dQ/da was clipped",
    "gradient_over_adam": "norm of the policy gradient over the norm of the root of Adam's second moment",
    "behavior_cloning": "TD3-BC: squared difference to the batch's actions, mean over batch and dimensions",
    "constraint": "TD3-C: the constrained squared difference to the target policy",
    "log_constraint": "TD3-C: its logarithm",
    "constraint_satisfied_share": "TD3-C: share of policy steps at which the constraint was at most epsilon",
    "lambda": "TD3-C: the multiplier",
    "temperature": "SAC: the weight of the entropy",
    "entropy": "SAC: minus the mean log density of the policy's own actions",
    "policy_distance": "diagnostic: mean L2 distance to the actions at the switch, on a fixed sample of offline states",
    "q_mean_offline": "diagnostic: mean Q on that sample, at its actions",
    "td_error_offline": "diagnostic: root mean squared TD error on that sample",
    "q_mean_fresh": "diagnostic: mean Q on the newest online transitions, a batch of them",
    "td_error_fresh": "diagnostic: root mean squared TD error on those",
}

# The same language in C where PyYAML was built with it, six times as fast.
_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class RunDirectory:
    """The writer of one run's directory.

    `start` opens an attempt and one of `finish`, `fail` and `interrupt` closes it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Names the directory at `path`; nothing is created before `start` or the first write."""
        self.path = Path(path)
        self._attempt = 0

    def start(self, config: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        """Opens the next attempt: config, identity, state RUNNING, and no torn last rows from a killed one.

        A `result.json` of an earlier, finished attempt is removed first: from here on the run is not done.
        """
        (self.path / RESULT).unlink(missing_ok=True)
        self.write(CONFIG, config)
        self.write(IDENTITY, identity)
        for file in (EVENTS, *REWOUND):
            _cut_torn_row(self.path / file)
        self._attempt = 1 + max((int(p.stem) for p in (self.path / ATTEMPTS).glob("[0-9]*.json")), default=0)
        opened = {"started_at": _now(), "host": platform.node(), "pid": os.getpid()}
        self.write(f"{ATTEMPTS}/{self._attempt}.json", {"attempt": self._attempt, **opened})
        self._set_state(State.RUNNING)

    def append(self, file: str, row: Mapping[str, Any]) -> None:
        """Appends one row to a `.jsonl` file in a single unbuffered write, so that a kill loses nothing."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / file).open("ab", buffering=0) as stream:
            stream.write(_to_json(row).encode() + b"\n")

    def event(self, name: str, **details: Any) -> None:
        """Appends a dated line to `events.jsonl`, the history of the run in words (never rewound)."""
        self.append(EVENTS, {"at": _now(), "attempt": self._attempt, "event": name, **details})

    def write(self, file: str, content: Mapping[str, Any], temporary: str | None = None) -> None:
        """Writes a whole `.json` or `.yaml` file atomically: a temporary file beside it, fsync, rename.

        Who does not own the directory names the `temporary` file, so as to know it again when a kill has left it.
        """
        target = self.path / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".yaml":
            text = yaml.safe_dump(_plain(content), sort_keys=False, allow_unicode=True)
        else:
            text = _to_json(content, indent=2) + "\n"
        partial = target.with_name(temporary or f".{target.name}.{os.getpid()}.tmp")
        try:
            with partial.open("w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def progress(self, phase: str, step: int, **details: Any) -> None:
        """Notes in `status.json` how far the run is, for whoever watches it; `details` are plain values."""
        self._set_state(State.RUNNING, phase=phase, step=step, **details)

    def offsets(self) -> dict[str, int]:
        """The length in bytes of every file that a resume rewinds, after forcing its rows to the disk.

        Stored in a checkpoint; forced first, so that a checkpoint never knows of rows that a crash lost.
        """
        lengths: dict[str, int] = dict.fromkeys(REWOUND, 0)
        for file in REWOUND:
            path = self.path / file
            if path.exists():
                with path.open("rb") as stream:
                    os.fsync(stream.fileno())
                lengths[file] = path.stat().st_size
        return lengths

    def rewind(self, offsets: Mapping[str, int]) -> None:
        """Cuts the appended files back to `offsets`, and to nothing where it names none (a fresh start).

        Raises:
            ValueError: a file is shorter than its offset, so that rows of the checkpoint's past are gone.
        """
        for file in REWOUND:
            path = self.path / file
            length = offsets.get(file, 0)
            size = path.stat().st_size if path.exists() else 0
            if size < length:
                raise ValueError(
                    f"{path} has {size} bytes, but the checkpoint was taken when it had {length}: "
                    "rows are missing. Remove the run directory to run it from the start."
                )
            if size > length:
                os.truncate(path, length)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Closes the attempt and marks the run done; `result.json` is the last file written."""
        self._close(State.DONE)
        self.write(RESULT, result)

    def fail(self, traceback_text: str, error: str, failure: str) -> None:
        """Closes the attempt as FAILED; keeps what happened in words, its class (sweep/failures.py), the traceback."""
        self._close(State.FAILED, error=error, failure=failure, traceback=traceback_text)

    def interrupt(self, reason: str) -> None:
        """Closes the attempt as INTERRUPTED: a later start goes on from the last checkpoint."""
        self._close(State.INTERRUPTED, reason=reason)

    def state(self) -> State:
        """The state on disk, which any process may ask for."""
        return read_state(self.path)

    def _close(self, state: State, **details: Any) -> None:
        attempt = f"{ATTEMPTS}/{self._attempt}.json"
        opened = read_object(self.path / attempt) or {"attempt": self._attempt}
        self.write(attempt, {**opened, "ended_at": _now(), "state": state, **details})
        short = {name: value for name, value in details.items() if name != "traceback"}
        self._set_state(state, **short)

    def _set_state(self, state: State, **details: Any) -> None:
        # The last known phase and step outlive the attempt: one wants to read "FAILED at step 512 000".
        try:
            last = read_object(self.path / STATUS) or {}
        except ValueError:  # damaged, and about to be replaced
            last = {}
        known = {name: last[name] for name in ("phase", "step") if name in last}
        status = {"state": state, "attempt": self._attempt, "updated_at": _now(), **known, **details}
        self.write(STATUS, status)


@dataclass(frozen=True)
class Run:
    """A run directory as it was read: dictionaries, and columns of equal length for the appended files.

    A column holds int64, float64 (NaN where a row lacks it), text, or, for lists such as `returns`, one array
    per row.
    """

    path: Path
    state: State
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


def _cut_torn_row(path: Path) -> None:
    """Cuts off what follows the last newline, so that the next row does not continue a torn one."""
    if path.exists():
        content = path.read_bytes()
        if content and not content.endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(
        _plain(value, non_finite_as_text=True), indent=indent, ensure_ascii=False, allow_nan=False
    )


def _plain(value: Any, non_finite_as_text: bool = False) -> Any:
    """What JSON and YAML can hold, from dictionaries, tuples, paths, NumPy and JAX values."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, non_finite_as_text) for key, item in value.items()}
    if hasattr(value, "tolist"):  # NumPy and JAX arrays and scalars, without importing JAX to ask
        return _plain(value.tolist(), non_finite_as_text)
    if isinstance(value, str | os.PathLike):
        return str(value)
    if isinstance(value, Iterable):
        return [_plain(item, non_finite_as_text) for item in value]
    if isinstance(value, float) and not math.isfinite(value) and non_finite_as_text:
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
