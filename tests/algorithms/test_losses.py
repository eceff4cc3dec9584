"""The equations by numbers, and what gets a gradient."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError
from scipy import stats

from o2o.algorithms import losses


def test_a_long_gradient_is_shortened_to_the_norm_and_a_short_one_left_alone():
    gradient = jnp.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    clipped = losses.clip_by_norm(gradient, 1.0)
    np.testing.assert_allclose(clipped, [[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(losses.clip_by_norm(gradient, 2.5)[0], [1.5, 2.0], rtol=1e-6)


def test_the_target_is_the_reward_where_the_task_ended_and_bootstraps_elsewhere():
    found = losses.td_target(
        jnp.array([1.0, 2.0]), jnp.array([False, True]), jnp.array([10.0, 10.0]), discount=0.9
    )
    np.testing.assert_allclose(found, [10.0, 2.0])


def test_what_the_critic_says_beyond_the_end_never_matters():
    beyond = jnp.array([jnp.nan, jnp.inf])
    np.testing.assert_array_equal(losses.td_target(jnp.ones(2), jnp.ones(2, bool), beyond, 0.99), [1.0, 1.0])


def test_no_gradient_flows_through_the_target():
    def error(next_value):
        target = losses.td_target(jnp.ones(2), jnp.zeros(2, bool), next_value, 0.99)
        return losses.td_loss(jnp.zeros(2), target)

    np.testing.assert_array_equal(jax.grad(error)(jnp.array([3.0, 4.0])), [0.0, 0.0])


def test_the_td_loss_is_the_mean_squared_error_without_a_half():
    value = jnp.array([1.0, 2.0])
    assert losses.td_loss(value, jnp.array([2.0, 4.0])) == 2.5
    np.testing.assert_allclose(jax.grad(losses.td_loss)(value, jnp.array([2.0, 4.0])), [-1.0, -2.0])


def test_value_and_action_gradient_are_those_of_each_sample():
    weights = jnp.array([1.0, 2.0])
    action = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    value, gradient = losses.value_and_action_gradient(lambda a: jnp.square(a) @ weights, action)
    np.testing.assert_allclose(value, [9.0, 41.0])
    np.testing.assert_allclose(gradient, [[2.0, 8.0], [6.0, 16.0]])


def test_no_gradient_flows_through_value_and_action_gradient():
    def both(action):
        value, gradient = losses.value_and_action_gradient(lambda a: jnp.sum(a**3, axis=-1), action)
        return value.sum() + gradient.sum()

    np.testing.assert_array_equal(jax.grad(both)(jnp.ones((2, 3))), np.zeros((2, 3)))


def test_the_policy_gradient_surrogate_has_the_gradient_of_minus_the_mean_value():
    action = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)

    def critic(a):
        return jnp.sin(a).sum(axis=-1) * a[:, 0]

    _, gradient = losses.value_and_action_gradient(critic, action)
    found = jax.grad(lambda a: losses.dpg_loss(a, gradient, "sum"))(action)
    np.testing.assert_allclose(found, jax.grad(lambda a: -critic(a).mean())(action), atol=1e-6)


def test_the_mean_over_action_dimensions_divides_the_gradient_by_their_number():
    action = jnp.ones((4, 3))
    summed, averaged = (jax.grad(losses.dpg_loss)(action, 2 * action, how) for how in ("sum", "mean"))
    np.testing.assert_allclose(summed, np.full((4, 3), -2 / 4))
    np.testing.assert_allclose(averaged, np.full((4, 3), -2 / 12), rtol=1e-6)


def test_no_gradient_flows_through_the_critic_in_the_policy_loss():
    found = jax.grad(losses.dpg_loss, argnums=1)(jnp.ones((2, 2)), jnp.ones((2, 2)), "sum")
    np.testing.assert_array_equal(found, np.zeros((2, 2)))


def test_behavior_cloning_is_the_mean_over_batch_and_action_dimensions():
    found = losses.behavior_cloning_loss(jnp.zeros((2, 2)), jnp.array([[1.0, 2.0], [3.0, 4.0]]))
    assert found == 7.5


def test_the_dual_loss_pushes_the_multiplier_up_where_the_constraint_is_violated():
    multiplier, constraint = jnp.array([2.0, 3.0]), jnp.array([0.5, 0.1])
    np.testing.assert_allclose(losses.dual_loss(multiplier, constraint, 0.2), 2 * -0.3 + 3 * 0.1, rtol=1e-6)
    slope = jax.grad(losses.dual_loss)(multiplier, constraint, 0.2)
    np.testing.assert_allclose(slope, [-0.3, 0.1], rtol=1e-6)


def test_the_dual_loss_moves_nothing_but_the_multiplier():
    slope = jax.grad(losses.dual_loss, argnums=1)(jnp.array([2.0]), jnp.array([0.5]), 0.2)
    np.testing.assert_array_equal(slope, [0.0])


def test_the_tanh_gaussians_density_is_that_of_a_change_of_variables():
    generator = np.random.default_rng(0)
    mean, log_std, noise = (
        jnp.asarray(scale * generator.normal(size=(50, 2)), jnp.float32) for scale in (1.0, 0.3, 1.0)
    )
    action, log_prob = losses.tanh_gaussian(mean, log_std, noise)
    raw = np.asarray(mean + jnp.exp(log_std) * noise, np.float64)
    expected = stats.norm.logpdf(raw, mean, np.exp(log_std)) - np.log1p(-(np.tanh(raw) ** 2))
    np.testing.assert_allclose(action, np.tanh(raw), rtol=1e-5)
    np.testing.assert_allclose(log_prob, expected.sum(-1), rtol=1e-4, atol=1e-4)


def test_the_tanh_gaussians_density_is_finite_where_the_action_is_at_its_bounds():
    mean = jnp.array([[50.0], [-50.0]])
    action, log_prob = losses.tanh_gaussian(mean, jnp.zeros((2, 1)), jnp.zeros((2, 1)))
    np.testing.assert_array_equal(action, [[1.0], [-1.0]])
    # log N(0; 0, 1) - 2 (log 2 - 50)
    np.testing.assert_allclose(log_prob, [97.694, 97.694], atol=1e-3)


def test_polyak_averaging_moves_by_the_share():
    old, new = {"a": jnp.array([0.0, 10.0])}, {"a": jnp.array([10.0, 0.0])}
    np.testing.assert_allclose(losses.moved_towards(old, new, 0.1)["a"], [1.0, 9.0], rtol=1e-6)


def test_arrays_of_the_wrong_shape_are_refused():
    with pytest.raises(TypeCheckError):
        losses.td_loss(jnp.zeros(3), jnp.zeros((3, 1)))
    with pytest.raises(TypeCheckError):
        losses.behavior_cloning_loss(jnp.zeros((3, 2)), jnp.zeros((3, 1)))


def test_values_that_would_be_broadcast_are_refused():
    row, column = jnp.ones(3), jnp.ones((3, 1))
    with pytest.raises(ValueError, match=r"value of shape \(3, 1\) and target of shape \(3,\) do not fit"):
        inspect.unwrap(losses.td_loss)(column, row)
    with pytest.raises(ValueError, match="next_value of shape"):
        inspect.unwrap(losses.td_target)(row, row > 2, column, 0.9)
