"""IQL (Kostrikov et al. 2021), implicit Q-learning: values of the data's own actions, and a policy weighted by them.

One update from a batch (s, a, r, terminated, s'), rewards times a constant of the data:

1. V: one Adam step on the expectile loss |τ - 1(u < 0)| u² of u = min Q'(s, a) - V(s);
2. the policy: one on -mean exp(β A) log π(a|s), the weight at most 100, A = min Q'(s, a) - V(s) of the new V;
3. each critic: one on the squared error to r + γ V(s') of the new V, then its target moves towards it.

`order=together` takes all three from the old state, as rlkit and PEX do; the authors' code is `in_turn`, and published
numbers are from both. The policy is N(tanh μ(s), σ²) with one σ an action dimension, its samples clipped to [-1, 1].

The map of rewards, 1000 over the range of the data's returns, is fixed when pretraining begins and kept in the state,
so that it is the same online; the authors' finetuning script scales the offline rewards alone. Learning rates are
constant.

Not in the paper.
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
    init_relu_mlp,
    relu_critic_value,
    relu_mlp,
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

LARGEST_WEIGHT = 100.0
VALUE_OUTPUT = 3e-3  # rlkit's


@struct.dataclass
class IQLState:
    """IQL's state, with the factor of its rewards; the critics are stacked."""

    policy: Parameters
    policy_optimizer: optax.OptState
    value: Parameters
    value_optimizer: optax.OptState
    critics: Parameters
    target_critics: Parameters
    critic_optimizers: optax.OptState
    reward_scale: Float[Array, ""]


