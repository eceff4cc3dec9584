"""The two phases, as generators that know no algorithm, environment or file by name.

`pretrain` and `finetune` yield a `Report` at every step where they are asked to stop; whoever consumes them
evaluates, records and saves. What they compute is a function of the members' keys and the step, whatever
the stops are.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from o2o.envs import Environments
from o2o.members import Bundle, Members
from o2o.replay import Online, Replay, Rows, pack, unpack
from o2o.types import Algorithm, Metrics, State, Transition, update


@dataclass(frozen=True)
class Episode:
    """A finished training episode: whose, the env step that ended it, its undiscounted return and its length."""

    member: int
    env_step: int
    episode_return: float
    length: int


class Loop(NamedTuple):
    """What one member's online loop depends on besides its state and its online rows, as arrays of the host."""

    action: np.ndarray
    observation: np.ndarray
    episode_return: np.ndarray
    episode_length: np.ndarray
    environment: dict[str, np.ndarray]


@dataclass(frozen=True)
class Resumed:
    """Where a phase goes on: what a report held of every member, in the same order."""

    step: int
    updates: int
    online: list[Online] = field(default_factory=list)
    loops: list[Loop] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """Where a phase stands. Its arrays are used up when the generator goes on: copy what must outlive that."""

    step: int
    """Updates while pretraining, environment steps while finetuning."""
    updates: int
    state: Bundle
    metrics: list[dict[str, float]]
    """Each member's means since the last report."""
    online: Bundle = None
    episodes: list[Episode] = field(default_factory=list)
    """The training episodes that ended since the last report."""
    loops: list[Loop] = field(default_factory=list)
    """Where each member's online loop stands; empty where the environments cannot be saved."""


def example(replay: Replay) -> Transition:
    """A transition of zeros, for its shapes."""
    return unpack(replay.init(1).rows[0], replay.observation_size)


def empty_loops(environments: Environments) -> list[Loop]:
    """What the members' loops look like, for their shapes; none where the environments cannot be saved."""
    if not environments.can_be_saved:
        return []
    action = np.zeros(environments.action_size, np.float32)
    observation = np.zeros(environments.observation_size, np.float32)
    return [
        Loop(action, observation, np.zeros(()), np.zeros((), np.int64), snapshot)
        for snapshot in environments.snapshot()
    ]


def pretrain(
    algorithm: Algorithm,
    replay: Replay,
    members: Members,
    state: Bundle,
    offline: Rows,
    keys: Bundle,
    stops: Sequence[int],
    start: int = 0,
) -> Iterator[Report]:
    """Learns from `offline` alone and reports after every number of updates in `stops`. `state` is used up.

    A phase that was interrupted after `start` updates goes on from its state then.
    """
    learn = _offline_learner(algorithm, replay, members)
    for stop in (stop for stop in stops if stop > start):
        state, metrics = learn(state, offline, keys, np.int32(start), stop - start, start % algorithm.period)
        means = [{name: float(mean) for name, mean in m.items()} for m in members.values(metrics)]
        start = stop
        yield Report(step=stop, updates=stop, state=state, metrics=means)


