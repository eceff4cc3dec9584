"""The words that every module shares: transitions, metrics, the algorithm protocol, and the letters of all shapes.

Letters in shape annotations: **B** batch, **M** members (seeds trained side by side), **N** rows of a dataset,
**O** observation, **A** action, **E** episodes, **U** updates, **W** width of a packed transition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, Protocol

from jaxtyping import Array, Bool, Float, Key

Metrics = dict[str, Any]  # name -> scalar array; the names are documented in records.py
State = Any  # a pytree of arrays and nothing else; its class belongs to the algorithm
Parameters = Mapping[str, Any]  # a plain tree of arrays, as flax.linen makes it


class Transition(NamedTuple):
    """One step, or a batch of them with a leading axis.

    `terminated` is true only where the task itself ended; a time limit is never a termination, so its successor is
    bootstrapped from.
    """

    observation: Float[Array, "*B O"]
    action: Float[Array, "*B A"]
    reward: Float[Array, "*B"]
    terminated: Bool[Array, "*B"]
    next_observation: Float[Array, "*B O"]


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


Positive = Range(above=0)
NonNegative = Range(at_least=0)
Fraction = Range(at_least=0, at_most=1)


@dataclass(frozen=True)
class LearningRate:
    """Adam's step sizes (paper, Table B1)."""

    policy: Annotated[float, Positive]
    critic: Annotated[float, Positive]


@dataclass(frozen=True)
class Network:
    """The shape of every policy and critic network (paper, Appendix B; networks.py)."""

    hidden_sizes: tuple[Annotated[int, Positive], ...]


class Algorithm(Protocol):
    """A frozen dataclass of hyperparameters with pure functions.

    The functions are written for one member and one device, are free of Python side effects, and can be jitted,
    scanned and vmapped. `update` takes the place of the update in a cycle of `period` updates as a Python integer
    (`phase = updates so far mod period`), so that work that is due only every so often, TD3's delayed policy step,
    costs nothing when it is not due, also under vmap.

    An algorithm that offers `update_policy` and `update_critic` gives its update in two halves: both read the *old*
    state and write disjoint parts of it, and `update` is their composition. The online loop then acts on the first
    half while the second is still being computed.
    """

    @property
    def period(self) -> int:
        """The number of updates after which the pattern of delayed work repeats."""
        ...

    def init(self, key: Key[Array, ""], example: Transition) -> State:
        """A fresh state for the observation and action sizes of `example` (one transition, no batch axis)."""
        ...

    def adopt(self, state: State) -> State:
        """This algorithm's state from one that another algorithm of its family pretrained."""
        ...

    def update(
        self, state: State, batch: Transition, key: Key[Array, ""], phase: int
    ) -> tuple[State, Metrics]:
        """One gradient step on every network that is due."""
        ...

    def act(self, state: State, observation: Float[Array, "*B O"]) -> Float[Array, "*B A"]:
        """The action for evaluation, without noise."""
        ...

    def explore(
        self, state: State, observation: Float[Array, "*B O"], key: Key[Array, ""]
    ) -> Float[Array, "*B A"]:
        """The action for collecting data."""
        ...
