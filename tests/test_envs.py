"""The bulk environments against gymnasium."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from o2o.envs import TASKS, find_task, make_environments


@pytest.mark.parametrize("name", TASKS)
def test_observations_rewards_and_terminations_equal_gymnasium_bit_for_bit(name):
    count, steps = 3, 120
    task = TASKS[name]
    ours = make_environments(task, seeds=range(10, 10 + count))
    with pytest.warns(DeprecationWarning, match="out of date"):
        theirs = [gymnasium.make(task.gymnasium_id) for _ in range(count)]
    generator = np.random.default_rng(0)
    observation = ours.reset()
    expected = np.stack([env.reset(seed=10 + i)[0] for i, env in enumerate(theirs)]).astype(np.float32)
    size = expected.shape[1]
    np.testing.assert_array_equal(observation[:, :size], expected)
    ended = 0
    for _ in range(steps):
        actions = generator.uniform(-1.2, 1.2, (count, ours.action_size)).astype(np.float32)
        observation, reward, terminated, truncated = ours.step(actions)
        for i, env in enumerate(theirs):
            o, r, t, _, _ = env.step(np.clip(actions[i], -1, 1))
            np.testing.assert_array_equal(observation[i, :size], o.astype(np.float32))
            assert (observation[i, size:] == 0).all()
            assert reward[i] == np.float32(r)
            assert terminated[i] == t
            assert not truncated[i]
            if t:
                ended += 1
                np.testing.assert_array_equal(ours.reset([i])[0, :size], env.reset()[0].astype(np.float32))
    assert ended > 0 or name in ("halfcheetah", "ant")


def test_the_time_limit_truncates_and_does_not_terminate():
    ours = make_environments(TASKS["halfcheetah"], seeds=[0])
    ours.reset()
    flags = [ours.step(np.zeros((1, 6)))[2:] for _ in range(1000)]
    assert not any(terminated[0] for terminated, _ in flags)
    assert [i for i, (_, truncated) in enumerate(flags) if truncated[0]] == [999]


def test_a_subset_of_members_steps_alone():
    ours = make_environments(TASKS["hopper"], seeds=[0, 1, 2])
    ours.reset()
    before = ours.qpos
    ours.step(np.zeros((1, 3)), members=[1])
    changed = (ours.qpos != before).any(axis=1)
    assert changed.tolist() == [False, True, False]
    assert ours.elapsed.tolist() == [0, 1, 0]


def test_ant_is_padded_to_111_with_zeros():
    ours = make_environments(TASKS["ant"], seeds=[0])
    observation = ours.reset()
    assert observation.shape == (1, 111)
    assert (observation[:, 27:] == 0).all()


def test_any_gymnasium_id_of_boxes_is_a_task():
    ours = make_environments(find_task("Pendulum-v1"), seeds=[0, 1])
    ours.reset()
    observation, reward, terminated, truncated = ours.step(np.ones((2, 1), np.float32))
    assert observation.shape == (2, 3)
    assert reward.dtype == np.float32
    assert ours.time_limit == 200
    reference = gymnasium.make("Pendulum-v1")
    reference.reset(seed=0)
    expected = reference.step(np.array([2.0], np.float32))  # 1 of [-1, 1] is 2 of Pendulum's [-2, 2]
    np.testing.assert_array_equal(observation[0], expected[0].astype(np.float32))


@pytest.mark.parametrize("name", ["CartPole-v1", "NoSuchTask-v0", "walker3d"])
def test_other_tasks_are_refused_by_name(name):
    with pytest.raises(LookupError, match=name):
        find_task(name)


def test_an_id_without_a_version_is_refused_with_the_version():
    with pytest.raises(LookupError, match=r"say Pendulum-v1$"):
        find_task("Pendulum")
    with pytest.raises(LookupError, match=r"or walker2d, D4RL's$"):
        find_task("Walker2d")
