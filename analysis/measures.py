"""The collapse metrics of every run (o2o/collapse.py, docs/collapse.md), and the nulls that say what is a collapse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from analysis.cells import Cell
from analysis.runs import FROZEN, Finetuning
from o2o import collapse
from o2o.collapse import Curve

PERCENTILE = 99.0
"""Of the null: what is beyond it is called a collapse."""

HORIZONS = (20_000, 50_000, 100_000)
PERCENTILES = (95.0, 99.0, 99.9)
"""What sensitivity is shown to; the middle ones are in use everywhere else."""


@dataclass(frozen=True, eq=False)
class Null:
    """Made-up curves of the pretrained policy of one pretraining, had it never changed."""

    curves: Curve
    frozen: bool
    """Whether they are drawn from a frozen arm; if not, from the episodes at the switch."""
    _regrets: dict[int, collapse.PerCurve] = field(default_factory=dict, init=False, repr=False)

    def regret(self, percentile: float = PERCENTILE, horizon: int = collapse.HORIZON) -> float:
        """A percentile of the regret that evaluation noise alone gives."""
        if horizon not in self._regrets:
            self._regrets[horizon] = collapse.regret(self.curves, horizon)
        return float(np.percentile(self._regrets[horizon], percentile))


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
    def collapsed(self) -> bool:
        """Whether it lost more than evaluation noise explains."""
        return self.regret > self.threshold

    @cached_property
    def late(self) -> Float[np.ndarray, "2 D"]:
        """Regret and depth of the falls after 100 000 env steps, in windows of the same length."""
        return collapse.drawdowns(self.curve)

    @cached_property
    def early_as_late(self) -> float:
        """The regret at the switch, seen on no finer a grid than the late falls are: what they are compared with."""
        late = self.curve.env_steps[self.curve.env_steps >= collapse.LATE]
        if len(late) < 2:
            return float("nan")
        gap = int(np.median(np.diff(late)))
        kept = (self.curve.env_steps % gap == 0) | (self.curve.env_steps == self.curve.last)
        return float(collapse.regret(Curve(self.curve.env_steps[kept], self.curve.scores[kept])))

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
    def by_pretraining(self) -> dict[str, Measured]:
        """Its runs by the pretraining they came from."""
        return {run.run.pretraining_key: run for run in self.runs}


def measure(cells: Iterable[Cell]) -> tuple[Arm, ...]:
    """The arms among the cells, in their order, each run beside the null of its own pretraining."""
    cells = [cell for cell in cells if not cell.first.from_scratch]
    frozen: dict[str, Finetuning] = {}
    for cell in cells:
        if cell.algorithm == FROZEN:
            frozen |= {run.pretraining_key: run for run in cell.runs}
    nulls: dict[tuple[str, tuple[int, ...]], Null] = {}
    arms = []
    for cell in cells:
        measured = []
        for run in cell.runs:
            grid = np.append(0, run.env_steps[(run.env_steps > 0) & (run.env_steps <= max(HORIZONS))])
            key = run.pretraining_key, tuple(grid.tolist())
            if key not in nulls:
                nulls[key] = _null(run, grid, frozen)
            measured.append(Measured(run, nulls[key]))
        arms.append(Arm(cell, tuple(measured)))
    return tuple(arms)


def pairs(first: Arm, second: Arm) -> list[tuple[Measured, Measured]]:
    """The runs of two arms that came from the same pretraining."""
    others = second.by_pretraining
    return [(run, others[key]) for key, run in first.by_pretraining.items() if key in others]


def _null(run: Finetuning, grid: Int[np.ndarray, " K"], frozen: Mapping[str, Finetuning]) -> Null:
    arm = frozen.get(run.pretraining_key)
    deviations = None
    if arm is not None and len(arm.scores) > 1:
        deviations = arm.scores[1:] - arm.offline_score
    slope, base = _normalisation(run)
    returns = run.evaluations.get("returns")
    if returns is None or not len(returns[0]) or np.isnan(slope):  # imported curves have no episodes
        switch, episodes = np.array([run.offline_score], dtype=np.float64), 1
    else:
        switch = base + slope * np.asarray(returns[0], dtype=np.float64)
        episodes = len(returns[-1])
    curves = collapse.null_curves(grid, deviations, switch, episodes)
    return Null(curves, frozen=deviations is not None)


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
