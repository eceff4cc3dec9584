"""The pretrained policy, never updated: TD3's state, and an update that does nothing.

Not in the paper. An arm of it is the null of a collapse: it goes through the same pipeline as the others (replay,
exploring, evaluating), so that what its curve loses is what evaluation noise alone makes of a policy that did not
change (docs/collapse.md). It explores as TD3 does, which says what the exploration noise costs in training episodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Array, Key

from o2o.algorithms.td3 import TD3
from o2o.types import Batch, Metrics


@dataclass(frozen=True)
class Frozen(TD3):
    """TD3's hyperparameters, of which `exploration_noise` alone has an effect while it acts."""

    @property
    def period(self) -> int:
        """One: every update does the same, nothing."""
        return 1

    @property
    def metrics(self) -> Mapping[str, str]:
        """Empty: nothing is reported."""
        return {}

    def update(
        self, state: Any, batches: Batch, key: Key[Array, ""], due: Sequence[bool]
    ) -> tuple[Any, Metrics]:
        """Returns the state that it was given."""
        return state, {}
