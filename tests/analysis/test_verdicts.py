from __future__ import annotations

import numpy as np
import pytest

from analysis.claims import bounds
from analysis.claims.bounds import Bounds
from analysis.claims.register import Claim
from analysis.claims.verdicts import judge
from analysis.statistics import Estimate, mean

RUNS = "our runs, D4RL data"
EIGHT = tuple(f"d{i}" for i in range(8))


def claim_with(rule, over=EIGHT):
    return Claim("name", "says", "where", "estimand", rule, lambda evidence: {}, over=over)


def part(value, error=1.0, count=10, most=None):
    """A contrast whose bounds are the same, or that noise leaves open up to `most`."""
    least, most = (Estimate(v, error, count - 1.0, count) for v in (value, value if most is None else most))
    return Bounds(least, most, count)


def judged(rule, values, over=None, **known):
    parts = {
        f"d{i}": value if isinstance(value, Bounds) else part(value, **known)
        for i, value in enumerate(values)
    }
    return judge(claim_with(rule, tuple(parts) if over is None else over), {"": parts}, RUNS)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [((9.0, 9.0), "holds"), ((9.0, -9.0), "fails"), ((9.0, 1.0), "undecided"), ((9.0, -1.0), "undecided")],
)
def test_all_needs_every_dataset(values, verdict):
    assert judged("all", values).verdict == verdict


@pytest.mark.parametrize(
    ("holding", "failing", "verdict"),
    [(6, 2, "holds"), (6, 0, "holds"), (5, 3, "fails"), (5, 2, "undecided"), (2, 0, "undecided")],
)
def test_at_least_six_of_eight_are_counted_over_the_claims_eight(holding, failing, verdict):
    assert judged(6, [9.0] * holding + [-9.0] * failing, EIGHT).verdict == verdict


def test_the_mean_rule_averages_the_datasets():
    found = judged("mean", (9.0, -1.0))
    assert found.conditions[""].overall.least.value == 4.0
    assert found.conditions[""].overall.least.error == pytest.approx(0.5**0.5)
    assert (found.verdict, found.more_seeds) == ("holds", 0)


def test_undecided_says_how_many_more_seeds():
    found = judged("mean", (1.0,))
    assert found.verdict == "undecided"
    assert found.more_seeds == part(1.0).more_seeds() > 0
    alone = judged("mean", [bounds.exact(mean(np.array([5.0])))])
    assert (alone.verdict, alone.more_seeds) == ("undecided", None)


def test_without_evidence_there_is_no_verdict():
    assert judge(claim_with("all"), {"": {}}, RUNS).told == "no runs on 0 of 8"
    assert judge(claim_with("all"), {}, RUNS).verdict == "no runs"


@pytest.mark.parametrize("rule", ["mean", "all"])
def test_a_claim_about_all_datasets_holds_on_all_of_them_only(rule):
    found = judged(rule, (9.0,), EIGHT)
    assert (found.verdict, found.here) == ("undecided", "holds")
    assert found.told == "undecided (holds on 1 of 8)"
    whole = judged(rule, (9.0,) * 8, EIGHT)
    assert (whole.verdict, whole.told) == ("holds", "holds on 8 of 8")


def test_one_dataset_refutes_what_is_said_of_all_but_not_their_mean():
    assert judged("all", (-9.0,), EIGHT).told == "fails on 1 of 8"
    assert judged("mean", (-9.0,), EIGHT).told == "undecided (fails on 1 of 8)"


def test_datasets_that_the_claim_does_not_speak_of_decide_nothing():
    found = judged("mean", (9.0, -50.0), ("d0",))
    assert (found.told, found.conditions[""].overall.least.value) == ("holds on 1 of 1", 9.0)
    assert found.conditions[""].verdicts == {"d0": "holds", "d1": "fails"}


def test_what_noise_leaves_open_is_undecided_whatever_the_number_of_seeds():
    for rule in ("mean", "all"):
        found = judged(rule, [part(-1.0, error=1e-6, most=1.0)])
        assert (found.verdict, found.more_seeds) == ("undecided", None)
        assert judged(rule, [part(1.0, error=1e-6, most=2.0)]).verdict == "holds"
        assert judged(rule, [part(-2.0, error=1e-6, most=-1.0)]).verdict == "fails"


def test_seeds_that_agree_by_chance_decide_nothing():
    for rule in ("mean", "all"):
        few = judged(rule, (9.0,), count=4, error=0.0)  # half of the seeds do one thing: 1/16
        assert (few.verdict, few.more_seeds) == ("undecided", 1)
        assert judged(rule, (9.0,), count=5, error=0.0).verdict == "holds"
    assert judged("mean", (9.0, 9.0), count=3).verdict == "holds"  # six in all
    assert judged("all", (9.0, 9.0), count=3).verdict == "undecided"
    assert judged("mean", (9.0, 9.0), count=2).more_seeds == 1


def test_where_one_of_many_is_enough_they_need_more_seeds_to_agree():
    many = judged("all", [-9.0] + [9.0] * 7, EIGHT, count=7, error=0.0)  # 8/128
    assert (many.verdict, many.more_seeds) == ("undecided", 1)
    assert judged("all", [-9.0] + [9.0] * 7, EIGHT, count=8, error=0.0).verdict == "fails"
    for count, verdict in ((5, "undecided"), (6, "fails")):
        conditions = {
            name: {"d0": part(value, 0.0, count)} for name, value in (("early", -9.0), ("late", 9.0))
        }
        assert judge(claim_with("mean", ("d0",)), conditions, RUNS).verdict == verdict


def test_one_seed_is_always_undecided():
    alone = bounds.exact(mean(np.array([50.0])))
    assert judged("mean", [alone] * 8).verdict == judged("all", [alone] * 8).verdict == "undecided"


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [(9.0, 9.0, "holds"), (9.0, -9.0, "fails"), (-9.0, 9.0, "fails"), (9.0, 1.0, "undecided")],
)
def test_all_conditions_must_hold_and_one_that_fails_is_enough(first, second, verdict):
    conditions = {"early": {"d0": part(first)}, "late": {"d0": part(second)}}
    assert judge(claim_with("mean", ("d0",)), conditions, RUNS).verdict == verdict


def test_a_condition_of_several_fails_at_its_share_of_the_error_only():
    value = part(-2.5)  # p = 0.034
    assert 0.025 < value.p_value < 0.05
    assert judge(claim_with("mean", ("d0",)), {"": {"d0": value}}, RUNS).verdict == "fails"
    conditions = {"early": {"d0": value}, "late": {"d0": part(9.0)}}
    assert judge(claim_with("mean", ("d0",)), conditions, RUNS).verdict == "undecided"


def test_a_condition_without_runs_leaves_the_claim_open():
    found = judge(claim_with("mean"), {"a": {d: part(9.0) for d in EIGHT}, "b": {}}, RUNS)
    assert (found.verdict, found.told, found.more_seeds) == ("undecided", "undecided on 0 of 8", None)


def test_weighted_bounds_take_the_worse_end_of_each_number():
    values = np.array([[[1.0, 3.0], [10.0, 14.0]]] * 2)
    found = bounds.of_seeds(values, [1.0, -1.0], shift=0.5)
    assert (found.least.value, found.most.value) == (1.0 - 14.0 + 0.5, 3.0 - 10.0 + 0.5)
    turned = bounds.difference(found, found)
    assert (turned.least.value, turned.most.value) == (-6.0, 6.0)
