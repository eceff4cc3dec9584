"""What a claim is decided by: contrasts in points, one for each dataset, from runs or from the paper's tables.

Every function here returns them, or makes a function of the evidence that does; above 0 is the claim's side. Seeds that
share a pretraining are paired; from tables nothing can be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from analysis import published, statistics
from analysis.cells import Cell, display_name
from analysis.measures import Arm, Measured, pairs
from analysis.statistics import Estimate
from analysis.table import thousands

Setting = tuple[str, str]
"""An algorithm, and what its replay starts with."""
Parts = dict[str, Estimate]
"""The contrasts by dataset or task."""

SOURCES = {"d4rl": "D4RL data", "regenerated": "regenerated data", "imported": "imported curves"}


@dataclass(frozen=True, eq=False)
class Evidence:
    """The measured runs of one kind of data, and how to find an arm among them."""

    source: str
    env_steps: int
    """The length of the online phase, of all of them."""
    arms: tuple[Arm, ...]
    from_scratch: tuple[Cell, ...]
    ambiguous: set[str] = field(default_factory=set)
    """Arms that could not be used because several settings look the same; filled while claims are judged."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """The datasets there are, in the order of the arms."""
        return tuple(dict.fromkeys(arm.cell.dataset for arm in self.arms))

    @property
    def ratios(self) -> tuple[float, ...]:
        """The offline ratios there are, from the least."""
        return tuple(sorted({a.cell.offline_ratio for a in self.arms if a.cell.offline_ratio is not None}))

    def arm(self, dataset: str, setting: Setting, ratio: float | None = None) -> Arm | None:
        """The arm of that look; None where there is none, or several that differ in something else."""
        look = (dataset, *setting, ratio)
        found = [arm for arm in self.arms if arm.cell.look == look]
        if len(found) > 1:
            variants = ", ".join(arm.cell.variant for arm in found)
            name = display_name(found[0].cell.algorithm)
            self.ambiguous.add(f"{name} on {dataset}, replay {found[0].cell.replay}: {variants}")
        return found[0] if len(found) == 1 else None

    def scratch(self, task: str) -> Cell | None:
        """TD3 from scratch on a task."""
        found = [c for c in self.from_scratch if c.first.task == task and c.algorithm == "td3"]
        return found[0] if len(found) == 1 else None


def bodies_of_evidence(cells: Sequence[Cell], arms: Sequence[Arm]) -> tuple[Evidence, ...]:
    """Runs on D4RL's data, on regenerated data and on others', and of other lengths, never mixed.

    Training from scratch belongs to all of its length.
    """
    groups: dict[tuple[str, int, int], list[Arm]] = {}
    for arm in arms:
        first = arm.cell.first
        groups.setdefault((first.source, first.switch, first.budget), []).append(arm)
    found = []
    for (source, updates, env_steps), own in groups.items():
        name = SOURCES.get(source, f"{source} data")
        if (updates, env_steps) != published.SCALE:
            name += f", {thousands(env_steps)} env steps after {thousands(updates)} updates"
        scratch = tuple(c for c in cells if c.first.from_scratch and c.first.budget == env_steps)
        found.append(Evidence(name, env_steps, tuple(own), scratch))
    return tuple(found)


def online(run: Measured) -> float:
    """The score of the last evaluation."""
    return run.run.online_score


def _bare(dataset: str) -> str:
    """The name without what says whose data it is."""
    return dataset.removeprefix("regen-").removesuffix("-v2")


def contrast(
    first: Setting,
    second: Setting,
    metric: Callable[[Measured], float],
    share: float = 1.0,
    only: str | None = None,
) -> Callable[[Evidence], Parts]:
    """For each dataset the mean of first − share · second, seed by seed."""

    def parts(evidence: Evidence) -> Parts:
        found = {}
        for dataset in evidence.datasets:
            a, b = evidence.arm(dataset, first), evidence.arm(dataset, second)
            shared = pairs(a, b) if a and b and only in (None, _bare(dataset)) else []
            if shared:
                values = np.array([[metric(one), metric(other)] for one, other in shared])
                values = values[~np.isnan(values).any(axis=1)]  # a run may end before the budget asked for
                if len(values):
                    found[dataset] = statistics.paired(values[:, 0], values[:, 1], share)
        return found

    return parts


def beyond_null(
    settings: Sequence[Setting], sign: float = 1.0, only: str | None = None
) -> Callable[[Evidence], Parts]:
    """For each dataset the mean regret beyond the null's 99th percentile, over the seeds of all settings."""

    def parts(evidence: Evidence) -> Parts:
        found = {}
        for dataset in evidence.datasets:
            arms = [evidence.arm(dataset, setting) for setting in settings]
            present = [arm for arm in arms if arm]
            if only in (None, _bare(dataset)) and present:
                found[dataset] = statistics.mean(_over_arms(present, sign))
        return found

    return parts


def _over_arms(arms: Sequence[Arm], sign: float) -> np.ndarray:
    """Each pretraining's regret beyond its threshold, averaged over the arms that have it: one number a seed."""
    excess: dict[str, list[float]] = {}
    for arm in arms:
        for key, run in arm.by_pretraining.items():
            excess.setdefault(key, []).append(sign * (run.regret - run.threshold))
    return np.array([np.mean(values) for values in excess.values()])


