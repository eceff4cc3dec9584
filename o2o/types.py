"""The words that every module shares: transitions, metrics, the algorithm protocol, and the letters of all shapes.

Letters in shape annotations: **B** batch, **M** members (seeds trained side by side), **N** rows of a
dataset, **O** observation, **A** action, **E** episodes, **U** updates, **W** width of a packed transition, **X**
that of an offline row with its columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, Protocol, runtime_checkable

from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

Metrics = dict[str, Any]  # name -> scalar array; Algorithm.metrics says what each is
Parameters = Any  # a plain tree of arrays, as flax.linen makes it


class Transition(NamedTuple):
    """One step, or a batch of them with a leading axis.

    `terminated` is true only where the task itself ended; a time limit is never a termination, so its successor is
    bootstrapped from. `columns` is what the algorithm's `columns` asks for, NaN where it is not known, as it is online:
    `return_to_go` (discounted, to the end of the episode) and `next_action`.
    """

    observation: Float[Array, "*B O"]
    action: Float[Array, "*B A"]
    reward: Float[Array, "*B"]
    terminated: Bool[Array, "*B"]
    next_observation: Float[Array, "*B O"]
    columns: Mapping[str, Float[Array, "*B ..."]] = {}


@struct.dataclass
class Batch:
    """Transitions to learn from, as a replay samples them, and where each of them came from."""

    data: Transition
    index: Int[Array, "*U B"]
    """Each transition's place among all rows ever seen: offline rows, then online rows in the order of their steps."""
    is_offline: Bool[Array, "*U B"]
    weight: Float[Array, "*U B"]
    """The weight of its loss; 1 where sampling is uniform."""


class Facts(NamedTuple):
    """Constants of the offline data that a method may need; NaN where there is none."""

    lowest_return: Float[Array, ""] | float
    """The least undiscounted return of its trajectories, those that the file's end cuts included."""
    highest_return: Float[Array, ""] | float


NO_FACTS = Facts(math.nan, math.nan)

State = Any  # what an algorithm learns: any tree of arrays


@dataclass(frozen=True)
class Range:
    """Bounds of a number in a settings dataclass, as `Annotated[float, Range(above=0)]`.

    `above` and `below` exclude the bound itself, `at_least` and `at_most` include it.
    """

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )

    def __str__(self) -> str:
        words = {"above": "above", "at_least": "at least", "below": "below", "at_most": "at most"}
        return " and ".join(f"{words[k]} {v:g}" for k, v in vars(self).items() if v is not None)


Positive = Range(above=0.0)
NonNegative = Range(at_least=0.0)
Fraction = Range(at_least=0.0, at_most=1.0)

ADDED_LATER = {"added_later": True}
"""Metadata of a setting that older runs lack: at its default, which is what was done before, it is neither written nor
hashed, so that no finished run changes its identity."""


@dataclass(frozen=True)
class LearningRate:
    """Adam's step sizes (paper, Table B1)."""

    policy: Annotated[float, Positive]
    critic: Annotated[float, Positive]


@dataclass(frozen=True)
class Network:
    """The shape of every policy and critic network (paper, Appendix B; networks.py)."""

    hidden_sizes: tuple[Annotated[int, Positive], ...]


@runtime_checkable
class Algorithm(Protocol):
    """A frozen dataclass of hyperparameters with pure functions on a state of its own.

    The functions are written for one member, are free of side effects, and can be jitted, scanned and vmapped. Two
    more are optional: whoever lacks `value` has no overestimation column, whoever lacks `diagnose` no TD errors. One
    that says `needs_returns` is refused where there is no dataset to take `Facts` from. `columns` names what
    it needs of `Transition.columns`.

        value(state, observation, action) -> Q(s, a) in raw reward units
        diagnose(state, batch, key) -> `q_mean` and the RMS `td_error` of a batch, without learning from it
    """

    @property
    def period(self) -> int:
        """The number of updates after which the pattern of delayed work repeats; pretraining's updates count too."""
        ...

    @property
    def metrics(self) -> Mapping[str, str]:
        """The names and meanings of all metrics that `update` ever reports."""
        ...

    def init(self, key: Key[Array, ""], example: Transition, facts: Facts) -> State:
        """Returns a fresh state for the sizes of `example` (one transition, no batch axis)."""
        ...

    def adopts(self, source: Algorithm) -> bool:
        """Returns whether `adopt` takes what `source` learned."""
        ...

    def adopt(
        self,
        pretrained: State,
        source: Algorithm,
        key: Key[Array, ""],
        reset_optimizers: bool = False,
        reset_targets: bool = False,
    ) -> State:
        """Returns this algorithm's state with what `source` learned; `key` is for what it lacks."""
        ...

    def update(
        self, state: State, batches: Batch, key: Key[Array, ""], due: Sequence[bool]
    ) -> tuple[State, Metrics]:
        """Returns the state after learning from the batches of one step.

        Args:
            state: the state before.
            batches: with a leading axis of the updates in this step.
            key: for whatever is drawn.
            due: for each update whether delayed work, such as TD3's policy step, is to be done. Python's booleans, so
                that what is not due costs nothing.

        Returns:
            The state, and means over the updates that reported each metric.
        """
        ...

    def act(
        self, state: State, observation: Float[Array, "*B O"], key: Key[Array, ""], evaluate: bool
    ) -> Float[Array, "*B A"]:
        """Returns actions in [-1, 1]: the policy's mode to evaluate it, else those that collect data."""
        ...
