"""The words that every module shares: transitions, metrics, the algorithm protocol, and the letters of all shapes.

Letters in shape annotations: **B** batch, **M** members (seeds trained side by side), **N** rows of a
dataset, **O** observation, **A** action, **E** episodes, **U** updates, **W** width of a packed transition.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, Protocol

import jax
from flax import struct
from jaxtyping import Array, Bool, Float, Key

Metrics = dict[str, Any]  # name -> scalar array; the names are documented in records.py
Parameters = Any  # a plain tree of arrays, as flax.linen makes it


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


@struct.dataclass
class State:
    """Everything an algorithm learns: a tree of arrays and nothing else, in the parts that its two halves write.

    The next action depends on `actor` alone. What the parts hold belongs to the algorithm.
    """

    actor: Any
    critics: Any


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


class Algorithm(Protocol):
    """A frozen dataclass of hyperparameters with pure functions.

    The functions are written for one member, are free of side effects, and can be jitted, scanned and vmapped.
    An update is told its place in a cycle of `period` updates as a Python integer (`phase`: updates so far mod
    `period`), so that work that is due only every so often, such as TD3's delayed policy step, costs nothing when
    it is not due.

    The update has two halves, which both read the *old* state and write one part of it each. The online loop acts on
    the first half while the second is still being computed.
    """

    @property
    def period(self) -> int:
        """The number of updates after which the pattern of delayed work repeats."""
        ...

    def init(self, key: Key[Array, ""], example: Transition) -> State:
        """A fresh state for the observation and action sizes of `example` (one transition, no batch axis)."""
        ...

    def adopt(self, state: State, reset_optimizers: bool = False, reset_targets: bool = False) -> State:
        """This algorithm's state from one that an algorithm of its family pretrained.

        Raises:
            NotImplementedError: if that is not on offer.
        """
        ...

    def update_policy(
        self, state: State, batch: Transition, key: Key[Array, ""], phase: int
    ) -> tuple[Any, Metrics]:
        """The half that the next action depends on: the new `State.actor`."""
        ...

    def update_critic(
        self, state: State, batch: Transition, key: Key[Array, ""], phase: int
    ) -> tuple[Any, Metrics]:
        """The other half: the new `State.critics`."""
        ...

    def act(self, state: State, observation: Float[Array, "*B O"]) -> Float[Array, "*B A"]:
        """The action for evaluation, without noise."""
        ...

    def explore(
        self, state: State, observation: Float[Array, "*B O"], key: Key[Array, ""]
    ) -> Float[Array, "*B A"]:
        """The action for collecting data."""
        ...

    def value(
        self, state: State, observation: Float[Array, "*B O"], action: Float[Array, "*B A"]
    ) -> Float[Array, "*B"]:
        """Q(s, a), of the critic that the policy follows."""
        ...

    def diagnose(self, state: State, batch: Transition, key: Key[Array, ""]) -> Metrics:
        """What the critic says of a batch without learning from it: `q_mean` and the RMS `td_error`."""
        ...


@functools.cache
def halves(algorithm: Algorithm) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`update_policy` and `update_critic`, traced once for all programs that they are a part of."""
    policy, critic = (
        jax.jit(half, static_argnums=3, inline=True)
        for half in (algorithm.update_policy, algorithm.update_critic)
    )
    return policy, critic


def update(
    algorithm: Algorithm, state: State, batch: Transition, key: Key[Array, ""], phase: int
) -> tuple[State, Metrics]:
    """One update: both halves of it, from the same old state."""
    update_policy, update_critic = halves(algorithm)
    actor, policy_metrics = update_policy(state, batch, key, phase)
    critics, critic_metrics = update_critic(state, batch, key, phase)
    return State(actor, critics), policy_metrics | critic_metrics
