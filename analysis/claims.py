"""The paper's claims as numbers: each an estimand with a margin, an interval and a verdict.

A claim is a contrast in points that is above 0 where the paper is right, one for each dataset it speaks of, and a rule
how they make one verdict. It **holds** where the 95 % interval lies above 0, **fails** where it lies below, and is
**undecided** otherwise; then it is said how many more seeds would decide it, were the estimates and spreads the truth.
Contrasts of single datasets are tested with Holm's correction over the claim's datasets. Seeds that share a
pretraining are paired. What only needs Offline and Online scores is also computed from the paper's own tables, where
nothing can be paired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from analysis import contrasts, published, statistics
from analysis.cells import Cell
from analysis.contrasts import Evidence, Parts, bodies_of_evidence
from analysis.measures import Arm
from analysis.statistics import Estimate
from analysis.table import Entry, Table, interval, p_value, words

ALPHA = 1 - statistics.CONFIDENCE
RIVALS = 1 - published.WITHIN
"""Who reaches this share of another's score "rivals" it: the paper's 10 %."""

Verdict = Literal["holds", "fails", "undecided", "no runs"]


@dataclass(frozen=True)
class Claim:
    """One sentence of the paper, and the contrast that decides it."""

    name: str
    says: str
    where: str
    estimand: str
    rule: Literal["mean", "all"] | int
    """`mean`: on average over the datasets; `all`: on every one; a number: on at least so many."""
    runs: Callable[[Evidence], Parts]
    tables: Callable[[], Parts] | None = None
    """The same from the paper's own tables; None where they do not have it."""


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
            found.append(replace(finding, unusable=tuple(sorted(evidence.ambiguous))))
    found += [judge(c, c.tables(), "the paper's tables") for c in CLAIMS if c.tables is not None]
    return tuple(found)


def _verdict(value: float, p_value: float) -> Verdict:
    if np.isnan(p_value) or p_value >= ALPHA:
        return "undecided"
    return "holds" if value > 0 else "fails"


TD3, TD3_C, TD3_BC = "td3", "td3_c", "td3_bc"

