"""ReBRAC's penalties, which TD3-BC has as switches."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import assert_close, assert_equal, batch_of, make, update, used

from o2o.algorithms.networks import policy_action

KEY = jax.random.key(3)


def test_the_critics_penalty_is_the_squared_distance_to_the_datas_next_action():
    plain, penalised, batch = make("td3_bc"), make("td3_bc", critic_penalty=0.5), batch_of()
    following = np.array(batch.columns["next_action"])
    following[1] = np.nan  # not known
    batch = batch._replace(columns={"next_action": jnp.asarray(following)})
    state = used(plain)
    noise = jnp.clip(0.2 * jax.random.normal(KEY, (3,)), -0.5, 0.5)
    action = np.clip(policy_action(state.target_policy, batch.next_observation) + noise[None], -1, 1)
    distance = np.nan_to_num(((action - following) ** 2).sum(axis=1))
    expected = plain.td_target(state, batch, KEY) - 0.99 * 0.5 * distance * ~batch.terminated
    np.testing.assert_allclose(penalised.td_target(state, batch, KEY), expected, rtol=1e-4, atol=1e-5)


def test_the_actors_penalty_is_cloning_by_the_sum_over_dimensions():
    batch = batch_of()
    state = used(make("td3_bc"))
    # 1 / alpha times the mean over three dimensions is 0.1 times their sum.
    found = make("td3_bc", actor_penalty=0.1).policy_loss(state.policy, state, batch)
    expected = make("td3_bc", behavior_cloning_alpha=1 / 0.3).policy_loss(state.policy, state, batch)
    assert_close(found, expected, rtol=1e-5)


def test_without_them_it_is_td3_bc_and_asks_for_no_column():
    assert make("td3_bc").columns == ()
    assert make("td3_bc", critic_penalty=0.1).columns == ("next_action",)
    state, batch = used(make("td3_bc")), batch_of()
    assert_equal(
        update(make("td3_bc"), state, batch._replace(columns={}), KEY),
        update(make("td3_bc"), state, batch, KEY),
    )
    with pytest.raises(KeyError):
        update(make("td3_bc", critic_penalty=0.1), state, batch._replace(columns={}), KEY)
