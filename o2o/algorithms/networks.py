"""The networks, as plain parameter trees and pure functions. The only file that imports flax.linen.

An apply function needs nothing but parameters and inputs: it reads the layers' sizes off the parameters.

The LayerNorm networks are the paper's (Appendix B, after Acme's LayerNormMLP): linear, LayerNorm, tanh,
then linear and ELU for every further hidden layer, with one linear output. The ReLU networks are SAC's,
used to make data (rlkit's, as D4RL's behaviour policies).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer, orthogonal, variance_scaling, xavier_uniform
from jaxtyping import Array, Float, Key

from o2o.types import Network, Parameters

# U(-m, m) with m = 0.333 sqrt(3 / fan_in), in the terms of variance_scaling.
UNIFORM_SCALING = variance_scaling(0.333**2, "fan_in", "uniform")
# Truncated normal of variance 1e-4 / fan_in: the initial policy's actions are nearly zero.
NEAR_ZERO = variance_scaling(1e-4, "fan_in", "truncated_normal")
# rlkit's
LOG_STD_RANGE = (-20.0, 2.0)
GAUSSIAN_POLICY_OUTPUT = 1e-3
RELU_CRITIC_OUTPUT = 3e-3


class LayerNormMLP(nn.Module):
    """Linear, LayerNorm, tanh; then linear and ELU a further layer; then the linear `output`."""

    hidden_sizes: tuple[int, ...]
    output_size: int
    output_init: Initializer

    @nn.compact
    def __call__(self, x: Float[Array, "*B I"]) -> Float[Array, "*B J"]:
        """Returns the output, without an activation."""
        for i, size in enumerate(self.hidden_sizes):
            x = nn.Dense(size, kernel_init=UNIFORM_SCALING, name=f"hidden_{i}")(x)
            norm = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="norm") if i == 0 else None
            x = jnp.tanh(norm(x)) if norm else nn.elu(x)
        return nn.Dense(self.output_size, kernel_init=self.output_init, name="output")(x)


Initializers = Literal["rlkit", "xavier_uniform", "orthogonal"]
"""How the kernels of ReLU networks start; biases are zero.

`rlkit`: hidden layers uniform within the inverse root of their *output's* size, the last within a small limit.
`xavier_uniform`: all layers, as RLPD's. `orthogonal`: hidden layers of scale √2, the last of 0.01, as Cal-QL's.
"""


class ReluMLP(nn.Module):
    """Linear, LayerNorm if wanted, and ReLU a hidden layer, then the linear `output`.

    `output_limit` bounds the output's kernel where `initializer` is rlkit's.
    """

    hidden_sizes: tuple[int, ...]
    output_size: int
    output_limit: float
    initializer: Initializers = "rlkit"
    layer_norm: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*B I"]) -> Float[Array, "*B J"]:
        """Returns the output, without an activation."""
        for i, size in enumerate(self.hidden_sizes):
            x = nn.Dense(size, kernel_init=self._hidden(size), name=f"hidden_{i}")(x)
            x = nn.relu(nn.LayerNorm(epsilon=1e-6, name=f"norm_{i}")(x) if self.layer_norm else x)
        return nn.Dense(self.output_size, kernel_init=self._output(), name="output")(x)

    def _hidden(self, size: int) -> Initializer:
        if self.initializer == "rlkit":
            return _symmetric_uniform(size**-0.5)
        return orthogonal(2**0.5) if self.initializer == "orthogonal" else xavier_uniform()

    def _output(self) -> Initializer:
        if self.initializer == "rlkit":
            return _symmetric_uniform(self.output_limit)
        return orthogonal(1e-2) if self.initializer == "orthogonal" else xavier_uniform()


def stacked(parameters: Sequence[Parameters]) -> Parameters:
    """Returns the parameters of an ensemble: one tree, whose arrays have a leading axis of its members."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *parameters)


def first(ensemble: Parameters) -> Parameters:
    """Returns the first member's parameters."""
    return jax.tree.map(lambda leaf: leaf[0], ensemble)


def init_policy(key: Key[Array, ""], network: Network, observation_size: int, action_size: int) -> Parameters:
    """Returns fresh parameters of a deterministic policy, whose first actions are nearly zero."""
    module = LayerNormMLP(network.hidden_sizes, action_size, NEAR_ZERO)
    return module.init(key, jnp.zeros(observation_size))["params"]


def policy_action(parameters: Parameters, observation: Float[Array, "*B O"]) -> Float[Array, "*B A"]:
    """Returns the deterministic policy's action in [-1, 1]."""
    module = LayerNormMLP(*_sizes(parameters), NEAR_ZERO)
    return jnp.tanh(_apply(module, parameters, observation))


