"""SAC (Haarnoja et al. 2018), which trained the policies behind D4RL's sets, and what RLPD and WSRL make of it.

One update from a batch, as rlkit has it: the temperature moves towards the target entropy; the policy takes
an Adam step on temperature · log π - min Q at the critics from before this update; each critic takes one on
the squared error to r + γ (min Q' - temperature · log π)(s', a' ~ π), and its target moves towards it.
Policy, critics, targets: every update. Not as in rlkit: the temperature in the critics' target is the one from
before this update.

What RLPD (Ball et al. 2023) and WSRL (Zhou et al. 2024) change are settings: an ensemble of `critics`, of which
`target_critics` drawn anew for each update give the target; `policy_value`, what the policy climbs of them all;
LayerNorm; no entropy in the target; and in a step of several updates one of the policy and the temperature, after
all of the critics', from the last batch (RLPD) or from all of them (WSRL). `order`:

- `policy_first`, rlkit's: the temperature, then the policy by it, at the critics from before the update;
- `together`, as the CQL of Cal-QL's authors: each by the state from before the update;
- `critics_first`, as RLPD and WSRL: the critics, then the policy at them, then the temperature by the same sample.

Not as in WSRL's code: there the critics share their output layer; the temperature is a softplus, and learns from
a sample at the next states; and Adam steps on, by a gradient of zero, in the networks that an update leaves out.

Not in the paper at all.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Key

from o2o.algorithms import losses
from o2o.algorithms.networks import (
    Initializers,
    first,
    gaussian_policy,
    init_gaussian_policy,
    init_relu_critic,
    relu_critic_value,
    stacked,
)
from o2o.types import (
    ADDED_LATER,
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
    critics: Annotated[int, Range(at_least=1, at_most=100)] = field(
        default=2, kw_only=True, metadata=ADDED_LATER
    )
    target_critics: Annotated[int, Positive] | None = field(default=None, kw_only=True, metadata=ADDED_LATER)
    """How many of them give a target: the least of so many, drawn anew for each update; null for all."""
    drawn_twice: bool = field(default=False, kw_only=True, metadata=ADDED_LATER)
    """Whether one critic may be drawn more than once, as WSRL's are."""
    policy_value: Literal["min", "mean"] = field(default="min", kw_only=True, metadata=ADDED_LATER)
    backup_entropy: bool = field(default=True, kw_only=True, metadata=ADDED_LATER)
    layer_norm: Literal["none", "critics", "all"] = field(default="none", kw_only=True, metadata=ADDED_LATER)
    initializer: Initializers = field(default="rlkit", kw_only=True, metadata=ADDED_LATER)
    order: Literal["policy_first", "together", "critics_first"] = field(
        default="policy_first", kw_only=True, metadata=ADDED_LATER
    )
    policy_updates: Literal["every", "last_batch", "all_batches"] = field(
        default="every", kw_only=True, metadata=ADDED_LATER
    )
    """Whether a step of several updates has one of the policy with each of the critics', or one after them all."""
    temperature_loss: Literal["log_temperature", "temperature"] = field(
        default="log_temperature", kw_only=True, metadata=ADDED_LATER
    )
    """The factor of the entropy's excess in the temperature's loss: rlkit's, or RLPD's, which fades with it."""

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
        policy_key, *critic_keys = jax.random.split(key, 1 + self.critics)
        of_policy, of_critics = (
            {"initializer": self.initializer, "layer_norm": self.layer_norm in normed}
            for normed in (("all",), ("all", "critics"))
        )
        policy = init_gaussian_policy(policy_key, self.network, *sizes, **of_policy)
        critics = stacked([init_relu_critic(k, self.network, *sizes, **of_critics) for k in critic_keys])
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
        """Returns whether `source` is SAC too, CQL included, with networks of the same shapes."""
        shapes = [
            (own.critics, own.layer_norm, own.network) if isinstance(own, SAC) else None
            for own in (self, source)
        ]
        return shapes[0] == shapes[1]

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
        if self.policy_updates == "every":
            return losses.in_turn(self._update, state, batches, key, due)
        critics_key, policy_key = jax.random.split(key)
        state, metrics = losses.in_turn(self._update, state, batches, critics_key, (False,) * len(due))
        if not any(due):
            return state, metrics
        if self.policy_updates == "last_batch":
            batch = jax.tree.map(lambda column: column[-1], batches.data)
        else:
            batch = jax.tree.map(lambda column: column.reshape(-1, *column.shape[2:]), batches.data)
        policy, policy_metrics = self.policy_step(state, batch, policy_key)
        return state.replace(**policy), metrics | policy_metrics

    def _update(self, state: Any, batch: Transition, key: Key[Array, ""], due: bool) -> tuple[Any, Metrics]:
        policy_key, target_key = jax.random.split(key)
        critics, metrics = self.critic_step(state, batch, target_key)
        new = state.replace(**critics)
        if not due:
            return new, metrics
        judging = new if self.order == "critics_first" else state
        policy, policy_metrics = self.policy_step(judging, batch, policy_key)
        return new.replace(**policy), metrics | policy_metrics

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
            value = values.min(axis=0) if self.policy_value == "min" else values.mean(axis=0)
            loss = jnp.mean(temperature * log_prob - value)
            return loss, {"policy_loss": loss, "entropy": -log_prob.mean()}

        _, log_prob = self.sample(state.policy, batch.observation, key)
        # Of -log_temperature · (log π + target entropy), or of -temperature · that.
        temperature_gradient = -jnp.mean(log_prob + target_entropy)
        if self.temperature_loss == "temperature":
            temperature_gradient *= jnp.exp(state.log_temperature)
        updates, temperature_optimizer = self._temperature_optimizer.update(
            temperature_gradient, state.temperature_optimizer
        )
        log_temperature = state.log_temperature + updates
        weight = jnp.exp(log_temperature if self.order == "policy_first" else state.log_temperature)
        gradient, metrics = jax.grad(policy_loss, has_aux=True)(state.policy, weight)
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
        next_value = self._least_target_value(state, batch.next_observation, action, key)
        if self.backup_entropy:
            next_value = next_value - jnp.exp(state.log_temperature) * log_prob
        return losses.td_target(batch.reward, batch.terminated, next_value, self.discount)

    def _least_target_value(
        self,
        state: Any,
        observation: Float[Array, "*B O"],
        action: Float[Array, "*B A"],
        key: Key[Array, ""],
    ) -> Float[Array, "*B"]:
        """Returns the least of the target critics' values, of those that are drawn by the key."""
        judges = state.target_critics
        if self.target_critics is not None:
            draw_key = jax.random.fold_in(key, 1)
            if self.drawn_twice:
                drawn = jax.random.randint(draw_key, (self.target_critics,), 0, self.critics)
            else:
                drawn = jax.random.choice(draw_key, self.critics, (self.target_critics,), replace=False)
            judges = jax.tree.map(lambda leaf: leaf[drawn], judges)
        return losses.each(lambda c: relu_critic_value(c, observation, action), judges).min(axis=0)

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
