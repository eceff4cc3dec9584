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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Key

from o2o.algorithms import losses
from o2o.algorithms.networks import critic_value, first, init_critic, init_policy, policy_action, stacked
from o2o.types import (
    ADDED_LATER,
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

ADAM_B2 = 0.999  # optax's default, and the paper's


@struct.dataclass
class TD3State:
    """TD3's state. The critics are stacked: axis 0 of their arrays, and of their optimisers', is the ensemble."""

    policy: Parameters
    target_policy: Parameters
    policy_optimizer: optax.OptState
    critics: Parameters
    target_critics: Parameters
    critic_optimizers: optax.OptState


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

    METRICS: ClassVar[Mapping[str, str]] = {
        "critic_loss": "squared TD error, mean over the batch and the critics",
        "q_mean": "mean Q of the first critic on the batch's actions",
        "policy_loss": "the loss that the policy descends",
        "action_gradient_norm": "mean L2 norm of dQ/da before clipping",
        "clipped_share": "share of samples whose dQ/da was clipped",
        "gradient_over_adam": "norm of the policy gradient over the norm of the root of Adam's second moment",
    }

    @property
    def period(self) -> int:
        """The policy's delay: it moves in the first of so many updates."""
        return self.policy_delay

    @property
    def metrics(self) -> Mapping[str, str]:
        """The names and meanings of the metrics that an update reports."""
        return self.METRICS

    @functools.partial(jax.jit, static_argnums=0)
    def init(self, key: Key[Array, ""], example: Transition, facts: Facts) -> Any:
        """Returns fresh networks; targets start as copies."""
        sizes = example.observation.shape[-1], example.action.shape[-1]
        policy_key, *critic_keys = jax.random.split(key, 3)
        policy = init_policy(policy_key, self.network, *sizes)
        critics = stacked([init_critic(k, self.network, *sizes) for k in critic_keys])
        return TD3State(
            policy,
            _copy(policy),
            self._policy_optimizer.init(policy),
            critics,
            _copy(critics),
            jax.vmap(self._critic_optimizer.init)(critics),
        )

    def adopts(self, source: Algorithm) -> bool:
        """Returns whether `source` is of TD3's family."""
        return isinstance(source, TD3)

    def adopt(
        self,
        pretrained: Any,
        source: Algorithm,
        key: Key[Array, ""],
        reset_optimizers: bool = False,
        reset_targets: bool = False,
    ) -> Any:
        """Returns the networks of a TD3, and its Adam's moments and targets unless they are to be reset."""
        state = TD3State(**{field.name: getattr(pretrained, field.name) for field in fields(TD3State)})
        if reset_optimizers:
            state = replace(
                state,
                policy_optimizer=self._policy_optimizer.init(state.policy),
                critic_optimizers=jax.vmap(self._critic_optimizer.init)(state.critics),
            )
        if reset_targets:
            state = replace(state, target_policy=_copy(state.policy), target_critics=_copy(state.critics))
        return state

    def act(
        self, state: Any, observation: Float[Array, "*B O"], key: Key[Array, ""], evaluate: bool
    ) -> Float[Array, "*B A"]:
        """Returns π(s), with Gaussian noise and clipped to [-1, 1] where it is to collect data."""
        action = policy_action(state.policy, observation)
        if evaluate:
            return action
        return jnp.clip(action + self.exploration_noise * jax.random.normal(key, action.shape), -1, 1)

    def update(
        self, state: Any, batches: Batch, key: Key[Array, ""], due: Sequence[bool]
    ) -> tuple[Any, Metrics]:
        """Returns the state after one update a batch; where it is `due`, the policy moves too."""
        return losses.in_turn(self._update, state, batches, key, due)

    def _update(self, state: Any, batch: Transition, key: Key[Array, ""], due: bool) -> tuple[Any, Metrics]:
        # Both steps read the old state.
        critics, metrics = self.critic_step(state, batch, key, due)
        if not due:
            return state.replace(**critics), metrics
        policy, policy_metrics = self.policy_step(state, batch)
        return state.replace(**critics, **policy), metrics | policy_metrics

    def policy_step(self, state: Any, batch: Transition) -> tuple[dict[str, Any], Metrics]:
        """Returns the new policy, its target and its optimiser."""
        gradient, metrics = jax.grad(self.policy_loss, has_aux=True)(state.policy, state, batch)
        updates, optimizer = self._policy_optimizer.update(gradient, state.policy_optimizer, state.policy)
        policy = optax.apply_updates(state.policy, updates)
        target = losses.moved_towards(state.target_policy, policy, self.target_step)
        metrics["gradient_over_adam"] = _gradient_over_adam(gradient, state.policy_optimizer)
        return {"policy": policy, "target_policy": target, "policy_optimizer": optimizer}, metrics

    def critic_step(
        self, state: Any, batch: Transition, key: Key[Array, ""], due: bool
    ) -> tuple[dict[str, Any], Metrics]:
        """Returns the new critics, their targets and their optimisers."""
        targets = self.td_targets(state, batch, key)
        new, metrics = losses.critics_moved(
            critic_value, state, batch, targets, self._critic_optimizer, self.target_step
        )
        if self.delay_target_critic and not due:
            new["target_critics"] = state.target_critics
        return new, metrics

    def policy_loss(
        self, policy: Parameters, state: Any, batch: Transition
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the policy's loss, to be minimised, and its metrics."""
        terms = self.policy_terms(policy, state, batch)
        return terms.loss, terms.metrics()

    def policy_terms(self, policy: Parameters, state: Any, batch: Transition) -> PolicyTerms:
        """Returns the policy gradient's surrogate and what it is made of (Eq. 2)."""
        action = policy_action(policy, batch.observation)
        value, gradient = losses.value_and_action_gradient(
            lambda a: critic_value(first(state.critics), batch.observation, a), action
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

    def td_targets(self, state: Any, batch: Transition, key: Key[Array, ""]) -> Float[Array, "2 B"]:
        """Returns each critic's target, by a draw of noise of its own or the same for both."""
        keys = jax.random.split(key)
        if self.target_noise_shared_by_critics:
            return jnp.broadcast_to(self.td_target(state, batch, keys[0]), (2, *batch.reward.shape))
        return losses.each(lambda k: self.td_target(state, batch, k), keys)

    def td_target(self, state: Any, batch: Transition, key: Key[Array, ""]) -> Float[Array, " B"]:
        """Returns R + γ min Q' at the smoothed target action (clipped double Q-learning)."""
        shape = batch.action.shape[-1:] if self.target_noise_shared_in_batch else batch.action.shape
        noise = jnp.clip(
            self.target_noise * jax.random.normal(key, shape), -self.target_noise_clip, self.target_noise_clip
        )
        next_action = policy_action(state.target_policy, batch.next_observation)
        next_action = jnp.clip(next_action + jnp.broadcast_to(noise, next_action.shape), -1, 1)
        next_values = losses.each(
            lambda c: critic_value(c, batch.next_observation, next_action), state.target_critics
        )
        next_value = self.penalised(next_values.min(axis=0), next_action, batch)
        return losses.td_target(batch.reward, batch.terminated, next_value, self.discount)

    def penalised(
        self, value: Float[Array, " B"], action: Float[Array, "B A"], batch: Transition
    ) -> Float[Array, " B"]:
        """Returns the values of the next actions as the target has them: as they are."""
        return value

    def diagnose(self, state: Any, batch: Transition, key: Key[Array, ""]) -> Metrics:
        """Returns the first critic's mean Q and root mean squared TD error on a batch, without learning from it."""
        value = self.value(state, batch.observation, batch.action)
        error = value - self.td_target(state, batch, key)
        return {"q_mean": value.mean(), "td_error": jnp.sqrt(jnp.mean(jnp.square(error)))}

    def value(
        self, state: Any, observation: Float[Array, "*B O"], action: Float[Array, "*B A"]
    ) -> Float[Array, "*B"]:
        """Returns Q(s, a) of the first critic, which the policy follows."""
        return critic_value(first(state.critics), observation, action)

    @property
    def _policy_optimizer(self) -> optax.GradientTransformation:
        return _adam(self.learning_rate.policy, self.gradient_norm_clip)

    @property
    def _critic_optimizer(self) -> optax.GradientTransformation:
        return _adam(self.learning_rate.critic, self.gradient_norm_clip)


@dataclass(frozen=True)
class PolicyTerms:
    """The parts of a policy loss on one batch."""

    loss: Float[Array, ""]
    action: Float[Array, "B A"]
    value: Float[Array, " B"]
    action_gradient: Float[Array, "B A"]
    clip: float | None

    def metrics(self) -> Metrics:
        """Returns the loss, and the size of ∂Q/∂a before clipping."""
        norm = jnp.linalg.norm(self.action_gradient, axis=-1)
        clipped = jnp.zeros(()) if self.clip is None else jnp.mean(norm > self.clip)
        return {"policy_loss": self.loss, "action_gradient_norm": norm.mean(), "clipped_share": clipped}


def _adam(learning_rate: float, gradient_norm_clip: float | None) -> optax.GradientTransformation:
    # Always a chain of two, so that a state can be carried to an algorithm that clips.
    clip = optax.identity() if gradient_norm_clip is None else optax.clip_by_global_norm(gradient_norm_clip)
    return optax.chain(clip, optax.adam(learning_rate))


def _gradient_over_adam(gradient: Parameters, optimizer: optax.OptState) -> Float[Array, ""]:
    """Returns ‖gradient‖ / ‖√v‖, where v is Adam's second moment from before the gradient.

    It is about 1 in a steady state, far from 1 right after the objective has changed scale, and 1 for a fresh Adam.
    """
    # One sum over all arrays: a sum of sums is a kernel for each of them on a GPU.
    norm = jnp.linalg.norm(_flat(gradient))
    count = optax.tree_utils.tree_get(optimizer, "count")
    second_moment = jnp.sum(_flat(optax.tree_utils.tree_get(optimizer, "nu")))
    unbiased = second_moment / (1 - ADAM_B2 ** jnp.maximum(count, 1))
    return jnp.where(count > 0, norm / jnp.sqrt(unbiased + jnp.finfo(jnp.float32).tiny), 1.0)


def _flat(tree: Any) -> Float[Array, " P"]:
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])


def _copy(tree: Any) -> Any:
    # A real copy: donating a state whose target shares a buffer with its network would be refused.
    return jax.tree.map(jnp.copy, tree)
