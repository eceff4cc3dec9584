from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from o2o import collapse
from o2o.collapse import Curve

# From 80 straight down to 0 at 10 000, flat to 20 000, straight up to 100 at 30 000.
V_STEPS = np.array([0, 10_000, 20_000, 30_000])
V_SCORES = np.array([80.0, 0.0, 0.0, 100.0])
V = Curve(V_STEPS, V_SCORES)

curves = st.lists(st.floats(0, 110), min_size=9, max_size=41)


def test_regret_is_the_mean_deficit_worked_out_by_hand():
    # Triangle 10 000 × 80 / 2, rectangle 10 000 × 80, triangle 8 000 × 80 / 2 (80 is reached again at 28 000).
    assert collapse.regret(V, 30_000) == pytest.approx((400_000 + 800_000 + 320_000) / 30_000)


def test_regret_over_a_shorter_horizon_looks_no_further():
    assert collapse.regret(V, 10_000) == pytest.approx(40.0)
    assert collapse.regret(V, 15_000) == pytest.approx((400_000 + 400_000) / 15_000)


def test_regret_of_a_curve_that_ends_early_is_over_its_length():
    assert collapse.regret(V.until(20_000), 50_000) == pytest.approx((400_000 + 800_000) / 20_000)


def test_gains_do_not_make_up_for_losses():
    curve = Curve(np.array([0, 1000, 2000, 3000]), np.array([50.0, 40.0, 50.0, 1000.0]))
    # Down to 40 and back within 2 000 steps: 2 000 × 10 / 2, and nothing from the climb to 1 000.
    assert collapse.regret(curve, 3000) == pytest.approx(10_000 / 3000)


def test_depth_is_the_drop_of_the_windowed_curve():
    assert collapse.depth(V, 2_500) == pytest.approx(80.0)  # flat at 0 for longer than the window


def test_depth_finds_the_minimum_between_evaluations():
    # Down by 10 a thousand steps to 0 at 8 000, up by 30: a window of 2 000 is lowest where its ends are level,
    # 1 500 before and 500 after, at 15: the mean of a triangle is half of that.
    curve = Curve(np.array([0, 8_000, 12_000]), np.array([80.0, 0.0, 120.0]))
    assert collapse.depth(curve, 2_000) == pytest.approx(80.0 - 7.5)


def test_depth_is_taken_within_the_horizon():
    curve = Curve(np.array([0, 60_000, 70_000]), np.array([80.0, 80.0, 0.0]))
    assert collapse.depth(curve) == 0.0
    assert collapse.depth(curve, horizon=70_000) > 60.0


def test_what_is_won_and_lost_again_is_a_decline_and_no_regret():
    # From 40 up to 100, flat for longer than the window, down to 50 and flat again.
    curve = Curve(np.array([0, 10_000, 20_000, 30_000, 40_000]), np.array([40.0, 100.0, 100.0, 50.0, 50.0]))
    assert (collapse.regret(curve), collapse.depth(curve)) == (0.0, 0.0)
    assert collapse.best(curve, 2_500) == pytest.approx(100.0)
    assert collapse.decline(curve, 2_500) == pytest.approx(50.0)
    # While it falls by 5 a thousand steps, the mean of the last 2 000 is 5 above the last of them.
    assert collapse.decline(curve.until(30_000), 2_000) == pytest.approx(45.0)
    both = collapse.decline(
        Curve(curve.env_steps, np.stack([curve.scores, np.linspace(0.0, 80.0, 5)])), 2_500
    )
    np.testing.assert_allclose(both, [50.0, 0.0], atol=1e-9)


def test_one_bad_evaluation_is_averaged_over_the_window():
    # A spike of 20 points, 1 000 steps wide: area 20 × 1 000 / 2 within a window of 2 500.
    steps = np.arange(0, 10_001, 500)
    curve = Curve(steps, np.where(steps == 5000, 30.0, 50.0))
    assert collapse.depth(curve, 2_500) == pytest.approx(20 * 1000 / 2 / 2500)


