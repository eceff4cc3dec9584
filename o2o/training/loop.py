"""The two phases, as generators that know no algorithm, environment or file by name.

`pretrain` and `finetune` yield a `Report` at every step where they are asked to stop; whoever consumes them
evaluates, records and saves. What they compute is a function of the members' keys and the step, whatever
the stops are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from o2o.envs.episodes import Episode
from o2o.envs.vector import Environments
from o2o.replay.rows import Online, Replay, Rows, pack
from o2o.training import steps
from o2o.training.metrics import Sums, Tally
from o2o.training.seeds import Bundle, Members
from o2o.types import Algorithm, State

CHUNK = 100
"""Updates of pretraining between two chances to pause: about half a second a member on two cores."""


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
    reported: bool
    """Whether that report was dealt with; the phase begins with it otherwise."""
    sums: list[Sums]
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
    """Each member's means since the last stop."""
    sums: list[Sums]
    """What they are means of."""
    is_stop: bool
    """Whether this is one of the stops that were asked for; else a pause, at which the metrics go on adding up."""
    online: Bundle = None
    episodes: list[Episode] = field(default_factory=list)
    """The training episodes that ended since the last report of either kind."""
    loops: list[Loop] = field(default_factory=list)
    """Where each member's online loop stands; empty where the environments cannot be saved."""


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


def never(step: int) -> bool:
    """No pause."""
    return False


def pretrain(
    algorithm: Algorithm,
    replay: Replay,
    members: Members,
    state: Bundle,
    offline: Rows,
    keys: Bundle,
    stops: Sequence[int],
    resumed: Resumed | None = None,
    pause_at: Callable[[int], bool] = never,
) -> Iterator[Report]:
    """Learns from `offline` alone and reports after every number of updates in `stops`. `state` is used up.

    It reports as well where `pause_at` wants it, which is asked every `CHUNK` updates. A phase that was interrupted
    goes on from its state then and what `resumed` holds.
    """
    learn = steps.offline_learner(algorithm, replay, members)
    tally = Tally(algorithm, replay, members, resumed.sums if resumed else ())

    def report(is_stop: bool) -> Report:
        sums = tally.of_members()
        return Report(step, step, state, tally.means(sums), sums, is_stop)

    step = resumed.step if resumed else 0
    if resumed and step in stops and not resumed.reported:
        yield report(is_stop=True)
        tally.reset()
    for stop in (stop for stop in stops if stop > step):
        while step < stop:
            count = min(CHUNK, stop - step)
            phase = step % algorithm.period
            state, tally.policy, tally.critic = learn(
                state, tally.policy, tally.critic, offline, keys, np.int32(step), count, phase
            )
            tally.count(phase, count)
            step += count
            if step < stop and pause_at(step):
                yield report(is_stop=False)
        yield report(is_stop=True)
        tally.reset()


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
    pause_at: Callable[[int], bool] = never,
) -> Iterator[Report]:
    """Learns online, one update an environment step, and reports after every number of steps in `stops`.

    `environments` has one environment a member, `offline` may have no rows, and `updates_before` is the number of
    updates that `state` has had before this phase, which decides when delayed work is due. `state` is used up. It
    reports as well where `pause_at` wants it, which is asked at every step. A phase that was interrupted goes on
    from its state then and what `resumed` holds.

    A step takes three compiled calls. A small one adds the newest transition and samples a batch; then one makes the
    policy step and picks the next action, and one makes the critic step on the same batch. Both read the old state, so
    the critic step is computed beside the policy step where there is a core for it, and goes on while the environment
    takes the action: the host waits for the policy step alone. The result is that of one update after the other.
    """
    functions = steps.step_functions(algorithm, replay, members)
    tally = Tally(algorithm, replay, members, resumed.sums if resumed else ())
    actor = members.rearrange(lambda s: s.actor, state)
    critics = members.rearrange(lambda s: s.critics, state)
    if resumed is None:
        step, updates = 0, 0
        online = members.bundle([replay.init(stops[-1]) for _ in range(members.count)])
        observation = environments.reset()
        (action,) = functions.first_action(state, members.bundle(list(observation)), keys)
        returns, lengths = np.zeros(members.count), np.zeros(members.count, np.int64)
    else:
        step, updates = resumed.step, resumed.updates
        online = members.bundle(resumed.online)
        action = members.bundle([jnp.asarray(loop.action) for loop in resumed.loops])
        observation = np.stack([loop.observation for loop in resumed.loops])
        returns = np.stack([loop.episode_return for loop in resumed.loops])
        lengths = np.stack([loop.episode_length for loop in resumed.loops])
        environments.restore([loop.environment for loop in resumed.loops])
    episodes: list[Episode] = []
    awaited = set(stops)

    def report(is_stop: bool) -> Report:
        sums = tally.of_members()
        loops = []
        if environments.can_be_saved:
            standing = members.to_host(action), observation, returns, lengths, environments.snapshot()
            loops = [Loop(*map(_own, values)) for values in zip(*standing, strict=True)]
        state = members.rearrange(State, actor, critics)
        return Report(step, updates, state, tally.means(sums), sums, is_stop, online, episodes, loops)

    if resumed and step in awaited and not resumed.reported:
        yield report(is_stop=True)
        tally.reset()
    while step < stops[-1]:
        step += 1
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
            online, batch, observed, step_keys = functions.sample(online, offline, packet, keys)
            old = actor, critics
            actor, action, tally.policy = functions.policy_half(
                *old, batch, observed, step_keys, tally.policy, phase
            )
            critics, tally.critic = functions.critic_half(*old, batch, step_keys, tally.critic, phase)
            tally.count(phase)
        else:
            online, action = functions.collect(actor, critics, online, packet, keys)
        is_stop = step in awaited
        if is_stop or pause_at(step):
            yield report(is_stop)
            episodes = []
            if is_stop:
                tally.reset()


def _own(value: Any) -> Any:
    """A copy of an array that the loop will write to."""
    return value if isinstance(value, dict) else np.array(value)
