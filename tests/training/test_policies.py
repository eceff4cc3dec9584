"""Kept policies act as the states did that they were taken from, and hold nothing else."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import ACTION, OBSERVATION, make

from o2o.algorithms import ALGORITHMS
from o2o.replay.buffer import Replay
from o2o.training import policies
from o2o.types import Facts


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_is_kept_acts_as_the_state_did(name, tmp_path):
    algorithm, key = make(name), jax.random.key(1)
    columns = getattr(algorithm, "columns", ())
    example = Replay(8, 30, 6, OBSERVATION, ACTION, columns=columns).example()
    state = algorithm.init(key, example, Facts(0.0, 1.0))
    read = policies.arrays_read(algorithm, state, example.observation)
    policies.save(tmp_path, 500, state, read)
    like = jax.eval_shape(algorithm.init, key, example, Facts(0.0, 1.0))
    loaded = policies.load(tmp_path, 500, like, policies.arrays_read(algorithm, like, example.observation))
    observation = jnp.linspace(-1, 1, OBSERVATION)
    actions = [algorithm.act(own, observation, key, evaluate=True) for own in (state, loaded)]
    np.testing.assert_array_equal(*actions)
    names = set(np.load(tmp_path / "policy-500.npz").files) - {"version"}
    assert len(names) == sum(read)
    layers = len(algorithm.network.hidden_sizes) + 1
    assert len(names) <= 2 * layers + 2, "weights and biases, and those of a normalisation"


def test_a_policy_is_kept_at_the_first_stop_from_its_step_on():
    assert policies.steps_to_keep([0, 500, 501, 700, 2000, 2001], [500, 1000, 2000]) == {0, 500, 1000, 2000}
    assert policies.steps_to_keep([], [500]) == set()


def test_later_policies_are_forgotten_and_checkpoints_stay(tmp_path):
    for name in ("policy-0.npz", "policy-500.npz", "policy-1000.npz", "500.npz", "policy-mine.npz"):
        (tmp_path / name).touch()
    assert policies.steps(tmp_path) == [0, 500, 1000]
    policies.forget(tmp_path, after=500)
    assert policies.steps(tmp_path) == [0, 500]
    policies.forget(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["500.npz", "policy-mine.npz"]
