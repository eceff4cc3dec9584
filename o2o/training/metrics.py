"""Sums of the metrics between two reports, kept on the device until they are asked for.

They go into a checkpoint with the rest, so that a phase can be interrupted between two reports.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from o2o.replay.rows import Replay
from o2o.training.seeds import Members
from o2o.types import Algorithm, Metrics, halves


class Sums(NamedTuple):
    """What one member's metrics add up to since the last report, and of how many updates each; K names."""

    sums: np.ndarray
    counts: np.ndarray


class Names(NamedTuple):
    """The names of the metrics that the two halves of an update report, in any phase of the cycle."""

    policy: tuple[str, ...]
    critic: tuple[str, ...]


@functools.cache
def reported(algorithm: Algorithm, replay: Replay, phase: int) -> Names:
    """The names of the metrics that the two halves report in an update of that phase."""
    key, one = jax.random.key(0), replay.example()
    state = jax.eval_shape(algorithm.init, key, one)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((replay.batch_size, *x.shape), x.dtype), one)
    metrics = [
        jax.eval_shape(lambda s, b, k, half=half: half(s, b, k, phase)[1], state, batch, key)
        for half in halves(algorithm)
    ]
    return Names(tuple(sorted(metrics[0])), tuple(sorted(metrics[1])))


@functools.cache
def metric_names(algorithm: Algorithm, replay: Replay) -> Names:
    """The names of all metrics that the two halves ever report."""
    phases = [reported(algorithm, replay, phase) for phase in range(algorithm.period)]
    policy, critic = (tuple(sorted({name for names in phases for name in names[half]})) for half in range(2))
    return Names(policy, critic)


def no_sums(algorithm: Algorithm, replay: Replay) -> Sums:
    """Nothing added up yet, for one member."""
    size = sum(map(len, metric_names(algorithm, replay)))
    return Sums(np.zeros(size, np.float32), np.zeros(size, np.int64))


def summed(sums: Float[Array, " K"], metrics: Metrics, names: Sequence[str]) -> Float[Array, " K"]:
    """The sums with one update's metrics, 0 for those that it does not report."""
    return sums + jnp.stack([metrics.get(name, jnp.zeros(())) for name in names]) if metrics else sums


class Tally:
    """The members' running sums: `policy` and `critic` are bundles of arrays on the device, written by the loops."""

    def __init__(self, algorithm: Algorithm, replay: Replay, members: Members, start: Sequence[Sums] = ()):
        """Goes on from `start`, one a member, or from nothing."""
        self._members = members
        self._reported = [
            [name for half in reported(algorithm, replay, phase) for name in half]
            for phase in range(algorithm.period)
        ]
        names = metric_names(algorithm, replay)
        self._split, self._names = len(names.policy), [*names.policy, *names.critic]
        self._nothing = no_sums(algorithm, replay)
        self._set(list(start) or [self._nothing] * members.count)

    def count(self, first_phase: int, updates: int = 1) -> None:
        """Counts the metrics of so many more updates, the first of them of that phase."""
        period = len(self._reported)
        for i in range(min(period, updates)):
            share = len(range(i, updates, period))
            for name in self._reported[(first_phase + i) % period]:
                self._counts[name] += share

    def of_members(self) -> list[Sums]:
        """What each member's metrics add up to; waits for it."""
        rows = np.concatenate(
            [self._members.to_host(self.policy), self._members.to_host(self.critic)], axis=-1
        )
        counts = np.array([self._counts[name] for name in self._names], np.int64)
        return [Sums(row, counts) for row in rows]

    def means(self, sums: Sequence[Sums]) -> list[dict[str, float]]:
        """Each member's means of what was reported at all."""
        return [
            {
                name: float(total) / int(count)
                for name, total, count in zip(self._names, *own, strict=True)
                if count
            }
            for own in sums
        ]

    def reset(self) -> None:
        """Begins again from nothing."""
        self._set([self._nothing] * self._members.count)

    def _set(self, start: Sequence[Sums]) -> None:
        self._counts = dict(zip(self._names, start[0].counts.tolist(), strict=True))
        self.policy = self._members.bundle([jnp.asarray(own.sums[: self._split]) for own in start])
        self.critic = self._members.bundle([jnp.asarray(own.sums[self._split :]) for own in start])
