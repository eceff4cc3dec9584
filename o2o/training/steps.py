"""What the two phases of training compute: functions of one member, compiled over all of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from o2o.replay.rows import Online, Replay, Rows, unpack
from o2o.training.metrics import metric_names, summed
from o2o.training.seeds import Members
from o2o.types import Algorithm, State, Transition, halves, update


class StepFunctions(NamedTuple):
    """The compiled parts of an online step, over members."""

    first_action: Callable[..., Any]
    collect: Callable[..., Any]
    sample: Callable[..., Any]
    policy_half: Callable[..., Any]
    critic_half: Callable[..., Any]


# Cached, so that runs of one process that differ only in their data or seed compile nothing anew.
@functools.cache
def step_functions(algorithm: Algorithm, replay: Replay, members: Members) -> StepFunctions:
    """The calls of finetuning."""
    names = metric_names(algorithm, replay)
    return StepFunctions(
        first_action=members.map(functools.partial(_first_action, algorithm)),
        collect=members.map(functools.partial(_collect, algorithm, replay), donated=(2,)),
        sample=members.map(functools.partial(_sample, replay), shared=(1,), donated=(0,)),
        policy_half=members.map(
            functools.partial(_policy_half, algorithm, names.policy), donated=(5,), static=(6,)
        ),
        critic_half=members.map(
            functools.partial(_critic_half, algorithm, names.critic), donated=(1, 4), static=(5,), beside=True
        ),
    )


@functools.cache
def offline_learner(algorithm: Algorithm, replay: Replay, members: Members) -> Callable[..., Any]:
    """The call of pretraining: many updates in one scan."""
    return members.map(
        functools.partial(_learn_offline, algorithm, replay), shared=(3, 5), donated=(0, 1, 2), static=(6, 7)
    )


def _learn_offline(
    algorithm: Algorithm,
    replay: Replay,
    state: State,
    policy_sums: Float[Array, " K"],
    critic_sums: Float[Array, " L"],
    offline: Rows,
    key: Key[Array, ""],
    start: Int[Array, ""],
    updates: int,
    phase: int,
) -> tuple[State, Float[Array, " K"], Float[Array, " L"]]:
    """So many updates from update `start` on, their metrics added to the sums; `phase` is that of the first."""
    names = metric_names(algorithm, replay)

    def one(carry: Any, step: Int[Array, ""], phase: int) -> Any:
        state, policy_sums, critic_sums = carry
        sample_key, update_key = jax.random.split(jax.random.fold_in(key, step))
        batch = unpack(replay.sample_offline(offline, sample_key), replay.observation_size)
        state, metrics = update(algorithm, state, batch, update_key, phase)
        of_policy = {name: value for name, value in metrics.items() if name in names.policy}
        return state, summed(policy_sums, of_policy, names.policy), summed(critic_sums, metrics, names.critic)

    def cycle(carry: Any, step: Int[Array, ""]) -> tuple[Any, None]:
        for i in range(algorithm.period):
            carry = one(carry, step + i, (phase + i) % algorithm.period)
        return carry, None

    cycles, rest = divmod(updates, algorithm.period)
    carry = state, policy_sums, critic_sums
    if cycles:
        carry, _ = jax.lax.scan(cycle, carry, start + algorithm.period * jnp.arange(cycles))
    for i in range(rest):
        carry = one(carry, start + cycles * algorithm.period + i, (phase + i) % algorithm.period)
    return carry


def _first_action(
    algorithm: Algorithm, state: State, observation: Float[Array, " O"], key: Key[Array, ""]
) -> tuple[Float[Array, " A"]]:
    return (algorithm.explore(state, observation, jax.random.fold_in(key, 0)),)


def _collect(
    algorithm: Algorithm,
    replay: Replay,
    actor: Any,
    critics: Any,
    online: Online,
    packet: Float[Array, " W+O"],
    key: Key[Array, ""],
) -> tuple[Online, Float[Array, " A"]]:
    """Adds the transition at the head of the packet and acts on the observation at its end."""
    online, observation, keys = _add(replay, online, packet, key)
    return online, algorithm.explore(State(actor, critics), observation, keys[2])


def _sample(
    replay: Replay, online: Online, offline: Rows, packet: Float[Array, " W+O"], key: Key[Array, ""]
) -> tuple[Online, Transition, Float[Array, " O"], Key[Array, " 3"]]:
    """Adds the transition at the head of the packet and samples a batch."""
    online, observation, keys = _add(replay, online, packet, key)
    return online, replay.sample(offline, online, keys[0]), observation, keys


def _policy_half(
    algorithm: Algorithm,
    names: Sequence[str],
    actor: Any,
    critics: Any,
    batch: Transition,
    observation: Float[Array, " O"],
    keys: Key[Array, " 3"],
    sums: Float[Array, " K"],
    phase: int,
) -> tuple[Any, Float[Array, " A"], Float[Array, " K"]]:
    update_policy, _ = halves(algorithm)
    new_actor, metrics = update_policy(State(actor, critics), batch, keys[1], phase)
    action = algorithm.explore(State(new_actor, critics), observation, keys[2])
    return new_actor, action, summed(sums, metrics, names)


def _critic_half(
    algorithm: Algorithm,
    names: Sequence[str],
    actor: Any,
    critics: Any,
    batch: Transition,
    keys: Key[Array, " 3"],
    sums: Float[Array, " K"],
    phase: int,
) -> tuple[Any, Float[Array, " K"]]:
    _, update_critic = halves(algorithm)
    critics, metrics = update_critic(State(actor, critics), batch, keys[1], phase)
    return critics, summed(sums, metrics, names)


def _add(
    replay: Replay, online: Online, packet: Float[Array, " W+O"], key: Key[Array, ""]
) -> tuple[Online, Float[Array, " O"], Key[Array, " 3"]]:
    """With the packet's transition added: the observation to act on, and the keys of this step."""
    width = online.rows.shape[-1]
    online = replay.add(online, packet[:width])
    return online, packet[width:], jax.random.split(jax.random.fold_in(key, online.added), 3)
