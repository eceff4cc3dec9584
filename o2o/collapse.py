"""Policy collapse in numbers: how much is lost, how deep, for how long. Formulas and reasons: docs/collapse.md.

The definitions are this project's; the paper shows collapse in its figures and reports the difference δ only. All
read the evaluation scores of one seed as one continuous curve s(t) over env steps t: linear between evaluations, the
offline score at t ≤ 0 (before the switch the policy was the pretrained one), undefined after the last evaluation.
Integrals and minima are those of that curve, exact, so that a grid counts only by what it saw. Scores are
D4RL-normalised points, 0 to 100.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Num

HORIZON = 50_000
"""T_c: env steps within which a fall counts as collapse; the paper's figures show it there."""

WINDOW = 2_500
"""Env steps that are averaged: five evaluations on the finest grid (every 500), which more than halves the noise of
ten episodes, and short beside the collapses of the paper's figures, which last tens of thousands of steps."""

TOLERANCE = 2.0
"""Points below the offline score that still count as being back: the noise of an evaluation, not a collapse."""

RELATIVE_FLOOR = 20.0
"""The offline score from which on a depth is also told as a share of it: a fraction of little means nothing."""

EFFECT_POINTS = 5.0
EFFECT_SHARE = 0.10
"""The least loss that is called a collapse: so many points of regret, and so large a share of the offline score. What
is beyond evaluation noise but smaller is only detectable. 10 % is where the paper ceases to call scores comparable."""

LATE = 100_000
"""Env steps after which a fall is the fluctuation that is usual in off-policy learning, not a collapse."""

PerCurve = Float[np.ndarray, "*S"] | np.float64
"""One number for each curve: a NumPy scalar where there is one."""


@dataclass(frozen=True)
class Curve:
    """One learning curve from the switch on, or many on one grid (leading axes of `scores`)."""

    env_steps: Int[np.ndarray, " K"]
    """The env steps of the evaluations: 0, then increasing."""
    scores: Float[np.ndarray, "*S K"]
    """s(t) there; the first is the offline score."""

    @staticmethod
    def of(env_steps: Num[np.ndarray, " E"], scores: Num[np.ndarray, " E"], offline_score: float) -> Curve:
        """The curve of a run; an evaluation at env step 0 is replaced by `offline_score`.

        Raises:
            ValueError: no evaluation, env steps that do not increase, or a score that is not finite.
        """
        env_steps, scores = np.asarray(env_steps), np.asarray(scores, dtype=np.float64)
        if scores.size == 0 or scores.shape != env_steps.shape:
            raise ValueError(
                f"a curve needs one score per evaluation, got {env_steps.size} and {scores.size}"
            )
        if env_steps[0] < 0 or np.any(np.diff(env_steps) <= 0):
            raise ValueError(f"env_steps must increase from 0, got {env_steps.tolist()}")
        if not np.all(np.isfinite([*scores, offline_score])):
            raise ValueError(f"scores must be finite, got {scores.tolist()} after offline {offline_score}")
        online = env_steps > 0
        return Curve(np.append(0, env_steps[online]), np.append(float(offline_score), scores[online]))

    @property
    def offline_score(self) -> PerCurve:
        """The score at the switch."""
        return self.scores[..., 0]

    @property
    def last(self) -> int:
        """The env step of the last evaluation."""
        return int(self.env_steps[-1])

    def at(self, steps: Num[np.ndarray, " T"]) -> Float[np.ndarray, "*S T"]:
        """s(t) at any env steps up to the last."""
        left, share = self._place(steps)
        right = np.minimum(left + 1, len(self.env_steps) - 1)
        return self.scores[..., left] * (1 - share) + self.scores[..., right] * share

    def area(self, steps: Num[np.ndarray, " T"]) -> Float[np.ndarray, "*S T"]:
        """∫ s from the switch to any env steps up to the last; less than 0 before the switch."""
        gaps = np.diff(self.env_steps)
        pieces = gaps * (self.scores[..., 1:] + self.scores[..., :-1]) / 2
        knots = np.concatenate([np.zeros((*pieces.shape[:-1], 1)), np.cumsum(pieces, axis=-1)], axis=-1)
        left, _ = self._place(steps)
        beyond = (self.scores[..., left] + self.at(steps)) / 2 * (steps - self.env_steps[left])
        return knots[..., left] + beyond

    def until(self, step: int) -> Curve:
        """The curve up to an env step, where it does not end before."""
        if step >= self.last:
            return self
        kept = self.env_steps < step
        end = self.at(np.array([step]))
        return Curve(
            np.append(self.env_steps[kept], step), np.concatenate([self.scores[..., kept], end], axis=-1)
        )

    def restarted(self, step: int, window: int = WINDOW) -> Curve:
        """The curve from an env step on, as if the switch had been there: m(step) takes the offline score's place."""
        kept = self.env_steps > step
        start = (self.area(np.array([step])) - self.area(np.array([step - window]))) / window
        return Curve(
            np.append(0, self.env_steps[kept] - step),
            np.concatenate([start, self.scores[..., kept]], axis=-1),
        )

    def _place(self, steps: Num[np.ndarray, " T"]) -> tuple[np.ndarray, np.ndarray]:
        """The evaluation before each step, and how far the step is on the way to the next (0 before the switch)."""
        left = np.clip(np.searchsorted(self.env_steps, steps, side="right") - 1, 0, len(self.env_steps) - 1)
        right = np.minimum(left + 1, len(self.env_steps) - 1)
        gap = np.maximum(self.env_steps[right] - self.env_steps[left], 1)
        return left, np.clip((steps - self.env_steps[left]) / gap, 0.0, 1.0)


