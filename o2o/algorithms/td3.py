"""TD3 (Fujimoto et al. 2018), in the form the paper uses: Acme's, with the first author's correction.

One update of critics φ₁, φ₂ and policy θ from a batch (s, a, r, terminated, s'):

1. the policy, if due: one Adam step on -mean Q_φ₁(s, π_θ(s)) at the critic from *before* this update, then
   the target policy moves towards it;
2. each critic: one Adam step on the squared error to r + γ min(Q_φ₁', Q_φ₂')(s', clip(π_θ'(s') + noise)),
   at the targets from before this update, then its target moves towards it.

The policy is due in the first of every `policy_delay` updates, the critics and their targets in every one.

Not in the paper, and taken from Acme: the discount, target critics that are not delayed, noise of one
action's shape shared by the whole batch and drawn for each critic, the order above. The sum over action
dimensions in the policy's loss is the first author's later correction of Acme, which takes the mean.
`conventions=standard` is Fujimoto's noise, one draw for each row which both critics share, and his delayed targets.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Key

from o2o.algorithms import losses
from o2o.algorithms.networks import critic_value, init_critic, init_policy, policy_action
from o2o.types import (
    ADDED_LATER,
    Fraction,
    LearningRate,
    Metrics,
    Network,
    NonNegative,
    Parameters,
    Positive,
    Range,
    State,
    Transition,
)

ADAM_B2 = 0.999  # optax's default, and the paper's


@struct.dataclass
class Actor:
    """What the policy step writes."""

    policy: Parameters
    target_policy: Parameters
    optimizer: optax.OptState


@struct.dataclass
class Critics:
    """What the critic step writes; tuples hold one entry a critic."""

    critics: tuple[Parameters, ...]
    target_critics: tuple[Parameters, ...]
    optimizers: tuple[optax.OptState, ...]


@dataclass(frozen=True)
class TD3:
    """TD3's hyperparameters and its functions (o2o.types.Algorithm)."""

    discount: Annotated[float, Fraction]
    learning_rate: LearningRate
    network: Network
    target_step: Annotated[float, Range(above=0.0, at_most=1.0)]
    policy_delay: Annotated[int, Range(at_least=1, at_most=100)]  # a cycle is compiled whole
    exploration_noise: Annotated[float, NonNegative]
    target_noise: Annotated[float, NonNegative]
    target_noise_clip: Annotated[float, NonNegative]
    action_gradient_clip: Annotated[float, Positive] | None
    gradient_norm_clip: Annotated[float, Positive] | None
    dpg_reduce: Literal["sum", "mean"]
    target_noise_shared_in_batch: bool
    delay_target_critic: bool
    target_noise_shared_by_critics: bool = field(default=False, kw_only=True, metadata=ADDED_LATER)

    @property
    def period(self) -> int:
        """The policy is due in the first of so many updates."""
        return self.policy_delay

    @functools.partial(jax.jit, static_argnums=0)
    def init(self, key: Key[Array, ""], example: Transition) -> State:
        """Fresh networks; targets start as copies."""
        sizes = example.observation.shape[-1], example.action.shape[-1]
        policy_key, critic_key, twin_key = jax.random.split(key, 3)
        policy = init_policy(policy_key, self.network, *sizes)
        critics = (init_critic(critic_key, self.network, *sizes), init_critic(twin_key, self.network, *sizes))
        return State(
            actor=self._adopt_actor(Actor(policy, _copy(policy), self._policy_optimizer.init(policy))),
            critics=Critics(critics, _copy(critics), tuple(self._critic_optimizer.init(c) for c in critics)),
        )

    def adopt(self, state: State, reset_optimizers: bool = False, reset_targets: bool = False) -> State:
        """This algorithm's state from one that TD3 or an algorithm derived from it pretrained.

        Networks are carried over, and so are Adam's moments and the targets unless they are to be reset.
        """
        actor, critics = state.actor, state.critics
        if reset_optimizers:
            actor = actor.replace(optimizer=self._policy_optimizer.init(actor.policy))
            critics = critics.replace(
                optimizers=tuple(self._critic_optimizer.init(c) for c in critics.critics)
            )
        if reset_targets:
            actor = actor.replace(target_policy=_copy(actor.policy))
            critics = critics.replace(target_critics=_copy(critics.critics))
        return State(self._adopt_actor(Actor(actor.policy, actor.target_policy, actor.optimizer)), critics)

    def act(self, state: State, observation: Float[Array, "*B O"]) -> Float[Array, "*B A"]:
        """π(s)."""
        return policy_action(state.actor.policy, observation)

    def explore(
        self, state: State, observation: Float[Array, "*B O"], key: Key[Array, ""]
    ) -> Float[Array, "*B A"]:
        """π(s) plus Gaussian noise, clipped to [-1, 1]."""
        action = policy_action(state.actor.policy, observation)
        return jnp.clip(action + self.exploration_noise * jax.random.normal(key, action.shape), -1, 1)

    def update_policy(
        self, state: State, batch: Transition, key: Key[Array, ""], phase: int
    ) -> tuple[Any, Metrics]:
        """The half that the next action depends on: the new actor."""
        if phase % self.policy_delay:
            return state.actor, {}
        gradient, metrics = jax.grad(self.policy_loss, has_aux=True)(state.actor.policy, state, batch)
        updates, optimizer = self._policy_optimizer.update(
            gradient, state.actor.optimizer, state.actor.policy
        )
        policy = optax.apply_updates(state.actor.policy, updates)
        target_policy = losses.moved_towards(state.actor.target_policy, policy, self.target_step)
        metrics["gradient_over_adam"] = _gradient_over_adam(gradient, state.actor.optimizer)
        return state.actor.replace(policy=policy, target_policy=target_policy, optimizer=optimizer), metrics

    def update_critic(
        self, state: State, batch: Transition, key: Key[Array, ""], phase: int
    ) -> tuple[Critics, Metrics]:
        """The other half: the new critics."""
        old = state.critics
        new: list[tuple[Parameters, Parameters, optax.OptState]] = []
        errors, values = [], []
        keys = jax.random.split(key)
        if self.target_noise_shared_by_critics:
            keys = (keys[0], keys[0])
        for i in range(2):
            target = self.td_target(state, batch, keys[i])
            (error, value), gradient = jax.value_and_grad(_td_loss, has_aux=True)(
                old.critics[i], batch, target
            )
            updates, optimizer = self._critic_optimizer.update(gradient, old.optimizers[i], old.critics[i])
            critic = optax.apply_updates(old.critics[i], updates)
            if self.delay_target_critic and phase % self.policy_delay:
                target_critic = old.target_critics[i]
            else:
                target_critic = losses.moved_towards(old.target_critics[i], critic, self.target_step)
            new.append((critic, target_critic, optimizer))
            errors.append(error)
            values.append(value)
        metrics = {"critic_loss": (errors[0] + errors[1]) / 2, "q_mean": values[0]}
        return Critics(*(tuple(pair) for pair in zip(*new, strict=True))), metrics

    def policy_loss(
        self, policy: Parameters, state: State, batch: Transition
    ) -> tuple[Float[Array, ""], Metrics]:
        """The policy's loss, to be minimised, and its metrics."""
        terms = self.policy_terms(policy, state, batch)
        return terms.loss, terms.metrics()

    def policy_terms(self, policy: Parameters, state: State, batch: Transition) -> PolicyTerms:
        """The policy gradient's surrogate and what it is made of (Eq. 2)."""
        action = policy_action(policy, batch.observation)
        value, gradient = losses.value_and_action_gradient(
            lambda a: critic_value(state.critics.critics[0], batch.observation, a), action
        )
        clipped = gradient
        if self.action_gradient_clip is not None:
            clipped = losses.clip_by_norm(gradient, self.action_gradient_clip)
        return PolicyTerms(
            loss=losses.dpg_loss(action, clipped, self.dpg_reduce),
            action=action,
            value=value,
            action_gradient=gradient,
            clip=self.action_gradient_clip,
        )

    def td_target(self, state: State, batch: Transition, key: Key[Array, ""]) -> Float[Array, " B"]:
        """R + γ min Q' at the smoothed target action (clipped double Q-learning)."""
        shape = batch.action.shape[-1:] if self.target_noise_shared_in_batch else batch.action.shape
        noise = jnp.clip(
            self.target_noise * jax.random.normal(key, shape), -self.target_noise_clip, self.target_noise_clip
        )
        next_action = policy_action(state.actor.target_policy, batch.next_observation)
        next_action = jnp.clip(next_action + jnp.broadcast_to(noise, next_action.shape), -1, 1)
        next_value = jnp.minimum(
            *(critic_value(c, batch.next_observation, next_action) for c in state.critics.target_critics)
        )
        return losses.td_target(batch.reward, batch.terminated, next_value, self.discount)

    def diagnose(self, state: State, batch: Transition, key: Key[Array, ""]) -> Metrics:
        """What the first critic says of a batch without learning from it: mean Q and root mean squared TD error."""
        value = critic_value(state.critics.critics[0], batch.observation, batch.action)
        error = value - self.td_target(state, batch, key)
        return {"q_mean": value.mean(), "td_error": jnp.sqrt(jnp.mean(jnp.square(error)))}

    def value(
        self, state: State, observation: Float[Array, "*B O"], action: Float[Array, "*B A"]
    ) -> Float[Array, "*B"]:
        """Q(s, a) of the first critic."""
        return critic_value(state.critics.critics[0], observation, action)

    @property
    def _policy_optimizer(self) -> optax.GradientTransformation:
        return _adam(self.learning_rate.policy, self.gradient_norm_clip)

    @property
    def _critic_optimizer(self) -> optax.GradientTransformation:
        return _adam(self.learning_rate.critic, self.gradient_norm_clip)

    def _adopt_actor(self, actor: Actor) -> Any:
        """The actor with whatever a derived algorithm adds to it, fresh."""
        return actor


