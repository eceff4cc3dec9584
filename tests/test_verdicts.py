from __future__ import annotations

import numpy as np
import pytest

from analysis.claims import Claim
from analysis.statistics import Estimate, mean
from analysis.verdicts import judge

RUNS = "our runs, D4RL data"


def claim_with(rule):
    return Claim("name", "says", "where", "estimand", rule, lambda evidence: {})


def part(value, error=1.0, count=10):
    return Estimate(value, error, count - 1.0, count)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [((9.0, 9.0), "holds"), ((9.0, -9.0), "fails"), ((9.0, 1.0), "undecided"), ((9.0, -1.0), "undecided")],
)
def test_all_needs_every_dataset(values, verdict):
    parts = {f"d{i}": part(value) for i, value in enumerate(values)}
    assert judge(claim_with("all"), parts, RUNS).verdict == verdict


@pytest.mark.parametrize(
    ("holding", "failing", "verdict"),
    [(6, 2, "holds"), (6, 0, "holds"), (5, 3, "fails"), (5, 2, "undecided"), (2, 0, "undecided")],
)
def test_at_least_six_of_eight_are_counted_over_the_papers_eight(holding, failing, verdict):
    parts = {f"h{i}": part(9.0) for i in range(holding)} | {f"f{i}": part(-9.0) for i in range(failing)}
    assert judge(claim_with(6), parts, RUNS).verdict == verdict


def test_the_mean_rule_averages_the_datasets():
    found = judge(claim_with("mean"), {"a": part(9.0), "b": part(-1.0)}, RUNS)
    assert found.overall.value == 4.0
    assert found.overall.error == pytest.approx(0.5**0.5)
    assert (found.verdict, found.more_seeds) == ("holds", 0)


def test_undecided_says_how_many_more_seeds():
    found = judge(claim_with("mean"), {"a": part(1.0)}, RUNS)
    assert found.verdict == "undecided"
    assert found.more_seeds == part(1.0).more_seeds() > 0
    alone = judge(claim_with("mean"), {"a": mean(np.array([5.0]))}, RUNS)
    assert (alone.verdict, alone.more_seeds) == ("undecided", None)


def test_without_evidence_there_is_no_verdict():
    assert judge(claim_with("all"), {}, RUNS).verdict == "no runs"
