"""AWAC (Nair et al. 2020): actor-critic whose policy imitates the batch's actions, the better ones more.

One update from a batch (s, a, r, terminated, s'):

1. each critic: one Adam step on the squared error to r + γ min Q'(s', a'), a' ~ π, then its target moves towards it;
2. the policy: one on -mean w log π(a|s), A = min Q(s, a) - min Q(s, ã), ã ~ π, of the new critics. `weights=softmax`:
   w is the batch's size times the softmax over the batch of A / λ, as rlkit has it; `clipped`: min(exp(A / λ), 100), as
   CORL has it.

The policy is N(tanh μ(s), σ²) with one σ an action dimension, its samples clipped to [-1, 1], with weight decay. There
is no entropy term. Learning rates are constant.

Not in the paper. No source finetunes on these tasks by a command that is known to reproduce AWAC's own figures.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Key

from o2o.algorithms import losses
from o2o.algorithms.networks import (
    bounded_gaussian,
    first,
    init_bounded_gaussian,
    init_relu_critic,
    relu_critic_value,
    stacked,
)
from o2o.types import (
    Algorithm,
    Batch,
    Facts,
    Fraction,
    LearningRate,
    Metrics,
    Network,
    NonNegative,
    Parameters,
    Positive,
    Range,
    Transition,
)

LARGEST_WEIGHT = 100.0


@struct.dataclass
class AWACState:
    """AWAC's state; the critics are stacked."""

    policy: Parameters
    policy_optimizer: optax.OptState
    critics: Parameters
    target_critics: Parameters
    critic_optimizers: optax.OptState