def ratios_do_not_rescue(evidence: Evidence) -> Parts:
    """TD3's regret beyond the null, averaged over the offline ratios there are."""
    found = {}
    for dataset in evidence.datasets:
        arms = [evidence.arm(dataset, ("td3", "offline"), ratio) for ratio in evidence.ratios]
        if present := [arm for arm in arms if arm]:
            found[dataset] = statistics.mean(_over_arms(present, 1.0))
    return found


def ratios_speed_up(evidence: Evidence) -> Parts:
    """TD3-BC's area at the least offline share minus at the greatest."""
    found = {}
    for dataset in evidence.datasets:
        arms = [evidence.arm(dataset, ("td3_bc", "offline"), ratio) for ratio in evidence.ratios]
        present = [arm for arm in arms if arm]
        shared = pairs(present[0], present[-1]) if len(present) > 1 else []
        if shared:
            found[dataset] = statistics.mean(np.array([a.area - b.area for a, b in shared]))
    return found


def medium_is_worse(evidence: Evidence) -> Parts:
    """TD3's regret on a task's medium set minus on its medium-replay set, whose seeds share nothing."""
    found = {}
    for dataset in evidence.datasets:
        arm = evidence.arm(dataset, ("td3", "offline"))
        other = evidence.arm(dataset.replace("medium", "medium-replay"), ("td3", "offline"))
        if arm and other and "medium-replay" not in dataset:
            found[arm.cell.first.task] = statistics.unpaired(arm.values("regret"), other.values("regret"))
    return found


def steadier_when_empty(evidence: Evidence) -> Parts:
    """(TD3 − TD3-C with an empty replay) − (TD3 − TD3-C with the offline data), in regret, by pretraining."""
    found = {}
    for dataset in evidence.datasets:
        arms = [evidence.arm(dataset, (a, r)) for r in ("empty", "offline") for a in ("td3", "td3_c")]
        if not all(arms):
            continue
        runs = [arm.by_pretraining for arm in arms if arm]
        keys = [key for key in runs[0] if all(key in other for other in runs)]
        gains = [np.dot([1, -1, -1, 1], [by[key].regret for by in runs]) for key in keys]
        if gains:
            found[dataset] = statistics.mean(np.array(gains))
    return found


def scratch_is_worse(evidence: Evidence) -> Parts:
    """TD3's Online score after pretraining minus from scratch, whose seeds share nothing."""
    found = {}
    for dataset in evidence.datasets:
        arm = evidence.arm(dataset, ("td3", "offline"))
        cell = evidence.scratch(arm.cell.first.task) if arm else None
        if arm and cell:
            scratch = np.array([run.online_score for run in cell.runs])
            found[dataset] = statistics.unpaired(arm.scores()[1], scratch)
    return found


def beyond_fluctuations(evidence: Evidence) -> Parts:
    """TD3's regret at the switch, on the late grid, minus its own regret in windows after 100 000 steps."""
    found = {}
    for dataset in evidence.datasets:
        arm = evidence.arm(dataset, ("td3", "offline"))
        runs = [run for run in arm.runs if run.late.size] if arm else []
        if runs:
            found[dataset] = statistics.mean(np.array([r.early_as_late - r.late[0].mean() for r in runs]))
    return found


def budget_decides(evidence: Evidence) -> Parts:
    """How much TD3's lead over TD3-BC grows from 10 000 env steps to the last."""

    def growth(run: Measured) -> float:
        return online(run) - run.score_at(10_000)

    return contrast(("td3", "offline"), ("td3_bc", "offline"), growth)(evidence)


def better_than_published(algorithm: str) -> Callable[[Evidence], Parts]:
    """Our Online minus the better one of ODT and IQL as published; on D4RL's own data only."""

    def parts(evidence: Evidence) -> Parts:
        found = {}
        for dataset in published.DATASETS:
            arm = evidence.arm(dataset, (algorithm, "offline"))
            if arm:
                ours = statistics.mean(arm.scores()[1])
                found[dataset] = statistics.combine([ours, _best_baseline(dataset)], [1.0, -1.0])
        return found

    return parts


def _best_baseline(dataset: str) -> Estimate:
    return max((_table_online(dataset, (name, "offline")) for name in ("odt", "iql")), key=lambda e: e.value)


def _table_online(dataset: str, setting: Setting) -> Estimate:
    row = published.find(dataset, *setting)
    assert row is not None, f"{setting} is not in the tables"
    assert row.online.deviation is not None, "the paper prints all of Online's deviations"
    return statistics.published_mean(row.online.mean, row.online.deviation, published.SEEDS)


def table_contrast(first: Setting, second: Setting, share: float = 1.0) -> Callable[[], Parts]:
    """The same contrast of Online scores from the paper's tables."""

    def parts() -> Parts:
        return {
            dataset: statistics.combine(
                [_table_online(dataset, first), _table_online(dataset, second)], [1.0, -share]
            )
            for dataset in published.DATASETS
        }

    return parts


def table_better(algorithm: str) -> Callable[[], Parts]:
    """An algorithm's Online score minus the better one of ODT and IQL, all from the paper's Table 1."""

    def parts() -> Parts:
        return {
            dataset: statistics.combine(
                [_table_online(dataset, (algorithm, "offline")), _best_baseline(dataset)], [1.0, -1.0]
            )
            for dataset in published.DATASETS
        }

    return parts
