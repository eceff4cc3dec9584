"""Columns of a dataset: facts of its rows beyond the transition, computed once, for the methods that ask for them.

A trajectory ends where the task did, and where the next row does not go on from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from o2o.types import Transition

UNKNOWN_TAIL = 0.05
"""How much of a return may be missing, as the discount of what follows the last known reward."""


def columns(transitions: Transition, names: Sequence[str], discount: float) -> Float[np.ndarray, "N K"]:
    """Returns the columns of these names, one after the other, as `o2o.replay.buffer.COLUMN_SIZES` says.

    `return_to_go` is the sum of discounted rewards to the end of the trajectory. Where the task did not end, what would
    have followed is missing: it is NaN unless that would have been discounted to a twentieth. `next_action` is the
    trajectory's next action, NaN at its end.
    """
    made = {"return_to_go": lambda: _returns_to_go(transitions, discount)[:, None]}
    made["next_action"] = lambda: _next_actions(transitions)
    return np.concatenate([made[name]() for name in names], axis=1, dtype=np.float32)


def ends(transitions: Transition) -> Bool[np.ndarray, " N"]:
    """Returns whether each row is the last of its trajectory."""
    goes_on = (transitions.next_observation[:-1] == transitions.observation[1:]).all(axis=1)
    return np.append(~goes_on, True) | transitions.terminated


def trajectories(transitions: Transition) -> tuple[Float[np.ndarray, " E"], Int[np.ndarray, " N"]]:
    """Returns the undiscounted return of each trajectory, and which one each row is of."""
    starts = np.append(0, np.flatnonzero(ends(transitions)[:-1]) + 1)
    number = np.cumsum(np.isin(np.arange(len(transitions.reward)), starts)) - 1
    return np.add.reduceat(transitions.reward, starts, dtype=np.float64), number


def best(transitions: Transition, fraction: float) -> Transition:
    """Returns the rows of this share of the trajectories, those of the highest return; of one at least."""
    returns, number = trajectories(transitions)
    kept = np.argsort(-returns, kind="stable")[: max(1, int(fraction * len(returns)))]
    rows = np.isin(number, kept)
    return transitions._replace(**{name: getattr(transitions, name)[rows] for name in Transition._fields[:5]})


def _returns_to_go(transitions: Transition, discount: float) -> Float[np.ndarray, " N"]:
    is_last, terminated = ends(transitions), transitions.terminated
    enough = math.log(UNKNOWN_TAIL) / math.log(discount) if 0 < discount < 1 else math.inf
    returns, following, rows_left, ended = np.empty(len(is_last)), 0.0, 0, False
    for row in range(len(is_last) - 1, -1, -1):
        if is_last[row]:
            following, rows_left, ended = 0.0, 0, bool(terminated[row])
        following = float(transitions.reward[row]) + discount * following
        rows_left += 1
        returns[row] = following if ended or rows_left >= enough else np.nan
    return returns


def _next_actions(transitions: Transition) -> Float[np.ndarray, "N A"]:
    following = np.roll(np.asarray(transitions.action, np.float32), -1, axis=0)
    following[ends(transitions)] = np.nan
    return following