def regret(curve: Curve, horizon: int = HORIZON) -> PerCurve:
    """The primary endpoint: the area below the offline score, as the mean points lost per env step.

    1/T ∫₀ᵀ max(0, offline − s(t)) dt with T the horizon, or the curve's length where that is shorter. Unit: points
    (points × steps / T). Points above the offline score do not make up for those below.
    """
    curve = curve.until(horizon)
    if curve.last == 0:
        return np.zeros_like(curve.offline_score)
    below = curve.scores[..., :1] - curve.scores
    left, right = below[..., :-1], below[..., 1:]
    both = np.maximum(left, 0.0) + np.maximum(right, 0.0)
    # Where the line crosses the offline score, only the triangle below it counts: its share of the step.
    largest, size = np.maximum(left, right), np.abs(left) + np.abs(right)
    crossing = left * right < 0
    share = np.where(crossing, largest / np.where(crossing, size, 1.0), 1.0)
    return np.sum(np.diff(curve.env_steps) * both / 2 * share, axis=-1) / curve.last


def effect(offline_score: float, points: float = EFFECT_POINTS, share: float = EFFECT_SHARE) -> float:
    """The regret beyond which a loss is called a collapse: so many points, and that share of the offline score."""
    return max(points, share * offline_score)


def depth(curve: Curve, window: int = WINDOW, horizon: int = HORIZON) -> PerCurve:
    """The drop in points, at least 0: max(0, offline − min m(t)) over 0 ≤ t ≤ T.

    m(t) = 1/w ∫ s(u) du over [t − w, t] is a moving mean over a fixed window, so that a denser grid has no more
    chances of a low evaluation.
    """
    _, means = _smooth(curve.until(horizon), window)
    return np.maximum(0.0, curve.offline_score - means.min(axis=-1))


def best(curve: Curve, window: int = WINDOW) -> PerCurve:
    """The greatest m(t) of the whole curve, in points: the best that the policy was for a window (not in the paper)."""
    return _smooth(curve, window)[1].max(axis=-1)


def decline(curve: Curve, window: int = WINDOW) -> PerCurve:
    """The points by which the end is below the best, max m(t) − m(T), with T the curve's end (not in the paper).

    Regret and depth count what lies below the offline score. A policy that climbs and falls again has neither.
    """
    end = np.array([curve.last])
    last = (curve.area(end) - curve.area(end - window))[..., 0] / window
    return np.maximum(0.0, best(curve, window) - last)


