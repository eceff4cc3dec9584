"""Cal-QL (Nakamoto et al. 2023): CQL whose critics are pushed down no further than the return of the data.

As CQL, but in the penalty the value of each action of the policy is at least the discounted return from that row on,
so that the critics keep the scale of the rewards; uniform actions are not bounded.

Not in the paper, and a port: its authors' code has returns for none of these tasks. The return to go is a column of
the dataset, known where the task ended, or where what a time limit cut off is discounted to a twentieth. Other rows,
and all online ones, are not bounded: they are CQL's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from o2o.algorithms.cql import CQL
from o2o.types import Transition


@dataclass(frozen=True)
class CalQL(CQL):
    """CQL's hyperparameters, with the penalty's values bounded by returns."""

    columns: ClassVar = ("return_to_go",)

    def bounded(self, value: Float[Array, "N B"], batch: Transition) -> Float[Array, "N B"]:
        """Returns the values of the policy's actions, those below the row's return raised to it."""
        known = batch.columns["return_to_go"][None]
        return jnp.maximum(value, jnp.where(jnp.isnan(known), -jnp.inf, known))
