"""The register of the paper's claims as tables: the verdicts, and every single contrast behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from analysis.claims.bounds import Bounds
from analysis.claims.register import CLAIMS
from analysis.claims.verdicts import Finding, Judged
from analysis.data import published
from analysis.tables.forms import NOTHING, Entry, Table, interval, p_value, words
from o2o import collapse


def claims_table(found: Sequence[Finding]) -> Table:
    """The register: every claim, its estimand, what each body of evidence estimates, and the verdict."""
    rows = []
    idle = set()
    judged = {finding.claim.name for finding in found if _has_parts(finding)}
    for finding in _in_order(found):
        if not _has_parts(finding) and finding.claim.name in judged:
            continue
        judged.add(finding.claim.name)
        claim = finding.claim
        sided, count = finding.by_means
        if not _has_parts(finding):
            idle.add(len(rows))
        rule = {"mean": "mean > 0", "all": "> 0 on all"}.get(
            str(claim.rule), f"> 0 on {claim.rule} of {len(claim.over)}"
        )
        rows.append(
            (
                words(claim.name),
                words(claim.says),
                words(claim.where),
                words(f"{claim.estimand}: {rule}"),
                words(finding.evidence),
                _overall(finding),
                words(f"{sided} of {count}"),
                Entry(finding.told, bold=finding.verdict in ("holds", "fails")),
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
        "claim is about all, or there are fewer than five seeds. The verdict names on how many of the "
        "claim's datasets there are runs; in brackets what those say, where the others could say otherwise. Single "
        "datasets with Holm's correction. More seeds: for each arm, were the estimates and their spread the truth.",
        f"A regret is called a collapse beyond {collapse.EFFECT_POINTS:g} points and "
        f"{collapse.EFFECT_SHARE:.0%} of the offline score. Noise adds to regrets: where two numbers stand before the "
        "brackets, the truth is between them, and a verdict needs both.".replace("%", " %"),
        f"Rivals: within {published.WITHIN:.0%} of the size of the other's mean, and at least ".replace(
            "%", " %"
        )
        + f"{published.WITHIN_POINTS:g} points.",
        "Claims about the course of learning cannot be computed from tables of final scores. The paper's scale is "
        "500 000 updates and 200 000 env steps; runs of another scale say so, and say what holds at theirs. Runs too "
        "short for a claim about final scores do not judge it: the interval is that of where they end.",
    ]
    if unusable := sorted({arm for finding in found for arm in finding.unusable}):
        notes.append(
            "Not used, because several settings look the same (choose one with --where KEY=VALUE): "
            f"{'; '.join(unusable)}."
        )
    return Table("claims", "The paper's claims", columns, tuple(rows), tuple(notes), frozenset(idle))


def claims_by_dataset(found: Sequence[Finding]) -> Table:
    """Every single contrast behind the register."""
    rows = []
    for finding in _in_order(found):
        for name, judged, dataset in _contrasts(finding):
            part = judged.parts[dataset]
            rows.append(
                (
                    words(finding.claim.name),
                    words(finding.evidence),
                    words(dataset if dataset in judged.covered else f"{dataset} (none of the claim's)"),
                    words(name or NOTHING),
                    Entry(str(part.seeds), float(part.seeds)),
                    _bounded(part),
                    p_value(judged.p_values[dataset]),
                    words(judged.verdicts[dataset]),
                )
            )
    columns = (
        "claim", "evidence", "dataset", "condition", "seeds", "points [95 %]", "p (Holm)", "verdict",
    )  # fmt: skip
    return Table("claims_by_dataset", "The paper's claims, dataset by dataset", columns, tuple(rows))


def _in_order(found: Sequence[Finding]) -> list[Finding]:
    return sorted(found, key=lambda finding: CLAIMS.index(finding.claim))


def _has_parts(finding: Finding) -> bool:
    return any(judged.parts for judged in finding.conditions.values())


def _contrasts(finding: Finding) -> Iterator[tuple[str, Judged, str]]:
    for name, judged in finding.conditions.items():
        for dataset in judged.parts:
            yield name, judged, dataset


def _overall(finding: Finding) -> Entry:
    means = {name: judged.overall for name, judged in finding.conditions.items()}
    entries = {name: _bounded(mean) if mean else Entry(NOTHING) for name, mean in means.items()}
    if len(entries) == 1:
        return next(iter(entries.values()))
    return words("; ".join(f"{name}: {entry.text}" for name, entry in entries.items()) or NOTHING)


def _bounded(part: Bounds) -> Entry:
    """A number and its interval; two numbers where noise leaves only bounds. It is sorted by the least."""
    least, most = part.least.value, part.most.value
    entry = interval(least, *part.interval, sign="+")
    first = interval(least, float("nan"), float("nan"), sign="+").text
    second = interval(most, float("nan"), float("nan"), sign="+").text
    if first == second:
        return entry
    return Entry(entry.text.replace(first, f"{first} to {second}", 1), least)


def _more(finding: Finding) -> str:
    if finding.verdict != "undecided" or finding.here in ("holds", "fails"):
        return NOTHING
    return "cannot be told" if finding.more_seeds is None else f"{finding.more_seeds}"
