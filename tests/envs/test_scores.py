from __future__ import annotations

import numpy as np
import pytest

from o2o.envs.scores import REFERENCE_RETURNS, normalised_score


def test_score_of_halfcheetah_mediums_mean_return_is_the_published_one():
    assert normalised_score(4770.3349609375, *REFERENCE_RETURNS["halfcheetah"]) == pytest.approx(
        40.68, abs=0.005
    )


@pytest.mark.parametrize("task", ["hopper", "halfcheetah", "walker2d", "ant"])
def test_reference_returns_score_0_and_100(task: str):
    minimum, maximum = REFERENCE_RETURNS[task]
    assert normalised_score(minimum, minimum, maximum) == 0
    assert normalised_score(maximum, minimum, maximum) == 100


def test_scores_of_an_array_are_the_scores_of_its_elements():
    returns = np.array([[0.0, 50.0], [100.0, 150.0]])
    np.testing.assert_array_equal(normalised_score(returns, 50.0, 100.0), [[-100, 0], [100, 200]])


def test_reference_returns_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match="must be above"):
        normalised_score(1.0, 100.0, 50.0)
