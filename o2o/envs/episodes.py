"""Episodes: their records, how long they can be, and the remarks that short or uncut ones need."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int

DEFAULT_TIME_LIMIT = 1000
"""Steps after which an episode is cut where the task has no time limit; it is that of the four tasks."""
UNEARNED = 0.05
"""The discounted share of a return that may be missing where Q is compared with it."""


@dataclass(frozen=True)
class Episode:
    """A finished training episode: whose, the env step that ended it, its undiscounted return and its length."""

    member: int
    env_step: int
    episode_return: float
    length: int


@dataclass(frozen=True)
class Record:
    """Evaluation episodes in lock-step, T the time limit; after an episode's end its rewards are zero."""

    reward: Float64[np.ndarray, "T E"]
    lengths: Int[np.ndarray, " E"]
    truncated: Bool[np.ndarray, " E"]
    """Whether the time limit alone ended it."""


def unearned_steps(discount: float, time_limit: int) -> int:
    """Returns how many last steps of a truncated episode have too little of their discounted return: 299 for 0.99."""
    if discount >= 1:
        return time_limit
    return 0 if discount <= 0 else min(time_limit, math.ceil(math.log(UNEARNED) / math.log(discount)))


def remarks(task: str, own_time_limit: int | None, discount: float) -> list[str]:
    """Returns sentences that a reader of a run's results must know of its episodes.

    Where episodes are too short to compare Q with, nothing stands in for it: a return that the critic completed would
    hide just the overestimation that it is compared for.
    """
    limit = own_time_limit or DEFAULT_TIME_LIMIT
    found = []
    if own_time_limit is None:
        found.append(
            f"{task} has no time limit: an episode is cut after {limit} steps, in training and in evaluation "
            "(register the id with max_episode_steps for another)"
        )
    if unearned_steps(discount, limit) == limit:
        found.append(
            f"q_minus_return counts only episodes that terminate, and stays empty where none does: {task} cuts the "
            f"others after {limit} steps, too few to earn {1 - UNEARNED:.0%} of a return at discount={discount:g}"
        )
    return found