@dataclass(frozen=True)
class IQL:
    """IQL's hyperparameters and its functions (o2o.types.Algorithm)."""

    discount: Annotated[float, Fraction]
    learning_rate: LearningRate
    network: Network
    target_step: Annotated[float, Range(above=0.0, at_most=1.0)]
    expectile: Annotated[float, Range(above=0.0, below=1.0)]
    inverse_temperature: Annotated[float, Positive]
    reward_scale: Literal["return_range", "none"]
    order: Literal["in_turn", "together"]

    METRICS: ClassVar[Mapping[str, str]] = {
        "value_loss": "expectile loss of V",
        "v_mean": "mean V on the batch's states, in scaled rewards",
        "critic_loss": "squared TD error, mean over the batch and the critics, in scaled rewards",
        "q_mean": "mean Q of the first critic on the batch's actions, in raw rewards",
        "policy_loss": "minus the weighted log density of the batch's actions",
        "advantage": "mean of min Q' - V on the batch, in scaled rewards",
        "weight": "mean weight of the batch's actions",
        "std": "the policy's standard deviation, mean over action dimensions",
    }

    @property
    def needs_returns(self) -> bool:
        """True: it needs to know what the data's trajectories return."""
        return self.reward_scale == "return_range"

    @property
    def period(self) -> int:
        """One: every update is like every other."""
        return 1

    @property
    def metrics(self) -> Mapping[str, str]:
        """The names and meanings of the metrics that an update reports."""
        return self.METRICS

    @functools.partial(jax.jit, static_argnums=0)
    def init(self, key: Key[Array, ""], example: Transition, facts: Facts) -> IQLState:
        """Returns fresh networks; target critics start as copies."""
        sizes = example.observation.shape[-1], example.action.shape[-1]
        policy_key, value_key, *critic_keys = jax.random.split(key, 4)
        policy = init_bounded_gaussian(policy_key, self.network, *sizes)
        value = init_relu_mlp(value_key, self.network, sizes[0], 1, VALUE_OUTPUT)
        critics = stacked([init_relu_critic(k, self.network, *sizes) for k in critic_keys])
        scale = jnp.ones(())
        if self.reward_scale == "return_range":
            scale = 1000 / jnp.asarray(facts.highest_return - facts.lowest_return, jnp.float32)
        return IQLState(
            policy,
            self._policy_optimizer.init(policy),
            value,
            self._critic_optimizer.init(value),
            critics,
            jax.tree.map(jnp.copy, critics),
            jax.vmap(self._critic_optimizer.init)(critics),
            scale,
        )

    def adopts(self, source: Algorithm) -> bool:
        """Returns whether `source` is IQL too."""
        return isinstance(source, IQL)

    def adopt(
        self,
        pretrained: Any,
        source: Algorithm,
        key: Key[Array, ""],
        reset_optimizers: bool = False,
        reset_targets: bool = False,
    ) -> Any:
        """Returns what IQL learned; moments and targets unless they are to be reset."""
        state = pretrained
        if reset_optimizers:
            state = state.replace(
                policy_optimizer=self._policy_optimizer.init(state.policy),
                value_optimizer=self._critic_optimizer.init(state.value),
                critic_optimizers=jax.vmap(self._critic_optimizer.init)(state.critics),
            )
        if reset_targets:
            state = state.replace(target_critics=jax.tree.map(jnp.copy, state.critics))
        return state

    def act(
        self, state: Any, observation: Float[Array, "*B O"], key: Key[Array, ""], evaluate: bool
    ) -> Float[Array, "*B A"]:
        """Returns tanh μ(s), or a sample of the policy, clipped, where it is to collect data."""
        mean, std = bounded_gaussian(state.policy, observation)
        if evaluate:
            return mean
        return jnp.clip(mean + std * jax.random.normal(key, mean.shape), -1, 1)

    def update(
        self, state: Any, batches: Batch, key: Key[Array, ""], due: Sequence[bool]
    ) -> tuple[Any, Metrics]:
        """Returns the state after one update a batch; where it is not `due`, the policy stands."""
        return losses.in_turn(self._update, state, batches, key, due)

    def _update(self, state: Any, batch: Transition, key: Key[Array, ""], due: bool) -> tuple[Any, Metrics]:
        batch = batch._replace(reward=state.reward_scale * batch.reward)
        q = losses.each(
            lambda c: relu_critic_value(c, batch.observation, batch.action), state.target_critics
        ).min(axis=0)
        new, metrics = self.value_step(state, batch, q)
        judge = new.value if self.order == "in_turn" else state.value
        critics, critic_metrics = self.critic_step(state, batch, judge)
        new = new.replace(**critics)
        if not due:
            return new, metrics | critic_metrics
        policy, policy_metrics = self.policy_step(state, batch, q - _value(judge, batch.observation))
        return new.replace(**policy), metrics | critic_metrics | policy_metrics

    def value_step(self, state: Any, batch: Transition, q: Float[Array, " B"]) -> tuple[Any, Metrics]:
        """Returns the state with the new V."""

        def loss(value: Parameters) -> tuple[Float[Array, ""], Float[Array, ""]]:
            v = _value(value, batch.observation)
            return losses.expectile_loss(q - v, self.expectile), v.mean()

        (error, v_mean), gradient = jax.value_and_grad(loss, has_aux=True)(state.value)
        updates, optimizer = self._critic_optimizer.update(gradient, state.value_optimizer)
        new = state.replace(value=optax.apply_updates(state.value, updates), value_optimizer=optimizer)
        return new, {"value_loss": error, "v_mean": v_mean}

    def policy_step(
        self, state: Any, batch: Transition, advantage: Float[Array, " B"]
    ) -> tuple[dict[str, Any], Metrics]:
        """Returns the new policy and its optimiser."""
        weight = jnp.minimum(jnp.exp(self.inverse_temperature * advantage), LARGEST_WEIGHT)

        def loss(policy: Parameters) -> Float[Array, ""]:
            mean, std = bounded_gaussian(policy, batch.observation)
            return -jnp.mean(weight * losses.gaussian_log_density(batch.action, mean, std))

        error, gradient = jax.value_and_grad(loss)(state.policy)
        updates, optimizer = self._policy_optimizer.update(gradient, state.policy_optimizer)
        _, std = bounded_gaussian(state.policy, batch.observation)
        metrics = {
            "policy_loss": error,
            "advantage": advantage.mean(),
            "weight": weight.mean(),
            "std": std.mean(),
        }
        new = {"policy": optax.apply_updates(state.policy, updates), "policy_optimizer": optimizer}
        return new, metrics

    def critic_step(self, state: Any, batch: Transition, value: Parameters) -> tuple[dict[str, Any], Metrics]:
        """Returns the new critics, their targets and their optimisers."""
        new, metrics = losses.critics_moved(
            relu_critic_value,
            state,
            batch,
            self._td_target(value, batch),
            self._critic_optimizer,
            self.target_step,
        )
        return new, metrics | {"q_mean": metrics["q_mean"] / state.reward_scale}

    def diagnose(self, state: Any, batch: Transition, key: Key[Array, ""]) -> Metrics:
        """Returns the first critic's mean Q and root mean squared TD error on a batch, in raw rewards."""
        scaled = batch._replace(reward=state.reward_scale * batch.reward)
        value = self.value(state, batch.observation, batch.action)
        error = value - self._td_target(state.value, scaled) / state.reward_scale
        return {"q_mean": value.mean(), "td_error": jnp.sqrt(jnp.mean(jnp.square(error)))}

    def value(
        self, state: Any, observation: Float[Array, "*B O"], action: Float[Array, "*B A"]
    ) -> Float[Array, "*B"]:
        """Returns Q(s, a) of the first critic, in raw rewards."""
        return relu_critic_value(first(state.critics), observation, action) / state.reward_scale

    def _td_target(self, value: Parameters, batch: Transition) -> Float[Array, " B"]:
        following = _value(value, batch.next_observation)
        return losses.td_target(batch.reward, batch.terminated, following, self.discount)

    @property
    def _policy_optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate.policy)

    @property
    def _critic_optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate.critic)


def _value(parameters: Parameters, observation: Float[Array, "*B O"]) -> Float[Array, "*B"]:
    return relu_mlp(parameters, observation).squeeze(-1)
