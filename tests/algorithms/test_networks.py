"""The networks against the specification's numbers (paper, Appendix B; Acme; Haiku's initialisers)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2o.algorithms import networks
from o2o.types import Network

PAPER = Network((256, 256))


def as_numpy(tree):
    return jax.tree.map(np.asarray, tree)


@pytest.fixture(scope="module")
def policy():
    return as_numpy(networks.init_policy(jax.random.key(0), PAPER, 11, 3))


@pytest.fixture(scope="module")
def critic():
    return as_numpy(networks.init_critic(jax.random.key(1), PAPER, 11, 3))


@pytest.mark.parametrize(
    ("observation", "action", "policy_size", "critic_size"),
    [(11, 3, 70_147, 70_401), (17, 6, 72_454, 72_705), (111, 8, 97_032, 97_281), (27, 8, 75_528, 75_777)],
)
def test_the_networks_have_as_many_parameters_as_the_papers(observation, action, policy_size, critic_size):
    for init, expected in ((networks.init_policy, policy_size), (networks.init_critic, critic_size)):
        shapes = jax.eval_shape(
            lambda key, init=init: init(key, PAPER, observation, action), jax.random.key(0)
        )
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == expected


def test_all_parameters_are_float32(policy, critic):
    assert {leaf.dtype.name for leaf in jax.tree.leaves([policy, critic])} == {"float32"}


@pytest.mark.parametrize(
    ("which", "layer", "limit"),
    [
        ("policy", "hidden_0", 0.173904),
        ("critic", "hidden_0", 0.154149),
        ("policy", "hidden_1", 0.0360483),
        ("critic", "hidden_1", 0.0360483),
        ("critic", "output", 0.0360483),
    ],
)
def test_weights_begin_uniform_between_the_specified_limits(which, layer, limit, request):
    weights = request.getfixturevalue(which)[layer]["kernel"]
    assert np.abs(weights).max() <= limit * (1 + 1e-5)
    assert np.abs(weights).max() > 0.98 * limit
    # the standard deviation of U(-m, m), to within five standard errors of so many samples
    np.testing.assert_allclose(weights.std(), limit / np.sqrt(3), rtol=5 * 0.45 / np.sqrt(weights.size))


def test_the_policys_output_begins_as_a_near_zero_truncated_normal(policy):
    weights = policy["output"]["kernel"]
    assert 1.25e-3 < np.abs(weights).max() <= 1.4211e-3
    np.testing.assert_allclose(weights.std(), 6.25e-4, rtol=0.12)


def test_biases_begin_at_zero_and_scales_at_one(policy, critic):
    for parameters in (policy, critic):
        np.testing.assert_array_equal(parameters["norm"]["scale"], np.ones(256))
        biases = [layer["bias"] for layer in parameters.values()]
        assert len(biases) == 4
        assert not any(bias.any() for bias in biases)


def test_a_fresh_policy_does_almost_nothing(policy):
    observation = 5 * jax.random.normal(jax.random.key(2), (512, 11))
    action = networks.policy_action(policy, observation)
    assert 0 < jnp.abs(action).max() < 0.02


def forward(parameters, x):
    """Linear, LayerNorm (epsilon 1e-5, biased variance), tanh; linear, ELU; linear: in double precision."""
    layers = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), parameters)
    x = x @ layers["hidden_0"]["kernel"] + layers["hidden_0"]["bias"]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    x = np.tanh(x * layers["norm"]["scale"] + layers["norm"]["bias"])
    x = x @ layers["hidden_1"]["kernel"] + layers["hidden_1"]["bias"]
    x = np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
    return x @ layers["output"]["kernel"] + layers["output"]["bias"]


def with_noise(parameters):
    generator = np.random.default_rng(3)
    return jax.tree.map(lambda p: (p + generator.normal(0, 0.1, p.shape)).astype(np.float32), parameters)


# Small inputs make the variance before LayerNorm as small as its epsilon.
@pytest.mark.parametrize("scale", [1.0, 1e-2])
def test_the_networks_compute_what_the_specification_says(policy, critic, scale):
    generator = np.random.default_rng(4)
    observation = (scale * generator.normal(size=(32, 11))).astype(np.float32)
    action = (scale * generator.uniform(-1, 1, (32, 3))).astype(np.float32)
    inputs = np.concatenate([observation, action], axis=-1)
    observation, action = jnp.asarray(observation), jnp.asarray(action)
    for change in (lambda p: p, with_noise):
        actor, judge = change(policy), change(critic)
        expected = forward(judge, inputs)[:, 0]
        np.testing.assert_allclose(networks.critic_value(judge, observation, action), expected, atol=2e-5)
        expected = np.tanh(forward(actor, np.asarray(observation)))
        np.testing.assert_allclose(networks.policy_action(actor, observation), expected, rtol=1e-3, atol=1e-5)


def test_the_twin_layer_norm_networks_have_one_layer_norm_however_deep():
    deep = networks.init_critic(jax.random.key(0), Network((8, 7, 6)), 4, 2)
    assert sorted(deep) == ["hidden_0", "hidden_1", "hidden_2", "norm", "output"]
    assert deep["hidden_2"]["kernel"].shape == (7, 6)
    assert networks.critic_value(deep, jnp.zeros((3, 4)), jnp.zeros((3, 2))).shape == (3,)


def test_inputs_may_have_any_leading_axes(policy, critic):
    observation = jax.random.normal(jax.random.key(5), (4, 2, 11))
    action = networks.policy_action(policy, observation)
    value = networks.critic_value(critic, observation, action)
    assert action.shape == (4, 2, 3)
    assert value.shape == (4, 2)
    np.testing.assert_allclose(networks.policy_action(policy, observation[1, 1]), action[1, 1], rtol=1e-4)
    np.testing.assert_allclose(
        networks.critic_value(critic, observation[1, 1], action[1, 1]), value[1, 1], rtol=1e-4, atol=1e-6
    )


def test_the_gaussian_policy_keeps_its_log_standard_deviation_in_range():
    parameters = as_numpy(networks.init_gaussian_policy(jax.random.key(0), Network((8,)), 4, 2))
    parameters["output"]["bias"] = np.array([0.5, -0.5, 100.0, -100.0], np.float32)
    mean, log_std = networks.gaussian_policy(parameters, jnp.zeros((1, 4)))
    np.testing.assert_allclose(mean, [[0.5, -0.5]])
    np.testing.assert_allclose(log_std, [[2.0, -20.0]])


def test_the_relu_networks_are_linear_relu_linear():
    parameters = with_noise(as_numpy(networks.init_relu_critic(jax.random.key(0), Network((8, 8)), 4, 2)))
    inputs = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
    observation, action = jnp.asarray(inputs[:, :4]), jnp.asarray(inputs[:, 4:])
    x = inputs
    for layer in ("hidden_0", "hidden_1"):
        x = np.maximum(x @ parameters[layer]["kernel"] + parameters[layer]["bias"], 0)
    expected = x @ parameters["output"]["kernel"] + parameters["output"]["bias"]
    found = networks.relu_critic_value(parameters, observation, action)
    np.testing.assert_allclose(found, expected[:, 0], rtol=1e-5, atol=1e-6)


def test_the_relu_networks_begin_close_to_zero():
    parameters = as_numpy(networks.init_relu_critic(jax.random.key(0), PAPER, 11, 3))
    limits = {"hidden_0": 1 / 16, "hidden_1": 1 / 16, "output": 3e-3}
    for layer, limit in limits.items():
        assert 0.95 * limit < np.abs(parameters[layer]["kernel"]).max() <= limit
        assert not parameters[layer]["bias"].any()
