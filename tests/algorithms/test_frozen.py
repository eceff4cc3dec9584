from __future__ import annotations

import jax
from small import assert_equal, batch_of, fresh, make, update, used


def test_a_frozen_policy_learns_nothing_and_reports_nothing():
    td3, frozen = make("td3"), make("frozen")
    state = frozen.adopt(used(td3), td3, jax.random.key(0))
    new, metrics = update(frozen, state, batch_of(8), jax.random.key(0))
    assert_equal(new, state)
    assert metrics == {}


def test_it_acts_and_explores_as_td3_does():
    td3, frozen = make("td3"), make("frozen")
    state, batch, key = fresh(td3), batch_of(8), jax.random.key(1)
    for evaluate in (True, False):
        actions = [algorithm.act(state, batch.observation, key, evaluate) for algorithm in (frozen, td3)]
        assert_equal(*actions)
