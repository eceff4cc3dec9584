"""What the evidence says of the paper's claims: an interval, a verdict, and how far from one an open question is.

A claim **holds** where the 95 % interval of its contrast lies above 0, **fails** where it lies below, and is
**undecided** otherwise; then it is said how many more seeds would decide it, were the estimates and spreads the truth.
Runs that end before what a claim speaks of are **too short** to judge it, whatever their interval.
Contrasts of single datasets are tested with Holm's correction over the claim's datasets. Seeds that share a
pretraining are paired; in the paper's own tables nothing can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from analysis import published, statistics
from analysis.cells import Cell
from analysis.claims import CLAIMS, Claim
from analysis.contrasts import Parts, bodies_of_evidence
from analysis.measures import Arm
from analysis.statistics import Estimate
from analysis.table import Entry, Table, interval, p_value, words

ALPHA = 1 - statistics.CONFIDENCE

Verdict = Literal["holds", "fails", "undecided", "too short", "no runs"]


@dataclass(frozen=True)
class Finding:
    """What one body of evidence says of a claim."""

    claim: Claim
    evidence: str
    parts: Parts
    verdicts: dict[str, Verdict]
    p_values: dict[str, float]
    """By dataset, with Holm's correction."""
    verdict: Verdict
    more_seeds: int | None
    """0 where it is decided; None where that cannot be told."""
    unusable: tuple[str, ...] = ()
    """Arms that several settings fit, so that none was used."""

    @property
    def overall(self) -> Estimate | None:
        """The mean over the datasets."""
        return _average(list(self.parts.values())) if self.parts else None

    @property
    def by_means(self) -> tuple[int, int]:
        """On how many datasets the bare estimate is on the claim's side, and of how many."""
        return sum(part.value > 0 for part in self.parts.values()), len(self.parts)

    @property
    def against(self) -> tuple[str, ...]:
        """The datasets whose bare estimate is on the other side."""
        return tuple(dataset for dataset, part in self.parts.items() if part.value < 0)


def judge(claim: Claim, parts: Parts, evidence: str) -> Finding:
    """The verdict of these contrasts on the claim."""
    estimates = list(parts.values())
    adjusted = statistics.holm(np.array([part.p_value for part in estimates]))
    p_values = {dataset: float(p) for dataset, p in zip(parts, adjusted, strict=True)}
    verdicts: dict[str, Verdict] = {d: _verdict(part.value, p_values[d]) for d, part in parts.items()}
    if not parts:
        verdict: Verdict = "no runs"
    elif claim.rule == "mean":
        whole = _average(estimates)
        verdict = _verdict(whole.value, whole.p_value)
    elif claim.rule == "all":  # that all hold needs no correction: the weakest of them decides
        all_hold = all(_verdict(part.value, part.p_value) == "holds" for part in estimates)
        verdict = "holds" if all_hold else "fails" if "fails" in verdicts.values() else "undecided"
    else:
        found = list(verdicts.values())
        too_many = len(published.DATASETS) - claim.rule + 1
        enough = found.count("holds") >= claim.rule
        verdict = "holds" if enough else "fails" if found.count("fails") >= too_many else "undecided"
    more_seeds = _more_seeds(claim, estimates) if verdict == "undecided" else 0
    return Finding(claim, evidence, parts, verdicts, p_values, verdict, more_seeds)


def _more_seeds(claim: Claim, parts: Sequence[Estimate]) -> int | None:
    """How many more seeds would decide the claim, were the estimates and their spreads the truth."""
    if claim.rule == "mean":
        return _average(parts).more_seeds()
    corrected = ALPHA / len(parts)
    against = [part.more_seeds(corrected) for part in parts if part.value < 0]
    if claim.rule == "all":
        if against:  # one that fails is enough
            return min((more for more in against if more is not None), default=None)
        needed = [part.more_seeds() for part in parts]
        return None if None in needed else max(more for more in needed if more is not None)
    in_favour = [part.more_seeds(corrected) for part in parts if part.value > 0]
    for side, count in ((in_favour, claim.rule), (against, len(published.DATASETS) - claim.rule + 1)):
        known = sorted(more for more in side if more is not None)
        if len(known) >= count:
            return known[count - 1]
    return None


def _average(parts: Sequence[Estimate]) -> Estimate:
    return statistics.combine(parts, [1 / len(parts)] * len(parts))


