"""The learner and its steps, each written once and compiled for many of them.

Pretraining's step is sample → update. Finetuning's is add the newest row → sample → update → act; the environments then
take the action and return a *packet*, which is the packed transition and the observation to act on next. They are
stepped inside the compiled program where they can be (o2o/envs), by the host between two calls where they cannot.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from o2o.envs.inside import advance_inside
from o2o.replay.buffer import Online, Replay, Rows
from o2o.training.reports import Sums
from o2o.training.seeds import Members
from o2o.types import Algorithm, Batch, Metrics, State


class StepKind(NamedTuple):
    """Whether env steps learn, and what."""

    updates: int
    """Updates in each of them."""
    policy_moves: bool
    """Whether what is delayed, such as TD3's policy step, is ever due."""


@dataclass(frozen=True)
class Learner:
    """The algorithm, the replay that it learns from, and how often it does."""

    algorithm: Algorithm
    replay: Replay
    updates_per_step: int = 1
    """Updates in each env step that learns."""
    warmup_steps: int = 0
    """First env steps that do not learn, whatever the replay holds."""
    random_steps: int = 0
    """First env steps whose actions are uniform in [-1, 1]."""
    critic_only_steps: int = 0
    """First env steps in which the policy stands, whatever the critics learn."""
    first_updates_multiplier: int = 1
    """By how much there are more updates in the first steps that learn."""
    first_updates_steps: int = 1
    """How many steps these are."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all metrics, in the order of their sums."""
        return tuple(sorted(self.algorithm.metrics))

    def first_learning_step(self, offline_rows: int, env_steps: int) -> int:
        """Returns the first env step with an update; one beyond `env_steps` if there is none."""
        candidates = range(1 + self.warmup_steps, env_steps + 1)
        return next((step for step in candidates if self.replay.ready(offline_rows, step)), env_steps + 1)

    def stretches(self, offline_rows: int, env_steps: int) -> list[tuple[int, StepKind]]:
        """Returns the stretches of a phase of `env_steps`, one after the other: the last env step, and their kind."""
        first = self.first_learning_step(offline_rows, env_steps)
        burst = first - 1 + self.first_updates_steps if self.first_updates_multiplier > 1 else 0
        ends = {first - 1, burst, self.critic_only_steps, env_steps}
        return [
            (end, self._kind(end, first, burst))
            for end in sorted(end for end in ends if 0 < end <= env_steps)
        ]

    def cycle(self, kind: StepKind) -> int:
        """Returns the number of env steps after which the same updates are due again."""
        period = self.algorithm.period
        return period // math.gcd(period, kind.updates) if kind.policy_moves else 1

    def place(self, kind: StepKind, updates: int) -> int:
        """Returns a step's place in the algorithm's period, after so many updates; 0 where nothing depends on it."""
        return updates % self.algorithm.period if kind.policy_moves else 0

    def _kind(self, step: int, first_learning: int, last_of_burst: int) -> StepKind:
        if step < first_learning:
            return StepKind(0, policy_moves=False)
        multiplier = self.first_updates_multiplier if step <= last_of_burst else 1
        return StepKind(multiplier * self.updates_per_step, policy_moves=step > self.critic_only_steps)


class Carry(NamedTuple):
    """All that one member's online step reads and writes on the device."""

    state: State
    online: Online
    action: Float[Array, " A"]
    sums: Sums


def no_sums(algorithm: Algorithm) -> Sums:
    """Returns one member's sums before the first update."""
    return Sums(np.zeros(len(algorithm.metrics), np.float32), np.zeros(len(algorithm.metrics), np.int32))


# Cached, so that runs of one process that differ only in their data or seed compile nothing anew; a few, since the
# programs of even a small run take over a hundred MiB.
@functools.lru_cache(maxsize=4)
def offline_block(learner: Learner, members: Members) -> Callable[..., Any]:
    """Returns the call of pretraining: many updates in one scan."""
    learn = functools.partial(_learn_offline, learner)
    return members.map(learn, shared=(2, 4), donated=(0,), static=(5, 6))


