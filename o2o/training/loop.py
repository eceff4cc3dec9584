"""The two phases, as generators that know no algorithm, environment or file by name.

`pretrain` and `finetune` yield a `Report` at every step where they are asked to stop; whoever consumes them
evaluates, records and saves. They compute a function of the members' keys and the step, whatever the stops are. Their
steps are in `o2o.training.steps`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from o2o.envs.episodes import Episode
from o2o.envs.vector import Environments
from o2o.replay.buffer import Rows
from o2o.training.reports import Report, Resumed, Sums
from o2o.training.seeds import Bundle, Members
from o2o.training.steps import Carry, Learner, no_sums, offline_block, online_calls

CHUNK = 100
"""Steps of a member between two chances to pause: about half a second on two cores."""


def never(step: int) -> bool:
    """Returns False: no pause."""
    return False


def pretrain(
    learner: Learner,
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
    learn = offline_block(learner, members)
    nothing = [no_sums(learner.algorithm)] * members.count
    sums = members.bundle(resumed.sums if resumed else nothing)

    def report(is_stop: bool) -> Report:
        of_members, means = _metrics(learner, members, sums)
        return Report(step, step, state, means, of_members, is_stop)

    step = resumed.step if resumed else 0
    if resumed and step in stops and not resumed.reported:
        yield report(is_stop=True)
        sums = members.bundle(nothing)
    for stop in (stop for stop in stops if stop > step):
        while step < stop:
            count = min(CHUNK, stop - step)
            place = step % learner.algorithm.period
            before = sums
            state, sums = learn(state, before, offline, keys, np.int32(step), count, place)
            step += count
            if step < stop:
                jax.block_until_ready(before)  # who is asked is to be at most a block ahead of what is done
                if pause_at(step):
                    yield report(is_stop=False)
        yield report(is_stop=True)
        sums = members.bundle(nothing)


def finetune(
    learner: Learner,
    members: Members,
    environments: Sequence[Environments],
    state: Bundle,
    offline: Rows,
    keys: Bundle,
    stops: Sequence[int],
    updates_before: int = 0,
    resumed: Resumed | None = None,
    pause_at: Callable[[int], bool] = never,
) -> Iterator[Report]:
    """Learns online and reports after every number of environment steps in `stops`.

    `environments` are those of each program (o2o/training/seeds.py), one a member, `offline` may have no rows, and
    `updates_before` is the number of updates that `state` has had before this phase, which decides when delayed work is
    due. `state` is used up. It reports as well where `pause_at` wants it, which is asked after every block of steps. A
    phase that was interrupted goes on from its state then and what `resumed` holds.
    """
    env_steps = stops[-1]
    inside = all(own.can_step_inside(jax.default_backend()) for own in environments)
    block, one_step, settle, first_action = online_calls(learner, members)
    stretches = learner.stretches(offline.shape[0], env_steps)
    nothing = [no_sums(learner.algorithm)] * members.count
    if resumed is None:
        step, updates = 0, 0
        (action,) = first_action(state, members.split(_start(environments)), keys)
        online = members.bundle([learner.replay.init(env_steps) for _ in range(members.count)])
        sums = members.bundle(nothing)
    else:
        step, updates = resumed.step, resumed.updates
        snapshots = members.groups(resumed.environments)
        for own, snapshot in zip(environments, snapshots, strict=True):
            own.restore(snapshot, env_steps=step)
        action = members.bundle([jnp.asarray(action) for action in resumed.actions])
        online = members.bundle(resumed.online)
        sums = members.bundle(resumed.sums)
    carry = list(map(Carry, state, online, action, sums))
    settled, room = step, carry[0].online.newest.shape[-2]  # rows to be added before they must be settled
    longest = max(1, min(room, CHUNK * members.lanes // members.count)) if inside else 1  # steps in a block
    episodes: list[Episode] = []

    def report(is_stop: bool) -> Report:
        of_members, means = _metrics(learner, members, [own.sums for own in carry])
        saved = all(own.can_be_saved for own in environments)
        return Report(
            step,
            updates,
            state=[own.state for own in carry],
            metrics=means,
            sums=of_members,
            is_stop=is_stop,
            online=[own.online for own in carry],
            episodes=episodes,
            actions=list(members.to_host([own.action for own in carry])),
            environments=[snapshot for own in environments for snapshot in own.snapshot()] if saved else [],
        )

    if resumed and step in stops and not resumed.reported:
        yield report(is_stop=True)
        carry = _replaced(carry, sums=members.bundle(nothing))
    for stop in (stop for stop in stops if stop > step):
        while step < stop:
            last, kind = next(stretch for stretch in stretches if step < stretch[0])
            place = learner.place(kind, updates_before + updates)
            if inside:
                cycles, unrolled = _block_shape(longest, learner.cycle(kind), min(stop, last) - step)
                handles = [own.handle for own in environments]
                (carry,) = block(carry, keys, handles, offline, np.int32(cycles), kind, place, unrolled)
                jax.block_until_ready([own.action for own in carry])
                count = cycles * unrolled
            else:
                actions = map(np.stack, members.groups(members.to_host([own.action for own in carry])))
                packets = [own.advance(taken) for own, taken in zip(environments, actions, strict=True)]
                packets = members.split(np.concatenate(packets))
                (carry,) = one_step(carry, packets, keys, offline, kind, place)
                count = 1
            episodes += _ended(environments)  # which keep no more than a block's
            step += count
            updates += count * kind.updates
            is_stop = step == stop
            paused = is_stop or pause_at(step)
            if paused or step + longest > settled + room:  # a block may not fit
                (settled_rows,) = settle([own.online for own in carry])
                carry = _replaced(carry, online=settled_rows)
                settled = step
            if paused:
                yield report(is_stop)
                episodes = []
        carry = _replaced(carry, sums=members.bundle(nothing))


def _block_shape(longest: int, cycle: int, left: int) -> tuple[int, int]:
    """Returns how often a block repeats its steps, and how many these are.

    They are a cycle where one fits into what is `left`, the steps up to a stop or to steps of another kind. So which
    program makes a step does not depend on interruptions.

    Args:
        longest: steps of a block, at most.
        cycle: steps after which the same updates are due again.
        left: steps to be made.
    """
    most = min(longest, left)
    return (most // cycle, cycle) if most >= cycle else (1, most)


def _replaced(carry: Sequence[Carry], **parts: Bundle) -> list[Carry]:
    """Returns each program's carry with these parts in place of its own."""
    programs = zip(carry, *parts.values(), strict=True)
    return [own._replace(**dict(zip(parts, values, strict=True))) for own, *values in programs]


def empty_snapshots(environments: Sequence[Environments]) -> list[dict[str, np.ndarray]]:
    """Returns each member's snapshot, for its shapes; none where the environments cannot be saved."""
    if not all(own.can_be_saved for own in environments):
        return []
    return [snapshot for own in environments for snapshot in own.snapshot()]


def _start(environments: Sequence[Environments]) -> Float[np.ndarray, "M O"]:
    return np.concatenate([own.start() for own in environments])


def _ended(environments: Sequence[Environments]) -> list[Episode]:
    """Returns the episodes that ended since the last time, the members numbered through."""
    episodes, before = [], 0
    for own in environments:
        episodes += [replace(episode, member=before + episode.member) for episode in own.ended()]
        before += len(own)
    return sorted(episodes, key=lambda episode: (episode.env_step, episode.member))


def _metrics(learner: Learner, members: Members, sums: Bundle) -> tuple[list[Sums], list[dict[str, float]]]:
    """Returns each member's sums and means; waits for them."""
    of_members = [Sums(*map(np.array, own)) for own in members.values(sums)]
    means = [
        {
            name: float(total) / int(count)
            for name, total, count in zip(learner.names, own.totals, own.counts, strict=True)
            if count
        }
        for own in of_members
    ]
    return of_members, means
