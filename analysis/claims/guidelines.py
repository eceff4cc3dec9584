"""The practical guidelines of the paper's section 6 as a decision table, each row as good as the claims it rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.claims.verdicts import Finding
from analysis.data.measures import Arm
from analysis.data.runs import FROZEN
from analysis.tables.forms import Entry, Table, words
from o2o import collapse

BUDGETS = (10_000, 50_000, 200_000)


@dataclass(frozen=True)
class Guideline:
    """Advice for a situation, and the claims that it rests on."""

    situation: str
    advice: str
    claims: tuple[str, ...]


GUIDELINES = (
    Guideline(
        "the best final policy counts, and 200k online steps are allowed",
        "finetune with an online algorithm (TD3, TD3-C), not with the offline one on offline data",
        ("td3-rivals-td3-bc", "td3-bc-improves-slowly"),
    ),
    Guideline(
        "few online steps are allowed, or none of them may be bad",
        "finetune with TD3-BC: judged early, what is stable wins",
        ("td3-bc-does-not-collapse", "td3-collapses", "the-budget-decides"),
    ),
    Guideline(
        "the offline algorithm is to go on online",
        "leave the offline data out of its replay",
        ("td3-bc-gains-from-empty", "td3-bc-rivals-on-six-of-eight"),
    ),
    Guideline(
        "only a fixed share of offline data can be left out",
        "a smaller share speeds TD3-BC up; do not expect it to save TD3",
        ("ratios-speed-td3-bc-up", "ratios-do-not-rescue-td3"),
    ),
    Guideline(
        "an online algorithm is wanted without the fall",
        "constrain the policy step (TD3-C), and begin with an empty replay",
        ("td3-c-is-steadier", "td3-c-is-steadier-when-empty", "td3-c-can-collapse"),
    ),
    Guideline(
        "the pretraining data can be chosen",
        "pretrain on diverse data, bad actions included",
        ("medium-is-worse",),
    ),
    Guideline(
        "there is offline data, and training from scratch is the alternative",
        "pretrain",
        ("scratch-is-worse",),
    ),
)


def guidelines_table(found: Sequence[Finding]) -> Table:
    """Every guideline with the verdicts of its claims on each body of evidence."""
    evidence = list(dict.fromkeys(finding.evidence for finding in found))
    by_claim = {(finding.claim.name, finding.evidence): finding for finding in found}
    rows = []
    for guideline in GUIDELINES:
        entries = []
        for body in evidence:
            known = [by_claim[name, body] for name in guideline.claims if (name, body) in by_claim]
            entries.append(_status(known, len(guideline.claims)))
        rows.append(
            (
                words(guideline.situation),
                words(guideline.advice),
                words(", ".join(guideline.claims)),
                *entries,
            )
        )
    columns = ("when", "then (paper, section 6)", "rests on the claims", *evidence)
    notes = (
        "Supported: all its claims hold, on all datasets that they speak of; contradicted: one fails; open: the rest. "
        "In brackets the claims' verdicts with the number of datasets that there are runs on. Claims without "
        "evidence, or with runs too short for them, are counted as missing.",
    )
    return Table("guidelines", "What to do when", columns, tuple(rows), notes)


def choices_table(arms: Sequence[Arm]) -> Table:
    """For each dataset, what our runs would choose: the highest mean score at a budget, and the least regret."""
    rows = []
    for dataset in dict.fromkeys(arm.cell.dataset for arm in arms):
        alike = [arm for arm in arms if arm.cell.dataset == dataset and arm.cell.algorithm != FROZEN]
        if not alike:
            continue
        entries = []
        for budget in BUDGETS:
            scores = [float(np.mean([run.score_at(budget) for run in arm.runs])) for arm in alike]
            known = [i for i, score in enumerate(scores) if not np.isnan(score)]
            best = max(known, key=lambda i: scores[i], default=None)
            entries.append(Entry("–") if best is None else _choice(alike[best], scores[best]))
        last = min(run.curve.last for arm in alike for run in arm.runs)
        regrets = [
            float(np.mean([collapse.regret(run.curve.until(last)) for run in arm.runs])) for arm in alike
        ]
        safest = int(np.argmin(regrets))
        rows.append((words(dataset), *entries, _choice(alike[safest], regrets[safest])))
    columns = ("dataset", *(f"best after {budget // 1000}k" for budget in BUDGETS), "least regret")
    notes = (
        "Highest or least mean over seeds, with that mean (the regret as far as all were run); whether a lead is more "
        "than noise: see the comparisons.",
    )
    return Table("choices", "What these runs would choose", columns, tuple(rows), notes)


def _choice(arm: Arm, value: float) -> Entry:
    text = f"{arm.cell.label}, {arm.cell.replay} ({value:.1f})"
    return Entry(text, runs=tuple(run.run.path for run in arm.runs))


def _status(found: Sequence[Finding], count: int) -> Entry:
    known = [finding for finding in found if finding.here not in ("no runs", "too short")]
    if not known:
        return Entry("no evidence")
    told = ", ".join(f"{number} {verdict}" for verdict, number in Counter(f.told for f in known).items())
    missing = f", {count - len(known)} missing" if len(known) < count else ""
    verdicts = {finding.verdict for finding in known}
    if "fails" in verdicts:
        return Entry(f"contradicted ({told}{missing})", bold=True)
    if len(known) == count and verdicts == {"holds"}:
        return Entry(f"supported ({told})", bold=True)
    return Entry(f"open ({told}{missing})")
