"""TD3-C, the paper's conservative TD3: TD3 whose policy may move only so far from its own target.

As TD3, but the policy maximises Q subject to  c = mean (π(s) - π'(s))² ≤ ε  (Eq. 4), π' the target policy
from before this update, by a Lagrangian: it minimises  -mean Q(s, π(s)) + λ c,  and λ ≥ 0 descends on λ (ε
- c)  (Eq. 5, whose printed sign is a slip: as printed, deviation would be rewarded). ∂Q/∂a is clipped to an
L2 norm of one a sample (Table B2).

Not in the paper: everything about λ but that it is learned by gradient descent along with the policy. The
parametrisation (`dual`), its start, its optimiser and step size, and whether c is a mean or a sum over
action dimensions are switches; docs/dual.md has what they do.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Key

from o2o.algorithms import losses
from o2o.algorithms.networks import policy_action
from o2o.algorithms.td3 import TD3, TD3State
from o2o.types import Algorithm, Facts, Metrics, Parameters, Positive, Range, Transition

# Of each parametrisation: -18 so that λ can recover from zero (Acme's MPO); λ ≤ 1e6, since a runaway multiplier would
# overflow float32, and freeze the policy long before.
DUAL_RANGE = {"softplus": (-18.0, 1e6), "exp": (-18.0, math.log(1e6)), "projected": (0.0, 1e6)}
SMALLEST_MULTIPLIER = 1e-8


@struct.dataclass
class TD3CState(TD3State):
    """TD3's state and the dual variable behind λ: one, or one an action dimension."""

    dual: Float[Array, " K"]
    dual_optimizer: optax.OptState


@dataclass(frozen=True)
class TD3C(TD3):
    """TD3-C's hyperparameters: TD3's, and the constraint's."""

    constraint_epsilon: Annotated[float, Positive]
    constraint_reduce: Literal["mean", "sum", "per_dimension"]
    dual: Literal["softplus", "exp", "projected"]
    dual_init: Annotated[float, Range(at_least=-18.0, at_most=1e6)]
    dual_learning_rate: Annotated[float, Positive]
    dual_optimizer: Literal["adam", "sgd"]
    dual_cadence: Literal["policy", "update"]

    METRICS: ClassVar[Mapping[str, str]] = {
        **TD3.METRICS,
        "constraint": "the constrained squared difference to the target policy",
        "log_constraint": "its logarithm",
        "constraint_satisfied_share": "share of policy steps at which the constraint was at most epsilon",
        "lambda": "the multiplier",
    }

    @functools.partial(jax.jit, static_argnums=0)
    def init(self, key: Key[Array, ""], example: Transition, facts: Facts) -> Any:
        """Returns TD3's fresh state and a fresh dual variable."""
        return self._with_dual(super().init(key, example, facts))

    def adopt(
        self,
        pretrained: Any,
        source: Algorithm,
        key: Key[Array, ""],
        reset_optimizers: bool = False,
        reset_targets: bool = False,
    ) -> Any:
        """Returns what TD3 adopts and a fresh dual variable."""
        return self._with_dual(super().adopt(pretrained, source, key, reset_optimizers, reset_targets))

    def policy_loss(
        self, policy: Parameters, state: Any, batch: Transition
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns TD3's policy loss plus λ times the constraint, and its metrics."""
        terms = self.policy_terms(policy, state, batch)
        constraint = self.constraint(terms.action, state, batch)
        multiplier = self.multiplier(state.dual)
        loss = terms.loss + jnp.sum(jax.lax.stop_gradient(multiplier) * constraint)
        return loss, terms.metrics() | {
            "policy_loss": loss,
            "constraint": constraint.mean(),
            "log_constraint": jnp.log(constraint.mean() + jnp.finfo(constraint.dtype).tiny),
            "constraint_satisfied_share": jnp.mean(constraint <= self.constraint_epsilon),
            "lambda": multiplier.mean(),
        }

    def _update(self, state: Any, batch: Transition, key: Key[Array, ""], due: bool) -> tuple[Any, Metrics]:
        new, metrics = super()._update(state, batch, key, due)
        if not due and self.dual_cadence == "policy":
            return new, metrics
        # λ's step is taken at the parameters from before the policy's.
        constraint = self.constraint(policy_action(state.policy, batch.observation), state, batch)
        gradient = jax.grad(
            lambda d: losses.dual_loss(self.multiplier(d), constraint, self.constraint_epsilon)
        )(state.dual)
        updates, dual_optimizer = self._dual_optimizer.update(gradient, state.dual_optimizer)
        dual = jnp.clip(state.dual + updates, *DUAL_RANGE[self.dual])
        return new.replace(dual=dual, dual_optimizer=dual_optimizer), metrics

    def constraint(self, action: Float[Array, "B A"], state: Any, batch: Transition) -> Float[Array, " K"]:
        """Returns the squared difference to the target policy's actions, the left side of Eq. 4."""
        target_action = jax.lax.stop_gradient(policy_action(state.target_policy, batch.observation))
        per_dimension = jnp.mean(jnp.square(action - target_action), axis=0)
        if self.constraint_reduce == "per_dimension":
            return per_dimension
        return (per_dimension.sum() if self.constraint_reduce == "sum" else per_dimension.mean())[None]

    def multiplier(self, dual: Float[Array, " K"]) -> Float[Array, " K"]:
        """Returns λ, from the dual variable behind it."""
        if self.dual == "softplus":
            return jax.nn.softplus(dual) + SMALLEST_MULTIPLIER
        return jnp.exp(dual) if self.dual == "exp" else dual

    @property
    def _dual_optimizer(self) -> optax.GradientTransformation:
        return {"adam": optax.adam, "sgd": optax.sgd}[self.dual_optimizer](self.dual_learning_rate)

    def _with_dual(self, state: TD3State) -> TD3CState:
        size = state.policy["output"]["bias"].shape[-1] if self.constraint_reduce == "per_dimension" else 1
        dual = jnp.full(size, jnp.clip(self.dual_init, *DUAL_RANGE[self.dual]), jnp.float32)
        return TD3CState(**vars(state), dual=dual, dual_optimizer=self._dual_optimizer.init(dual))