def finetune(
    algorithm: Algorithm,
    replay: Replay,
    members: Members,
    environments: Environments,
    state: Bundle,
    offline: Rows,
    keys: Bundle,
    stops: Sequence[int],
    updates_before: int = 0,
    resumed: Resumed | None = None,
) -> Iterator[Report]:
    """Learns online, one update an environment step, and reports after every number of steps in `stops`.

    `environments` has one environment a member, `offline` may have no rows, and `updates_before` is the number of
    updates that `state` has had before this phase, which decides when delayed work is due. `state` is used up. A
    phase that was interrupted goes on from its state then and what `resumed` holds.

    An update takes two compiled calls. The first adds the newest transition, samples a batch, makes the policy step
    and picks the next action; the second makes the critic step on the same batch, and is computed while the
    environment takes that action: the host waits for the first alone. The result is that of one update after the
    other, since both halves read the old state.
    """
    step_functions = _step_functions(algorithm, replay, members)
    means = _RunningMeans(algorithm, replay, members)
    actor = members.rearrange(lambda s: s.actor, state)
    critics = members.rearrange(lambda s: s.critics, state)
    if resumed is None:
        start, updates = 0, 0
        online = members.bundle([replay.init(stops[-1]) for _ in range(members.count)])
        observation = environments.reset()
        (action,) = step_functions.first_action(state, members.bundle(list(observation)), keys)
        returns, lengths = np.zeros(members.count), np.zeros(members.count, np.int64)
    else:
        start, updates = resumed.step, resumed.updates
        online = members.bundle(resumed.online)
        action = members.bundle([jnp.asarray(loop.action) for loop in resumed.loops])
        observation = np.stack([loop.observation for loop in resumed.loops])
        returns = np.stack([loop.episode_return for loop in resumed.loops])
        lengths = np.stack([loop.episode_length for loop in resumed.loops])
        environments.restore([loop.environment for loop in resumed.loops])
    episodes: list[Episode] = []
    awaited = set(stops)
    for step in range(start + 1, stops[-1] + 1):
        taken = members.to_host(action)
        next_observation, reward, terminated, truncated = environments.step(taken)
        row = pack(observation, taken, reward, terminated, next_observation)
        returns += reward
        lengths += 1
        ended = np.flatnonzero(terminated | truncated)
        if len(ended):
            episodes += [Episode(int(i), step, float(returns[i]), int(lengths[i])) for i in ended]
            returns[ended] = lengths[ended] = 0
            next_observation[ended] = environments.reset(ended.tolist())
        observation = next_observation
        packet = members.bundle(list(np.concatenate([row, observation], axis=-1)))
        if replay.ready(offline.shape[0], step):
            phase = (updates_before + updates) % algorithm.period
            updates += 1
            old_actor = actor
            actor, online, batch, update_key, action, means.policy = step_functions.policy_half(
                actor, critics, online, offline, packet, keys, means.policy, phase
            )
            critics, means.critic = step_functions.critic_half(
                old_actor, critics, batch, update_key, means.critic, phase
            )
            means.count(phase)
        else:
            online, action = step_functions.collect(actor, critics, online, packet, keys)
        if step in awaited:
            state = members.rearrange(State, actor, critics)
            loops = []
            if environments.can_be_saved:
                taken_from = members.to_host(action), observation, returns, lengths, environments.snapshot()
                loops = [Loop(*map(_own, values)) for values in zip(*taken_from, strict=True)]
            yield Report(step, updates, state, means.take(), online, episodes, loops)
            episodes = []


class _StepFunctions(NamedTuple):
    """The compiled parts of an online step, over members."""

    first_action: Callable[..., Any]
    collect: Callable[..., Any]
    policy_half: Callable[..., Any]
    critic_half: Callable[..., Any]


# Cached, so that runs of one process that differ only in their data or seed compile nothing anew.
@functools.cache
def _step_functions(algorithm: Algorithm, replay: Replay, members: Members) -> _StepFunctions:
    names = _metric_names(algorithm, replay)
    return _StepFunctions(
        first_action=members.map(functools.partial(_first_action, algorithm)),
        collect=members.map(functools.partial(_collect, algorithm, replay), donated=(2,)),
        policy_half=members.map(
            functools.partial(_policy_half, algorithm, replay, names[0]),
            shared=(3,),
            donated=(2, 6),
            static=(7,),
        ),
        critic_half=members.map(
            functools.partial(_critic_half, algorithm, names[1]), donated=(1, 4), static=(5,)
        ),
    )


@functools.cache
def _offline_learner(algorithm: Algorithm, replay: Replay, members: Members) -> Callable[..., Any]:
    return members.map(
        functools.partial(_learn_offline, algorithm, replay), shared=(1, 3), donated=(0,), static=(4, 5)
    )


class _RunningMeans:
    """Sums of the metrics, kept on the device until they are asked for."""

    def __init__(self, algorithm: Algorithm, replay: Replay, members: Members):
        self._members = members
        self._reported = [_reported(algorithm, replay, phase) for phase in range(algorithm.period)]
        self._names = _metric_names(algorithm, replay)
        self._reset()

    def count(self, phase: int) -> None:
        """Counts the metrics of one more update of that phase."""
        self._counts.update(name for half in self._reported[phase] for name in half)

    def take(self) -> list[dict[str, float]]:
        """Each member's means since the last call."""
        sums = np.concatenate(
            [self._members.to_host(self.policy), self._members.to_host(self.critic)], axis=-1
        )
        names = [*self._names[0], *self._names[1]]
        means = [
            {
                name: float(total) / self._counts[name]
                for name, total in zip(names, row, strict=True)
                if self._counts[name]
            }
            for row in sums
        ]
        self._reset()
        return means

    def _reset(self) -> None:
        self._counts: Counter[str] = Counter()
        self.policy, self.critic = (
            self._members.bundle([jnp.zeros(len(names)) for _ in range(self._members.count)])
            for names in self._names
        )


def _own(value: Any) -> Any:
    """A copy of an array that the loop will write to."""
    return value if isinstance(value, dict) else np.array(value)


