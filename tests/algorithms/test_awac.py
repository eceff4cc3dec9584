"""AWAC against a reference in numpy that is written from its equations, and rule by rule."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import assert_equal, batch_of, differ, fresh, make, update, used

KEY = jax.random.key(5)


def forward(parameters: Any, inputs: np.ndarray) -> np.ndarray:
    """Linear and ReLU, twice, then linear."""
    x = inputs
    for layer in ("hidden_0", "hidden_1"):
        x = np.maximum(x @ parameters[layer]["kernel"] + parameters[layer]["bias"], 0)
    return x @ parameters["output"]["kernel"] + parameters["output"]["bias"]


def numbers(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def least(critics: Any, s: Any, a: Any) -> np.ndarray:
    """The lesser value of two critics."""
    both = np.concatenate([s, a], axis=1)
    return np.minimum(*(forward(jax.tree.map(lambda x, i=i: x[i], critics), both)[:, 0] for i in range(2)))


def drawn(policy: Any, s: Any, key: Any) -> np.ndarray:
    """A sample of the policy at every state."""
    mean = np.tanh(forward(policy["mean"], np.asarray(s)))
    std = np.exp(-6 + 6 / (1 + np.exp(-policy["std"])))
    return np.clip(mean + std * np.asarray(jax.random.normal(key, mean.shape)), -1, 1)


@pytest.mark.parametrize("weights", ["softmax", "clipped"])
def test_an_update_is_the_equations_with_the_policy_after_the_critics(weights):
    algorithm, batch = make("awac", weights=weights, temperature=0.5), batch_of()
    state = used(algorithm)
    new, metrics = update(algorithm, state, batch, KEY)
    old, after = numbers(state), numbers(new)
    target_key, advantage_key = jax.random.split(KEY)
    s, a = np.asarray(batch.observation), np.asarray(batch.action)
    following = drawn(old.policy, batch.next_observation, target_key)
    y = np.asarray(batch.reward) + 0.99 * np.where(
        batch.terminated, 0, least(old.target_critics, np.asarray(batch.next_observation), following)
    )
    both = np.concatenate([s, a], axis=1)
    errors = [
        np.mean((forward(jax.tree.map(lambda x, i=i: x[i], old.critics), both)[:, 0] - y) ** 2)
        for i in range(2)
    ]
    np.testing.assert_allclose(metrics["critic_loss"], np.mean(errors), rtol=1e-5)
    # The new critics judge.
    advantage = least(after.critics, s, a) - least(after.critics, s, drawn(old.policy, s, advantage_key))
    if weights == "softmax":
        weight = np.exp(advantage / 0.5 - np.max(advantage / 0.5))
        weight *= len(weight) / weight.sum()
    else:
        weight = np.minimum(np.exp(advantage / 0.5), 100)
    std = np.exp(-6 + 6 / (1 + np.exp(-old.policy["std"])))
    mean = np.tanh(forward(old.policy["mean"], s))
    density = (-0.5 * ((a - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)).sum(axis=1)
    np.testing.assert_allclose(metrics["advantage"], advantage.mean(), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(metrics["largest_weight"], weight.max(), rtol=1e-4)
    np.testing.assert_allclose(metrics["policy_loss"], -np.mean(weight * density), rtol=1e-4)


def test_the_softmaxs_weights_have_a_mean_of_one_whatever_the_critics_scale():
    weight = make("awac").weight(jnp.asarray([1e3, -1e3, 0.0, 999.0]))
    np.testing.assert_allclose(weight.mean(), 1.0, rtol=1e-6)
    assert weight[0] > weight[3] > weight[2]


def test_where_the_policy_is_not_due_the_critics_alone_learn():
    algorithm = make("awac")
    state = used(algorithm)
    new, metrics = update(algorithm, state, batch_of(), KEY, due=False)
    assert_equal((new.policy, new.policy_optimizer), (state.policy, state.policy_optimizer))
    assert differ(new.critics, state.critics)
    assert set(metrics) == {"critic_loss", "q_mean"}


def test_weights_decay_towards_zero_without_a_gradient():
    algorithm = make("awac", policy_weight_decay=0.5)
    state = fresh(algorithm)
    zero = jax.tree.map(jnp.zeros_like, state.policy)
    updates, _ = algorithm._policy_optimizer.update(zero, state.policy_optimizer, state.policy)
    kernel, step = state.policy["mean"]["hidden_0"]["kernel"], updates["mean"]["hidden_0"]["kernel"]
    assert (jnp.sign(step) == -jnp.sign(kernel)).all()


def test_it_explores_within_bounds():
    algorithm = make("awac")
    state = used(algorithm)
    actions = algorithm.act(state, jnp.zeros((2000, 5)), KEY, False)
    assert jnp.abs(actions).max() <= 1
    assert actions.std(axis=0).min() > 0.01
