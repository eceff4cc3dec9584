"""The outcome in words: who lost how much of what, how soon, in how many seeds, and who did not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.data.measures import Arm, Measured
from analysis.data.runs import FROZEN
from analysis.tables.forms import thousands
from o2o import collapse
from o2o.machine.counting import counted

MOST_TOLD = 4
"""The settings of a dataset that a headline tells of one by one."""


def headline(arms: Sequence[Arm]) -> dict[str, list[str]]:
    """For each dataset a sentence for every setting that collapsed, the worst first, and one for those that did not.

    Several datasets are summed up before, under a name that says how many.

    Points lost are the depth of the fall, as in the table of collapse; they and the offline score are means over the
    seeds that collapsed. The steps are those by which each of these seeds had an evaluation half of its depth below.
    Where the last evaluations of its pretraining lay as far below on average, it says so.
    """
    datasets: dict[str, list[Arm]] = {}
    for arm in arms:
        if arm.cell.algorithm != FROZEN:
            datasets.setdefault(arm.cell.dataset, []).append(arm)
    told = {dataset: _told(own) for dataset, own in datasets.items()}
    if len(datasets) < 2:
        return told
    return {f"{len(datasets)} datasets": _summed_up([arm for own in datasets.values() for arm in own])} | told


def _summed_up(arms: Sequence[Arm]) -> list[str]:
    """In how many seeds of all datasets each setting collapsed, the most first."""
    several = len({arm.cell.replay for arm in arms}) > 1
    seeds: dict[str, list[bool]] = {}
    for arm in arms:
        seeds.setdefault(_name(arm, several), []).extend(run.collapsed for run in arm.runs)
    shares = {name: sum(found) / len(found) for name, found in seeds.items()}
    lost = sorted((name for name in seeds if shares[name]), key=lambda name: -shares[name])
    kept = [name for name in seeds if not shares[name]]
    counts = [f"{name} in {sum(seeds[name])} of {counted(len(seeds[name]), 'seed')}" for name in lost]
    return [
        *([f"Collapsed: {_listed(counts)}."] if counts else []),
        *([f"No seed of {_listed(kept)} collapsed."] if kept else []),
    ]


def _told(arms: Sequence[Arm]) -> list[str]:
    several = len({arm.cell.replay for arm in arms}) > 1
    lost = sorted((arm for arm in arms if _collapsed(arm)), key=_badly, reverse=True)
    kept = [arm for arm in arms if not _collapsed(arm)]
    told = [_sentence(arm, several) for arm in lost[:MOST_TOLD]]
    if len(lost) > MOST_TOLD:
        told.append(f"Some seeds of {_names(lost[MOST_TOLD:], several)} collapsed, too.")
    if len(kept) == len(arms) > MOST_TOLD:
        told.append(f"No seed of any of the {len(kept)} settings collapsed.")
    elif kept:
        told.append(f"No seed of {_names(kept, several)} collapsed.")
    return told


def _badly(arm: Arm) -> tuple[float, float]:
    return len(_collapsed(arm)) / len(arm.runs), _loss(arm)[0]


def _sentence(arm: Arm, several: bool) -> str:
    fall, offline, steps = _loss(arm)
    seeds = f"{len(_collapsed(arm))} of {counted(len(arm.runs), 'seed')}"
    lost = f"{fall:.0f} of {offline:.0f} points, half of it within {thousands(steps)} env steps"
    before = (
        "" if _lost_by_the_switch(arm) else ", no more than its pretraining's last evaluations were below"
    )
    return f"{_name(arm, several)} lost {lost}, in {seeds}{before}."


def _lost_by_the_switch(arm: Arm) -> bool:
    """Whether it lay further below its offline score than its pretraining did, as far as that is known."""
    before = arm.values("regret_before")
    known = ~np.isnan(before)
    return not known.any() or bool(arm.values("regret")[known].mean() > before[known].mean())


def _names(arms: Sequence[Arm], several: bool) -> str:
    return _listed([_name(arm, several) for arm in arms])


def _listed(names: Sequence[str]) -> str:
    comma = "; " if any("," in name for name in names) else ", "  # a name with settings has its own
    if len(names) <= MOST_TOLD + 1:
        return comma.join(names)
    return f"{comma.join(names[:MOST_TOLD])} and {len(names) - MOST_TOLD} more"


def _name(arm: Arm, several: bool) -> str:
    return f"{arm.cell.label} (replay {arm.cell.replay})" if several else arm.cell.label


def _collapsed(arm: Arm) -> list[Measured]:
    return [run for run in arm.runs if run.collapsed]


def _loss(arm: Arm) -> tuple[float, float, int]:
    """Mean points lost, mean offline score, and most env steps to half of the loss, of the seeds that collapsed."""
    lost = _collapsed(arm)
    halves = []
    for run in lost:
        curve = run.curve.until(collapse.HORIZON)
        fallen = float(curve.offline_score) - curve.scores >= run.depth / 2
        halves.append(int(curve.env_steps[np.argmax(fallen)]))
    offline = [float(run.curve.offline_score) for run in lost]
    return float(np.mean([run.depth for run in lost])), float(np.mean(offline)), max(halves)
