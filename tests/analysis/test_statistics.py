from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis import statistics

RANDOM = np.random.default_rng(0)
A = RANDOM.normal(60.0, 8.0, 10)
B = A - RANDOM.normal(5.0, 3.0, 10)
C = RANDOM.normal(50.0, 20.0, 7)


def test_the_mean_has_the_interval_of_students_t():
    found = statistics.mean(A)
    expected = stats.t.interval(0.95, 9, A.mean(), stats.sem(A))
    assert found.interval == pytest.approx(expected)
    assert found.p_value == pytest.approx(stats.ttest_1samp(A, 0.0).pvalue)


def test_published_numbers_have_the_same_interval_as_the_seeds_behind_them():
    found = statistics.published_mean(A.mean(), A.std(ddof=1), 10)
    assert found.interval == pytest.approx(statistics.mean(A).interval)


def test_arms_that_share_a_pretraining_are_compared_seed_by_seed():
    found = statistics.paired(A, B)
    assert found.p_value == pytest.approx(stats.ttest_rel(A, B).pvalue)
    assert found.p_value < statistics.unpaired(A, B).p_value


def test_arms_that_share_nothing_are_compared_as_by_welch():
    found = statistics.unpaired(A, C)
    expected = stats.ttest_ind(A, C, equal_var=False)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_one_seed_has_no_interval():
    found = statistics.mean(np.array([60.0]))
    assert found.value == 60.0
    assert np.isnan(found.interval).all()
    assert np.isnan(found.p_value)
    assert found.more_seeds() is None


def test_seeds_that_agree_exactly_leave_no_doubt():
    found = statistics.mean(np.full(3, 5.0))
    assert found.interval == (5.0, 5.0)
    assert (found.p_value, found.more_seeds()) == (0.0, 0)


def test_more_seeds_are_as_many_as_make_the_interval_leave_zero():
    estimate = statistics.published_mean(4.0, 10.0, 5)
    needed = 5 + estimate.more_seeds()
    assert statistics.published_mean(4.0, 10.0, needed).interval[0] > 0
    assert statistics.published_mean(4.0, 10.0, needed - 1).interval[0] <= 0
    assert statistics.published_mean(0.01, 10.0, 5).more_seeds() is None  # more than ten thousand


def test_the_interquartile_mean_cuts_a_quarter_from_each_end():
    assert statistics.interquartile_mean(np.array([0.0, 10.0, 20.0, 1e9])) == 15.0
    whole = statistics.interquartile_mean(np.array([0.0, 30.0, 90.0]))  # a quarter of three is no value
    assert whole == pytest.approx(40.0)
    assert statistics.interquartile_mean(C) == pytest.approx(np.sort(C)[1:-1].mean())
    both = statistics.interquartile_mean(np.stack([A, A + 1]))
    assert both == pytest.approx(np.sort(A)[2:-2].mean() + np.array([0, 1]))


def test_the_bootstrap_agrees_with_scipys():
    found = statistics.stratified_bootstrap([C], lambda values: values.mean(axis=-1), draws=20_000)
    expected = stats.bootstrap((C,), np.mean, n_resamples=20_000, method="percentile", rng=1)
    assert found == pytest.approx(tuple(expected.confidence_interval), abs=0.6)


def test_the_bootstrap_draws_within_each_stratum():
    low, high = statistics.stratified_bootstrap([np.full(3, 0.0), np.full(3, 100.0)], lambda v: v.mean(-1))
    assert low == high == 50.0  # pooled, it would scatter from 0 to 100


def test_the_bootstrap_is_the_same_every_time():
    arguments = ([A, C], statistics.interquartile_mean)
    assert statistics.stratified_bootstrap(*arguments) == statistics.stratified_bootstrap(*arguments)
    assert statistics.stratified_bootstrap(*arguments) != statistics.stratified_bootstrap(*arguments, seed=1)


def test_the_paired_bootstrap_keeps_seeds_together():
    low, high = statistics.paired_bootstrap(A, A - 3.0)
    assert (low, high) == (pytest.approx(3.0), pytest.approx(3.0))


def test_the_probability_of_improvement_is_mann_whitneys_u_over_the_pairs():
    found = statistics.probability_of_improvement([A], [C])
    assert found == pytest.approx(np.mean([[a > c for c in C] for a in A]))
    tied = np.array([1.0, 1.0])
    assert statistics.probability_of_improvement([tied], [tied]) == 0.5
    assert statistics.probability_of_improvement([A, tied], [A - 1e6, tied]) == 0.75


def test_equivalence_is_two_one_sided_tests():
    a, b = A, A + RANDOM.normal(0.0, 2.0, 10)
    found = statistics.equivalent(statistics.paired(a, 0.9 * b), statistics.paired(a, 1.1 * b))
    above = stats.ttest_1samp(a - 0.9 * b, 0.0, alternative="greater").pvalue
    below = stats.ttest_1samp(a - 1.1 * b, 0.0, alternative="less").pvalue
    assert found == pytest.approx(max(above, below))
    assert found < 0.05
    far = statistics.equivalent(statistics.paired(a, 1.8 * b), statistics.paired(a, 2.2 * b))
    assert far > 0.5


def test_holm_multiplies_the_smallest_by_the_size_of_the_family():
    # Sorted: 0.01·4, 0.02·3 = 0.06, 0.03·2 = 0.06, 0.2·1.
    assert statistics.holm(np.array([0.03, 0.01, 0.2, 0.02])) == pytest.approx([0.06, 0.04, 0.2, 0.06])
    # Never less than the one before, never above 1, and what could not be tested is in no family.
    assert statistics.holm(np.array([0.6, np.nan, 0.9])) == pytest.approx([1.0, np.nan, 1.0], nan_ok=True)


def test_the_restricted_mean_is_the_area_under_kaplan_and_meiers_curve():
    times = np.array([3.0, 5.0, 5.0, 8.0, 10.0, 10.0])
    observed = np.array([True, True, False, True, False, False])
    # 5/6 are left after 3, of them 4/5 after 5, of them 2/3 after 8: by hand.
    area = 3.0 + (5 - 3) * 5 / 6 + (8 - 5) * 4 / 6 + (10 - 8) * 4 / 9
    assert statistics.restricted_mean(times, observed, 10.0) == pytest.approx(area)
    assert statistics.restricted_mean(times, observed, 4.0) == pytest.approx(3.0 + (4 - 3) * 5 / 6)


def test_the_restricted_mean_counts_what_never_recovered_as_the_whole_time():
    times, observed = np.array([2.0, 10.0]), np.array([True, False])
    assert statistics.restricted_mean(times, observed, 10.0) == pytest.approx(6.0)
    assert statistics.restricted_mean(times, observed, 4.0) == pytest.approx(3.0)
    assert statistics.restricted_mean(times, np.array([True, True]), 10.0) == pytest.approx(6.0)
    none = statistics.restricted_mean(times, np.array([False, False]), 10.0)
    assert none == pytest.approx(10.0)


def test_shares_have_clopper_and_pearsons_interval():
    # None of 10: the share under which that happens in one of forty; all of 10 is its mirror.
    assert statistics.clopper_pearson(0, 10) == pytest.approx((0.0, 1 - 0.025**0.1))
    assert statistics.clopper_pearson(10, 10) == pytest.approx((0.025**0.1, 1.0))
    low, high = statistics.clopper_pearson(3, 10)
    assert stats.binom.sf(2, 10, low) == pytest.approx(0.025)
    assert stats.binom.cdf(3, 10, high) == pytest.approx(0.025)
