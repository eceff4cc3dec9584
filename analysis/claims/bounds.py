"""Numbers of which evaluation noise leaves only a least and a most, and what is decided by them.

Noise adds to every regret, by how much depends on where the policy truly was, and that is not known. So what contains
regrets is estimated twice, and only what both estimates say counts: noise can make a verdict undecided, never easier.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from analysis import statistics
from analysis.statistics import Estimate

ALPHA = 1 - statistics.CONFIDENCE
AGREEING = 0.5
"""Seeds often do one of two things, such as collapse or not. If half of them do either, n agree by chance in this to
the power of n cases, and look as if they had no spread: n seeds prove nothing at less than that."""

Decision = Literal["holds", "fails", "undecided"]


@dataclass(frozen=True)
class Bounds:
    """A number that lies between two estimated ones; both are the same where noise cancels, as in mean scores."""

    least: Estimate
    most: Estimate
    seeds: int
    """Those it rests on: of all datasets it is the mean of, of the smaller one of two unpaired groups."""

    @property
    def interval(self) -> tuple[float, float]:
        """The span from the lower end of the least's 95 % interval to the upper end of the most's."""
        return self.least.interval[0], self.most.interval[1]

    @property
    def p_value(self) -> float:
        """Two-sided, against 0: of the least where that is above 0, of the most where that is below; 1 in between.

        Never less than what so many seeds can prove.
        """
        if np.isnan(self.least.error) or np.isnan(self.most.error):
            return float("nan")
        if not self.least.value <= 0 <= self.most.value:
            one = self.least if self.least.value > 0 else self.most
            return max(one.p_value, AGREEING**self.seeds)
        return 1.0

    def decide(self, p_value: float, against: float = ALPHA) -> Decision:
        """Whether it is above 0 or below, by its p-value, corrected or not; `against` is what below takes."""
        if self.least.value > 0 and p_value < ALPHA:
            return "holds"
        return "fails" if self.most.value < 0 and p_value < against else "undecided"

    def more_seeds(self, alpha: float = ALPHA, groups: int = 1) -> int | None:
        """Returns how many more seeds of each of its groups would decide it (see `Estimate.more_seeds`).

        None where noise leaves both sides open.
        """
        if self.least.value <= 0 <= self.most.value:
            return None
        more = (self.least if self.least.value > 0 else self.most).more_seeds(alpha)
        needed = math.floor(math.log(alpha, AGREEING)) + 1
        return None if more is None else max(more, math.ceil((needed - self.seeds) / groups))


def exact(estimate: Estimate) -> Bounds:
    """A number without such noise."""
    return Bounds(estimate, estimate, estimate.count)


def of_seeds(
    values: Float[np.ndarray, "N A 2"], weights: Sequence[float], shift: float | np.ndarray = 0.0
) -> Bounds:
    """The mean over seeds of a weighted sum of numbers, each of which lies between two, plus `shift`."""
    upwards, downwards = np.maximum(weights, 0.0), np.minimum(weights, 0.0)
    least, most = values[..., 0], values[..., 1]
    return Bounds(
        statistics.mean(least @ upwards + most @ downwards + shift),
        statistics.mean(most @ upwards + least @ downwards + shift),
        len(values),
    )


def difference(first: Bounds, second: Bounds) -> Bounds:
    """Of two groups of seeds that have nothing in common (Welch)."""
    return Bounds(
        statistics.combine([first.least, second.most], [1.0, -1.0]),
        statistics.combine([first.most, second.least], [1.0, -1.0]),
        min(first.seeds, second.seeds),
    )


def average(parts: Sequence[Bounds]) -> Bounds:
    """The mean over datasets, each of which counts alike."""
    weights = [1 / len(parts)] * len(parts)
    return Bounds(
        statistics.combine([part.least for part in parts], weights),
        statistics.combine([part.most for part in parts], weights),
        sum(part.seeds for part in parts),
    )
