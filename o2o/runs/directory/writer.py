"""The writer of a run's directory.

The run directory is the truth about a run; the terminal, wandb, resuming, the sweep's status and the analysis
all read it or mirror it (`o2o.runs.directory.layout` names its files, `o2o.runs.directory.reader` reads them).
Appended files hold one JSON object per line; every other file is written atomically, so that a reader never sees half
of one. `result.json` is written last, and its existence means "done".

JSON has no words for NaN and the infinities. They are written as the strings `"NaN"`, `"Infinity"` and
`"-Infinity"`, which every JSON parser accepts; `null` stands for "no value". All finite floats read back exactly
(Python's shortest repr).
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from o2o.runs.directory.layout import (
    ATTEMPTS,
    CONFIG,
    EVENTS,
    IDENTITY,
    RESULT,
    REWOUND,
    STATUS,
    RunState,
    read_object,
    read_state,
)


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
        self._set_state(RunState.RUNNING)

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
        self._set_state(RunState.RUNNING, phase=phase, step=step, **details)

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
        self._close(RunState.DONE)
        self.write(RESULT, result)

    def fail(self, traceback_text: str, error: str, failure: str) -> None:
        """Closes the attempt as FAILED; keeps what happened in words, its class (a `Failure`), the traceback."""
        self._close(RunState.FAILED, error=error, failure=failure, traceback=traceback_text)

    def interrupt(self, reason: str) -> None:
        """Closes the attempt as INTERRUPTED: a later start goes on from the last checkpoint."""
        self._close(RunState.INTERRUPTED, reason=reason)

    def state(self) -> RunState:
        """The state on disk, which any process may ask for."""
        return read_state(self.path)

    def _close(self, state: RunState, **details: Any) -> None:
        attempt = f"{ATTEMPTS}/{self._attempt}.json"
        opened = read_object(self.path / attempt) or {"attempt": self._attempt}
        self.write(attempt, {**opened, "ended_at": _now(), "state": state, **details})
        short = {name: value for name, value in details.items() if name != "traceback"}
        self._set_state(state, **short)

    def _set_state(self, state: RunState, **details: Any) -> None:
        # The last known phase and step outlive the attempt: one wants to read "FAILED at step 512 000".
        try:
            last = read_object(self.path / STATUS) or {}
        except ValueError:  # damaged, and about to be replaced
            last = {}
        known = {name: last[name] for name in ("phase", "step") if name in last}
        status = {"state": state, "attempt": self._attempt, "updated_at": _now(), **known, **details}
        self.write(STATUS, status)


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
    """Returns the value as JSON and YAML can hold it, from dictionaries, tuples, paths, NumPy and JAX values."""
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
