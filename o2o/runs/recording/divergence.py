"""Metrics that are not finite, and words for what ended a run where the exception's own words do not help."""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping
from pathlib import Path

from o2o.errors import ConfigError
from o2o.runs.lock import HeldError, LostError
from o2o.runs.recording.failures import Failure, classify


class DivergedError(FloatingPointError):
    """Some members' metrics are not finite; `members` says whose (by their place in the job), and what and where."""

    def __init__(self, members: dict[int, str]) -> None:
        """An error that names the metrics."""
        self.members = members
        super().__init__("; ".join(members.values()))


def not_finite(metrics: Mapping[str, float]) -> list[str]:
    """The names of the metrics that are infinite or no number."""
    return [name for name, value in metrics.items() if not math.isfinite(value)]


def failure_of(error: BaseException) -> Failure:
    """The class of failure that an exception is."""
    return classify(f"{type(error).__name__}: {error}")


def place(error: BaseException) -> str:
    """Returns the innermost of our own lines that an error came through; nothing where it came through none."""
    package = Path(__file__).parents[1]
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(package)
    ]
    if not own:
        return ""
    return f" at {Path(own[-1].filename).relative_to(package.parent)}:{own[-1].lineno} in {own[-1].name}"


def explained(error: BaseException) -> str:
    """Returns the error in words, with the way out where there is one to name."""
    text = f"{type(error).__name__}: {str(error).strip()}"
    if isinstance(error, ConfigError | FloatingPointError | HeldError | LostError):
        return str(error)
    match failure_of(error):
        case Failure.MEMORY:
            first = text.splitlines()[0]
            return f"out of memory: fewer seeds in a job (launch.seeds_per_job) need less of it ({first})"
        case Failure.INFRASTRUCTURE if isinstance(error, OSError):
            return f"{text} (it goes on from its last checkpoint when it is started again)"
        case _:
            return f"{text}{place(error)}"
