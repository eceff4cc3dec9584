"""How long episodes can be, and what must be said where that is short or nobody's choice."""

from __future__ import annotations

import math

DEFAULT_TIME_LIMIT = 1000
"""Steps after which an episode is cut where the task has no time limit; it is that of the four tasks."""
UNEARNED = 0.05
"""The discounted share of a return that may be missing where Q is compared with it."""


def unearned_steps(discount: float, time_limit: int) -> int:
    """How many last steps of a truncated episode have too little of their discounted return: 299 for 0.99."""
    if discount >= 1:
        return time_limit
    return 0 if discount <= 0 else min(time_limit, math.ceil(math.log(UNEARNED) / math.log(discount)))


def remarks(task: str, own_time_limit: int | None, discount: float) -> list[str]:
    """What a reader of a run's results must know of its episodes, in sentences.

    Where episodes are too short to compare Q with, nothing stands in for it: a return that the critic completed would
    hide just the overestimation that it is compared for.
    """
    limit = own_time_limit or DEFAULT_TIME_LIMIT
    told = []
    if own_time_limit is None:
        told.append(
            f"{task} has no time limit: an episode is cut after {limit} steps, in training and in evaluation "
            "(register the id with max_episode_steps for another)"
        )
    if unearned_steps(discount, limit) == limit:
        told.append(
            f"q_minus_return counts only episodes that terminate, and stays empty where none does: {task} cuts the "
            f"others after {limit} steps, too few to earn {1 - UNEARNED:.0%} of a return at discount={discount:g}"
        )
    return told
