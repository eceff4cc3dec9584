"""Columns of a dataset, against sums written out."""

from __future__ import annotations

import numpy as np
import pytest

from o2o.datasets.columns import best, columns, ends, trajectories
from o2o.types import Transition

LENGTHS = (3, 30, 4)  # the task ends the first, a time limit the second, the file the third


def transitions() -> Transition:
    generator = np.random.default_rng(0)
    count = sum(LENGTHS)
    observation = np.arange(count + len(LENGTHS), dtype=np.float32)[:, None]
    last = np.cumsum(np.array(LENGTHS) + 1) - 1
    return Transition(
        np.delete(observation, last, axis=0),
        generator.uniform(-1, 1, (count, 2)).astype(np.float32),
        generator.normal(size=count).astype(np.float32),
        np.arange(count) == LENGTHS[0] - 1,
        np.delete(observation, np.append(0, last[:-1] + 1), axis=0),
    )


def test_a_trajectory_ends_where_the_task_does_and_where_the_next_row_does_not_go_on():
    assert np.flatnonzero(ends(transitions())).tolist() == [2, 32, 36]


def test_a_return_to_go_is_known_to_the_end_or_until_little_is_missing():
    data, discount = transitions(), 0.9
    found = columns(data, ["return_to_go"], discount)[:, 0]
    for row in range(len(found)):
        end = next(e for e in (2, 32, 36) if row <= e)
        rewards = data.reward[row : end + 1]
        expected = np.sum(rewards * discount ** np.arange(len(rewards)))
        if end == 2 or discount ** len(rewards) <= 0.05:
            assert found[row] == pytest.approx(expected, rel=1e-5)
        else:
            assert np.isnan(found[row])
    assert np.flatnonzero(~np.isnan(found)).tolist() == [0, 1, 2, 3, 4]


def test_the_next_action_is_the_trajectorys():
    data = transitions()
    found = columns(data, ["next_action"], 0.9)
    is_last = ends(data)
    np.testing.assert_array_equal(found[:-1][~is_last[:-1]], data.action[1:][~is_last[:-1]])
    assert np.isnan(found[is_last]).all()


def test_the_best_trajectories_are_kept_whole_and_one_at_least():
    data = transitions()
    returns, number = trajectories(data)
    assert np.bincount(number).tolist() == list(LENGTHS)
    np.testing.assert_allclose(returns, [data.reward[number == k].sum() for k in range(3)], rtol=1e-5)
    order = np.argsort(-returns)
    for fraction, count in ((0.01, 1), (0.67, 2), (1.0, 3)):
        np.testing.assert_array_equal(
            best(data, fraction).reward, data.reward[np.isin(number, order[:count])]
        )
