from __future__ import annotations

import jax
from small import assert_equal, batch_of, fresh, make, used

from o2o.types import update


def test_a_frozen_policy_learns_nothing_and_reports_nothing():
    td3, frozen = make("td3"), make("frozen")
    state = frozen.adopt(used(td3))
    new, metrics = update(frozen, state, batch_of(8), jax.random.key(0), 0)
    assert_equal(new, state)
    assert metrics == {}


def test_it_acts_and_explores_as_td3_does():
    td3, frozen = make("td3"), make("frozen")
    state, batch, key = fresh(td3), batch_of(8), jax.random.key(1)
    assert_equal(frozen.act(state, batch.observation), td3.act(state, batch.observation))
    assert_equal(frozen.explore(state, batch.observation, key), td3.explore(state, batch.observation, key))
