"""CQL (Kumar et al. 2020): SAC whose critics are pushed down on actions that the data do not have.

As SAC, but to each critic's loss is added w · mean(T · logsumexp(Q(s, aᵢ) / T) - Q(s, a)): the aᵢ are as many
uniform actions as samples of π(·|s) and of π(·|s'), all judged at s. With `importance_sampling` each value is less
its action's log density, without it the batch's own action is one more of them. `max_target_backup` takes the target
at the best of so many samples of π(·|s') by the least target critic, instead of at one. No gradient of the penalty
reaches the policy. SAC itself goes on from a state of CQL, with the penalty off.

Not in the paper. As the authors of Cal-QL have it, whose code finetunes, but for the standard deviation's own scale
and offset, which they learn, the latter from -1, and for the draws, which each of their losses has of its own. The
penalty is on all critics of an ensemble; WSRL's is on the drawn ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from o2o.algorithms import losses
from o2o.algorithms.networks import relu_critic_value
from o2o.algorithms.sac import SAC
from o2o.types import Metrics, NonNegative, Parameters, Positive, Range, Transition


@dataclass(frozen=True)
class CQL(SAC):
    """CQL's hyperparameters: SAC's, and those of the penalty."""

    penalty_weight: Annotated[float, NonNegative]
    penalty_temperature: Annotated[float, Positive]
    penalty_actions: Annotated[int, Range(at_least=1, at_most=1000)]
    """Actions of each of the three kinds."""
    importance_sampling: bool
    max_target_backup: bool

    METRICS: ClassVar[Mapping[str, str]] = {
        **SAC.METRICS,
        "penalty": "the weighted gap between a soft maximum of Q and Q of the batch's actions, mean over the critics",
    }

    def critic_step(
        self, state: Any, batch: Transition, key: Key[Array, ""]
    ) -> tuple[dict[str, Any], Metrics]:
        """Returns the new critics, their targets and their optimisers."""
        target = self._td_target(state, batch, key)
        if self.penalty_weight == 0:
            return losses.critics_moved(
                relu_critic_value, state, batch, target, self._critic_optimizer, self.target_step
            )
        actions, log_density = self._judged(state.policy, batch, jax.random.fold_in(key, 2))

        return losses.critics_moved(
            relu_critic_value,
            state,
            batch,
            target,
            self._critic_optimizer,
            self.target_step,
            penalty=lambda critic: self.penalty_weight * self._gap(critic, batch, actions, log_density),
        )

    def bounded(self, value: Float[Array, "N B"], batch: Transition) -> Float[Array, "N B"]:
        """Returns the values of the policy's actions as the penalty sees them: as they are."""
        return value

    def _judged(
        self, policy: Parameters, batch: Transition, key: Key[Array, ""]
    ) -> tuple[Float[Array, "K B A"], Float[Array, "K B"]]:
        """Returns the actions of the penalty, uniform ones first, and their log densities."""
        number, (rows, size) = self.penalty_actions, batch.action.shape
        uniform_key, here_key, next_key = jax.random.split(key, 3)
        uniform = jax.random.uniform(uniform_key, (number, rows, size), minval=-1, maxval=1)
        repeated = (
            jnp.broadcast_to(o, (number, *o.shape)) for o in (batch.observation, batch.next_observation)
        )
        here, following = (
            self.sample(policy, o, k) for o, k in zip(repeated, (here_key, next_key), strict=True)
        )
        actions = jnp.concatenate([uniform, here[0], following[0]])
        log_density = jnp.concatenate([jnp.full((number, rows), size * math.log(0.5)), here[1], following[1]])
        return actions, log_density

    def _gap(
        self,
        critic: Parameters,
        batch: Transition,
        actions: Float[Array, "K B A"],
        log_density: Float[Array, "K B"],
    ) -> Float[Array, ""]:
        observation = jnp.broadcast_to(batch.observation, (*actions.shape[:2], batch.observation.shape[-1]))
        value = relu_critic_value(critic, observation, actions)
        own = relu_critic_value(critic, batch.observation, batch.action)
        of_policy = self.bounded(value[self.penalty_actions :], batch)
        value = jnp.concatenate([value[: self.penalty_actions], of_policy])
        value = value - log_density if self.importance_sampling else jnp.concatenate([value, own[None]])
        soft = self.penalty_temperature * jax.nn.logsumexp(value / self.penalty_temperature, axis=0)
        return jnp.mean(soft - own)

    def _td_target(self, state: Any, batch: Transition, key: Key[Array, ""]) -> Float[Array, " B"]:
        if not self.max_target_backup:
            return super()._td_target(state, batch, key)
        shape = (self.penalty_actions, *batch.next_observation.shape)
        observation = jnp.broadcast_to(batch.next_observation, shape)
        action, log_prob = self.sample(state.policy, observation, key)
        value = self._least_target_value(state, observation, action, key)
        best = jnp.argmax(value, axis=0)[None]
        next_value = jnp.take_along_axis(value, best, axis=0)[0]
        if self.backup_entropy:
            chosen = jnp.take_along_axis(log_prob, best, axis=0)[0]
            next_value = next_value - jnp.exp(state.log_temperature) * chosen
        return losses.td_target(batch.reward, batch.terminated, next_value, self.discount)
