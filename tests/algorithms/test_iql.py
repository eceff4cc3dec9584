"""IQL against a reference in numpy that is written from its equations, and rule by rule."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import NO_FACTS, assert_close, assert_equal, batch_of, differ, fresh, make, one_of, update, used

from o2o.algorithms import losses
from o2o.types import Facts, LearningRate

KEY = jax.random.key(5)


def forward(parameters: Any, inputs: np.ndarray) -> np.ndarray:
    """Linear, ReLU, linear, ReLU, linear."""
    x = inputs
    for layer in ("hidden_0", "hidden_1"):
        x = np.maximum(x @ parameters[layer]["kernel"] + parameters[layer]["bias"], 0)
    return x @ parameters["output"]["kernel"] + parameters["output"]["bias"]


def numbers(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def reference(state: Any, batch: Any, order: str, scale: float) -> dict[str, float]:
    """The losses of one update, in double precision, given the V that comes of its first step."""
    state, s, a = numbers(state), *map(np.asarray, (batch.observation, batch.action))
    both = np.concatenate([s, a], axis=1)
    target = [jax.tree.map(lambda leaf, i=i: leaf[i], state.target_critics) for i in range(2)]
    critics = [jax.tree.map(lambda leaf, i=i: leaf[i], state.critics) for i in range(2)]
    q = np.minimum(*(forward(c, both)[:, 0] for c in target))
    u = q - forward(state.value, s)[:, 0]
    found = {"value_loss": np.mean(np.where(u > 0, 0.7, 0.3) * u**2)}
    judge = numbers(after_value_step(state, batch, q)) if order == "in_turn" else state.value
    advantage = q - forward(judge, s)[:, 0]
    weight = np.minimum(np.exp(3 * advantage), 100)
    std = np.exp(-6 + 6 / (1 + np.exp(-state.policy["std"])))
    mean = np.tanh(forward(state.policy["mean"], s))
    density = (-0.5 * ((a - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)).sum(axis=1)
    found |= {
        "advantage": advantage.mean(),
        "weight": weight.mean(),
        "policy_loss": -np.mean(weight * density),
    }
    following = forward(judge, np.asarray(batch.next_observation))[:, 0]
    y = scale * np.asarray(batch.reward) + 0.99 * np.where(batch.terminated, 0, following)
    found["critic_loss"] = np.mean([np.mean((forward(c, both)[:, 0] - y) ** 2) for c in critics])
    return found


def after_value_step(state: Any, batch: Any, q: np.ndarray) -> Any:
    """V after Adam's first step, which moves every parameter by the learning rate against its gradient's sign."""

    def loss(value: Any) -> Any:
        x = jnp.asarray(batch.observation)
        for layer in ("hidden_0", "hidden_1"):
            x = jax.nn.relu(x @ value[layer]["kernel"] + value[layer]["bias"])
        v = (x @ value["output"]["kernel"] + value["output"]["bias"])[:, 0]
        u = q - v
        return jnp.mean(jnp.where(u > 0, 0.7, 0.3) * u**2)

    value = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), state.value)
    with jax.numpy_rank_promotion("allow"):
        gradient = jax.grad(loss)(value)
    return jax.tree.map(lambda p, g: p - 3e-4 * g / (jnp.abs(g) + 1e-8), value, gradient)


@pytest.mark.parametrize(
    ("order", "scale"),
    [
        ("in_turn", "return_range"),
        pytest.param("in_turn", "none", marks=pytest.mark.slow),
        pytest.param("together", "return_range", marks=pytest.mark.slow),
        ("together", "none"),
    ],
)
def test_an_update_is_the_equations(order, scale):
    algorithm, batch = make("iql", order=order, reward_scale=scale), batch_of()
    state = algorithm.init(jax.random.key(0), one_of(batch), Facts(-100.0, 300.0))
    state = used_like(state)
    factor = 1.0 if scale == "none" else 1000 / 400
    np.testing.assert_allclose(state.reward_scale, factor, rtol=1e-6)
    _, metrics = update(algorithm, state, batch, KEY)
    for name, value in reference(state, batch, order, factor).items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-4, atol=1e-6, err_msg=name)


def used_like(state: Any) -> Any:
    """The state with every network moved."""
    generator = np.random.default_rng(1)
    moved = {
        part: jax.tree.map(
            lambda leaf: leaf + jnp.asarray(generator.normal(0, 0.2, leaf.shape), leaf.dtype),
            getattr(state, part),
        )
        for part in ("policy", "value", "critics", "target_critics")
    }
    return state.replace(**moved)


def test_the_expectile_of_a_half_is_half_the_mean_square():
    error = jnp.asarray([-2.0, 0.0, 1.0, 3.0])
    np.testing.assert_allclose(losses.expectile_loss(error, 0.5), 0.5 * np.mean(np.square(error)))
    assert losses.expectile_loss(jnp.ones(3), 0.9) > losses.expectile_loss(-jnp.ones(3), 0.9)


def test_v_comes_to_the_expectile_of_what_the_critics_say():
    # One state, two actions of equal number, worth 0 and 1: the 0.7-expectile is 0.7.
    error = lambda v: losses.expectile_loss(jnp.asarray([0.0, 1.0]) - v, 0.7)  # noqa: E731
    values = jnp.linspace(0, 1, 1001)
    assert abs(float(values[jnp.argmin(jax.vmap(error)(values))]) - 0.7) < 2e-3


def test_no_action_outside_of_the_data_is_asked_for():
    algorithm, batch = make("iql"), batch_of()
    state = used_like(fresh(algorithm))
    elsewhere = state.replace(policy=jax.tree.map(lambda leaf: leaf + 1, state.policy))
    one, other = (update(algorithm, s, batch, KEY)[0] for s in (state, elsewhere))
    for part in ("value", "critics", "target_critics"):
        assert_equal(getattr(one, part), getattr(other, part))


def test_rewards_are_scaled_alike_in_both_phases_and_values_come_back_raw():
    algorithm, batch = make("iql", reward_scale="return_range"), batch_of()
    state = used_like(algorithm.init(KEY, one_of(batch), Facts(0.0, 500.0)))
    adopted = algorithm.adopt(state, algorithm, KEY)
    assert_equal(adopted.reward_scale, jnp.asarray(2.0))
    raw = make("iql")
    plain = state.replace(reward_scale=jnp.ones(()))
    doubled = batch._replace(reward=2 * batch.reward)
    assert_close(update(algorithm, state, batch, KEY)[0].critics, update(raw, plain, doubled, KEY)[0].critics)
    np.testing.assert_allclose(
        algorithm.value(state, batch.observation, batch.action),
        raw.value(plain, batch.observation, batch.action) / 2,
        rtol=1e-6,
    )


def test_the_policy_stands_where_it_is_not_due_and_the_critics_learn():
    algorithm, batch = make("iql"), batch_of()
    state = used_like(fresh(algorithm))
    new, metrics = update(algorithm, state, batch, KEY, due=False)
    assert_equal(new.policy, state.policy)
    assert differ(new.critics, state.critics)
    assert differ(new.value, state.value)
    assert "policy_loss" not in metrics


def test_the_policy_follows_the_better_actions():
    algorithm = make("iql", learning_rate=LearningRate(policy=1e-2, critic=1e-2))
    batch = batch_of(64, seed=3)._replace(terminated=jnp.ones(64, bool))
    batch = batch._replace(reward=batch.action[:, 0], observation=jnp.zeros_like(batch.observation))
    step = jax.jit(lambda state: update(algorithm, state, batch, KEY)[0])
    state = algorithm.init(KEY, one_of(batch), NO_FACTS)
    for _ in range(400):
        state = step(state)
    action = algorithm.act(state, batch.observation[0], KEY, True)
    assert action[0] > batch.action[:, 0].mean() + 0.2


def test_used_states_are_of_the_same_tree():
    assert jax.tree.structure(used(make("iql"))) == jax.tree.structure(fresh(make("iql")))
