"""Evaluation against plain loops."""

from __future__ import annotations

import functools
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import batch_of, make, used

from o2o.envs.episodes import Record
from o2o.envs.mujoco_tasks import make_environments
from o2o.envs.tasks import TASKS
from o2o.training import evaluation
from o2o.training.evaluation import Evaluator, discounted_returns, episode_seeds, unearned_steps
from o2o.training.seeds import Members

DISCOUNT = 0.9


def test_the_seeds_of_more_episodes_begin_with_those_of_fewer():
    assert episode_seeds(3, 500, 100)[:10] == episode_seeds(3, 500, 10)


def test_every_run_step_and_episode_has_a_seed_of_its_own():
    seeds = [s for seed in range(3) for step in (0, 5, 10) for s in episode_seeds(seed, step, 10)]
    assert len(set(seeds)) == len(seeds)


def test_returns_are_discounted_from_each_step_on():
    reward = np.array([[1.0, 0.0], [2.0, 0.0], [4.0, 8.0]])
    np.testing.assert_allclose(discounted_returns(reward, 0.5), [[3.0, 2.0], [4.0, 4.0], [4.0, 8.0]])


class Timer:
    """Environments with a reward of one a step: the first half ends after 3 steps, the rest at the limit."""

    time_limit = unearned_steps(0.9, 1000) + 10

    def __init__(self, task: Any, seeds: list[int]):
        self.observation = np.zeros((len(seeds), 5), np.float32)
        self.first_half = np.arange(len(seeds)) < len(seeds) / 2

    def __len__(self) -> int:
        return len(self.observation)

    def can_step_inside(self, platform: str) -> bool:
        return False

    def begin(self, seeds: list[int]) -> np.ndarray:
        self.played = Record(
            np.zeros((self.time_limit, len(self))), np.zeros(len(self), int), ~self.first_half
        )
        return self.observation

    def play(self, action: np.ndarray) -> np.ndarray:
        self.played.reward[int(self.played.lengths.max()), self.live] = 1
        self.played.lengths[self.live] += 1
        return self.observation

    @property
    def live(self) -> np.ndarray:
        return self.played.lengths < np.where(self.first_half, 3, self.time_limit)

    def record(self) -> Record:
        return self.played

    def close(self) -> None:
        pass


class Pessimist:
    """Values everything at zero."""

    def act(self, state, observation, key, evaluate):
        return jnp.zeros((*observation.shape[:-1], 3))

    def value(self, state, observation, action):
        return jnp.zeros(observation.shape[:-1])


def test_overestimation_leaves_out_the_last_steps_of_episodes_that_the_time_limit_cut(monkeypatch):
    monkeypatch.setattr(evaluation, "make_environments", Timer)
    evaluator = Evaluator(Pessimist(), Members(1), TASKS["hopper"], episodes=2, discount=DISCOUNT)
    (found,) = evaluator.evaluate([jnp.zeros(())], [[1, 2]])
    assert found.returns.tolist() == [3, Timer.time_limit]
    terminated = [1 + 0.9 + 0.81, 1 + 0.9, 1]
    truncated = [(1 - DISCOUNT ** (Timer.time_limit - t)) / (1 - DISCOUNT) for t in range(10)]
    np.testing.assert_allclose(found.q_minus_return, -np.mean(terminated + truncated), rtol=1e-6)


ALGORITHM = make("td3")


@functools.cache
def state_of(member: int) -> Any:
    return used(ALGORITHM, member, batch_of(observation=11, action=3))


@functools.cache
def gymnasium_episode(member: int, seed: int) -> tuple[float, int, list[float]]:
    """Return, length and Q minus the discounted return at every step."""
    act = jax.jit(lambda state, observation: ALGORITHM.act(state, observation, jax.random.key(0), True))
    value, state = jax.jit(ALGORITHM.value), state_of(member)
    with pytest.warns(DeprecationWarning, match="out of date"):
        environment = gymnasium.make("Hopper-v4")
    observation, _ = environment.reset(seed=seed)
    rewards, values, ended = [], [], False
    while not ended:
        observation = jnp.asarray(observation[None], jnp.float32)
        action = act(state, observation)
        values.append(float(value(state, observation, action)[0]))
        observation, reward, terminated, truncated, _ = environment.step(np.asarray(action[0]))
        rewards.append(reward)
        ended = terminated or truncated
    assert terminated
    earned = discounted_returns(np.array(rewards)[:, None], DISCOUNT)[:, 0]
    return sum(rewards), len(rewards), list(np.array(values) - earned)


@pytest.mark.parametrize("kind", [Members, functools.partial(Members, together=True)])
def test_an_evaluation_is_gymnasiums_episodes_of_those_seeds_however_many(kind):
    members = kind(2)
    seeds = [episode_seeds(member, 0, 3) for member in range(2)]
    evaluator = Evaluator(ALGORITHM, members, TASKS["hopper"], episodes=2, discount=DISCOUNT)
    found = evaluator.evaluate(members.bundle([state_of(0), state_of(1)]), seeds)
    evaluator.close()
    for member in range(2):
        returns, lengths, _ = zip(*(gymnasium_episode(member, seed) for seed in seeds[member]), strict=True)
        np.testing.assert_allclose(found[member].returns, returns, rtol=1e-3)
        np.testing.assert_array_equal(found[member].lengths, lengths)


@pytest.fixture
def evaluator():
    evaluator = Evaluator(ALGORITHM, Members(1), TASKS["hopper"], episodes=2, discount=DISCOUNT)
    yield evaluator
    evaluator.close()


def test_overestimation_is_the_mean_over_all_visited_states(evaluator):
    (found,) = evaluator.evaluate([state_of(0)], [[5, 6]])
    differences = [d for seed in (5, 6) for d in gymnasium_episode(0, seed)[2]]
    np.testing.assert_allclose(found.q_minus_return, np.mean(differences), rtol=1e-3)


def test_an_evaluation_repeated_is_the_same_bit_for_bit(evaluator):
    one, other = (evaluator.evaluate([state_of(0)], [[5, 6]])[0] for _ in range(2))
    np.testing.assert_array_equal(one.returns, other.returns)
    assert one.q_minus_return == other.q_minus_return


def test_a_rollout_begins_where_its_seed_says():
    environments = make_environments(TASKS["hopper"], [1])
    environments.reseed([7])
    first = environments.reset()
    environments.reset()
    environments.reseed([7])
    np.testing.assert_array_equal(environments.reset(), first)