def init_critic(key: Key[Array, ""], network: Network, observation_size: int, action_size: int) -> Parameters:
    """Returns fresh parameters of one critic."""
    module = LayerNormMLP(network.hidden_sizes, 1, UNIFORM_SCALING)
    return module.init(key, jnp.zeros(observation_size + action_size))["params"]


def critic_value(
    parameters: Parameters, observation: Float[Array, "*B O"], action: Float[Array, "*B A"]
) -> Float[Array, "*B"]:
    """Returns Q(s, a) of one critic."""
    inputs = jnp.concatenate([observation, action], axis=-1)
    return _apply(LayerNormMLP(*_sizes(parameters), UNIFORM_SCALING), parameters, inputs).squeeze(-1)


def init_gaussian_policy(
    key: Key[Array, ""], network: Network, observation_size: int, action_size: int, **style: Any
) -> Parameters:
    """Returns fresh parameters of a tanh-Gaussian policy: mean and log standard deviation from one output layer."""
    return init_relu_mlp(key, network, observation_size, 2 * action_size, GAUSSIAN_POLICY_OUTPUT, **style)


def gaussian_policy(
    parameters: Parameters, observation: Float[Array, "*B O"]
) -> tuple[Float[Array, "*B A"], Float[Array, "*B A"]]:
    """Returns mean and log standard deviation of the action before its tanh."""
    mean, log_std = jnp.split(relu_mlp(parameters, observation), 2, axis=-1)
    return mean, jnp.clip(log_std, *LOG_STD_RANGE)


def init_relu_mlp(
    key: Key[Array, ""],
    network: Network,
    input_size: int,
    output_size: int,
    output_limit: float,
    initializer: Initializers = "rlkit",
    layer_norm: bool = False,
) -> Parameters:
    """Returns fresh parameters of a ReLU network, whose outputs are nearly zero where `initializer` is rlkit's."""
    module = ReluMLP(network.hidden_sizes, output_size, output_limit, initializer, layer_norm)
    return module.init(key, jnp.zeros(input_size))["params"]


def relu_mlp(parameters: Parameters, inputs: Float[Array, "*B I"]) -> Float[Array, "*B J"]:
    """Returns a ReLU network's output, without an activation."""
    module = ReluMLP(*_sizes(parameters), RELU_CRITIC_OUTPUT, layer_norm="norm_0" in parameters)
    return _apply(module, parameters, inputs)


def init_bounded_gaussian(
    key: Key[Array, ""], network: Network, observation_size: int, action_size: int
) -> Parameters:
    """Returns a fresh policy N(tanh μ(s), σ²) with one σ an action dimension, which begins at exp(-3)."""
    mean = init_relu_mlp(key, network, observation_size, action_size, GAUSSIAN_POLICY_OUTPUT)
    return {"mean": mean, "std": jnp.zeros(action_size)}


def bounded_gaussian(
    parameters: Parameters, observation: Float[Array, "*B O"]
) -> tuple[Float[Array, "*B A"], Float[Array, "*B A"]]:
    """Returns mean and standard deviation of the action, which is not squashed; log σ is between -6 and 0 (rlkit)."""
    mean = jnp.tanh(relu_mlp(parameters["mean"], observation))
    std = jnp.exp(-6 + 6 * jax.nn.sigmoid(parameters["std"]))
    return mean, jnp.broadcast_to(std, mean.shape)


def init_relu_critic(
    key: Key[Array, ""], network: Network, observation_size: int, action_size: int, **style: Any
) -> Parameters:
    """Returns fresh parameters of one of SAC's critics."""
    return init_relu_mlp(key, network, observation_size + action_size, 1, RELU_CRITIC_OUTPUT, **style)


def relu_critic_value(
    parameters: Parameters, observation: Float[Array, "*B O"], action: Float[Array, "*B A"]
) -> Float[Array, "*B"]:
    """Returns Q(s, a) of one of SAC's critics."""
    return relu_mlp(parameters, jnp.concatenate([observation, action], axis=-1)).squeeze(-1)


# Traced once for all programs that it is a part of: flax checks every parameter anew each time.
@functools.partial(jax.jit, static_argnums=0, inline=True)
def _apply(module: nn.Module, parameters: Parameters, inputs: Array) -> Array:
    return cast(Array, module.apply({"params": parameters}, inputs))


def _sizes(parameters: Parameters) -> tuple[tuple[int, ...], int]:
    """Returns hidden sizes and output size, read off the biases."""
    hidden = sum(name.startswith("hidden_") for name in parameters)
    return (
        tuple(parameters[f"hidden_{i}"]["bias"].shape[-1] for i in range(hidden)),
        parameters["output"]["bias"].shape[-1],
    )


def _symmetric_uniform(limit: float) -> Initializer:
    def init(key, shape, dtype=jnp.float32, out_sharding=None):
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init
