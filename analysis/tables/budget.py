"""Ranks of the arms at every online budget (paper, section 6), and who overtakes whom when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float

from analysis.data.measures import Arm, pairs
from analysis.data.runs import FROZEN
from analysis.statistics import CONFIDENCE, DRAWS
from analysis.tables.forms import NOTHING, Entry, Table, thousands, words
from analysis.tables.paper_tables import dataset_name

BUDGETS = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000)
"""Env steps one may take online (paper, section 6)."""
POINTS = 201
"""The number of budgets, evenly spread, at which a crossover is looked for."""


@dataclass(frozen=True)
class Crossover:
    """The budget from which on the first arm's mean stays ahead of the second's."""

    env_steps: float | None
    """0 where it is ahead all along, None where it is not ahead in the end."""
    low: float
    high: float
    """95 % of the redrawn seeds (paired bootstrap); infinite where it was not ahead in the end."""
    seeds: int


def crossover(first: Arm, second: Arm, draws: int = DRAWS, seed: int = 0) -> Crossover | None:
    """Returns when `first` overtakes `second` for good, on the pretrainings they share; None where they share none."""
    shared = pairs(first, second)
    if not shared:
        return None
    last = min(run.curve.last for pair in shared for run in pair)
    budgets = np.linspace(0, last, POINTS)
    gains = np.array([a.curve.at(budgets) - b.curve.at(budgets) for a, b in shared])
    random = np.random.default_rng(seed)
    count = len(gains)
    redrawn = random.multinomial(count, np.full(count, 1 / count), draws) / count @ gains
    found = _ahead_from(redrawn, budgets)
    ordered = np.sort(found)
    low, high = (ordered[round(q * (draws - 1))] for q in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    step = float(_ahead_from(gains.mean(axis=0)[None], budgets)[0])
    return Crossover(None if np.isinf(step) else step, float(low), float(high), len(shared))


def budgets_until(last: int) -> tuple[int, ...]:
    """The budgets that fit into so many env steps, and these themselves."""
    return (*(budget for budget in BUDGETS if budget < last), last)


def budget_table(arms: Sequence[Arm]) -> Table:
    """The mean score of every arm at every budget, with its rank among those of its dataset."""
    rows = []
    budgets = budgets_until(max((run.curve.last for arm in arms for run in arm.runs), default=BUDGETS[-1]))
    for alike in _by_dataset(arms).values():
        scores = {b: [_mean_at(arm, b) for arm in alike] for b in budgets}
        for i, arm in enumerate(alike):
            paths = tuple(run.run.path for run in arm.runs)
            entries = []
            for budget in budgets:
                score = scores[budget][i]
                if np.isnan(score):
                    entries.append(Entry(NOTHING))
                    continue
                rank = 1 + sum(other > score for other in scores[budget])
                entries.append(Entry(f"{score:.1f} ({rank})", score, bold=rank == 1, runs=paths))
            name = words(dataset_name(arm.cell))
            rows.append((name, words(arm.cell.label), words(arm.cell.replay), *entries))
    columns = ("dataset", "algorithm", "replay", *(f"{b / 1000:g}k" for b in budgets))
    notes = (
        "Mean score over seeds after so many env steps, with its rank in the dataset in brackets; the best is bold.",
    )
    return Table("budget", "Who is ahead at which online budget", columns, tuple(rows), notes)


def crossover_table(arms: Sequence[Arm]) -> Table:
    """For every two algorithms with the same replay, the budget from which one stays ahead."""
    rows = []
    for dataset, alike in _by_dataset(arms).items():
        for one, other in combinations(alike, 2):
            if one.cell.replay != other.cell.replay:
                continue
            ahead, behind = (one, other) if _lead(one, other) >= 0 else (other, one)
            found = crossover(ahead, behind)
            if found is None or found.env_steps is None:
                continue
            text = "all along" if found.env_steps == 0 else _thousands(found.env_steps)
            brackets = f" [{_thousands(found.low)}, {_thousands(found.high)}]" if found.seeds > 1 else ""
            rows.append(
                (
                    words(dataset),
                    words(one.cell.replay),
                    words(ahead.cell.label),
                    words(behind.cell.label),
                    Entry(text + brackets, found.env_steps),
                    Entry(str(found.seeds), float(found.seeds)),
                )
            )
    columns = ("dataset", "replay", "ahead in the end", "of", "from env step", "pairs")
    notes = (
        "The budget from which the mean stays ahead, looked for at 200 budgets; brackets are 95 % of the redrawn pairs "
        "of seeds, where never means that it was behind in the end. The end is that of the shorter of the two.",
    )
    return Table("crossover", "When one overtakes the other", columns, tuple(rows), notes)


def _ahead_from(gains: Float[np.ndarray, "D P"], budgets: Float[np.ndarray, " P"]) -> Float[np.ndarray, " D"]:
    """The budget after the last at which the gain was not above 0; infinite where that is the last of all."""
    behind = gains[:, 1:] <= 0  # at the switch they are level
    last = np.where(behind.any(axis=1), behind.shape[1] - 1 - behind[:, ::-1].argmax(axis=1), -1)
    after = np.append(budgets[1:], np.inf)[last + 1]
    return np.where(last < 0, 0.0, after)


def _by_dataset(arms: Sequence[Arm]) -> dict[str, list[Arm]]:
    groups: dict[str, list[Arm]] = {}
    for arm in arms:
        if arm.cell.algorithm != FROZEN:
            groups.setdefault(arm.cell.dataset, []).append(arm)
    return groups


def _mean_at(arm: Arm, budget: int) -> float:
    return float(np.mean([run.score_at(budget) for run in arm.runs]))


def _lead(first: Arm, second: Arm) -> float:
    """Points by which the first leads where the shorter ends, on the pretrainings they share; 0 without any."""
    shared = pairs(first, second)
    last = min((run.curve.last for pair in shared for run in pair), default=0)
    return float(np.mean([a.score_at(last) - b.score_at(last) for a, b in shared])) if shared else 0.0


def _thousands(steps: float) -> str:
    return "never" if np.isinf(steps) else thousands(steps)
