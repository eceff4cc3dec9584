"""Statistics of a handful of seeds: means with honest intervals, resampling with a fixed seed, corrections.

Two kinds of interval. From **t**: for the mean of few seeds and for contrasts of means, because a bootstrap of three
seeds is far too narrow; it also serves numbers that are published as mean ± standard deviation only. From the
**stratified bootstrap** (percentiles; seeds are redrawn within each stratum, such as a dataset): for the interquartile
mean and whatever else has no formula.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # its modules load when they are first needed: `stats` takes over a second
from jaxtyping import Bool, Float, Num

CONFIDENCE = 0.95
DRAWS = 2_000

Values = Float[np.ndarray, " N"]


@dataclass(frozen=True)
class Estimate:
    """An estimated number with what is known about its error.

    `error` is the standard error and `freedom` its degrees of freedom; both NaN where a single seed tells nothing.
    """

    value: float
    error: float
    freedom: float
    count: int
    """Seeds it rests on; of several groups, the smallest."""

    @property
    def interval(self) -> tuple[float, float]:
        """The central 95 % interval of Student's t."""
        half = self.error * _t_quantile((1 + CONFIDENCE) / 2, self.freedom) if self.error else 0.0
        return self.value - half, self.value + half

    @property
    def p_value(self) -> float:
        """Two-sided, against 0; NaN where there is no error to compare with."""
        if np.isnan(self.error):
            return float("nan")
        if self.error == 0:
            return 0.0 if self.value else 1.0
        return float(2 * scipy.special.stdtr(self.freedom, -abs(self.value / self.error)))

    def more_seeds(self, alpha: float = 1 - CONFIDENCE) -> int | None:
        """Returns how many more seeds a group would take for p < alpha, were the estimate and the spread the truth.

        0 if it is so already, None where nothing can be said (a single seed, or an estimate of exactly 0) or it would
        take more than ten thousand.
        """
        if np.isnan(self.error) or self.value == 0:
            return None
        spread = self.error * np.sqrt(self.count)
        groups = max(1.0, self.freedom / max(1, self.count - 1))

        def decides(count: int) -> bool:
            freedom = self.freedom if count == self.count else groups * (count - 1)
            return bool(abs(self.value) > _t_quantile(1 - alpha / 2, freedom) * spread / np.sqrt(count))

        enough = bisect_left(range(self.count, 10_001), True, key=decides)
        return enough if self.count + enough <= 10_000 else None


def mean(values: Num[np.ndarray, " N"]) -> Estimate:
    """The mean of independent seeds, with the t interval."""
    values = np.asarray(values, dtype=np.float64)
    count = len(values)
    error = float(values.std(ddof=1) / np.sqrt(count)) if count > 1 else float("nan")
    return Estimate(float(values.mean()), error, count - 1.0, count)


def published_mean(value: float, deviation: float, count: int) -> Estimate:
    """The same from a mean and a standard deviation over seeds, as papers give them."""
    return Estimate(value, deviation / count**0.5, count - 1.0, count)


def combine(estimates: Sequence[Estimate], weights: Sequence[float], shift: float = 0.0) -> Estimate:
    """The weighted sum of independent estimates, plus `shift`; degrees of freedom as by Welch and Satterthwaite."""
    variances = np.array([(w * e.error) ** 2 for e, w in zip(estimates, weights, strict=True)])
    value = shift + float(sum(w * e.value for e, w in zip(estimates, weights, strict=True)))
    total = float(variances.sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = total**2 / np.sum(variances**2 / np.array([e.freedom for e in estimates]))
    smallest = min(e.freedom for e in estimates)
    count = min(e.count for e in estimates)
    return Estimate(value, total**0.5, float(freedom) if total > 0 else smallest, count)


def paired(first: Values, second: Values) -> Estimate:
    """The mean of first − second, over seeds that share a pretraining."""
    return mean(np.asarray(first) - np.asarray(second))


def unpaired(first: Values, second: Values) -> Estimate:
    """The mean of the first minus that of the second, of seeds that have nothing in common (Welch)."""
    return combine([mean(first), mean(second)], [1.0, -1.0])


def interquartile_mean(values: Num[np.ndarray, "*S N"]) -> Float[np.ndarray, "*S"] | np.float64:
    """The mean of the middle half, over the last axis: a quarter is cut from each end, rounded down to whole values."""
    return scipy.stats.trim_mean(values, 0.25, axis=-1)


def stratified_bootstrap(
    strata: Sequence[Values],
    statistic: Callable[[np.ndarray], Any],
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[float, float]:
    """The central 95 % percentile interval of a statistic of all values, redrawn within each stratum.

    `statistic` maps [draws, values] to [draws].
    """
    random = np.random.default_rng(seed)
    redrawn = [random.choice(np.asarray(values, dtype=np.float64), (draws, len(values))) for values in strata]
    found = statistic(np.concatenate(redrawn, axis=-1))
    low, high = np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def paired_bootstrap(first: Values, second: Values, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """The interval of the mean difference of two arms, both redrawn together by the pretraining they share."""
    return stratified_bootstrap([np.asarray(first) - np.asarray(second)], lambda d: d.mean(-1), draws, seed)


def probability_of_improvement(first: Sequence[Values], second: Sequence[Values]) -> float:
    """Returns how often a seed of the first is above one of the second, ties counting half, averaged over the strata.

    In each stratum it is Mann and Whitney's U over the number of pairs.
    """
    pairs = list(zip(first, second, strict=True))
    return float(np.mean([scipy.stats.mannwhitneyu(a, b).statistic / (len(a) * len(b)) for a, b in pairs]))


def equivalent(above: Estimate, below: Estimate) -> float:
    """The p-value of two one-sided tests that a contrast lies within its margins (TOST).

    `above` estimates the contrast plus its margin, which must be above 0, `below` the contrast minus its margin, which
    must be below.
    """
    return max(one_sided(above), 1 - one_sided(below))


def one_sided(estimate: Estimate) -> float:
    """The p-value against the estimated number being 0 or less."""
    if np.isnan(estimate.error):
        return float("nan")
    if estimate.error == 0:
        return 0.0 if estimate.value > 0 else 1.0
    return float(scipy.special.stdtr(estimate.freedom, -estimate.value / estimate.error))


def holm(p_values: Num[np.ndarray, " P"]) -> Float[np.ndarray, " P"]:
    """Holm's adjustment over a family of tests; a NaN, a test that could not be made, stays one and counts for none."""
    p_values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p_values.shape, np.nan)
    made = np.flatnonzero(~np.isnan(p_values))
    order = made[np.argsort(p_values[made], kind="stable")]
    steps = p_values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


def restricted_mean(times: Num[np.ndarray, " N"], observed: Bool[np.ndarray, " N"], until: float) -> float:
    """The mean time to the event within the first `until`: the area under Kaplan and Meier's curve.

    Where `observed` is false the time is when watching ended without an event (right-censored): what never had one
    counts as `until`, not as nothing; what was watched for less time counts as long as it was.
    """
    curve = scipy.stats.ecdf(scipy.stats.CensoredData.right_censored(times, ~observed)).sf
    within = curve.quantiles < until
    knots = np.concatenate([[0.0], curve.quantiles[within], [until]])
    return float(np.sum(np.diff(knots) * np.concatenate([[1.0], curve.probabilities[within]])))


def clopper_pearson(successes: int, count: int) -> tuple[float, float]:
    """The exact 95 % interval of a share."""
    low, high = scipy.stats.binomtest(successes, count).proportion_ci(CONFIDENCE, method="exact")
    return float(low), float(high)


def _t_quantile(probability: float, freedom: float) -> float:
    return float(scipy.special.stdtrit(freedom, probability)) if freedom > 0 else float("nan")