def findings(cells: Sequence[Cell], arms: Sequence[Arm]) -> tuple[Finding, ...]:
    """Every claim judged by our runs, for each kind of data by itself, and by the paper's tables."""
    found = []
    for evidence in bodies_of_evidence(cells, arms):
        for claim in CLAIMS:
            evidence.ambiguous.clear()
            finding = judge(claim, claim.runs(evidence), f"our runs, {evidence.source}")
            if finding.parts and evidence.env_steps < claim.env_steps:
                finding = _not_judged(finding)
            found.append(replace(finding, unusable=tuple(sorted(evidence.ambiguous))))
    found += [judge(c, c.tables(), "the paper's tables") for c in CLAIMS if c.tables is not None]
    return tuple(found)


def _not_judged(finding: Finding) -> Finding:
    """The estimates of runs that are too short, without a verdict."""
    too_short: dict[str, Verdict] = dict.fromkeys(finding.parts, "too short")
    return replace(finding, verdict="too short", verdicts=too_short, more_seeds=None)


def _verdict(value: float, p_value: float) -> Verdict:
    if np.isnan(p_value) or p_value >= ALPHA:
        return "undecided"
    return "holds" if value > 0 else "fails"


def claims_table(found: Sequence[Finding]) -> Table:
    """The register: every claim, its estimand, what each body of evidence estimates, and the verdict."""
    rows = []
    judged = {finding.claim.name for finding in found if finding.parts}
    for finding in sorted(found, key=lambda f: CLAIMS.index(f.claim)):
        if not finding.parts and finding.claim.name in judged:
            continue
        judged.add(finding.claim.name)
        claim, overall = finding.claim, finding.overall
        sided, count = finding.by_means
        rule = {"mean": "mean > 0", "all": "> 0 on all"}.get(str(claim.rule), f"> 0 on {claim.rule} of 8")
        rows.append(
            (
                words(claim.name),
                words(claim.says),
                words(claim.where),
                words(f"{claim.estimand}: {rule}"),
                words(finding.evidence),
                interval(overall.value, *overall.interval, sign="+") if overall else Entry("–"),
                words(f"{sided} of {count}"),
                Entry(finding.verdict, bold=finding.verdict in ("holds", "fails")),
                words(_more(finding)),
                words(", ".join(finding.against)),
            )
        )
    columns = (
        "claim", "the paper says", "where", "estimand (points)", "evidence", "mean [95 %]", "by bare means", "verdict",
        "more seeds", "bare mean against it on",
    )  # fmt: skip
    notes = [
        "Holds: the 95 % interval is above 0; fails: below; undecided: it contains 0, or some dataset's does where the "
        "claim is about all. Single datasets with Holm's correction. More seeds: for each arm, were the estimates and "
        "their spread the truth.",
        "Claims about the course of learning cannot be computed from tables of final scores. The paper's scale is "
        "500 000 updates and 200 000 env steps; runs of another scale say so, and say what holds at theirs. Runs too "
        "short for a claim about final scores do not judge it: the interval is that of where they end.",
    ]
    if unusable := sorted({arm for finding in found for arm in finding.unusable}):
        notes.append(
            "Not used, because several settings look the same (choose one with --where KEY=VALUE): "
            f"{'; '.join(unusable)}."
        )
    return Table("claims", "The paper's claims", columns, tuple(rows), tuple(notes))


def claims_by_dataset(found: Sequence[Finding]) -> Table:
    """Every single contrast behind the register."""
    rows = []
    for finding in sorted(found, key=lambda f: CLAIMS.index(f.claim)):
        for dataset, part in finding.parts.items():
            rows.append(
                (
                    words(finding.claim.name),
                    words(finding.evidence),
                    words(dataset),
                    Entry(str(part.count), float(part.count)),
                    interval(part.value, *part.interval, sign="+"),
                    p_value(finding.p_values[dataset]),
                    words(finding.verdicts[dataset]),
                )
            )
    columns = ("claim", "evidence", "dataset", "seeds", "points [95 %]", "p (Holm)", "verdict")
    return Table("claims_by_dataset", "The paper's claims, dataset by dataset", columns, tuple(rows))


def _more(finding: Finding) -> str:
    if finding.verdict != "undecided":
        return "–"
    return "cannot be told" if finding.more_seeds is None else f"{finding.more_seeds}"