def test_recovery_is_when_the_windowed_curve_is_back():
    # A step: 0 until 10 000, 100 from 10 001. The trailing mean reaches 78 when 0.78 of the window lies at 100.
    curve = Curve(np.array([0, 1, 10_000, 10_001, 20_000]), np.array([80.0, 0.0, 0.0, 100.0, 100.0]))
    assert collapse.recovery(curve) == pytest.approx(10_000 + 0.78 * 2500, abs=1)


def test_recovery_on_a_slope_is_worked_out_by_hand():
    # s rises by 80 over 8 000 steps from 20 000 on; m(t) lags by half a window: 78 at 27 800 + 1 250.
    assert collapse.recovery(V, 2_500, 2.0) == pytest.approx(29_050, abs=1)


def test_recovery_may_come_after_the_horizon_but_the_fall_must_not():
    curve = Curve(np.array([0, 10_000, 90_000, 100_000]), np.array([80.0, 0.0, 0.0, 100.0]))
    assert 90_000 < collapse.recovery(curve) <= 100_000
    late = Curve(np.array([0, 90_000, 100_000]), np.array([80.0, 80.0, 0.0]))
    assert collapse.recovery(late) == 0


def test_a_curve_that_never_comes_back_is_censored():
    assert collapse.recovery(Curve(np.array([0, 5000, 50_000]), np.array([80.0, 10.0, 60.0]))) is None


@pytest.mark.parametrize("horizon", [48_000, 49_000, 50_000, 54_000])
def test_a_fall_within_the_horizon_is_one_for_depth_and_recovery(horizon):
    steps = np.append(np.arange(0, 48_001, 6_000), [55_000, 62_000, 69_000])
    curve = Curve(steps, np.where(steps <= 48_000, 60.0, 0.0))
    fell = collapse.depth(curve, horizon=horizon) > collapse.TOLERANCE
    assert (collapse.recovery(curve, horizon=horizon) != 0) == fell


def test_a_drop_within_the_tolerance_needs_no_recovery():
    curve = Curve(np.array([0, 5000, 50_000]), np.array([80.0, 78.5, 78.5]))
    assert collapse.depth(curve) == pytest.approx(1.5)
    assert collapse.recovery(curve) == 0


def test_area_is_the_mean_score_and_delta_the_last_gain():
    assert collapse.area(V) == pytest.approx((400_000 + 0 + 500_000) / 30_000)
    assert collapse.area(V, 10_000) == pytest.approx(40.0)
    assert collapse.delta(V) == 20.0


def test_relative_depth_needs_an_offline_score_that_means_something():
    assert collapse.summarise(V_STEPS, V_SCORES, 80.0)["relative_depth"] == pytest.approx(1.0)
    assert collapse.summarise(np.array([5000]), np.array([1.0]), 19.9)["relative_depth"] is None


@pytest.mark.parametrize(
    ("offline", "effect"), [(-5.0, 5.0), (0.0, 5.0), (50.0, 5.0), (60.0, 6.0), (120.0, 12.0)]
)
def test_the_least_effect_is_points_and_a_share_of_the_offline_score(offline, effect):
    assert collapse.effect(offline) == pytest.approx(effect)
    assert collapse.summarise(V_STEPS, V_SCORES, offline)["effect"] == collapse.effect(offline)
    assert collapse.effect(offline, points=2.0, share=0.0) == 2.0


def test_the_offline_score_replaces_the_evaluation_at_the_switch():
    summary = collapse.summarise(np.array([0, 5000, 50_000]), np.array([90.0, 50.0, 50.0]), 50.0)
    assert (summary["depth"], summary["regret"], summary["recovery_env_steps"]) == (0.0, 0.0, 0)


def test_a_run_without_online_steps_has_no_collapse():
    summary = collapse.summarise(np.array([0]), np.array([50.0]), 50.0)
    assert (summary["depth"], summary["regret"], summary["recovery_env_steps"]) == (0.0, 0.0, 0)


