"""The collapse metrics of every run (o2o/collapse.py, docs/collapse.md), and the nulls that say what noise alone gives.

All of them are computed from the evaluations; what `result.json` keeps of them is not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from analysis.data.cells import Cell
from analysis.data.runs import FROZEN, Finetuning
from o2o import collapse
from o2o.collapse import Curve

RunOutcome = Literal["collapsed", "detectable", "none"]
"""The name for one seed's regret: beyond evaluation noise and the least effect, beyond noise only, or neither."""

PERCENTILE = 99.0
"""Of the null: what is beyond it is more than evaluation noise."""

LAST_SHARE = 0.2
"""The share of a pretraining, up to its end, whose evaluations say how much it moved by itself."""

HORIZONS = (20_000, 50_000, 100_000)
PERCENTILES = (95.0, 99.0, 99.9)
EFFECTS = ((2.0, 0.05), (collapse.EFFECT_POINTS, collapse.EFFECT_SHARE), (10.0, 0.25))
"""Thresholds of the sensitivity (points, share of the offline score); the middle ones are in use elsewhere."""


@dataclass(frozen=True, eq=False)
class Null:
    """Made-up curves of the pretrained policy of one pretraining, had it never changed."""

    draw: Callable[[Int[np.ndarray, " K"]], Curve]
    """Draws them at any env steps."""
    env_steps: Int[np.ndarray, " K"]
    """The env steps at which the runs were evaluated that it belongs to."""
    frozen: bool
    """Whether they are drawn from a frozen arm; if not, from the episodes at the switch."""
    known: bool
    """Whether either is there. If not, as for imported curves, they have no noise, and nobody knows how much it was."""
    _regrets: dict[int, collapse.PerCurve] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def curves(self) -> Curve:
        """Its curves up to the longest horizon."""
        return self.draw(self.env_steps[self.env_steps <= max(HORIZONS)])

    def regret(self, percentile: float = PERCENTILE, horizon: int = collapse.HORIZON) -> float:
        """A percentile of the regret that evaluation noise alone gives."""
        return float(np.percentile(self._regret(horizon), percentile))

    @cached_property
    def mean_regret(self) -> float:
        """The regret that evaluation noise alone gives on average."""
        return float(np.mean(self._regret(collapse.HORIZON)))

    @cached_property
    def mean_late_regrets(self) -> tuple[float, float]:
        """The same on the late grid: at the switch, and in a window after 100 000 env steps."""
        curves = self.draw(self.env_steps)
        late = [np.mean(collapse.regret(window)) for window in collapse.late_windows(curves)]
        return float(np.mean(_early_as_late(curves))), float(np.mean(late))

    def _regret(self, horizon: int) -> collapse.PerCurve:
        if horizon not in self._regrets:
            self._regrets[horizon] = collapse.regret(self.curves, horizon)
        return self._regrets[horizon]


