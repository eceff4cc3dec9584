"""Verdicts on the paper's claims: an interval, a verdict, and how far from one an open question is.

A claim **holds** where the 95 % interval of its contrast lies above 0, **fails** where it lies below, and is
**undecided** otherwise; then it is said how many more seeds would decide it, were the estimates and spreads the truth.
It speaks of a number of datasets, and holds only where there are runs on all of them; what they say on fewer is told
beside. Fewer than five seeds decide nothing (analysis/claims/bounds.py). Runs that end before what a claim speaks of
are **too short** to judge it.

Whatever several contrasts decide is a verdict of the claim: one in twenty may be wrong, half of them on either side.
Single datasets are tested with Holm's correction over the claim's datasets, and a condition of several fails only at
its share of the error. That all hold needs no correction: the weakest decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np

from analysis import statistics
from analysis.claims import bounds
from analysis.claims.bounds import ALPHA, Bounds
from analysis.claims.contrasts import Conditions, Parts
from analysis.claims.evidence import bodies_of_evidence
from analysis.claims.register import CLAIMS, Claim
from analysis.data.cells import Cell
from analysis.data.measures import Arm
from o2o.config.dataset_names import stands_for

Verdict = Literal["holds", "fails", "undecided", "too short", "no runs"]


@dataclass(frozen=True)
class Judged:
    """One condition of a claim, judged on the datasets there are."""

    parts: Parts
    covered: tuple[str, ...]
    """Those of the parts that are among the claim's datasets: only they decide."""
    verdicts: dict[str, Verdict]
    p_values: dict[str, float]
    """By dataset, with Holm's correction."""
    verdict: Verdict
    """On the covered datasets."""
    complete: bool
    """Whether that is a verdict on the claim, whatever the other datasets would say."""
    more_seeds: int | None
    """0 where it is decided; None where that cannot be told."""

    @property
    def overall(self) -> Bounds | None:
        """The mean over the covered datasets."""
        return bounds.average([self.parts[d] for d in self.covered]) if self.covered else None


@dataclass(frozen=True)
class Finding:
    """The verdict of one body of evidence on a claim."""

    claim: Claim
    evidence: str
    conditions: dict[str, Judged]
    verdict: Verdict
    """On the claim: undecided where datasets are missing that could say otherwise."""
    here: Verdict
    """On the datasets there are."""
    more_seeds: int | None
    """0 where it is decided; None where that cannot be told."""
    unusable: tuple[str, ...] = ()
    """Arms that several settings fit, so that none was used."""

    @property
    def covered(self) -> tuple[str, ...]:
        """Those of the claim's datasets that every condition has runs on."""
        known = [{stands_for(dataset) for dataset in judged.covered} for judged in self.conditions.values()]
        return tuple(name for name in self.claim.over if known and all(name in names for names in known))

    @property
    def told(self) -> str:
        """The verdict with its coverage: on how many datasets, of how many that the claim speaks of."""
        coverage = f"on {len(self.covered)} of {len(self.claim.over)}"
        if self.verdict == self.here:
            return f"{self.verdict} {coverage}"
        return f"{self.verdict} ({self.here} {coverage})"

    @property
    def by_means(self) -> tuple[int, int]:
        """On how many datasets the bare estimates are on the claim's side in all conditions, and of how many."""
        names = dict.fromkeys(d for judged in self.conditions.values() for d in judged.covered)
        sided = [
            all(
                d in judged.covered and judged.parts[d].least.value > 0 for judged in self.conditions.values()
            )
            for d in names
        ]
        return sum(sided), len(sided)

    @property
    def against(self) -> tuple[str, ...]:
        """The datasets whose bare estimate is on the other side in some condition."""
        found = [d for j in self.conditions.values() for d in j.covered if j.parts[d].most.value < 0]
        return tuple(dict.fromkeys(found))


def judge(claim: Claim, conditions: Conditions, evidence: str) -> Finding:
    """The verdict of these contrasts on the claim."""
    against = ALPHA / max(1, len(conditions))
    judged = {name: _judge_condition(claim, parts, against) for name, parts in conditions.items()}
    found = list(judged.values())
    verdicts = [condition.verdict for condition in found]
    here: Verdict = "undecided"
    if not any(condition.covered for condition in found):
        here = "no runs"
    elif any(condition.verdict == "fails" and condition.complete for condition in found):
        return Finding(claim, evidence, judged, "fails", "fails", 0)
    elif set(verdicts) == {"holds"}:
        here = "holds"
    elif "fails" in verdicts:
        here = "fails"
    decided = here in ("holds", "fails")
    complete = decided and all(condition.complete for condition in found)
    verdict: Verdict = "undecided" if decided and not complete else here
    return Finding(claim, evidence, judged, verdict, here, 0 if decided else _more_of_all(found))


