"""Policy collapse in numbers: how deep, how long, how much, for one seed's online learning curve.

The definitions are this project's; the paper shows collapse in its figures and reports the difference δ only. All
read the evaluation scores as one continuous curve s(t) over env steps t: linear between evaluations, the offline
score at t ≤ 0 (before the switch the policy was the pretrained one), undefined after the last evaluation. So they do
not depend on how often was evaluated, beyond what was seen: a denser or thinner grid whose curve differs by at most e
points anywhere changes `regret` and `depth` by at most e. Scores are D4RL-normalised points, 0 to 100.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Num

WINDOW = 2_500
"""Env steps that are averaged: five evaluations on the finest grid (every 500), which more than halves the noise of
ten episodes, and short beside the collapses of the paper's figures, which last tens of thousands of steps."""

TOLERANCE = 2.0
"""Points below the offline score that still count as being back: the noise of an evaluation, not a collapse."""

HORIZON = 50_000
"""Env steps over which the regret is taken: the early phase, in which the paper sees the collapse."""

Curve = Float[np.ndarray, " T"]


def delta(scores: Num[np.ndarray, " E"], offline_score: float) -> float:
    """The gain of finetuning in points: the last score minus the offline score (paper, Table 1)."""
    return float(scores[-1] - offline_score)


def regret(curve: Curve, offline_score: float, horizon: int = HORIZON) -> float:
    """The mean number of points below the offline score over the first T env steps.

    1/T ∫₀ᵀ max(0, offline − s(t)) dt by trapezoids one env step wide, with T the horizon or the curve's length,
    whichever is shorter. Unit: points (points × steps / T). Points above the offline score do not make up for it.
    """
    steps = min(horizon, len(curve) - 1)
    if steps == 0:
        return 0.0
    below = np.maximum(0.0, offline_score - curve[: steps + 1])
    return float(np.sum(below[1:] + below[:-1]) / 2 / steps)


def windowed(curve: Curve, offline_score: float, window: int = WINDOW) -> Curve:
    """The trailing mean m(t) = 1/w ∫ s(u) du over [t − w, t], for every env step t from 0; m(0) = offline."""
    before = np.full(window, float(offline_score))
    extended = np.concatenate([before, curve])
    area = np.concatenate([[0.0], np.cumsum((extended[1:] + extended[:-1]) / 2)])
    return (area[window:] - area[:-window]) / window


def depth(smooth: Curve, offline_score: float) -> float:
    """The drop in points, at least 0: max(0, offline − min m(t)) over all windowed env steps."""
    return max(0.0, float(offline_score - smooth.min()))


def recovery(smooth: Curve, offline_score: float, tolerance: float = TOLERANCE) -> int | None:
    """The first env step after the minimum of m(t) at which m(t) ≥ offline − tolerance.

    0 where the drop is within the tolerance, None where the curve ends before it is back (right-censored: it took
    longer than was watched). Since m(t) looks back, it is up to one window later than s(t) itself.
    """
    target = offline_score - tolerance
    lowest = int(smooth.argmin())
    if smooth[lowest] >= target:
        return 0
    back = np.flatnonzero(smooth[lowest:] >= target)
    return lowest + int(back[0]) if back.size else None


def per_env_step(
    env_steps: Num[np.ndarray, " E"], scores: Num[np.ndarray, " E"], offline_score: float
) -> Curve:
    """The curve s(t) at every env step from 0 to the last evaluation.

    An evaluation at env step 0, if there is one, is replaced by `offline_score`, which may rest on other episodes.

    Raises:
        ValueError: no evaluation, env steps that do not increase, or a score that is not finite.
    """
    env_steps, scores = np.asarray(env_steps), np.asarray(scores, dtype=np.float64)
    if scores.size == 0 or scores.shape != env_steps.shape:
        raise ValueError(f"a curve needs one score per evaluation, got {env_steps.size} and {scores.size}")
    if env_steps[0] < 0 or np.any(np.diff(env_steps) <= 0):
        raise ValueError(f"env_steps must increase from 0, got {env_steps.tolist()}")
    if not np.all(np.isfinite([*scores, offline_score])):
        raise ValueError(f"scores must be finite, got {scores.tolist()} after offline {offline_score}")
    online = env_steps > 0
    knots = np.concatenate([[0], env_steps[online]])
    values = np.concatenate([[offline_score], scores[online]])
    return np.interp(np.arange(knots[-1] + 1), knots, values)


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

    Keys: `depth` (points), `lowest_env_step` (where m(t) is least), `recovery_env_steps` (None: censored), `regret`
    (points), and what they were taken with: `window`, `tolerance`, `horizon` (the T in use), `last_env_step`.
    """
    curve = per_env_step(env_steps, scores, offline_score)
    smooth = windowed(curve, offline_score, window)
    return {
        "depth": depth(smooth, offline_score),
        "lowest_env_step": int(smooth.argmin()),
        "recovery_env_steps": recovery(smooth, offline_score, tolerance),
        "regret": regret(curve, offline_score, horizon),
        "window": window,
        "tolerance": tolerance,
        "horizon": min(horizon, len(curve) - 1),
        "last_env_step": len(curve) - 1,
    }
