"""Behaviour cloning: the policy imitates the actions of its batches, in either phase.

One update: an Adam step on the mean of (π(s) - a)² over batch and action dimensions. Not in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from o2o.algorithms import losses
from o2o.algorithms.networks import init_policy, policy_action
from o2o.types import LearningRate, Network, NonNegative


@dataclass(frozen=True)
class BC:
    """Behaviour cloning's hyperparameters and its functions (o2o.types.Algorithm); a state is (policy, optimizer)."""

    learning_rate: LearningRate
    network: Network
    exploration_noise: Annotated[float, NonNegative]
    period: ClassVar = 1
    metrics: ClassVar = {"behavior_cloning": "squared difference to the batch's actions, mean over both axes"}

    def init(self, key: Any, example: Any, facts: Any) -> Any:
        """Returns a fresh policy, whose first actions are nearly zero."""
        policy = init_policy(key, self.network, example.observation.shape[-1], example.action.shape[-1])
        return policy, optax.adam(self.learning_rate.policy).init(policy)

    def adopts(self, source: Any) -> bool:
        """Returns whether `source` is behaviour cloning too."""
        return isinstance(source, BC)

    def adopt(self, pretrained: Any, source: Any, key: Any, reset_optimizers=False, reset_targets=False):
        """Returns what was pretrained, with fresh moments where they are to be reset; there are no targets."""
        policy, optimizer = pretrained
        return policy, optax.adam(self.learning_rate.policy).init(policy) if reset_optimizers else optimizer

    def act(self, state: Any, observation: Any, key: Any, evaluate: bool) -> Any:
        """Returns π(s), with Gaussian noise and clipped where it is to collect data."""
        action = policy_action(state[0], observation)
        noise = 0.0 if evaluate else self.exploration_noise * jax.random.normal(key, action.shape)
        return jnp.clip(action + noise, -1, 1)

    def update(self, state: Any, batches: Any, key: Any, due: Any) -> Any:
        """Returns the state after one update a batch."""
        return losses.in_turn(self._update, state, batches, key, due)

    def _update(self, state: Any, batch: Any, key: Any, due: bool) -> Any:
        policy, optimizer = state
        loss, gradient = jax.value_and_grad(
            lambda p: losses.behavior_cloning_loss(policy_action(p, batch.observation), batch.action)
        )(policy)
        updates, optimizer = optax.adam(self.learning_rate.policy).update(gradient, optimizer)
        return (optax.apply_updates(policy, updates), optimizer), {"behavior_cloning": loss}
