"""The bulk environments against gymnasium."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from o2o.envs import episodes
from o2o.envs.mujoco_tasks import make_environments
from o2o.envs.tasks import TASKS, find_task, own_time_limit, task_sizes
from o2o.envs.vector import Environments
from o2o.replay.buffer import pack


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


class Line(gymnasium.Env):
    """A point that goes where it is told and gets a reward of one, for ever."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = np.zeros(1, np.float32)
        return self.place, {}

    def step(self, action):
        self.place = self.place + action
        return self.place, 1.0, False, False, {}


class Doubled(gymnasium.ObservationWrapper):
    """The place twice."""

    def __init__(self, env):
        super().__init__(env)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def observation(self, observation):
        return np.repeat(observation, 2)


def wrapped():
    return Doubled(gymnasium.wrappers.TransformReward(Line(), lambda reward: 1000 * float(reward)))


def short():
    return gymnasium.wrappers.TimeLimit(Line(), 3)


@pytest.fixture
def register():
    """Registers an id for a test."""
    ids = []

    def register(name, entry_point, **settings):
        gymnasium.register(name, entry_point, **settings)
        ids.append(name)
        return find_task(name)

    yield register
    for name in ids:
        del gymnasium.registry[name]


def ends(task, steps=9):
    """At which of the steps it terminated, and at which it was truncated, with a reset after each."""
    ours = make_environments(task, [0])
    ours.reset()
    found = [], []
    for step in range(1, steps + 1):
        _, _, *flags = ours.step(np.zeros((1, 1), np.float32))
        for own, flag in zip(found, flags, strict=True):
            own += [step] if flag[0] else []
        if flags[0][0] or flags[1][0]:
            ours.reset([0])
    return found


def test_an_id_of_ones_own_keeps_the_wrappers_that_it_was_registered_with(register):
    task = register("Wrapped-v0", wrapped, max_episode_steps=50)
    ours = make_environments(task, [0, 1])
    assert ours.observation_size == 2
    assert ours.reset().tolist() == [[0, 0], [0, 0]]
    observation, reward, _, _ = ours.step(np.array([[0.5], [1.0]], np.float32))
    assert observation.tolist() == [[0.5, 0.5], [1, 1]]
    assert reward.tolist() == [1000, 1000]


@pytest.mark.parametrize(
    ("entry_point", "settings", "limit"),
    [
        (Line, {"max_episode_steps": 4}, 4),
        (short, {}, 3),
        (short, {"max_episode_steps": 4}, 3),
        (short, {"max_episode_steps": 2}, 2),
    ],
)
def test_time_limits_of_ones_own_truncate_once_and_never_terminate(register, entry_point, settings, limit):
    task = register("Limited-v0", entry_point, **settings)
    own_time_limit.cache_clear()
    assert make_environments(task, [0]).time_limit == own_time_limit(task) == limit
    assert ends(task) == ([], list(range(limit, 10, limit)))


class Cliff(Line):
    """Terminates beyond two, and breaks beyond five."""

    def step(self, action):
        observation, reward, *rest = super().step(action)
        if observation[0] > 5:
            raise ZeroDivisionError("over the cliff")
        return observation, reward, bool(observation[0] > 2), *rest[1:]


def test_training_packs_rows_starts_anew_and_notes_episodes(register):
    ours = make_environments(register("Cliff-v0", Cliff, max_episode_steps=4), [0, 1])
    assert ours.start().tolist() == [[0], [0]]
    observation = np.zeros((2, 1), np.float32)
    for step, speed in enumerate([0.75, 0.75, 0.75, 1.5, 0.5, 0.5, 0.5, 0.5], 1):
        action = np.array([[speed], [0.25]], np.float32)
        packet = ours.advance(action)
        following = observation + np.clip(action, -1, 1)
        terminated = following[:, 0] > 2
        row = pack(observation, action, np.ones(2, np.float32), terminated, following)
        observation = np.where(terminated[:, None] | (step % 4 == 0 and [[False], [True]]), 0, following)
        np.testing.assert_array_equal(packet, np.concatenate([row, observation], axis=1))
        np.testing.assert_array_equal(ours.observation, observation)
        if step == 5:
            assert ours.ended() == [episodes.Episode(0, 3, 3.0, 3), episodes.Episode(1, 4, 4.0, 4)]
    assert ours.ended() == [episodes.Episode(0, 7, 4.0, 4), episodes.Episode(1, 8, 4.0, 4)]
    assert ours.ended() == []
    assert ours.env_steps == 8
    ours.start()
    assert ours.env_steps == 0
    assert ours.elapsed.tolist() == [0, 0]


