from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import NO_FACTS, assert_equal, batch_of, fresh, make, one_of, update

from o2o.types import LearningRate

KEY = jax.random.key(2)


def test_an_update_is_adams_step_towards_the_batchs_actions():
    algorithm, batch = make("bc"), batch_of()
    policy, optimizer = fresh(algorithm)

    def distance(policy):
        action = algorithm.act((policy, optimizer), batch.observation, KEY, True)
        return jnp.mean((action - batch.action) ** 2)

    loss, gradient = jax.value_and_grad(distance)(policy)
    moved = optax.apply_updates(policy, optax.adam(3e-4).update(gradient, optimizer)[0])
    (found, _), metrics = update(algorithm, (policy, optimizer), batch, KEY)
    np.testing.assert_allclose(metrics["behavior_cloning"], loss, rtol=1e-6)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(moved), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-8)


def test_it_learns_what_the_batch_does():
    algorithm, batch = make("bc", learning_rate=LearningRate(policy=1e-2, critic=1e-2)), batch_of()
    step = jax.jit(lambda state: update(algorithm, state, batch, KEY))
    state, losses = fresh(algorithm), []
    for _ in range(400):
        state, metrics = step(state)
        losses.append(float(metrics["behavior_cloning"]))
    assert losses[-1] < losses[0] / 4


@pytest.mark.parametrize("evaluate", [True, False])
def test_it_explores_with_noise_and_evaluates_without(evaluate):
    algorithm, observation = make("bc", exploration_noise=0.2), jnp.zeros((4000, 5))
    actions = algorithm.act(fresh(algorithm), observation, KEY, evaluate)
    np.testing.assert_allclose(actions.std(), 0.0 if evaluate else 0.2, rtol=0.05, atol=1e-6)


def test_it_goes_on_from_its_own_state_alone():
    algorithm = make("bc")
    state, _ = update(algorithm, fresh(algorithm), batch_of(), KEY)
    assert algorithm.adopts(algorithm)
    assert not algorithm.adopts(make("td3_bc"))
    assert_equal(algorithm.adopt(state, algorithm, KEY), state)
    policy, optimizer = algorithm.adopt(state, algorithm, KEY, reset_optimizers=True)
    assert_equal(policy, state[0])
    assert_equal(optimizer, algorithm.init(KEY, one_of(batch_of()), NO_FACTS)[1])
