"""Blocks of online steps with the environments inside."""

from __future__ import annotations

import gc
import weakref

import jax
import jax.numpy as jnp
import pytest
from small import assert_equal, batch_of, fresh, make

from o2o.envs import kernels
from o2o.envs.mujoco_tasks import MujocoEnvironments
from o2o.envs.tasks import TASKS
from o2o.replay.buffer import Replay
from o2o.training import diagnostics, evaluation, loop
from o2o.training.seeds import Members
from o2o.training.steps import Learner, StepKind, offline_block, online_calls

REPLAY = Replay(batch_size=8, capacity=1000, min_size=8, observation_size=11, action_size=3)


@pytest.mark.parametrize("count", [1, 2])
def test_between_two_stops_more_episodes_may_end_than_a_block_keeps(count):
    steps = 2 * kernels.MOST_ENDED + 1
    members, algorithm = Members(count), make("td3")
    environments = [MujocoEnvironments(TASKS["hopper"], [seed]) for seed in range(count)]
    for own in environments:
        own._control[kernels.TIME_LIMIT] = 1
        own.can_step_inside("cpu")
    reports = loop.finetune(
        Learner(algorithm, REPLAY, warmup_steps=steps),
        members,
        environments,
        members.bundle([fresh(algorithm, seed, batch_of(1, 0, 11, 3)) for seed in range(count)]),
        jnp.zeros((0, REPLAY.row_width)),
        members.bundle([jax.random.key(seed) for seed in range(count)]),
        [7, steps],
    )
    told = [[(e.env_step, e.member, e.length) for e in report.episodes] for report in reports]
    assert told == [
        [(step, member, 1) for step in range(first, last + 1) for member in range(count)]
        for first, last in ((1, 7), (8, steps))
    ]
    for own in environments:
        own.close()


def test_blocks_are_whole_cycles_until_less_than_one_is_left():
    assert loop._block_shape(100, 2, 7) == (3, 2)
    assert loop._block_shape(5, 2, 7) == (2, 2)
    assert loop._block_shape(100, 2, 1) == (1, 1)
    assert loop._block_shape(100, 1, 7) == (7, 1)
    assert loop._block_shape(1, 2, 7) == (1, 1)


@pytest.mark.parametrize(("updates", "policy_moves", "cycle"), [(1, True, 2), (4, True, 1), (1, False, 1)])
def test_a_cycle_is_as_long_as_it_takes_until_the_same_is_due(updates, policy_moves, cycle):
    assert Learner(make("td3"), REPLAY).cycle(StepKind(updates, policy_moves)) == cycle


def test_pauses_do_not_change_what_blocks_compute(monkeypatch):
    """Learning begins at an odd step, a stop is odd, and blocks are shorter than what may wait for the ring."""
    monkeypatch.setattr(loop, "CHUNK", 6)
    algorithm, learner = make("td3"), Learner(make("td3"), REPLAY, warmup_steps=9)

    def finetuned(pause_at):
        environments = [MujocoEnvironments(TASKS["hopper"], [0])]
        assert environments[0].can_step_inside("cpu")
        state, offline = fresh(algorithm, 0, batch_of(1, 0, 11, 3)), jnp.zeros((0, REPLAY.row_width))
        options = {"updates_before": 3, "pause_at": pause_at}
        *_, last = loop.finetune(
            learner, Members(1), environments, [state], offline, [jax.random.key(0)], [33, 60], **options
        )
        environments[0].close()
        return last

    straight, paused = finetuned(loop.never), finetuned(lambda step: True)
    assert straight.updates == paused.updates == 51
    assert_equal(straight.state, paused.state)
    assert_equal(straight.online[0].ring, paused.online[0].ring)


@pytest.mark.parametrize(
    "compiled",
    [
        lambda algorithm: offline_block(Learner(algorithm, REPLAY), Members(1)),
        lambda algorithm: online_calls(Learner(algorithm, REPLAY), Members(1))[0],
        lambda algorithm: evaluation._calls(algorithm, Members(1))[0],
        lambda algorithm: diagnostics._functions(algorithm, REPLAY, Members(1))[0],
    ],
)
def test_a_process_of_many_settings_keeps_the_programs_of_a_few(compiled):
    made = [weakref.ref(compiled(make("td3", discount=number / 10))) for number in range(10)]
    assert compiled(make("td3", discount=0.9)) is made[-1]()
    gc.collect()
    assert sum(program() is not None for program in made) == 4