@functools.lru_cache(maxsize=4)
def online_calls(learner: Learner, members: Members) -> tuple[Callable[..., Any], ...]:
    """Returns the calls of finetuning: a block of steps, one step, settling the replay, and the first action."""
    return (
        members.programs(
            functools.partial(_online_block, learner, members), shared=(3, 4), donated=(0,), static=(5, 6, 7)
        ),
        members.programs(
            functools.partial(_online_step, learner, members), shared=(3,), donated=(0,), static=(4, 5)
        ),
        members.map(lambda online: (learner.replay.settle(online),), donated=(0,)),
        members.map(functools.partial(_first_action, learner)),
    )


def _learn_offline(
    learner: Learner,
    state: State,
    sums: Sums,
    offline: Rows,
    key: Key[Array, ""],
    start: Int[Array, ""],
    updates: int,
    place: int,
) -> tuple[State, Sums]:
    """Returns the state after so many more updates, and the sums with their metrics.

    `start` is the number of updates before them, `place` its place in the algorithm's period.
    """
    period = learner.algorithm.period

    def one(carry: tuple[State, Sums], step: Int[Array, ""], place: int) -> tuple[State, Sums]:
        state, sums = carry
        sample_key, update_key = jax.random.split(jax.random.fold_in(key, step))
        batches = _with_updates_axis(learner.replay.sample_offline(offline, sample_key))
        state, metrics = learner.algorithm.update(state, batches, update_key, (place % period == 0,))
        return state, _summed(learner, sums, metrics)

    def cycle(carry: Any, step: Int[Array, ""]) -> tuple[Any, None]:
        for i in range(period):
            carry = one(carry, step + i, place + i)
        return carry, None

    cycles, rest = divmod(updates, period)
    carry = state, sums
    if cycles:
        carry, _ = jax.lax.scan(cycle, carry, start + period * jnp.arange(cycles))
    for i in range(rest):
        carry = one(carry, start + cycles * period + i, place + i)
    return carry


def _online_block(
    learner: Learner,
    members: Members,
    carry: Carry,
    keys: Key[Array, ...],
    handle: Any,
    offline: Rows,
    cycles: Int[Array, ""],
    kind: StepKind,
    place: int,
    unrolled: int,
) -> tuple[Carry]:
    """Returns the carry after `cycles` times `unrolled` env steps with the environments inside.

    `cycles` is an operand: one program serves blocks of any length. What is due is known when it is compiled: a branch
    chosen in the loop would copy the whole state.
    """
    size, ring = learner.replay.observation_size, carry.online.ring

    def cycle(_: Array, carry: Carry) -> Carry:
        for i in range(unrolled):
            action = carry.action if members.together else carry.action[None]
            packet = advance_inside(handle, action, size)
            packet = packet if members.together else packet[0]
            before = place + i * kind.updates
            carry = _step(learner, members, carry, ring, packet, keys, offline, kind, before)
        return carry

    return (_with_ring(jax.lax.fori_loop(0, cycles, cycle, _without_ring(carry)), ring),)


def _online_step(
    learner: Learner,
    members: Members,
    carry: Carry,
    packet: Float[Array, ...],
    keys: Key[Array, ...],
    offline: Rows,
    kind: StepKind,
    place: int,
) -> tuple[Carry]:
    """Returns the carry after the rest of an env step, for which the environments were stepped before."""
    ring = carry.online.ring
    carry = _step(learner, members, _without_ring(carry), ring, packet, keys, offline, kind, place)
    return (_with_ring(carry, ring),)