def recovery(
    curve: Curve, window: int = WINDOW, tolerance: float = TOLERANCE, horizon: int = HORIZON
) -> int | None:
    """The first env step after the minimum of m(t), taken over t ≤ T, at which m(t) ≥ offline − tolerance.

    0 where the drop is within the tolerance, None where the curve ends before it is back (right-censored: it took
    longer than was watched). Since m(t) looks back, it is up to one window later than s(t) itself. One curve only.
    """
    target = float(curve.offline_score) - tolerance
    steps, means = _smooth(curve, window, horizon)
    lowest = int(np.argmin(np.where(steps <= horizon, means, np.inf)))
    if means[lowest] >= target:
        return 0
    back = np.flatnonzero(means[lowest:] >= target)
    if not back.size:
        return None
    # m rises from one of its extremes or breaks to the next, along a parabola: m₀ + a·x + b·x² reaches the target at x.
    i = lowest + int(back[0])
    start, gap = steps[i - 1], steps[i] - steps[i - 1]
    ends = np.array([start, steps[i]])
    slope, next_slope = (curve.at(ends) - curve.at(ends - window)) / window
    missing = target - means[i - 1]
    root = np.sqrt(max(0.0, slope**2 + 2 * (next_slope - slope) / gap * missing))
    return int(np.ceil(start + min(gap, 2 * missing / (slope + root)) - 1e-6))


def area(curve: Curve, horizon: int | None = None) -> PerCurve:
    """The mean score while learning online: the area under the curve over its length, all of it or up to a budget."""
    curve = curve if horizon is None else curve.until(horizon)
    if curve.last == 0:
        return curve.offline_score
    return curve.area(np.array([curve.last]))[..., 0] / curve.last


def delta(curve: Curve) -> PerCurve:
    """The gain of finetuning in points: the last score minus the offline score (paper, Table 1)."""
    return curve.scores[..., -1] - curve.offline_score


def training_regret(
    env_steps: Num[np.ndarray, " N"],
    scores: Num[np.ndarray, " N"],
    lengths: Num[np.ndarray, " N"],
    offline_score: float,
    horizon: int = HORIZON,
    window: int = WINDOW,
) -> float:
    """The cost of collapse while it happens: the mean points below the offline score in training episodes.

    Episodes that end within T env steps are averaged, weighted by their length, in bins one window wide; what a bin is
    short of the offline score counts, what it is above does not. Free of evaluation, but the exploring policy's
    noise costs something in every arm, the frozen one's too. NaN where no training episode ended within T.
    """
    early = np.asarray(env_steps) <= horizon
    if not early.any():
        return float("nan")
    bins = (np.asarray(env_steps)[early] - 1) // window
    weights = np.asarray(lengths, dtype=np.float64)[early]
    total = np.bincount(bins, weights)
    earned = np.bincount(bins, weights * np.asarray(scores)[early])
    filled = total > 0
    short = np.maximum(0.0, offline_score - earned[filled] / total[filled])
    return float(np.average(short, weights=total[filled]))


def drawdowns(
    curve: Curve, start: int = LATE, length: int = HORIZON, window: int = WINDOW
) -> Float[np.ndarray, "2 D *S"]:
    """Regret and depth of falls that are none of the switch: in windows of the same length after `start` env steps.

    Each window, [start, start + length] and those that follow it whole, is taken as if the switch had been at its
    beginning. Its reference m(·) rests on fewer episodes than the offline score, which makes late falls look larger:
    a collapse beyond them is so in spite of it. D is 0 where the curve ends before.
    """
    parts = late_windows(curve, start, length, window)
    return np.array([[regret(p, length) for p in parts], [depth(p, window, length) for p in parts]])


def late_windows(
    curve: Curve, start: int = LATE, length: int = HORIZON, window: int = WINDOW
) -> tuple[Curve, ...]:
    """The windows of `drawdowns`, each as a curve of its own from its reference on."""
    begins = range(start, curve.last - length + 1, length)
    return tuple(curve.until(begin + length).restarted(begin, window) for begin in begins)