@dataclass(frozen=True)
class AWAC:
    """AWAC's hyperparameters and its functions (o2o.types.Algorithm)."""

    discount: Annotated[float, Fraction]
    learning_rate: LearningRate
    network: Network
    policy_hidden_sizes: tuple[Annotated[int, Positive], ...]
    target_step: Annotated[float, Range(above=0.0, at_most=1.0)]
    temperature: Annotated[float, Positive]
    weights: Literal["softmax", "clipped"]
    policy_weight_decay: Annotated[float, NonNegative]

    METRICS: ClassVar[Mapping[str, str]] = {
        "critic_loss": "squared TD error, mean over the batch and the critics",
        "q_mean": "mean Q of the first critic on the batch's actions",
        "policy_loss": "minus the weighted log density of the batch's actions",
        "advantage": "mean of min Q of the batch's action minus that of a sample of the policy",
        "largest_weight": "the largest weight in the batch",
        "std": "the policy's standard deviation, mean over action dimensions",
    }

    @property
    def period(self) -> int:
        """One: every update is like every other."""
        return 1

    @property
    def metrics(self) -> Mapping[str, str]:
        """The names and meanings of the metrics that an update reports."""
        return self.METRICS

    @functools.partial(jax.jit, static_argnums=0)
    def init(self, key: Key[Array, ""], example: Transition, facts: Facts) -> AWACState:
        """Returns fresh networks; target critics start as copies."""
        sizes = example.observation.shape[-1], example.action.shape[-1]
        policy_key, *critic_keys = jax.random.split(key, 3)
        policy = init_bounded_gaussian(policy_key, Network(self.policy_hidden_sizes), *sizes)
        critics = stacked([init_relu_critic(k, self.network, *sizes) for k in critic_keys])
        return AWACState(
            policy,
            self._policy_optimizer.init(policy),
            critics,
            jax.tree.map(jnp.copy, critics),
            jax.vmap(self._critic_optimizer.init)(critics),
        )

    def adopts(self, source: Algorithm) -> bool:
        """Returns whether `source` is AWAC too."""
        return isinstance(source, AWAC)

    def adopt(
        self,
        pretrained: Any,
        source: Algorithm,
        key: Key[Array, ""],
        reset_optimizers: bool = False,
        reset_targets: bool = False,
    ) -> Any:
        """Returns what AWAC learned; moments and targets unless they are to be reset."""
        state = pretrained
        if reset_optimizers:
            state = state.replace(
                policy_optimizer=self._policy_optimizer.init(state.policy),
                critic_optimizers=jax.vmap(self._critic_optimizer.init)(state.critics),
            )
        if reset_targets:
            state = state.replace(target_critics=jax.tree.map(jnp.copy, state.critics))
        return state

    def act(
        self, state: Any, observation: Float[Array, "*B O"], key: Key[Array, ""], evaluate: bool
    ) -> Float[Array, "*B A"]:
        """Returns tanh μ(s), or a sample of the policy, clipped, where it is to collect data."""
        return (
            bounded_gaussian(state.policy, observation)[0] if evaluate else _sample(state, observation, key)
        )

    def update(
        self, state: Any, batches: Batch, key: Key[Array, ""], due: Sequence[bool]
    ) -> tuple[Any, Metrics]:
        """Returns the state after one update a batch; where it is not `due`, the critics alone learn."""
        return losses.in_turn(self._update, state, batches, key, due)

    def _update(self, state: Any, batch: Transition, key: Key[Array, ""], due: bool) -> tuple[Any, Metrics]:
        target_key, advantage_key = jax.random.split(key)
        state, metrics = self.critic_step(state, batch, target_key)
        if not due:
            return state, metrics
        state, policy_metrics = self.policy_step(state, batch, advantage_key)
        return state, metrics | policy_metrics

    def critic_step(self, state: Any, batch: Transition, key: Key[Array, ""]) -> tuple[Any, Metrics]:
        """Returns the state with the new critics and their targets."""
        target = self._td_target(state, batch, key)
        new, metrics = losses.critics_moved(
            relu_critic_value, state, batch, target, self._critic_optimizer, self.target_step
        )
        return state.replace(**new), metrics

    def policy_step(self, state: Any, batch: Transition, key: Key[Array, ""]) -> tuple[Any, Metrics]:
        """Returns the state with the new policy."""
        observation = batch.observation
        baseline = _least_value(state.critics, observation, _sample(state, observation, key))
        advantage = _least_value(state.critics, observation, batch.action) - baseline
        weight = self.weight(advantage)

        def loss(policy: Parameters) -> Float[Array, ""]:
            mean, std = bounded_gaussian(policy, observation)
            return -jnp.mean(weight * losses.gaussian_log_density(batch.action, mean, std))

        error, gradient = jax.value_and_grad(loss)(state.policy)
        updates, optimizer = self._policy_optimizer.update(gradient, state.policy_optimizer, state.policy)
        _, std = bounded_gaussian(state.policy, observation)
        metrics = {
            "policy_loss": error,
            "advantage": advantage.mean(),
            "largest_weight": weight.max(),
            "std": std.mean(),
        }
        policy = optax.apply_updates(state.policy, updates)
        return state.replace(policy=policy, policy_optimizer=optimizer), metrics

    def weight(self, advantage: Float[Array, " B"]) -> Float[Array, " B"]:
        """Returns the weight of each of the batch's actions."""
        if self.weights == "softmax":
            return len(advantage) * jax.nn.softmax(advantage / self.temperature)
        return jnp.minimum(jnp.exp(advantage / self.temperature), LARGEST_WEIGHT)

    def diagnose(self, state: Any, batch: Transition, key: Key[Array, ""]) -> Metrics:
        """Returns the first critic's mean Q and root mean squared TD error on a batch, without learning from it."""
        value = self.value(state, batch.observation, batch.action)
        error = value - self._td_target(state, batch, key)
        return {"q_mean": value.mean(), "td_error": jnp.sqrt(jnp.mean(jnp.square(error)))}

    def value(
        self, state: Any, observation: Float[Array, "*B O"], action: Float[Array, "*B A"]
    ) -> Float[Array, "*B"]:
        """Returns Q(s, a) of the first critic."""
        return relu_critic_value(first(state.critics), observation, action)

    def _td_target(self, state: Any, batch: Transition, key: Key[Array, ""]) -> Float[Array, " B"]:
        action = _sample(state, batch.next_observation, key)
        following = _least_value(state.target_critics, batch.next_observation, action)
        return losses.td_target(batch.reward, batch.terminated, following, self.discount)

    @property
    def _policy_optimizer(self) -> optax.GradientTransformation:
        # The decay is torch's: added to the gradient, not taken off the parameters.
        return optax.chain(
            optax.add_decayed_weights(self.policy_weight_decay), optax.adam(self.learning_rate.policy)
        )

    @property
    def _critic_optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate.critic)


def _sample(state: Any, observation: Float[Array, "*B O"], key: Key[Array, ""]) -> Float[Array, "*B A"]:
    mean, std = bounded_gaussian(state.policy, observation)
    return jnp.clip(mean + std * jax.random.normal(key, mean.shape), -1, 1)


def _least_value(
    critics: Parameters, observation: Float[Array, "*B O"], action: Float[Array, "*B A"]
) -> Float[Array, "*B"]:
    return losses.each(lambda c: relu_critic_value(c, observation, action), critics).min(axis=0)
