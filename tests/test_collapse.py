from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from o2o import collapse

# From 80 straight down to 0 at 10 000, flat to 20 000, straight up to 100 at 30 000.
V_STEPS = np.array([0, 10_000, 20_000, 30_000])
V_SCORES = np.array([80.0, 0.0, 0.0, 100.0])


def test_regret_is_the_mean_deficit_worked_out_by_hand():
    # Triangle 10 000 × 80 / 2, rectangle 10 000 × 80, triangle 8 000 × 80 / 2 (80 is reached again at 28 000).
    curve = collapse.per_env_step(V_STEPS, V_SCORES, 80.0)
    assert collapse.regret(curve, 80.0, 30_000) == pytest.approx((400_000 + 800_000 + 320_000) / 30_000)


def test_regret_over_a_shorter_horizon_looks_no_further():
    curve = collapse.per_env_step(V_STEPS, V_SCORES, 80.0)
    assert collapse.regret(curve, 80.0, 10_000) == pytest.approx(40.0)


def test_gains_do_not_make_up_for_losses():
    curve = collapse.per_env_step(np.array([1000, 2000, 3000]), np.array([40.0, 50.0, 1000.0]), 50.0)
    # Down to 40 and back within 2 000 steps: 2 000 × 10 / 2, and nothing from the climb to 1 000.
    assert collapse.regret(curve, 50.0, 3000) == pytest.approx(10_000 / 3000)


def test_depth_is_the_drop_of_the_windowed_curve():
    summary = collapse.summarise(V_STEPS, V_SCORES, 80.0)
    assert summary["depth"] == pytest.approx(80.0)  # flat at 0 for longer than the window
    assert 12_500 <= summary["lowest_env_step"] <= 20_000


def test_one_bad_evaluation_is_averaged_over_the_window():
    # A spike of 20 points, 1 000 steps wide: area 20 × 1 000 / 2 within a window of 2 500.
    steps = np.arange(500, 10_001, 500)
    scores = np.where(steps == 5000, 30.0, 50.0)
    assert collapse.summarise(steps, scores, 50.0)["depth"] == pytest.approx(20 * 1000 / 2 / 2500)


def test_the_window_at_the_switch_reaches_back_to_the_pretrained_policy():
    smooth = collapse.windowed(collapse.per_env_step(np.array([2500]), np.array([0.0]), 50.0), 50.0, 2500)
    assert smooth[0] == 50.0
    assert smooth[1250] == pytest.approx((1250 * 50 + 1250 * 37.5) / 2500)
    assert smooth[2500] == pytest.approx(25.0)


def test_recovery_is_when_the_windowed_curve_is_back():
    # A step: 0 until 10 000, 100 from 10 001. The trailing mean reaches 78 when 0.78 of the window lies at 100.
    steps = np.array([1, 10_000, 10_001, 20_000])
    summary = collapse.summarise(steps, np.array([0.0, 0.0, 100.0, 100.0]), 80.0)
    assert summary["recovery_env_steps"] == pytest.approx(10_000 + 0.78 * 2500, abs=1)


def test_a_curve_that_never_comes_back_is_censored():
    summary = collapse.summarise(np.array([5000, 50_000]), np.array([10.0, 60.0]), 80.0)
    assert summary["recovery_env_steps"] is None


def test_a_drop_within_the_tolerance_needs_no_recovery():
    summary = collapse.summarise(np.array([5000, 50_000]), np.array([78.5, 78.5]), 80.0)
    assert summary["depth"] == pytest.approx(1.5)
    assert summary["recovery_env_steps"] == 0


def test_a_curve_above_the_offline_score_shows_no_collapse():
    summary = collapse.summarise(np.array([0, 5000, 50_000]), np.array([50.0, 60.0, 90.0]), 50.0)
    assert (summary["depth"], summary["regret"], summary["recovery_env_steps"]) == (0.0, 0.0, 0)


def test_delta_is_the_last_score_minus_the_offline_score():
    assert collapse.delta(V_SCORES, 80.0) == 20.0


def test_evaluations_on_the_line_between_others_change_nothing():
    dense_steps = np.arange(0, 30_001, 500)
    dense = collapse.summarise(dense_steps, np.interp(dense_steps, V_STEPS, V_SCORES), 80.0)
    thin = collapse.summarise(V_STEPS, V_SCORES, 80.0)
    assert dense == {name: pytest.approx(value) for name, value in thin.items()}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 110), min_size=9, max_size=41), st.floats(0, 110))
def test_thinning_the_grid_changes_metrics_by_no_more_than_the_curve(scores, offline_score):
    steps = 500 * np.arange(1, len(scores) + 1)
    kept = np.arange(len(scores)) % 3 == (len(scores) - 1) % 3  # the last evaluation stays
    scores = np.array(scores)
    fine = collapse.per_env_step(steps, scores, offline_score)
    thin = collapse.per_env_step(steps[kept], scores[kept], offline_score)
    bound = np.abs(fine - thin).max() + 1e-9
    a = collapse.summarise(steps, scores, offline_score)
    b = collapse.summarise(steps[kept], scores[kept], offline_score)
    assert abs(a["depth"] - b["depth"]) <= bound
    assert abs(a["regret"] - b["regret"]) <= bound


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