@dataclass(frozen=True, eq=False)
class Measured:
    """One run with its collapse metrics; those that look at the offline score exist for pretrained runs only."""

    run: Finetuning
    null: Null

    @cached_property
    def curve(self) -> Curve:
        """Its scores over env steps, from the offline score at the switch."""
        assert self.run.offline_score is not None, "runs from scratch have nothing to lose"
        return Curve.of(self.run.env_steps, self.run.scores, self.run.offline_score)

    @cached_property
    def regret(self) -> float:
        """The primary endpoint, in points."""
        return float(collapse.regret(self.curve))

    @cached_property
    def scores_before(self) -> Float[np.ndarray, " E"]:
        """The scores of the evaluations in the last fifth of its pretraining; none where that is not among the runs."""
        updates, scores = self.run.pretraining_curve
        return scores[updates > -LAST_SHARE * self.run.switch]

    @cached_property
    def regret_before(self) -> float:
        """Mean points of `scores_before` below the offline score; NaN without them."""
        below = np.maximum(0.0, float(self.curve.offline_score) - self.scores_before)
        return float(below.mean()) if below.size else float("nan")

    @cached_property
    def scores_after(self) -> Float[np.ndarray, " E"]:
        """The scores of the evaluations after the switch, within the horizon."""
        return self.curve.until(collapse.HORIZON).scores[1:]

    @cached_property
    def depth(self) -> float:
        """The deepest fall of the windowed mean within the horizon, in points."""
        return float(collapse.depth(self.curve))

    @property
    def relative_depth(self) -> float | None:
        """The same as a share of the offline score; None where that is too small to divide by."""
        return collapse.relative(self.depth, float(self.curve.offline_score))

    @cached_property
    def recovery(self) -> int | None:
        """Env steps until it was back; None where it never was while watched."""
        return collapse.recovery(self.curve)

    @property
    def recovery_time(self) -> int:
        """Env steps until it was back, or until watching ended."""
        return self.curve.last if self.recovery is None else self.recovery

    @cached_property
    def area(self) -> float:
        """The mean score over the online phase, in points."""
        return float(collapse.area(self.curve))

    @cached_property
    def delta(self) -> float:
        """The last score minus the offline score, in points."""
        return float(collapse.delta(self.curve))

    @cached_property
    def training_regret(self) -> float:
        """Mean points below the offline score in training episodes; NaN where none are recorded."""
        episodes = self.run.episodes
        slope, base = _normalisation(self.run)
        if not episodes or np.isnan(slope):
            return float("nan")
        scores = base + slope * episodes["return"]
        return collapse.training_regret(
            episodes["env_step"], scores, episodes["length"], float(self.curve.offline_score)
        )

    @cached_property
    def threshold(self) -> float:
        """The regret that its pretraining's null reaches in one of a hundred curves."""
        return self.null.regret()

    @property
    def effect(self) -> float:
        """The regret beyond which a loss is called a collapse, in points."""
        return collapse.effect(float(self.curve.offline_score))

    @property
    def collapsed(self) -> bool:
        """Whether it lost more than evaluation noise explains, and enough to be called a collapse."""
        return self.outcome == "collapsed"

    @property
    def detectable(self) -> bool:
        """Whether it lost more than evaluation noise explains, but not enough to be called a collapse."""
        return self.outcome == "detectable"

    @property
    def outcome(self) -> RunOutcome:
        """The name for its regret."""
        return self.outcome_at()

    def outcome_at(
        self,
        percentile: float = PERCENTILE,
        horizon: int = collapse.HORIZON,
        least: tuple[float, float] = (collapse.EFFECT_POINTS, collapse.EFFECT_SHARE),
    ) -> RunOutcome:
        """The same for any percentile of the null, horizon, and least effect (points and share)."""
        regret = float(collapse.regret(self.curve, horizon))
        if not regret > self.null.regret(percentile, horizon):
            return "none"
        return (
            "collapsed" if regret > collapse.effect(float(self.curve.offline_score), *least) else "detectable"
        )

    @property
    def regret_bounds(self) -> tuple[float, float]:
        """Between what its regret, free of evaluation noise, lies on average over seeds.

        Noise only ever adds to a regret: most, the null's mean, where the policy is at its offline score, and less the
        further it is from there, above or below. So the truth is at least the regret minus the null's mean, and at most
        the regret. Where the noise is not known, all of it may be noise.
        """
        return (self.regret - self.null.mean_regret if self.null.known else 0.0), self.regret

    @cached_property
    def late(self) -> Float[np.ndarray, "2 D"]:
        """Regret and depth of the falls after 100 000 env steps, in windows of the same length."""
        return collapse.drawdowns(self.curve)

    @cached_property
    def early_as_late(self) -> float:
        """The regret at the switch, seen on no finer a grid than the late falls are: what they are compared with."""
        return float(_early_as_late(self.curve))

    @property
    def late_bounds(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Bounds like `regret_bounds`, of the regret at the switch on the late grid, and of the mean late fall."""
        early, late = self.early_as_late, float(self.late[0].mean())
        early_noise, late_noise = self.null.mean_late_regrets if self.null.known else (early, late)
        return (early - early_noise, early), (late - late_noise, late)

    def score_at(self, budget: int) -> float:
        """S at so many env steps; NaN beyond the last evaluation."""
        return float(self.curve.at(np.array([budget]))[0]) if budget <= self.curve.last else float("nan")


@dataclass(frozen=True, eq=False)
class Arm:
    """A cell whose runs are measured: what can be lost, so nothing from scratch."""

    cell: Cell
    runs: tuple[Measured, ...]

    def values(self, metric: str) -> Float[np.ndarray, " N"]:
        """One metric of every seed, by its name in `Measured`; NaN where a run has none."""
        found = [getattr(run, metric) for run in self.runs]
        return np.array([np.nan if value is None else value for value in found], dtype=np.float64)

    def scores(self) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
        """Offline and online score of every seed."""
        offline = [float(run.curve.offline_score) for run in self.runs]
        return np.array(offline), np.array([run.run.online_score for run in self.runs])

    @property
    def by_pretraining(self) -> dict[str | None, Measured]:
        """Its runs by the pretraining they came from."""
        return {run.run.pretraining_identity: run for run in self.runs}


def measure(cells: Iterable[Cell]) -> tuple[Arm, ...]:
    """The arms among the cells, in their order, each run beside the null of its own pretraining."""
    cells = [cell for cell in cells if not cell.first.from_scratch]
    frozen: dict[_Evaluated, Finetuning] = {}
    for run in (run for cell in cells if cell.algorithm == FROZEN for run in cell.runs):
        frozen.setdefault(_evaluated(run), run)
    nulls: dict[tuple[_Evaluated, tuple[int, ...]], Null] = {}
    arms = []
    for cell in cells:
        measured = []
        for run in cell.runs:
            key = _evaluated(run), tuple(run.env_steps.tolist())
            if key not in nulls:
                nulls[key] = _null(run, frozen)
            measured.append(Measured(run, nulls[key]))
        arms.append(Arm(cell, tuple(measured)))
    return tuple(arms)


def pairs(first: Arm, second: Arm) -> list[tuple[Measured, Measured]]:
    """The runs of two arms that came from the same pretraining."""
    others = second.by_pretraining
    return [(run, others[key]) for key, run in first.by_pretraining.items() if key in others]


def _early_as_late(curve: Curve) -> collapse.PerCurve:
    late = curve.env_steps[curve.env_steps >= collapse.LATE]
    if len(late) < 2:
        return np.full_like(curve.offline_score, np.nan)
    gap = np.median(np.diff(late))
    kept = [0]
    for place, step in enumerate(curve.env_steps):
        if step - curve.env_steps[kept[-1]] >= 0.9 * gap or (step == curve.last and place):
            kept.append(place)
    return collapse.regret(Curve(curve.env_steps[kept], curve.scores[..., kept]))


_Evaluated = tuple[str | None, int, int]
"""A pretraining, and the episodes of an evaluation at the switch and of the others."""


def _evaluated(run: Finetuning) -> _Evaluated:
    returns = run.evaluations.get("returns")
    first, last = (len(returns[0]), len(returns[-1])) if returns is not None else (0, 0)
    return run.pretraining_identity, first, last


def _null(run: Finetuning, frozen: Mapping[_Evaluated, Finetuning]) -> Null:
    arm = frozen.get(_evaluated(run))
    deviations = None
    if arm is not None and len(arm.scores) > 1:
        deviations = arm.scores[1:] - arm.offline_score
    slope, base = _normalisation(run)
    returns = run.evaluations.get("returns")
    if returns is None or not len(returns[0]) or np.isnan(slope):  # imported curves have no episodes
        switch, episodes = np.array([run.offline_score], dtype=np.float64), 1
        known = deviations is not None
    else:
        switch = base + slope * np.asarray(returns[0], dtype=np.float64)
        episodes = len(returns[-1])
        known = deviations is not None or len(switch) > 1

    def draw(env_steps: Int[np.ndarray, " K"]) -> Curve:
        return collapse.null_curves(env_steps, deviations, switch, episodes)

    env_steps = np.append(0, run.env_steps[run.env_steps > 0])
    return Null(draw, env_steps, frozen=deviations is not None, known=known)


def _normalisation(run: Finetuning) -> tuple[float, float]:
    """Slope and intercept of the score as a function of the return, from the two evaluations farthest apart."""
    if "return_mean" not in run.evaluations:
        return float("nan"), float("nan")
    returns = run.evaluations["return_mean"].astype(np.float64)
    low, high = int(returns.argmin()), int(returns.argmax())
    if not returns[high] > returns[low]:
        return float("nan"), float("nan")
    slope = (run.scores[high] - run.scores[low]) / (returns[high] - returns[low])
    return float(slope), float(run.scores[low] - slope * returns[low])