@pytest.mark.parametrize(
    ("steps", "scores", "match"),
    [
        ([], [], "one score per evaluation"),
        ([500, 500], [1.0, 2.0], "must increase"),
        ([500, 1000], [1.0, float("nan")], "must be finite"),
    ],
)
def test_curves_that_are_none_are_refused(steps, scores, match):
    with pytest.raises(ValueError, match=match):
        collapse.summarise(np.array(steps, dtype=np.int64), np.array(scores), 50.0)


# The definitions against brute force: every env step, by trapezoids and running sums.
@settings(max_examples=25, deadline=None)
@given(curves, st.floats(0, 110))
def test_closed_forms_agree_with_every_env_step(scores, offline_score):
    steps = 500 * np.arange(len(scores) + 1)
    curve = Curve(steps, np.array([offline_score, *scores]))
    dense = np.interp(np.arange(curve.last + 1), steps, curve.scores)
    below = np.maximum(0.0, offline_score - dense)
    # One step of a thousandth's width is what the crossings cost the brute force.
    assert collapse.regret(curve) == pytest.approx(np.sum(below[1:] + below[:-1]) / 2 / curve.last, abs=1e-3)
    extended = np.concatenate([np.full(2500, offline_score), dense])
    total = np.concatenate([[0.0], np.cumsum((extended[1:] + extended[:-1]) / 2)])
    means = (total[2500:] - total[:-2500]) / 2500
    drop = max(0.0, offline_score - means.min())
    assert collapse.depth(curve) == pytest.approx(drop, abs=1e-3)
    lowest = int(means.argmin())
    if means[lowest] < offline_score - 2.01:
        back = np.flatnonzero(means[lowest:] >= offline_score - 2.0)
        found = collapse.recovery(curve)
        assert found is None if not back.size else found == pytest.approx(lowest + back[0], abs=2)


# docs/collapse.md, "How much the grid matters": the two bounds it states.
@settings(max_examples=50, deadline=None)
@given(curves, st.floats(0, 110), st.integers(2, 10))
def test_thinning_the_grid_changes_the_endpoint_by_no_more_than_stated(scores, offline_score, every):
    steps = 500 * np.arange(len(scores) + 1)
    fine = Curve(steps, np.array([offline_score, *scores]))
    kept = (np.arange(len(steps)) % every == 0) | (steps == fine.last)
    thin = Curve(steps[kept], fine.scores[kept])
    change = abs(collapse.regret(fine) - collapse.regret(thin))
    each = np.arange(0, fine.last + 1, 10)
    distance = np.abs(fine.at(each) - thin.at(each))
    assert change <= distance.mean() * len(each) / (len(each) - 1) + 1e-6
    variation = np.abs(np.diff(fine.scores)).sum()
    assert change <= variation * np.diff(thin.env_steps).max() / (2 * fine.last) + 1e-6
    assert abs(collapse.depth(fine) - collapse.depth(thin)) <= distance.max() + 1e-6


def test_thinning_the_default_grid_tenfold_moves_a_typical_collapse_by_less_than_a_point():
    steps = np.concatenate(
        [np.arange(0, 10_000, 500), np.arange(10_000, 20_000, 1000), np.arange(20_000, 200_001, 5000)]
    )
    fall = np.interp(steps, [0, 2_000, 30_000, 200_000], [60.0, 20.0, 60.0, 100.0])
    fine = Curve(steps, fall)
    kept = steps % 5_000 == 0
    thin = Curve(steps[kept], fall[kept])
    assert abs(collapse.regret(fine) - collapse.regret(thin)) < 1.5
    # A minimum over evaluations is what this is not: it loses as much as a tenth of the fall here.
    assert fall.min() + 4.0 < thin.scores.min()


