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
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Key

from o2o.algorithms import losses
from o2o.algorithms.networks import gaussian_policy, init_gaussian_policy, init_relu_critic, relu_critic_value
from o2o.algorithms.td3 import Critics
from o2o.types import Fraction, LearningRate, Metrics, Network, Parameters, Positive, Range, State, Transition


@struct.dataclass
class SACActor:
    """What the policy step writes."""

    policy: Parameters
    optimizer: optax.OptState
    log_temperature: Float[Array, ""]
    temperature_optimizer: optax.OptState


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

    @property
    def period(self) -> int:
        """Every update is like every other."""
        return 1

    @functools.partial(jax.jit, static_argnums=0)
    def init(self, key: Key[Array, ""], example: Transition) -> State:
        """Fresh networks; target critics start as copies."""
        sizes = example.observation.shape[-1], example.action.shape[-1]
        policy_key, critic_key, twin_key = jax.random.split(key, 3)
        policy = init_gaussian_policy(policy_key, self.network, *sizes)
        critics = (
            init_relu_critic(critic_key, self.network, *sizes),
            init_relu_critic(twin_key, self.network, *sizes),
        )
        log_temperature = jnp.log(jnp.asarray(self.initial_temperature, jnp.float32))
        temperature_optimizer = self._temperature_optimizer.init(log_temperature)
        return State(
            SACActor(policy, self._policy_optimizer.init(policy), log_temperature, temperature_optimizer),
            Critics(
                critics,
                jax.tree.map(jnp.copy, critics),
                tuple(self._critic_optimizer.init(c) for c in critics),
            ),
        )

    def adopt(self, state: State, reset_optimizers: bool = False, reset_targets: bool = False) -> State:
        """Going on with SAC's own state is all that is offered."""
        if not isinstance(state, State) or reset_optimizers or reset_targets:
            raise NotImplementedError("SAC finetunes nothing yet: it is here to make data")
        return state

    def act(self, state: State, observation: Float[Array, "*B O"]) -> Float[Array, "*B A"]:
        """The tanh of the mean."""
        return jnp.tanh(gaussian_policy(state.actor.policy, observation)[0])

    def explore(
        self, state: State, observation: Float[Array, "*B O"], key: Key[Array, ""]
    ) -> Float[Array, "*B A"]:
        """A sample of the policy."""
        return self.sample(state.actor.policy, observation, key)[0]

    def update_policy(
        self, state: State, batch: Transition, key: Key[Array, ""], phase: int
    ) -> tuple[SACActor, Metrics]:
        """The half that the next action depends on: temperature and policy."""
        actor = state.actor
        sample_key, _ = jax.random.split(key)
        target_entropy = self.target_entropy_per_dim * batch.action.shape[-1]

        def policy_loss(
            policy: Parameters, temperature: Float[Array, ""]
        ) -> tuple[Float[Array, ""], Metrics]:
            action, log_prob = self.sample(policy, batch.observation, sample_key)
            values = [relu_critic_value(c, batch.observation, action) for c in state.critics.critics]
            loss = jnp.mean(temperature * log_prob - jnp.minimum(*values))
            return loss, {"policy_loss": loss, "entropy": -log_prob.mean()}

        _, log_prob = self.sample(actor.policy, batch.observation, sample_key)
        temperature_gradient = -jnp.mean(
            log_prob + target_entropy
        )  # of -log_temperature · (log π + target entropy)
        updates, temperature_optimizer = self._temperature_optimizer.update(
            temperature_gradient, actor.temperature_optimizer
        )
        log_temperature = actor.log_temperature + updates
        gradient, metrics = jax.grad(policy_loss, has_aux=True)(actor.policy, jnp.exp(log_temperature))
        updates, optimizer = self._policy_optimizer.update(gradient, actor.optimizer)
        policy = optax.apply_updates(actor.policy, updates)
        metrics["temperature"] = jnp.exp(log_temperature)
        return SACActor(policy, optimizer, log_temperature, temperature_optimizer), metrics

    def update_critic(
        self, state: State, batch: Transition, key: Key[Array, ""], phase: int
    ) -> tuple[Critics, Metrics]:
        """The other half: the new critics."""
        old = state.critics
        _, next_key = jax.random.split(key)
        target = self._td_target(state, batch, next_key)
        new, errors, values = [], [], []
        for critic, target_critic, optimizer in zip(*vars(old).values(), strict=True):
            (error, value), gradient = jax.value_and_grad(_td_loss, has_aux=True)(critic, batch, target)
            updates, optimizer = self._critic_optimizer.update(gradient, optimizer)
            critic = optax.apply_updates(critic, updates)
            new.append((critic, losses.moved_towards(target_critic, critic, self.target_step), optimizer))
            errors.append(error)
            values.append(value)
        metrics = {"critic_loss": (errors[0] + errors[1]) / 2, "q_mean": values[0]}
        return Critics(*(tuple(pair) for pair in zip(*new, strict=True))), metrics

    def diagnose(self, state: State, batch: Transition, key: Key[Array, ""]) -> Metrics:
        """What the first critic says of a batch without learning from it: mean Q and root mean squared TD error."""
        value = self.value(state, batch.observation, batch.action)
        error = value - self._td_target(state, batch, key)
        return {"q_mean": value.mean(), "td_error": jnp.sqrt(jnp.mean(jnp.square(error)))}

    def value(
        self, state: State, observation: Float[Array, "*B O"], action: Float[Array, "*B A"]
    ) -> Float[Array, "*B"]:
        """Q(s, a) of the first critic."""
        return relu_critic_value(state.critics.critics[0], observation, action)

    def _td_target(self, state: State, batch: Transition, key: Key[Array, ""]) -> Float[Array, " B"]:
        action, log_prob = self.sample(state.actor.policy, batch.next_observation, key)
        values = [relu_critic_value(c, batch.next_observation, action) for c in state.critics.target_critics]
        next_value = jnp.minimum(*values) - jnp.exp(state.actor.log_temperature) * log_prob
        return losses.td_target(batch.reward, batch.terminated, next_value, self.discount)

    def sample(
        self, policy: Parameters, observation: Float[Array, "*B O"], key: Key[Array, ""]
    ) -> tuple[Float[Array, "*B A"], Float[Array, "*B"]]:
        """An action of the stochastic policy, and its log density."""
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


def _td_loss(
    critic: Parameters, batch: Transition, target: Float[Array, " B"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    value = relu_critic_value(critic, batch.observation, batch.action)
    return losses.td_loss(value, target), value.mean()
