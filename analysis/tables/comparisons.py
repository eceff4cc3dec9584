"""Two arms at a time, seed by seed where they share a pretraining: what was lost less, and who ended higher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from analysis import statistics
from analysis.data import published
from analysis.data.measures import Arm, Measured, pairs
from analysis.data.runs import FROZEN
from analysis.tables.forms import NOTHING, Entry, Table, interval, p_value, words
from analysis.tables.paper_tables import dataset_name
from o2o import collapse

Pairs = Sequence[tuple[Measured, Measured]]


def comparisons_table(arms: Sequence[Arm]) -> Table:
    """Every two algorithms with the same replay, and every algorithm with the offline data against without."""
    compared = []
    for first, second in _comparable(arms):
        shared = pairs(first, second)
        if shared:
            compared.append((first, second, shared))
    cut = any(len({run.curve.last for pair in shared for run in pair}) > 1 for *_, shared in compared)
    regrets = [statistics.paired(*_columns(shared, "regret")) for *_, shared in compared]
    online = [statistics.paired(*_columns(shared, "online")) for *_, shared in compared]
    datasets = [first.cell.dataset for first, *_ in compared]
    holm_regret = _holm_within(datasets, regrets)
    holm_online = _holm_within(datasets, online)
    rows = []
    for i, (first, second, shared) in enumerate(compared):
        alone = len(first.runs) + len(second.runs) - 2 * len(shared)
        runs = tuple(run.run.path for pair in shared for run in pair)
        seeds = f"{len(shared)}" + (f" ({alone} without a partner)" if alone else "")
        rows.append(
            (
                words(dataset_name(first.cell) if _source(first) == _source(second) else first.cell.dataset),
                *(words(_name(arm)) for arm in (first, second)),
                Entry(seeds, float(len(shared)), runs=runs),
                *_compared(shared, "regret", float(holm_regret[i]), smaller_wins=True),
                *_compared(shared, "online", float(holm_online[i]), smaller_wins=False),
                p_value(_rivals(shared)),
            )
        )
    columns = (
        "dataset", "A", "B", "pairs", "regret A − B", "p (Holm)", "P(A loses less)", "online A − B", "p (Holm) ",
        "P(A ends higher)", "p (rivals)",
    )  # fmt: skip
    notes = [
        "Pairs share their pretraining. Brackets: 95 % paired bootstrap (too narrow below about ten pairs). p: paired "
        "t test, with Holm's correction over the rows of one dataset. p (rivals): two one-sided tests that A ends "
        f"within 10 % of the size of B's mean, and at least {published.WITHIN_POINTS:g} points; below 0.05 they are "
        "equivalent. Evaluation noise adds to the regret of both, and hides a part of their difference.",
    ]
    if cut:
        notes.append(
            "Where one of two ended earlier, both are compared as far as that: online is the score there."
        )
    return Table("comparisons", "Arms against each other", columns, tuple(rows), tuple(notes))


def _comparable(arms: Sequence[Arm]) -> Iterator[tuple[Arm, Arm]]:
    for first, second in combinations(arms, 2):
        a, b = first.cell, second.cell
        if a.dataset != b.dataset or FROZEN in (a.algorithm, b.algorithm):
            continue
        if a.replay == b.replay or (a.label == b.label and {a.replay, b.replay} == {"offline", "empty"}):
            yield first, second


def _source(arm: Arm) -> str:
    return arm.cell.first.source


def _name(arm: Arm) -> str:
    imported = " (imported)" if _source(arm) == "imported" else ""
    return f"{arm.cell.label}, {arm.cell.replay}{imported}"


def _rivals(shared: Pairs) -> float:
    first, second = _columns(shared, "online")
    slope, intercept = published.margin(float(second.mean()))
    margins = slope * second + intercept
    return statistics.equivalent(
        statistics.paired(first, second - margins), statistics.paired(first, second + margins)
    )


def _holm_within(families: Sequence[str], estimates: Sequence[statistics.Estimate]) -> np.ndarray:
    """Holm's correction of every test in its family."""
    p_values = np.array([estimate.p_value for estimate in estimates])
    adjusted = np.empty_like(p_values)
    for family in set(families):
        members = np.array([name == family for name in families])
        adjusted[members] = statistics.holm(p_values[members])
    return adjusted


def _columns(shared: Pairs, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Regrets or online scores of both sides, as far as all of them were run."""
    last = min(run.curve.last for pair in shared for run in pair)

    def value(run: Measured) -> float:
        return run.score_at(last) if metric == "online" else float(collapse.regret(run.curve.until(last)))

    return np.array([value(a) for a, _ in shared]), np.array([value(b) for _, b in shared])


def _compared(shared: Pairs, metric: str, holm: float, smaller_wins: bool) -> tuple[Entry, Entry, Entry]:
    first, second = _columns(shared, metric)
    gain = float(np.mean(first - second))
    low, high = statistics.paired_bootstrap(first, second) if len(shared) > 1 else (np.nan, np.nan)
    winner, loser = (second, first) if smaller_wins else (first, second)
    probability = statistics.probability_of_improvement([winner], [loser])
    share = Entry(f"{probability:.0%}", probability) if len(shared) > 1 else Entry(NOTHING)
    return interval(gain, low, high, sign="+"), p_value(holm), share