def null_curves(
    env_steps: Int[np.ndarray, " K"],
    deviations: Float[np.ndarray, " N"] | None,
    switch_scores: Float[np.ndarray, " E"],
    episodes: int,
    draws: int = 1_000,
    seed: int = 0,
) -> Curve:
    """Curves of a policy that never changes: what evaluation alone makes of one.

    From a frozen arm: each evaluation deviates from the offline score as one drawn from `deviations`, the frozen
    arm's. Without one: each averages so many `episodes` drawn from those at the switch, and so does, with as many as
    there are, the offline score; seeds of the environment that are the same at every evaluation are then not in it.
    """
    random = np.random.default_rng(seed)
    size = (draws, len(env_steps) - 1)
    if deviations is not None:
        offline = np.full((draws, 1), switch_scores.mean())
        online = offline + random.choice(deviations, size)
    else:
        offline = random.choice(switch_scores, (draws, len(switch_scores))).mean(axis=-1, keepdims=True)
        online = random.choice(switch_scores, (*size, episodes)).mean(axis=-1)
    return Curve(env_steps, np.concatenate([offline, online], axis=-1))


def summarise(
    env_steps: Num[np.ndarray, " E"],
    scores: Num[np.ndarray, " E"],
    offline_score: float,
    *,
    window: int = WINDOW,
    tolerance: float = TOLERANCE,
    horizon: int = HORIZON,
) -> dict[str, Any]:
    """The collapse metrics of one seed, as `result.json` keeps them.

    Keys: `regret` and `depth` (points), `relative_depth` (a share of the offline score; None below
    `RELATIVE_FLOOR`), `recovery_env_steps` (None: censored), `area` (points), `effect` (the regret beyond which it
    would be called a collapse, if it is beyond evaluation noise too, which one run alone cannot tell), and what they
    were taken with: `window`, `tolerance`, `horizon` (the T in use), `last_env_step`.
    """
    curve = Curve.of(env_steps, scores, offline_score)
    drop = float(depth(curve, window, horizon))
    return {
        "regret": float(regret(curve, horizon)),
        "depth": drop,
        "relative_depth": relative(drop, offline_score),
        "recovery_env_steps": recovery(curve, window, tolerance, horizon),
        "area": float(area(curve)),
        "effect": effect(offline_score),
        "window": window,
        "tolerance": tolerance,
        "horizon": min(horizon, curve.last),
        "last_env_step": curve.last,
    }


def relative(depth: float, offline_score: float) -> float | None:
    """A depth as a share of the offline score; None where that is below `RELATIVE_FLOOR`."""
    return depth / offline_score if offline_score >= RELATIVE_FLOOR else None


def _smooth(
    curve: Curve, window: int, also: int = 0
) -> tuple[Float[np.ndarray, " _"], Float[np.ndarray, "*S P"]]:
    """Env steps and m(t) at all its breaks and extremes, and one step `also`, between which it rises or falls only.

    m's slope is (s(t) − s(t − w))/w, linear between the breaks (an evaluation enters or leaves the window); where it
    changes sign m is least or greatest. The extremes of many curves lie at steps of their own.
    """
    breaks = np.unique(np.concatenate([curve.env_steps, curve.env_steps + window, [also]]))
    breaks = breaks[breaks <= curve.last].astype(np.float64)
    means = (curve.area(breaks) - curve.area(breaks - window)) / window
    slopes = (curve.at(breaks) - curve.at(breaks - window)) / window
    left, right, gaps = slopes[..., :-1], slopes[..., 1:], np.diff(breaks)
    turning = left * right < 0
    share = np.where(turning, left / np.where(turning, left - right, 1.0), 0.0)
    steps = breaks[:-1] + gaps * share
    extremes = means[..., :-1] + gaps * share * left / 2
    if means.ndim > 1:  # of many curves only the means are asked for, and their order doesn't matter
        return breaks, np.concatenate([means, extremes], axis=-1)
    steps, means = np.concatenate([breaks, steps]), np.concatenate([means, extremes])
    order = np.argsort(steps, kind="stable")
    return steps[order], means[order]