CLAIMS = (
    Claim(
        "td3-collapses",
        "Finetuning with TD3 suffers from policy collapse",
        "3.2, Figure 1",
        "TD3's regret beyond the null's 99th percentile, replay offline",
        "mean",
        contrasts.beyond_null([(TD3, "offline")]),
    ),
    Claim(
        "td3-collapses-when-empty",
        "TD3 collapses independent of whether offline data is utilized",
        "3.3, Figure 2",
        "TD3's regret beyond the null's 99th percentile, replay empty",
        "mean",
        contrasts.beyond_null([(TD3, "empty")]),
    ),
    Claim(
        "td3-bc-does-not-collapse",
        "TD3-BC remains stable, with the offline data and without",
        "3.3, Figure 2",
        "the null's 99th percentile beyond TD3-BC's regret, both replays",
        "mean",
        contrasts.beyond_null([(TD3_BC, "offline"), (TD3_BC, "empty")], sign=-1.0),
    ),
    Claim(
        "collapse-is-no-fluctuation",
        "Collapse is distinct from the fluctuations typical of off-policy learning",
        "3.2",
        "TD3's regret at the switch − its regret in later windows of the same length",
        "mean",
        contrasts.beyond_fluctuations,
    ),
    Claim(
        "medium-is-worse",
        "Collapse is more severe on medium than on medium-replay",
        "3.2, Figure 1",
        "TD3's regret on medium − on medium-replay, replay offline",
        "mean",
        contrasts.medium_is_worse,
    ),
    Claim(
        "td3-rivals-td3-bc",
        "TD3 after 200k steps always rivals or surpasses TD3-BC",
        "3.2, Table 1",
        "Online of TD3 − 0.9 · TD3-BC, replay offline",
        "all",
        contrasts.contrast((TD3, "offline"), (TD3_BC, "offline"), contrasts.online, RIVALS),
        contrasts.table_contrast((TD3, "offline"), (TD3_BC, "offline"), RIVALS),
    ),
    Claim(
        "td3-bc-improves-slowly",
        "TD3-BC improves more slowly than TD3",
        "3.2, Figure 1",
        "δ of TD3 − of TD3-BC, replay offline (Online from the tables)",
        "mean",
        contrasts.contrast((TD3, "offline"), (TD3_BC, "offline"), lambda run: run.delta),
        contrasts.table_contrast((TD3, "offline"), (TD3_BC, "offline")),
    ),
    Claim(
        "td3-bc-gains-from-empty",
        "TD3-BC improves significantly without the offline data",
        "3.3, Table C3",
        "Online of TD3-BC with an empty replay − with the offline data",
        "all",
        contrasts.contrast((TD3_BC, "empty"), (TD3_BC, "offline"), contrasts.online),
        contrasts.table_contrast((TD3_BC, "empty"), (TD3_BC, "offline")),
    ),
    Claim(
        "td3-bc-rivals-on-six-of-eight",
        "Without offline data TD3-BC rivals or outperforms TD3 on six of eight datasets",
        "3.3, Figure 2",
        "Online of TD3-BC − 0.9 · TD3, replay empty",
        6,
        contrasts.contrast((TD3_BC, "empty"), (TD3, "empty"), contrasts.online, RIVALS),
        contrasts.table_contrast((TD3_BC, "empty"), (TD3, "empty"), RIVALS),
    ),
    Claim(
        "td3-gains-from-empty",
        "TD3 can obtain higher performance without the offline data",
        "3.3, Figure 2",
        "Online of TD3 with an empty replay − with the offline data",
        "mean",
        contrasts.contrast((TD3, "empty"), (TD3, "offline"), contrasts.online),
        contrasts.table_contrast((TD3, "empty"), (TD3, "offline")),
    ),
    Claim(
        "walker2d-medium-replay-is-the-exception",
        "On walker2d-medium-replay, TD3 collapses when not initialised with the offline data",
        "3.3",
        "TD3's regret with an empty replay − with the offline data, walker2d-medium-replay",
        "all",
        contrasts.contrast(
            (TD3, "empty"), (TD3, "offline"), lambda run: run.regret, only="walker2d-medium-replay"
        ),
    ),
    Claim(
        "ratios-speed-td3-bc-up",
        "A smaller share of offline samples lets TD3-BC improve faster",
        "C.1, Figure 4",
        "area under TD3-BC's curve at the least offline share − at the greatest",
        "mean",
        contrasts.ratios_speed_up,
    ),
    Claim(
        "ratios-do-not-rescue-td3",
        "TD3 still collapses with every ratio",
        "C.1, Figure 4",
        "TD3's regret beyond the null's 99th percentile, over all ratios",
        "mean",
        contrasts.ratios_do_not_rescue,
    ),
    Claim(
        "td3-c-is-steadier",
        "TD3-C is more stable than TD3",
        "5, Figure 3",
        "regret of TD3 − of TD3-C, replay offline",
        "mean",
        contrasts.contrast((TD3, "offline"), (TD3_C, "offline"), lambda run: run.regret),
    ),
    Claim(
        "td3-c-is-steadier-when-empty",
        "TD3-C's effect is more significant when no offline data is used",
        "5, Figure 3",
        "(regret of TD3 − of TD3-C) with an empty replay − the same with the offline data",
        "mean",
        contrasts.steadier_when_empty,
    ),
    Claim(
        "td3-c-can-collapse",
        "TD3-C can still collapse when preloaded, as in ant-medium",
        "5, Figure 3",
        "TD3-C's regret beyond the null's 99th percentile, ant-medium, replay offline",
        "all",
        contrasts.beyond_null([(TD3_C, "offline")], only="ant-medium"),
    ),
    Claim(
        "td3-c-improves-faster",
        "TD3-C can improve faster than TD3-BC",
        "5, Figure 3",
        "Online of TD3-C − of TD3-BC, replay offline",
        "mean",
        contrasts.contrast((TD3_C, "offline"), (TD3_BC, "offline"), contrasts.online),
        contrasts.table_contrast((TD3_C, "offline"), (TD3_BC, "offline")),
    ),
    Claim(
        "scratch-is-worse",
        "TD3 without pretraining performs worse than with",
        "3.2, Figure 1",
        "Online of TD3 after pretraining − from scratch",
        "all",
        contrasts.scratch_is_worse,
    ),
    Claim(
        "td3-better-than-odt-and-iql",
        "The proposed approaches are consistently better than ODT and IQL: TD3",
        "5, Table 1",
        "Online of TD3 − of the better one of ODT and IQL as published",
        "all",
        contrasts.better_than_published(TD3),
        contrasts.table_better(TD3),
    ),
    Claim(
        "td3-c-better-than-odt-and-iql",
        "The proposed approaches are consistently better than ODT and IQL: TD3-C",
        "5, Table 1",
        "Online of TD3-C − of the better one of ODT and IQL as published",
        "all",
        contrasts.better_than_published(TD3_C),
        contrasts.table_better(TD3_C),
    ),
    Claim(
        "the-budget-decides",
        "Conclusions depend on the number of online samples allowed",
        "6",
        "TD3's lead over TD3-BC at the end − after 10 000 env steps, replay offline",
        "mean",
        contrasts.budget_decides,
    ),
)


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
        "500 000 updates and 200 000 env steps; runs of another scale say so, and say what holds at theirs.",
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
    if finding.verdict in ("holds", "fails", "no runs"):
        return "–"
    return "cannot be told" if finding.more_seeds is None else f"{finding.more_seeds}"
