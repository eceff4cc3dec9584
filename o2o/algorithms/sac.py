"""SAC (Haarnoja et al. 2018), to make data with: the policies behind D4RL's sets were trained by it.

One update from a batch, as rlkit has it: the temperature moves towards the target entropy; the policy takes
an Adam step on temperature · log π - min Q at the critics from before this update; each critic takes one on
the squared error to r + γ (min Q' - temperature · log π)(s', a' ~ π), and its target moves towards it.
Policy, critics, targets: every update.

Not as in rlkit: the temperature in the critics' target is the one from before this update. Not in the paper
at all.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Key

from o2o.algorithms import losses
from o2o.algorithms.networks import (
    first,
    gaussian_policy,
    init_gaussian_policy,
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
    Parameters,
    Positive,
    Range,
    Transition,
)


@struct.dataclass
class SACState:
    """SAC's state. The critics are stacked: axis 0 of their arrays, and of their optimisers', is the ensemble."""

    policy: Parameters
    policy_optimizer: optax.OptState
    log_temperature: Float[Array, ""]
    temperature_optimizer: optax.OptState
    critics: Parameters
    target_critics: Parameters
    critic_optimizers: optax.OptState


@dataclass(frozen=True)
class SAC:
    """SAC's hyperparameters and its functions (o2o.types.Algorithm)."""

    discount: Annotated[float, Fraction]
    learning_rate: LearningRate
    network: Network
    target_step: Annotated[float, Range(above=0.0, at_most=1.0)]
    target_entropy_per_dim: float
    initial_temperature: Annotated[float, Positive]
    temperature_learning_rate: Annotated[float, Positive]

    METRICS: ClassVar[Mapping[str, str]] = {
        "critic_loss": "squared TD error, mean over the batch and the critics",
        "q_mean": "mean Q of the first critic on the batch's actions",
        "policy_loss": "the loss that the policy descends",
        "entropy": "minus the mean log density of the policy's own actions",
        "temperature": "the weight of the entropy",
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
    def init(self, key: Key[Array, ""], example: Transition, facts: Facts) -> SACState:
        """Returns fresh networks; target critics start as copies."""
        sizes = example.observation.shape[-1], example.action.shape[-1]
        policy_key, *critic_keys = jax.random.split(key, 3)
        policy = init_gaussian_policy(policy_key, self.network, *sizes)
        critics = stacked([init_relu_critic(k, self.network, *sizes) for k in critic_keys])
        log_temperature = jnp.log(jnp.asarray(self.initial_temperature, jnp.float32))
        return SACState(
            policy,
            self._policy_optimizer.init(policy),
            log_temperature,
            self._temperature_optimizer.init(log_temperature),
            critics,
            jax.tree.map(jnp.copy, critics),
            jax.vmap(self._critic_optimizer.init)(critics),
        )

    def adopts(self, source: Algorithm) -> bool:
        """Returns whether `source` is SAC too."""
        return isinstance(source, SAC)

    def adopt(
        self,
        pretrained: Any,
        source: Algorithm,
        key: Key[Array, ""],
        reset_optimizers: bool = False,
        reset_targets: bool = False,
    ) -> Any:
        """Returns what SAC learned, temperature included; moments and targets unless they are to be reset."""
        state = pretrained
        if reset_optimizers:
            state = state.replace(
                policy_optimizer=self._policy_optimizer.init(state.policy),
                temperature_optimizer=self._temperature_optimizer.init(state.log_temperature),
                critic_optimizers=jax.vmap(self._critic_optimizer.init)(state.critics),
            )
        if reset_targets:
            state = state.replace(target_critics=jax.tree.map(jnp.copy, state.critics))
        return state

    def act(
        self, state: Any, observation: Float[Array, "*B O"], key: Key[Array, ""], evaluate: bool
    ) -> Float[Array, "*B A"]:
        """Returns the tanh of the mean, or a sample of the policy where it is to collect data."""
        if evaluate:
            return jnp.tanh(gaussian_policy(state.policy, observation)[0])
        return self.sample(state.policy, observation, key)[0]

    def update(
        self, state: Any, batches: Batch, key: Key[Array, ""], due: Sequence[bool]
    ) -> tuple[Any, Metrics]:
        """Returns the state after one update a batch; where it is not `due`, the critics alone learn."""
        return losses.in_turn(self._update, state, batches, key, due)

    def _update(self, state: Any, batch: Transition, key: Key[Array, ""], due: bool) -> tuple[Any, Metrics]:
        # Both steps read the old state.
        policy_key, target_key = jax.random.split(key)
        critics, metrics = self.critic_step(state, batch, target_key)
        if not due:
            return state.replace(**critics), metrics
        policy, policy_metrics = self.policy_step(state, batch, policy_key)
        return state.replace(**critics, **policy), metrics | policy_metrics

    def policy_step(
        self, state: Any, batch: Transition, key: Key[Array, ""]
    ) -> tuple[dict[str, Any], Metrics]:
        """Returns the new temperature and the new policy, with their optimisers."""
        target_entropy = self.target_entropy_per_dim * batch.action.shape[-1]

        def policy_loss(
            policy: Parameters, temperature: Float[Array, ""]
        ) -> tuple[Float[Array, ""], Metrics]:
            action, log_prob = self.sample(policy, batch.observation, key)
            values = losses.each(lambda c: relu_critic_value(c, batch.observation, action), state.critics)
            loss = jnp.mean(temperature * log_prob - values.min(axis=0))
            return loss, {"policy_loss": loss, "entropy": -log_prob.mean()}

        _, log_prob = self.sample(state.policy, batch.observation, key)
        # Of -log_temperature · (log π + target entropy).
        temperature_gradient = -jnp.mean(log_prob + target_entropy)
        updates, temperature_optimizer = self._temperature_optimizer.update(
            temperature_gradient, state.temperature_optimizer
        )
        log_temperature = state.log_temperature + updates
        gradient, metrics = jax.grad(policy_loss, has_aux=True)(state.policy, jnp.exp(log_temperature))
        updates, optimizer = self._policy_optimizer.update(gradient, state.policy_optimizer)
        new = {
            "policy": optax.apply_updates(state.policy, updates),
            "policy_optimizer": optimizer,
            "log_temperature": log_temperature,
            "temperature_optimizer": temperature_optimizer,
        }
        return new, metrics | {"temperature": jnp.exp(log_temperature)}

    def critic_step(
        self, state: Any, batch: Transition, key: Key[Array, ""]
    ) -> tuple[dict[str, Any], Metrics]:
        """Returns the new critics, their targets and their optimisers."""
        target = self._td_target(state, batch, key)
        return losses.critics_moved(
            relu_critic_value, state, batch, target, self._critic_optimizer, self.target_step
        )

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
        action, log_prob = self.sample(state.policy, batch.next_observation, key)
        values = losses.each(
            lambda c: relu_critic_value(c, batch.next_observation, action), state.target_critics
        )
        next_value = values.min(axis=0) - jnp.exp(state.log_temperature) * log_prob
        return losses.td_target(batch.reward, batch.terminated, next_value, self.discount)

    def sample(
        self, policy: Parameters, observation: Float[Array, "*B O"], key: Key[Array, ""]
    ) -> tuple[Float[Array, "*B A"], Float[Array, "*B"]]:
        """Returns an action of the stochastic policy, and its log density."""
        mean, log_std = gaussian_policy(policy, observation)
        return losses.tanh_gaussian(mean, log_std, jax.random.normal(key, mean.shape))

    @property
    def _policy_optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate.policy)

    @property
    def _critic_optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate.critic)

    @property
    def _temperature_optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.temperature_learning_rate)