@dataclass(frozen=True)
class PolicyTerms:
    """The parts of a policy loss on one batch."""

    loss: Float[Array, ""]
    action: Float[Array, "B A"]
    value: Float[Array, " B"]
    action_gradient: Float[Array, "B A"]
    clip: float | None

    def metrics(self) -> Metrics:
        """The loss, and the size of ∂Q/∂a before clipping."""
        norm = jnp.linalg.norm(self.action_gradient, axis=-1)
        clipped = jnp.zeros(()) if self.clip is None else jnp.mean(norm > self.clip)
        return {"policy_loss": self.loss, "action_gradient_norm": norm.mean(), "clipped_share": clipped}


def _adam(learning_rate: float, gradient_norm_clip: float | None) -> optax.GradientTransformation:
    # Always a chain of two, so that a state can be carried to an algorithm that clips.
    clip = optax.identity() if gradient_norm_clip is None else optax.clip_by_global_norm(gradient_norm_clip)
    return optax.chain(clip, optax.adam(learning_rate))


def _td_loss(
    critic: Parameters, batch: Transition, target: Float[Array, " B"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    value = critic_value(critic, batch.observation, batch.action)
    return losses.td_loss(value, target), value.mean()


def _gradient_over_adam(gradient: Parameters, optimizer: optax.OptState) -> Float[Array, ""]:
    """‖gradient‖ over ‖√v‖, v Adam's second moment from before it: how far it is from what Adam has in mind.

    About 1 in a steady state, far from it right after the objective has changed scale, 1 for a fresh Adam.
    """
    norm = optax.tree.norm(gradient)
    count = optax.tree_utils.tree_get(optimizer, "count")
    second_moment = optax.tree_utils.tree_sum(optax.tree_utils.tree_get(optimizer, "nu"))
    unbiased = second_moment / (1 - ADAM_B2 ** jnp.maximum(count, 1))
    return jnp.where(count > 0, norm / jnp.sqrt(unbiased + jnp.finfo(jnp.float32).tiny), 1.0)


def _copy(tree: Any) -> Any:
    # A real copy: donating a state whose target shares a buffer with its network would be refused.
    return jax.tree.map(jnp.copy, tree)