def _learn_offline(
    algorithm: Algorithm,
    replay: Replay,
    state: State,
    offline: Rows,
    key: Key[Array, ""],
    start: Int[Array, ""],
    updates: int,
    phase: int,
) -> tuple[State, Metrics]:
    """So many updates from update `start` on, and the means of their metrics; `phase` is that of the first."""

    def one(state: State, step: Int[Array, ""], phase: int) -> tuple[State, Metrics]:
        sample_key, update_key = jax.random.split(jax.random.fold_in(key, step))
        batch = unpack(replay.sample_offline(offline, sample_key), replay.observation_size)
        return update(algorithm, state, batch, update_key, phase)

    def cycle(state: State, step: Int[Array, ""]) -> tuple[State, list[Metrics]]:
        reported = []
        for i in range(algorithm.period):
            state, metrics = one(state, step + i, (phase + i) % algorithm.period)
            reported.append(metrics)
        return state, reported

    cycles, rest = divmod(updates, algorithm.period)
    state, in_cycles = jax.lax.scan(cycle, state, start + algorithm.period * jnp.arange(cycles))
    collected: dict[str, list[Array]] = {}
    for metrics in in_cycles if cycles else []:  # an empty scan's metrics are empty arrays
        for name, values in metrics.items():
            collected.setdefault(name, []).append(values)
    for i in range(rest):
        state, metrics = one(state, start + cycles * algorithm.period + i, (phase + i) % algorithm.period)
        for name, value in metrics.items():
            collected.setdefault(name, []).append(value[None])
    return state, {name: jnp.concatenate(values).mean() for name, values in collected.items()}


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


def _policy_half(
    algorithm: Algorithm,
    replay: Replay,
    names: Sequence[str],
    actor: Any,
    critics: Any,
    online: Online,
    offline: Rows,
    packet: Float[Array, " W+O"],
    key: Key[Array, ""],
    sums: Float[Array, " K"],
    phase: int,
) -> tuple[Any, Online, Transition, Key[Array, ""], Float[Array, " A"], Float[Array, " K"]]:
    online, observation, (sample_key, update_key, explore_key) = _add(replay, online, packet, key)
    batch = replay.sample(offline, online, sample_key)
    new_actor, metrics = algorithm.update_policy(State(actor, critics), batch, update_key, phase)
    action = algorithm.explore(State(new_actor, critics), observation, explore_key)
    return new_actor, online, batch, update_key, action, _summed(sums, metrics, names)


def _critic_half(
    algorithm: Algorithm,
    names: Sequence[str],
    actor: Any,
    critics: Any,
    batch: Transition,
    key: Key[Array, ""],
    sums: Float[Array, " K"],
    phase: int,
) -> tuple[Any, Float[Array, " K"]]:
    critics, metrics = algorithm.update_critic(State(actor, critics), batch, key, phase)
    return critics, _summed(sums, metrics, names)


def _add(
    replay: Replay, online: Online, packet: Float[Array, " W+O"], key: Key[Array, ""]
) -> tuple[Online, Float[Array, " O"], Key[Array, " 3"]]:
    """With the packet's transition added: the observation to act on, and the keys of this step."""
    width = online.rows.shape[-1]
    online = replay.add(online, packet[:width])
    return online, packet[width:], jax.random.split(jax.random.fold_in(key, online.added), 3)


def _summed(sums: Float[Array, " K"], metrics: Metrics, names: Sequence[str]) -> Float[Array, " K"]:
    return sums + jnp.stack([metrics.get(name, jnp.zeros(())) for name in names]) if metrics else sums


def _reported(algorithm: Algorithm, replay: Replay, phase: int) -> tuple[list[str], list[str]]:
    """The names of the metrics that the two halves report in an update of that phase."""
    key = jax.random.key(0)
    one = example(replay)
    state = jax.eval_shape(algorithm.init, key, one)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((replay.batch_size, *x.shape), x.dtype), one)
    halves = algorithm.update_policy, algorithm.update_critic
    metrics = [
        jax.eval_shape(lambda s, b, half=half: half(s, b, key, phase)[1], state, batch) for half in halves
    ]
    return sorted(metrics[0]), sorted(metrics[1])


def _metric_names(algorithm: Algorithm, replay: Replay) -> tuple[list[str], list[str]]:
    """The names of the metrics that the two halves report in any phase."""
    phases = [_reported(algorithm, replay, phase) for phase in range(algorithm.period)]
    return tuple(sorted({name for phase in phases for name in phase[half]}) for half in range(2))  # type: ignore[return-value]