def test_evaluation_records_every_environment_to_its_end(register):
    ours = make_environments(register("Cliff-v0", Cliff, max_episode_steps=4), [0, 1, 2])
    speeds = np.array([[0.25], [0.75], [0.625]], np.float32)
    for _ in range(2):
        assert ours.begin([5, 6, 7]).tolist() == [[0], [0], [0]]
        played = [ours.play(speeds) for _ in range(5)]
        assert [o[:, 0].tolist() for o in played[2:]] == [[0.75, 2.25, 1.875]] + 2 * [[1.0, 2.25, 2.5]]
        assert not ours.live.any()
        record = ours.record()
        assert record.reward.tolist() == 3 * [[1, 1, 1]] + [[1, 0, 1]]
        assert record.lengths.tolist() == [4, 3, 4]
        assert record.truncated.tolist() == [True, False, False]  # the third terminates at the limit


def test_what_ones_own_environment_raises_is_raised(register):
    ours = make_environments(register("Cliff-v0", Cliff), [0, 1])
    ours.start()
    ours.begin([0, 1])
    for call in (ours.advance, ours.play):
        ours._envs[1].unwrapped.place[:] = 6
        with pytest.raises(ZeroDivisionError, match="over the cliff"):
            call(np.ones((2, 1), np.float32))
    assert not ours.can_be_saved
    assert not ours.can_step_inside("cpu")
    for refused in (ours.snapshot, lambda: ours.restore([]), lambda: ours.handle):
        with pytest.raises(NotImplementedError, match="Cliff-v0"):
            refused()


def test_an_id_without_a_time_limit_gets_one_and_it_is_said(register):
    task = register("Endless-v0", Line)
    own_time_limit.cache_clear()
    assert own_time_limit(task) is None
    assert make_environments(task, [0]).time_limit == 1000
    (said,) = episodes.remarks(task.name, None, 0.99)
    assert said.startswith("Endless-v0 has no time limit: an episode is cut after 1000 steps")


def test_the_four_tasks_have_the_limit_that_a_plan_takes_them_to_have():
    assert {own_time_limit(task) for task in TASKS.values()} == {episodes.DEFAULT_TIME_LIMIT}


@pytest.mark.parametrize(
    ("limit", "discount", "is_said"),
    [
        (300, 0.99, False),
        (299, 0.99, True),
        (200, 0.9, False),
        (1000, 0.999, True),
        (1000, 1.0, True),
        (5, 0.0, False),
    ],
)
def test_where_no_return_is_long_enough_to_compare_q_with_it_is_said(limit, discount, is_said):
    said = episodes.remarks("mine", limit, discount)
    assert [f"cuts the others after {limit} steps" in line for line in said] == [True] * is_said


@pytest.mark.parametrize("name", ["CartPole-v1", "NoSuchTask-v0", "walker3d"])
def test_other_tasks_are_refused_by_name(name):
    with pytest.raises(LookupError, match=name):
        find_task(name)


def test_an_id_without_a_version_is_refused_with_the_version():
    with pytest.raises(LookupError, match=r"say Pendulum-v1$"):
        find_task("Pendulum")
    with pytest.raises(LookupError, match=r"or walker2d, D4RL's$"):
        find_task("Walker2d")


def test_an_id_of_gymnasium_whose_version_is_not_the_newest_is_taken_without_a_word(recwarn):
    assert find_task("Hopper-v4").gymnasium_id == "Hopper-v4"
    assert task_sizes.__wrapped__(find_task("Hopper-v4")) == (11, 3)
    assert list(recwarn) == []


def test_environments_that_can_be_drawn_are_the_same_bit_for_bit():
    drawn, plain = Environments(TASKS["hopper"], [3], "rgb_array"), make_environments(TASKS["hopper"], [3])
    found = []
    for environments in (drawn, plain):
        actions = np.random.default_rng(0).uniform(-1, 1, (30, 1, 3)).astype(np.float32)
        observations = [environments.begin([3]), *map(environments.play, actions)]
        found.append((np.stack(observations), environments.record().reward))
        environments.close()
    assert drawn.steps_per_second == 125
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
