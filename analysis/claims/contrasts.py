"""The contrasts by which a claim is decided, in points, one for each dataset, from runs or from the paper's tables.

Every function here returns them, or makes a function of the evidence that does; above 0 is the claim's side. A claim
may ask for several at a time, its conditions. Seeds that share a pretraining are paired; from tables nothing can be.
Regrets have evaluation noise in them, so that what is made of them is known between bounds only
(analysis/claims/bounds.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from analysis import statistics
from analysis.claims import bounds
from analysis.claims.bounds import Bounds
from analysis.claims.evidence import Evidence, Setting
from analysis.data import published
from analysis.data.measures import Arm, Measured, pairs
from analysis.statistics import Estimate
from analysis.tables.forms import thousands
from o2o.config.dataset_names import stands_for

Parts = dict[str, Bounds]
"""The contrasts by dataset or task."""
Conditions = dict[str, Parts]
"""The same by what each condition speaks of; "" where there is only one."""

EARLY = 10_000
"""Env steps that are few: the budget at which the early leader is told."""


def online(run: Measured) -> float:
    """The score of the last evaluation."""
    return run.run.online_score


def contrast(
    first: Setting, second: Setting, metric: Callable[[Measured], float]
) -> Callable[[Evidence], Conditions]:
    """For each dataset the mean of first − second, seed by seed, in something that noise does not shift."""

    def conditions(evidence: Evidence) -> Conditions:
        found = {}
        for dataset in evidence.datasets:
            if len(values := _scores(evidence, dataset, first, second, metric)):
                found[dataset] = bounds.exact(statistics.paired(values[:, 0], values[:, 1]))
        return {"": found}

    return conditions


def rivals(first: Setting, second: Setting) -> Callable[[Evidence], Conditions]:
    """For each dataset Online of first − (Online of second − its margin)."""

    def conditions(evidence: Evidence) -> Conditions:
        found = {}
        for dataset in evidence.datasets:
            if len(values := _scores(evidence, dataset, first, second, online)):
                slope, intercept = published.margin(float(values[:, 1].mean()))
                lowered = values[:, 1] - slope * values[:, 1] - intercept
                found[dataset] = bounds.exact(statistics.paired(values[:, 0], lowered))
        return {"": found}

    return conditions


def regrets(settings: Sequence[Setting], weights: Sequence[float]) -> Callable[[Evidence], Conditions]:
    """For each dataset the weighted sum of the settings' regrets, by pretraining."""

    def conditions(evidence: Evidence) -> Conditions:
        found = {}
        for dataset in evidence.datasets:
            if runs := evidence.together(dataset, settings):
                values = np.array([[run.regret_bounds for run in shared] for shared in runs])
                found[dataset] = bounds.of_seeds(values, weights)
        return {"": found}

    return conditions


def collapses(algorithm: str, replay: str) -> Callable[[Evidence], Conditions]:
    """For each dataset the mean regret beyond the least that is called a collapse."""

    def conditions(evidence: Evidence) -> Conditions:
        arms = {dataset: evidence.arm(dataset, (algorithm, replay)) for dataset in evidence.datasets}
        return {"": {dataset: _beyond_effect(arm, 1.0) for dataset, arm in arms.items() if arm}}

    return conditions


def does_not_collapse(algorithm: str, replays: Sequence[str]) -> Callable[[Evidence], Conditions]:
    """With each replay, for each dataset, by how much the mean regret is below what is called a collapse."""

    def conditions(evidence: Evidence) -> Conditions:
        found: Conditions = {}
        for replay in replays:
            arms = {dataset: evidence.arm(dataset, (algorithm, replay)) for dataset in evidence.datasets}
            found[f"replay {replay}"] = {d: _beyond_effect(arm, -1.0) for d, arm in arms.items() if arm}
        return found

    return conditions


def _beyond_effect(arm: Arm, sign: float) -> Bounds:
    values = np.array([[run.regret_bounds] for run in arm.runs])
    return bounds.of_seeds(values, [sign], shift=-sign * arm.values("effect"))


def ratios_do_not_rescue(evidence: Evidence) -> Conditions:
    """At each offline ratio there is, TD3's regret beyond the least that is called a collapse."""
    found: Conditions = {}
    for ratio in evidence.ratios:
        arms = {dataset: evidence.arm(dataset, ("td3", "offline"), ratio) for dataset in evidence.datasets}
        parts = {dataset: _beyond_effect(arm, 1.0) for dataset, arm in arms.items() if arm}
        if parts:  # other algorithms may have ratios of their own
            found[f"{100 * ratio:g} % offline"] = parts
    return found


def ratios_speed_up(evidence: Evidence) -> Conditions:
    """TD3-BC's area at the least offline share minus at the greatest."""
    found = {}
    for dataset in evidence.datasets:
        arms = [evidence.arm(dataset, ("td3_bc", "offline"), ratio) for ratio in evidence.ratios]
        present = [arm for arm in arms if arm]
        shared = pairs(present[0], present[-1]) if len(present) > 1 else []
        if shared:
            found[dataset] = bounds.exact(statistics.mean(np.array([a.area - b.area for a, b in shared])))
    return {"": found}


