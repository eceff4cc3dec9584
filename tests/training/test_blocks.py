"""Blocks of online steps with the environments inside."""

from __future__ import annotations

import gc
import weakref

import jax
import jax.numpy as jnp
import pytest
from small import batch_of, fresh, make

from o2o.envs import kernels
from o2o.envs.mujoco_tasks import MujocoEnvironments
from o2o.envs.tasks import TASKS
from o2o.replay.buffer import Replay
from o2o.training import diagnostics, evaluation, loop
from o2o.training.loop import Learner
from o2o.training.seeds import Members

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


@pytest.mark.parametrize(
    "compiled",
    [
        lambda algorithm: loop._offline_block(Learner(algorithm, REPLAY), Members(1)),
        lambda algorithm: loop._online_calls(Learner(algorithm, REPLAY), Members(1))[0],
        lambda algorithm: evaluation._calls(algorithm, Members(1))[0],
        lambda algorithm: diagnostics._functions(algorithm, REPLAY, Members(1))[0],
    ],
)
def test_a_process_of_many_settings_keeps_the_programs_of_a_few(compiled):
    made = [weakref.ref(compiled(make("td3", discount=number / 10))) for number in range(10)]
    assert compiled(make("td3", discount=0.9)) is made[-1]()
    gc.collect()
    assert sum(program() is not None for program in made) == 4