def _judge_condition(claim: Claim, parts: Parts, against: float) -> Judged:
    """The verdict of one condition; `against` is the error that it may make where it fails."""
    covered = {dataset: part for dataset, part in parts.items() if stands_for(dataset) in claim.over}
    others = {dataset: part for dataset, part in parts.items() if dataset not in covered}
    p_values = _holm(covered) | _holm(others)
    verdicts: dict[str, Verdict] = {d: part.decide(p_values[d], against) for d, part in parts.items()}
    found = [verdicts[dataset] for dataset in covered]
    whole = len(covered) == len(claim.over)
    verdict: Verdict = "undecided"
    complete = False
    if not covered:
        verdict = "no runs"
    elif claim.rule == "mean":
        mean = bounds.average(list(covered.values()))
        verdict, complete = mean.decide(mean.p_value, against), whole
    elif claim.rule == "all":
        if all(part.decide(part.p_value, against) == "holds" for part in covered.values()):
            verdict, complete = "holds", whole
        elif "fails" in found:
            verdict, complete = "fails", True
    elif found.count("holds") >= claim.rule:
        verdict, complete = "holds", True
    elif found.count("fails") > len(claim.over) - claim.rule:
        verdict, complete = "fails", True
    more_seeds = _more_seeds(claim, list(covered.values()), against) if verdict == "undecided" else 0
    return Judged(parts, tuple(covered), verdicts, p_values, verdict, complete, more_seeds)


def _holm(parts: Mapping[str, Bounds]) -> dict[str, float]:
    adjusted = statistics.holm(np.array([part.p_value for part in parts.values()]))
    return {dataset: float(p) for dataset, p in zip(parts, adjusted, strict=True)}


def _more_seeds(claim: Claim, parts: Sequence[Bounds], against: float) -> int | None:
    """Returns how many more seeds would decide the condition, were the estimates and their spreads the truth."""
    if claim.rule == "mean":
        return bounds.average(parts).more_seeds(against, len(parts))
    failing = [part.more_seeds(against / len(parts)) for part in parts if part.most.value < 0]
    if claim.rule == "all":
        if failing:  # one that fails is enough
            return min((count for count in failing if count is not None), default=None)
        needed = [part.more_seeds(ALPHA) for part in parts]
        return None if None in needed else max(count for count in needed if count is not None)
    holding = [part.more_seeds(ALPHA / len(parts)) for part in parts if part.least.value > 0]
    for side, enough in ((holding, claim.rule), (failing, len(claim.over) - claim.rule + 1)):
        known = sorted(count for count in side if count is not None)
        if len(known) >= enough:
            return known[enough - 1]
    return None


def _more_of_all(conditions: Sequence[Judged]) -> int | None:
    """Until the last condition is decided; None where that cannot be told of one of them."""
    counts = [None if condition.verdict == "no runs" else condition.more_seeds for condition in conditions]
    return None if not counts or None in counts else max(count for count in counts if count is not None)


def findings(cells: Sequence[Cell], arms: Sequence[Arm]) -> tuple[Finding, ...]:
    """Every claim judged by our runs, for each body of evidence by itself, and by the paper's tables."""
    found = []
    for evidence in bodies_of_evidence(cells, arms):
        for claim in CLAIMS:
            evidence.ambiguous.clear()
            finding = judge(claim, _spoken_of(claim, claim.runs(evidence)), f"our runs, {evidence.source}")
            if finding.here != "no runs" and evidence.env_steps < claim.env_steps:
                finding = _not_judged(finding)
            found.append(replace(finding, unusable=tuple(sorted(evidence.ambiguous))))
    return (*found, *_by_the_tables())


@cache
def _by_the_tables() -> tuple[Finding, ...]:
    return tuple(judge(c, c.tables(), "the paper's tables") for c in CLAIMS if c.tables is not None)


def _spoken_of(claim: Claim, conditions: Conditions) -> Conditions:
    """Of a claim about some of the paper's datasets, only those."""
    every = set(CLAIMS[0].over)
    return {
        name: {
            d: part for d, part in parts.items() if stands_for(d) in claim.over or stands_for(d) not in every
        }
        for name, parts in conditions.items()
    }


def _not_judged(finding: Finding) -> Finding:
    """The estimates of runs that are too short, without a verdict."""
    conditions = {
        name: replace(judged, verdict="too short", verdicts=dict.fromkeys(judged.parts, "too short"))
        for name, judged in finding.conditions.items()
    }
    return replace(finding, conditions=conditions, verdict="too short", here="too short", more_seeds=None)