def test_evaluations_on_the_line_between_others_change_nothing():
    dense = np.arange(0, 30_001, 500)
    a = collapse.summarise(dense, np.interp(dense, V_STEPS, V_SCORES), 80.0)
    b = collapse.summarise(V_STEPS, V_SCORES, 80.0)
    assert a == {name: pytest.approx(value) for name, value in b.items()}


def test_many_curves_give_what_each_gives_alone():
    random = np.random.default_rng(0)
    steps = np.arange(0, 20_001, 500)
    many = Curve(steps, random.uniform(0, 100, (7, len(steps))))
    alone = [Curve(steps, scores) for scores in many.scores]
    for metric in (collapse.regret, collapse.depth, collapse.area, collapse.delta):
        assert metric(many) == pytest.approx([metric(curve) for curve in alone])


def test_training_regret_weighs_episodes_by_their_length():
    # The first window: 1 500 steps at 20 and 1 000 at 70, 40 on average, 40 short. The second is above: 0 short.
    found = collapse.training_regret(
        np.array([1_500, 2_500, 5_000]), np.array([20.0, 70.0, 95.0]), np.array([1_500, 1_000, 2_500]), 80.0
    )
    assert found == pytest.approx((40 * 2_500 + 0 * 2_500) / 5_000)


def test_training_regret_looks_no_further_than_the_horizon():
    steps, lengths = np.array([1_000, 60_000]), np.array([1_000, 1_000])
    assert collapse.training_regret(steps, np.array([30.0, 0.0]), lengths, 80.0) == pytest.approx(50.0)
    assert np.isnan(collapse.training_regret(steps[1:], np.array([0.0]), lengths[1:], 80.0))


def test_late_drawdowns_are_taken_from_where_the_curve_is_by_then():
    # Steady at 90 to 120 000, down to 70 within 10 000 and back within 10 000, then steady to 200 000.
    steps = np.array([0, 20_000, 120_000, 130_000, 140_000, 200_000])
    curve = Curve(steps, np.array([50.0, 90.0, 90.0, 70.0, 90.0, 90.0]))
    regrets, depths = collapse.drawdowns(curve)
    assert regrets == pytest.approx([20 * 20_000 / 2 / 50_000, 0.0])
    assert depths == pytest.approx([20.0 - 1.25, 0.0])  # the window's mean around the tip
    assert collapse.drawdowns(curve.until(140_000)).shape[-1] == 0
    many = Curve(steps, np.stack([curve.scores, curve.scores + 1.0]))
    assert collapse.drawdowns(many) == pytest.approx(np.stack([collapse.drawdowns(curve)] * 2, axis=-1))


def test_the_null_of_a_frozen_arm_scatters_as_its_evaluations_do():
    deviations = np.array([-3.0, 3.0])
    null = collapse.null_curves(np.arange(0, 50_001, 500), deviations, np.full(100, 60.0), 10, draws=200)
    assert set(np.unique(null.scores[:, 1:])) == {57.0, 63.0}
    # Half the evaluations are 3 points short; lines between them cross the offline score: 3/4 · 1/2 · 3 on average.
    assert collapse.regret(null).mean() == pytest.approx(1.125, abs=0.05)


def test_the_null_without_a_frozen_arm_averages_as_many_episodes_as_an_evaluation():
    returns = np.random.default_rng(1).normal(60.0, 20.0, 100)
    null = collapse.null_curves(np.arange(0, 5_001, 500), None, returns, 10, draws=2_000)
    assert null.scores[:, 1:].std() == pytest.approx(returns.std() / 10**0.5, rel=0.05)
    assert null.offline_score.std() == pytest.approx(returns.std() / 10, rel=0.1)


def test_the_null_is_the_same_every_time():
    arguments = (np.arange(0, 5_001, 500), np.array([-1.0, 0.0, 2.0]), np.full(10, 50.0), 10)
    assert np.array_equal(collapse.null_curves(*arguments).scores, collapse.null_curves(*arguments).scores)
