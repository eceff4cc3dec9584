"""Small algorithms, states and batches that several tests share."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from o2o.algorithms import ALGORITHMS
from o2o.types import Batch, Facts, LearningRate, Metrics, Network, State, Transition

OBSERVATION, ACTION = 5, 3
NO_FACTS = Facts(jnp.nan, jnp.nan)

SHARED = {
    "discount": 0.99,
    "learning_rate": LearningRate(policy=3e-4, critic=3e-4),
    "network": Network((16, 16)),
}
TD3 = {
    "target_step": 0.005,
    "policy_delay": 2,
    "exploration_noise": 0.1,
    "target_noise": 0.2,
    "target_noise_clip": 0.5,
    "action_gradient_clip": None,
    "gradient_norm_clip": None,
    "dpg_reduce": "sum",
    "target_noise_shared_in_batch": True,
    "delay_target_critic": False,
}
TD3_C = {
    "action_gradient_clip": 1.0,
    "constraint_epsilon": 1e-5,
    "constraint_reduce": "mean",
    "dual": "softplus",
    "dual_init": 10.0,
    "dual_learning_rate": 0.01,
    "dual_optimizer": "adam",
    "dual_cadence": "policy",
}
SAC = {
    "target_step": 0.005,
    "target_entropy_per_dim": -1.0,
    "initial_temperature": 1.0,
    "temperature_learning_rate": 3e-4,
}
CQL = SAC | {
    "penalty_weight": 5.0,
    "penalty_temperature": 1.0,
    "penalty_actions": 4,
    "importance_sampling": True,
    "max_target_backup": False,
}
OWN = {
    "cql": CQL,
    "cal_ql": CQL,
    "td3": TD3,
    "td3_bc": TD3 | {"behavior_cloning_alpha": 2.5, "bc_normaliser": "mean_abs_q"},
    "td3_c": TD3 | TD3_C,
    "sac": SAC,
    "frozen": TD3,
    "bc": {"exploration_noise": 0.1},
    "awac": {
        "policy_hidden_sizes": (16, 16),
        "target_step": 0.005,
        "temperature": 1.0,
        "weights": "softmax",
        "policy_weight_decay": 1e-4,
    },
    "iql": {
        "target_step": 0.005,
        "expectile": 0.7,
        "inverse_temperature": 3.0,
        "reward_scale": "none",
        "order": "in_turn",
    },
}


def make(name: str, **changes: Any) -> Any:
    """The algorithm of that name with the paper's values, but tiny networks."""
    algorithm = ALGORITHMS[name]
    wanted = {field.name for field in dataclasses.fields(algorithm)}
    shared = {key: value for key, value in SHARED.items() if key in wanted}
    return algorithm(**(shared | OWN[name] | changes))


def batch_of(
    size: int = 8, seed: int = 0, observation: int = OBSERVATION, action: int = ACTION
) -> Transition:
    """A random batch of which every third transition terminates."""
    generator = np.random.default_rng(seed)
    return Transition(
        observation=jnp.asarray(generator.normal(size=(size, observation)), jnp.float32),
        action=jnp.asarray(generator.uniform(-1, 1, (size, action)), jnp.float32),
        reward=jnp.asarray(generator.normal(size=size), jnp.float32),
        terminated=jnp.asarray(np.arange(size) % 3 == 2),
        next_observation=jnp.asarray(generator.normal(size=(size, observation)), jnp.float32),
        columns={
            "return_to_go": jnp.asarray(np.where(np.arange(size) % 2, np.nan, generator.normal(size=size))),
            "next_action": jnp.asarray(generator.uniform(-1, 1, (size, action)), jnp.float32),
        },
    )


def one_of(batch: Transition) -> Transition:
    """Its first transition, without a batch axis."""
    return jax.tree.map(lambda x: x[0], batch)


def fresh(algorithm: Any, seed: int = 0, batch: Transition | None = None) -> State:
    """A fresh state."""
    return algorithm.init(jax.random.key(seed), one_of(batch or batch_of()), NO_FACTS)


def update(
    algorithm: Any, state: State, batch: Transition, key: Any, due: bool = True
) -> tuple[State, Metrics]:
    """The state after one update from one batch, and its metrics."""
    return algorithm.update(state, batches_of(batch), key, (due,))


def batches_of(*batches: Transition) -> Batch:
    """The batches of a step that has as many updates."""
    data = jax.tree.map(lambda *columns: jnp.stack(columns), *batches)
    shape = data.reward.shape
    return Batch(data, jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool), jnp.ones(shape))


def used(algorithm: Any, seed: int = 0, batch: Transition | None = None) -> State:
    """A state as after long training, in what tests are sensitive to: networks, targets and twins all differ."""
    state = fresh(algorithm, seed, batch)
    generator = np.random.default_rng(seed)

    def moved(place: Any, leaf: Any) -> Any:
        if "optimizer" in jax.tree_util.keystr(place) or "dual" in jax.tree_util.keystr(place):
            return leaf
        return leaf + jnp.asarray(generator.normal(0, 0.2, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(moved, state)


def assert_equal(one: Any, other: Any) -> None:
    """Bit for bit."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def assert_close(one: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """Every leaf within the tolerance."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol, atol)


def differ(one: Any, other: Any) -> bool:
    """Whether any leaf does."""
    return any(
        not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )
