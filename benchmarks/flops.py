"""The arithmetic that an update needs, and this process's rate of the simplest arithmetic there is."""

from __future__ import annotations

import itertools
import time

import jax
import jax.numpy as jnp

from o2o.algorithms import TD3

PEAK_SIZE = 2048


def update_flops(algorithm: TD3, batch_size: int, observation_size: int, action_size: int) -> float:
    """Floating-point operations of the matrix products in one update of TD3 or TD3-BC, averaged over its phases.

    They are those that automatic differentiation asks for, but what is computed twice to the same values (the target
    policy, once for each critic) counts once. Each critic has target noise of its own, so the target critics are
    evaluated at two sets of actions.
    """

    def forward(inputs: int, outputs: int) -> tuple[float, float]:
        """The products of a forward pass, and of its first layer alone."""
        sizes = [inputs, *algorithm.network.hidden_sizes, outputs]
        layers = [2.0 * batch_size * a * b for a, b in itertools.pairwise(sizes)]
        return sum(layers), layers[0]

    policy, policy_first = forward(observation_size, action_size)
    critic, critic_first = forward(observation_size + action_size, 1)
    # A backward pass costs a forward pass for the weights, and one without the first layer for the inputs.
    critic_step = policy + 4 * critic + 2 * (3 * critic - critic_first)
    policy_step = 3 * policy - policy_first + 2 * critic
    return critic_step + policy_step / algorithm.policy_delay


def matmul_peak() -> float:
    """The rate of float32 matrix products of this process, in floating-point operations a second."""
    a = jnp.ones((PEAK_SIZE, PEAK_SIZE))
    product = jax.jit(jnp.matmul)
    b = product(a, a).block_until_ready()
    repeats = 10 if jax.default_backend() == "cpu" else 200
    start = time.perf_counter()
    for _ in range(repeats):
        b = product(a, a)
    b.block_until_ready()
    return repeats * 2 * PEAK_SIZE**3 / (time.perf_counter() - start)
