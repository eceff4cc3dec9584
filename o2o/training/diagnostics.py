"""Diagnostics of a finetuning run where it is evaluated, from which one sees why a policy collapsed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from o2o.replay.buffer import Online, Replay, Rows
from o2o.training.seeds import Bundle, Members
from o2o.types import Algorithm, Batch, State, Transition

PROBE_ROWS = 1024  # offline rows, the same throughout a run

METRICS = {
    "policy_distance": "mean L2 distance to the actions at the switch, on a fixed sample of offline states",
    "q_mean_offline": "mean Q on that sample, at its actions",
    "td_error_offline": "root mean squared TD error on that sample",
    "q_mean_fresh": "mean Q on the newest online transitions, a batch of them",
    "td_error_fresh": "root mean squared TD error on those",
}
"""The names and meanings of the diagnostics, which stand in `train.jsonl` with the algorithm's own metrics."""


class Diagnostics:
    """Computes the diagnostics of a job's members: on a fixed sample of offline rows, and on the newest online rows."""

    def __init__(
        self,
        algorithm: Algorithm,
        replay: Replay,
        members: Members,
        offline: Rows,
        keys: Sequence[Key[Array, ""]],
        state: Bundle,
    ):
        """Takes the sample, by a key a member, and keeps what `state`, the one at the switch, does on it."""
        self._members, self._fresh_rows = members, replay.batch_size
        functions = _functions(algorithm, replay, members)
        self._on_offline, self._on_fresh, self._first_step, self._actions = functions
        self._keys = members.bundle([jax.random.fold_in(key, 0) for key in keys])
        self._probes: Bundle | None = None
        if offline.shape[0]:
            choices = [jax.random.fold_in(key, 1) for key in keys]
            chosen = [jax.random.randint(key, (PROBE_ROWS,), 0, offline.shape[0]) for key in choices]
            self._probes = members.bundle([offline[rows] for rows in chosen])
            (self._first_actions,) = self._actions(state, self._probes)

    def at_switch(self, state: Bundle) -> list[dict[str, float]]:
        """Returns the diagnostics before the first env step, with the metrics of a first update on the fixed sample.

        The objective changes there, so these say how large the gradient is against Adam's moments, and how far the
        constraint is from holding.
        """
        if self._probes is None:
            return self._by_member([])
        parts = self._on_offline(state, self._probes, self._first_actions, self._keys)
        return self._by_member([*parts, *self._first_step(state, self._probes, self._keys)])

    def of(self, state: Bundle, online: Bundle, added: int) -> list[dict[str, float]]:
        """Returns each member's diagnostics after `added` env steps; those on fresh rows once there is a batch."""
        parts = []
        if self._probes is not None:
            parts += self._on_offline(state, self._probes, self._first_actions, self._keys)
        if added >= self._fresh_rows:
            parts += self._on_fresh(state, online, self._keys)
        return self._by_member(parts)

    def _by_member(self, parts: Sequence[Bundle]) -> list[dict[str, float]]:
        results: list[dict[str, float]] = [{} for _ in range(self._members.count)]
        for part in parts:
            for result, metrics in zip(results, self._members.values(part), strict=True):
                result |= {name: float(value) for name, value in metrics.items()}
        return results


@functools.lru_cache(maxsize=4)
def _functions(algorithm: Algorithm, replay: Replay, members: Members) -> tuple[Callable[..., Any], ...]:
    diagnose = getattr(algorithm, "diagnose", None)

    def act(state: State, probe: Rows) -> Float[Array, "N A"]:
        observation = replay.transitions(probe).observation
        return algorithm.act(state, observation, jax.random.key(0), evaluate=True)

    def learned(state: State, batch: Transition, key: Key[Array, ""], where: str) -> dict[str, Array]:
        found = diagnose(state, batch, key) if diagnose else {}
        return {f"{name}_{where}": value for name, value in found.items()}

    def on_offline(
        state: State, probe: Rows, first: Float[Array, "N A"], key: Key[Array, ""]
    ) -> tuple[dict[str, Array]]:
        distance = jnp.linalg.norm(act(state, probe) - first, axis=-1).mean()
        batch = replay.transitions(probe)
        return (learned(state, batch, key, "offline") | {"policy_distance": distance},)

    def on_fresh(state: State, online: Online, key: Key[Array, ""]) -> tuple[dict[str, Array]]:
        return (learned(state, replay.fresh(online), key, "fresh"),)

    def first_step(state: State, probe: Rows, key: Key[Array, ""]) -> tuple[dict[str, Array]]:
        data = replay.transitions(probe[None])
        shape = data.reward.shape
        batches = Batch(data, jnp.zeros(shape, jnp.int32), jnp.ones(shape, bool), jnp.ones(shape))
        return (algorithm.update(state, batches, key, (True,))[1],)

    def actions(state: State, probe: Rows) -> tuple[Float[Array, "N A"]]:
        return (act(state, probe),)

    return members.map(on_offline), members.map(on_fresh), members.map(first_step), members.map(actions)
