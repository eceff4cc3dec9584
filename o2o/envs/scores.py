"""D4RL's normalised score: 0 is a random policy's return, 100 an expert's."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class ReferenceReturns(NamedTuple):
    """The undiscounted episode returns that score 0 and 100."""

    minimum: float
    maximum: float


# D4RL's constants, made for its v0 data and reused by D4RL itself for v2.
REFERENCE_RETURNS = {
    "hopper": ReferenceReturns(-20.272305, 3234.3),
    "halfcheetah": ReferenceReturns(-280.178953, 12135.0),
    "walker2d": ReferenceReturns(1.629008, 4592.3),
    "ant": ReferenceReturns(-325.6, 3879.7),
}


def normalised_score(episode_return: Any, minimum: float, maximum: float) -> Any:
    """Returns the score, in percent, of one undiscounted return or of an array of them.

    D4RL's own function gives the fraction; papers, and this project, print it times 100.

    Raises:
        ValueError: if `maximum` is not above `minimum`.
    """
    if not maximum > minimum:
        raise ValueError(f"the reference maximum {maximum} must be above the minimum {minimum}")
    return 100 * (np.asarray(episode_return) - minimum) / (maximum - minimum)


def reference_returns(task: str, minimum: float | None, maximum: float | None) -> ReferenceReturns:
    """Returns the returns that score 0 and 100: those given, else D4RL's for the task.

    Raises:
        KeyError: if none are given and the task is not one of D4RL's.
    """
    if minimum is not None and maximum is not None:
        return ReferenceReturns(minimum, maximum)
    return REFERENCE_RETURNS[task]