def medium_is_worse(evidence: Evidence) -> Conditions:
    """TD3's regret on a task's medium set minus on its medium-replay set, whose seeds share nothing."""
    found = {}
    by_name = {stands_for(dataset): dataset for dataset in evidence.datasets}
    for name, dataset in by_name.items():
        replay = by_name.get(f"{name}-replay")
        if not name.endswith("-medium") or replay is None:
            continue
        arm, other = (evidence.arm(one, ("td3", "offline")) for one in (dataset, replay))
        if arm and other:
            sides = [
                bounds.of_seeds(np.array([[run.regret_bounds] for run in a.runs]), [1.0])
                for a in (arm, other)
            ]
            found[arm.cell.first.task] = bounds.difference(*sides)
    return {"": found}


def scratch_is_worse(evidence: Evidence) -> Conditions:
    """TD3's Online score after pretraining minus from scratch, whose seeds share nothing."""
    found = {}
    for dataset in evidence.datasets:
        arm = evidence.arm(dataset, ("td3", "offline"))
        cell = evidence.scratch(arm.cell.first.task) if arm else None
        if arm and cell:
            scratch = np.array([run.online_score for run in cell.runs])
            found[dataset] = bounds.exact(statistics.unpaired(arm.scores()[1], scratch))
    return {"": found}


def beyond_fluctuations(evidence: Evidence) -> Conditions:
    """TD3's regret at the switch, on the late grid, minus its own regret in windows after 100 000 steps."""
    found = {}
    for dataset in evidence.datasets:
        arm = evidence.arm(dataset, ("td3", "offline"))
        runs = [run for run in arm.runs if run.late.size] if arm else []
        if runs:
            found[dataset] = bounds.of_seeds(np.array([run.late_bounds for run in runs]), [1.0, -1.0])
    return {"": found}


def budget_decides(evidence: Evidence) -> Conditions:
    """TD3-BC's lead over TD3 after few env steps, and TD3's over TD3-BC at the end: the winner must change."""
    td3, td3_bc = ("td3", "offline"), ("td3_bc", "offline")
    early = contrast(td3_bc, td3, lambda run: run.score_at(EARLY))(evidence)
    late = contrast(td3, td3_bc, online)(evidence)
    return {f"TD3-BC ahead after {thousands(EARLY)}": early[""], "TD3 ahead at the end": late[""]}


def better_than_published(algorithm: str) -> Callable[[Evidence], Conditions]:
    """Our Online minus the better one of ODT and IQL as published; on D4RL's own data, at the paper's settings only."""

    def conditions(evidence: Evidence) -> Conditions:
        found = {}
        for dataset in published.DATASETS:
            arm = evidence.arm(dataset, (algorithm, "offline"))
            first = arm.cell.first if arm else None
            if arm and first and first.source == "d4rl" and not published.other_settings(first.settings):
                ours = statistics.mean(arm.scores()[1])
                found[dataset] = bounds.exact(
                    statistics.combine([ours, _best_baseline(dataset)], [1.0, -1.0])
                )
        return {"": found}

    return conditions


def _scores(
    evidence: Evidence, dataset: str, first: Setting, second: Setting, metric: Callable[[Measured], float]
) -> np.ndarray:
    """[seeds, 2], without those whose run ends before the budget asked for."""
    runs = evidence.together(dataset, (first, second))
    values = np.array([[metric(one), metric(other)] for one, other in runs]).reshape(-1, 2)
    return values[~np.isnan(values).any(axis=1)]


def _best_baseline(dataset: str) -> Estimate:
    return max((_table_online(dataset, (name, "offline")) for name in ("odt", "iql")), key=lambda e: e.value)


def _table_online(dataset: str, setting: Setting) -> Estimate:
    row = published.find(dataset, *setting)
    assert row is not None, f"{setting} is not in the tables"
    assert row.online.deviation is not None, "the paper prints all of Online's deviations"
    return statistics.published_mean(row.online.mean, row.online.deviation, published.SEEDS)


def table_contrast(first: Setting, second: Setting) -> Callable[[], Conditions]:
    """The same contrast of Online scores from the paper's tables."""
    return _from_tables(
        lambda d: statistics.combine([_table_online(d, first), _table_online(d, second)], [1.0, -1.0])
    )


def table_rivals(first: Setting, second: Setting) -> Callable[[], Conditions]:
    """The same with the second's margin, from the paper's tables."""

    def estimate(dataset: str) -> Estimate:
        a, b = _table_online(dataset, first), _table_online(dataset, second)
        slope, intercept = published.margin(b.value)
        return statistics.combine([a, b], [1.0, slope - 1.0], shift=intercept)

    return _from_tables(estimate)


def table_better(algorithm: str) -> Callable[[], Conditions]:
    """An algorithm's Online score minus the better one of ODT and IQL, all from the paper's Table 1."""
    return _from_tables(
        lambda d: statistics.combine(
            [_table_online(d, (algorithm, "offline")), _best_baseline(d)], [1.0, -1.0]
        )
    )


def _from_tables(estimate: Callable[[str], Estimate]) -> Callable[[], Conditions]:
    return lambda: {"": {dataset: bounds.exact(estimate(dataset)) for dataset in published.DATASETS}}
