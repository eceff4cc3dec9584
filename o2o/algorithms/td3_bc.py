"""TD3-BC (Fujimoto & Gu 2021): TD3 whose policy is also pulled to the actions in the batch.

As TD3, but the policy minimises  -mean Q(s, π(s)) + (mean|Q| / α) · mean (π(s) - a)²  (Eq. 3, whose printed
sign of the second term is a slip). This is Acme's scale: the Q term has weight one and cloning is scaled
up. The original divides all by mean|Q| / α instead, which is the same to a fresh Adam, but not to one whose
moments are carried from this loss to plain TD3's at the switch to online learning.

ReBRAC (Tarasov et al. 2023) is `actor_penalty` and `critic_penalty`, without its deeper networks.

Not in the paper: that mean|Q| is taken at the policy's action, by the first critic, on the batch, without
gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from o2o.algorithms import losses
from o2o.algorithms.td3 import TD3
from o2o.types import ADDED_LATER, Metrics, NonNegative, Parameters, Positive, Transition


@dataclass(frozen=True)
class TD3BC(TD3):
    """TD3-BC's hyperparameters: TD3's, and the weight of the policy gradient against cloning."""

    behavior_cloning_alpha: Annotated[float, Positive]
    bc_normaliser: Literal["mean_abs_q", "mean_abs_dqda"]
    actor_penalty: Annotated[float, NonNegative] | None = field(
        default=None, kw_only=True, metadata=ADDED_LATER
    )
    """ReBRAC's, in place of cloning's 1 / α: the weight of the squared distance, summed over dimensions."""
    critic_penalty: Annotated[float, NonNegative] = field(default=0.0, kw_only=True, metadata=ADDED_LATER)
    """ReBRAC's: the weight in the critics' target of the squared distance to the data's next action."""

    METRICS: ClassVar[Mapping[str, str]] = {
        **TD3.METRICS,
        "behavior_cloning": "squared difference to the batch's actions, mean over batch and dimensions",
    }

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the dataset that it needs."""
        return ("next_action",) if self.critic_penalty else ()

    def penalised(
        self, value: Float[Array, " B"], action: Float[Array, "B A"], batch: Transition
    ) -> Float[Array, " B"]:
        """Returns the values of next actions less ReBRAC's penalty, of which online rows have none."""
        if not self.critic_penalty:
            return value
        distance = jnp.sum(jnp.square(action - batch.columns["next_action"]), axis=-1)
        return value - self.critic_penalty * jnp.where(jnp.isnan(distance), 0.0, distance)

    def policy_loss(
        self, policy: Parameters, state: Any, batch: Transition
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns TD3's policy loss plus scaled behaviour cloning, and its metrics."""
        terms = self.policy_terms(policy, state, batch)
        normaliser = terms.value if self.bc_normaliser == "mean_abs_q" else terms.action_gradient
        weight = jnp.mean(jnp.abs(normaliser))
        if self.actor_penalty is None:
            weight = weight / self.behavior_cloning_alpha
        else:
            weight = weight * self.actor_penalty * batch.action.shape[-1]
        cloning = losses.behavior_cloning_loss(terms.action, batch.action)
        loss = terms.loss + weight * cloning
        return loss, terms.metrics() | {"policy_loss": loss, "behavior_cloning": cloning}