def _step(
    learner: Learner,
    members: Members,
    carry: Carry,
    ring: Rows,
    packet: Float[Array, ...],
    keys: Key[Array, ...],
    offline: Rows,
    kind: StepKind,
    place: int,
) -> Carry:
    """Returns the carry of a program's members after an env step whose packet the environments gave.

    `place` is the number of updates before it, up to whole periods.
    """
    if not kind.updates:
        return members.across(functools.partial(_collect, learner))(carry, packet, keys)
    period = learner.algorithm.period
    due = tuple(kind.policy_moves and (place + i) % period == 0 for i in range(kind.updates))
    learn = members.across(functools.partial(_learn, learner, due), shared=(4,))
    return learn(carry, ring, packet, keys, offline)


# The ring stays outside of what a step returns: XLA would copy it where a branch hands it on.
def _without_ring(carry: Carry) -> Carry:
    return carry._replace(online=replace(carry.online, ring=None))


def _with_ring(carry: Carry, ring: Rows) -> Carry:
    return carry._replace(online=replace(carry.online, ring=ring))


def _first_action(
    learner: Learner, state: State, observation: Float[Array, " O"], key: Key[Array, ""]
) -> tuple[Float[Array, " A"]]:
    return (_act(learner, state, observation, jax.random.fold_in(key, 0), 0),)


def _act(
    learner: Learner,
    state: State,
    observation: Float[Array, " O"],
    key: Key[Array, ""],
    env_steps: Int[Array, ""] | int,
) -> Float[Array, " A"]:
    """Returns the action that follows so many env steps."""
    action = learner.algorithm.act(state, observation, key, evaluate=False)
    if not learner.random_steps:
        return action
    uniform = jax.random.uniform(key, action.shape, action.dtype, -1, 1)
    return jnp.where(env_steps < learner.random_steps, uniform, action)


def _collect(learner: Learner, carry: Carry, packet: Float[Array, " W+O"], key: Key[Array, ""]) -> Carry:
    """Returns one member's carry after a step without updates: add → act."""
    online, observation, (_, _, act_key) = _add(learner, carry.online, packet, key)
    action = _act(learner, carry.state, observation, act_key, online.added)
    return carry._replace(online=online, action=action)


def _learn(
    learner: Learner,
    due: tuple[bool, ...],
    carry: Carry,
    ring: Rows,
    packet: Float[Array, " W+O"],
    key: Key[Array, ""],
    offline: Rows,
) -> Carry:
    """Returns one member's carry after a step with an update for each of `due`: add → sample → update → act."""
    online, observation, (sample_key, update_key, act_key) = _add(learner, carry.online, packet, key)
    held = replace(online, ring=ring)
    if len(due) == 1:
        batches = _with_updates_axis(learner.replay.sample(offline, held, sample_key))
    else:
        sample_keys = jax.random.split(sample_key, len(due))
        batches = jax.vmap(learner.replay.sample, in_axes=(None, None, 0))(offline, held, sample_keys)
    state, metrics = learner.algorithm.update(carry.state, batches, update_key, due)
    action = _act(learner, state, observation, act_key, online.added)
    return Carry(state, online, action, _summed(learner, carry.sums, metrics))


def _add(
    learner: Learner, online: Online, packet: Float[Array, " W+O"], key: Key[Array, ""]
) -> tuple[Online, Float[Array, " O"], Key[Array, " 3"]]:
    """Returns the online rows with the packet's transition, the observation to act on, and the step's three keys."""
    width = learner.replay.row_width
    online = learner.replay.add(online, packet[:width])
    return online, packet[width:], jax.random.split(jax.random.fold_in(key, online.added), 3)


def _with_updates_axis(batch: Batch) -> Batch:
    return jax.tree.map(lambda column: column[None], batch)


def _summed(learner: Learner, sums: Sums, metrics: Metrics) -> Sums:
    """Returns the sums with the metrics that one step reports."""
    if not metrics:
        return sums
    reported = np.array([name in metrics for name in learner.names], np.int32)
    values = jnp.stack([jnp.asarray(metrics.get(name, 0.0), jnp.float32) for name in learner.names])
    return Sums(sums.totals + values, sums.counts + reported)
