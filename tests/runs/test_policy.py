"""Trained policies as functions, for all algorithms."""

from __future__ import annotations

import numpy as np
import pytest
from trained import finished

from o2o.algorithms import ALGORITHMS
from o2o.errors import ConfigError
from o2o.runs.directory.layout import FINAL_STATE
from o2o.runs.trained.policy import load_policy


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_policy_of_any_algorithm_answers_one_observation_and_many(name, configure, tmp_path):
    path, act = finished(configure, tmp_path, name)
    policy = load_policy(path)
    assert (policy.observation_size, policy.action_size) == (11, 3)
    observations = np.random.default_rng(0).standard_normal((4, 11)).astype(np.float32)
    np.testing.assert_allclose(policy(observations), act(observations), atol=1e-6)
    np.testing.assert_allclose(policy(observations[0].tolist()), act(observations[:1])[0], atol=1e-6)
    assert isinstance(policy(observations), np.ndarray)


def test_other_sizes_and_unfinished_runs_are_refused(configure, tmp_path):
    path, _ = finished(configure, tmp_path, "td3")
    with pytest.raises(ValueError, match="an observation has 11 numbers, not 12"):
        load_policy(path)(np.zeros(12))
    (path / FINAL_STATE).unlink()
    with pytest.raises(ConfigError, match="is the run finished"):
        load_policy(path)
    with pytest.raises(ConfigError, match="is not a run directory"):
        load_policy(tmp_path)
