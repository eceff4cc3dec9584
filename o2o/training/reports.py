"""Reports, which the loop hands out at its stops and pauses, and the place from which a phase is resumed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from o2o.envs.episodes import Episode
from o2o.replay.buffer import Online
from o2o.training.seeds import Bundle


class Sums(NamedTuple):
    """Sums of one member's metrics since the last stop, and how many steps reported each; K names."""

    totals: Float[Array | np.ndarray, " K"]
    counts: Int[Array | np.ndarray, " K"]


@dataclass(frozen=True)
class Resumed:
    """The place where a phase goes on, as a report told it; lists have one element a member."""

    step: int
    updates: int
    reported: bool
    """Whether the report of this step is in the records; if not, and it is a stop, the phase begins with it."""
    sums: list[Sums]
    online: list[Online] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    environments: list[dict[str, np.ndarray]] = field(default_factory=list)
    """Each member's snapshot."""


@dataclass(frozen=True)
class Report:
    """Where a phase stands. Its arrays are used up when the generator goes on: copy what must outlive that."""

    step: int
    """Updates while pretraining, environment steps while finetuning."""
    updates: int
    state: Bundle
    metrics: list[dict[str, float]]
    """Each member's means since the last stop, of the metrics reported since then."""
    sums: list[Sums]
    """Each member's sums behind those means."""
    is_stop: bool
    """Whether this is one of the stops that were asked for; else a pause, at which the metrics go on adding up."""
    online: Bundle = field(default_factory=list)
    episodes: list[Episode] = field(default_factory=list)
    """The training episodes that ended since the last report of either kind."""
    actions: list[np.ndarray] = field(default_factory=list)
    """The actions to be taken next."""
    environments: list[dict[str, np.ndarray]] = field(default_factory=list)
    """Each member's snapshot; none where the environments cannot be saved."""
