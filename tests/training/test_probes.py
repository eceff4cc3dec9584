"""Tiny decision problems whose values are known: what is learned must come to them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import NO_FACTS, make

from o2o.replay.buffer import Replay, pack
from o2o.training import loop
from o2o.training.seeds import Members
from o2o.training.steps import Learner
from o2o.types import LearningRate, Network, State

pytestmark = pytest.mark.slow

ONE = Members(1)
REPLAY = Replay(batch_size=64, capacity=1000, min_size=64, observation_size=1, action_size=1)
FAST = {
    "learning_rate": LearningRate(policy=1e-3, critic=3e-3),
    "network": Network((32, 32)),
    "discount": 0.5,
    "target_step": 0.05,
}


def learned(name: str, rows: np.ndarray, updates: int = 3000) -> tuple[object, State]:
    algorithm = make(name, **FAST)
    state = algorithm.init(jax.random.key(0), REPLAY.example(), NO_FACTS)
    (report,) = loop.pretrain(
        Learner(algorithm, REPLAY), ONE, [state], jnp.asarray(rows), [jax.random.key(1)], [updates]
    )
    return algorithm, report.state[0]


def rows_of(
    observation: np.ndarray, reward: np.ndarray, terminated: np.ndarray, following: np.ndarray
) -> np.ndarray:
    """Rows whose actions are everything between -1 and 1."""
    action = np.random.default_rng(0).uniform(-1, 1, (len(reward), 1)).astype(np.float32)
    parts = (observation[:, None], action, reward, terminated, following[:, None])
    return pack(*(np.asarray(p, bool if p is terminated else np.float32) for p in parts))


def value_at(algorithm, state, observation):
    place = jnp.full((9, 1), observation)
    return np.asarray(algorithm.value(state, place, jnp.linspace(-0.9, 0.9, 9)[:, None]))


ALGORITHMS = pytest.mark.parametrize("name", ["td3", "td3_bc", "td3_c", "sac"])


@ALGORITHMS
def test_a_reward_of_one_at_once_is_worth_one(name):
    n = 512
    state = learned(name, rows_of(np.zeros(n), np.ones(n), np.ones(n, bool), np.zeros(n)))
    np.testing.assert_allclose(value_at(*state, 0.0), 1.0, atol=0.1)


@pytest.mark.parametrize("name", ["td3", "td3_bc", "td3_c"])
def test_a_reward_one_step_away_is_discounted_once(name):
    first = np.arange(512) % 2 == 0
    observation = np.where(first, -1.0, 1.0)
    state = learned(name, rows_of(observation, ~first, ~first, np.ones(512)))
    np.testing.assert_allclose(value_at(*state, 1.0), 1.0, atol=0.1)
    np.testing.assert_allclose(value_at(*state, -1.0), 0.5, atol=0.1)


@pytest.mark.parametrize("name", ["td3", "td3_bc", "td3_c"])
def test_a_reward_of_one_for_ever_is_worth_the_geometric_series(name):
    n = 512
    state = learned(name, rows_of(np.zeros(n), np.ones(n), np.zeros(n, bool), np.zeros(n)))
    np.testing.assert_allclose(value_at(*state, 0.0), 2.0, atol=0.1)


@pytest.mark.parametrize("observation", [-1.0, 1.0])
def test_the_policy_finds_the_action_that_suits_the_observation(observation):
    n = 512
    generator = np.random.default_rng(1)
    seen = generator.choice([-1.0, 1.0], n)
    rows = rows_of(seen, np.zeros(n), np.ones(n, bool), np.zeros(n))
    rows[:, 2] = 1 - np.square(rows[:, 1] - 0.5 * seen)  # best: half of the observation
    algorithm, state = learned("td3", rows)
    action = algorithm.act(state, jnp.full((1, 1), observation), jax.random.key(0), evaluate=True)
    np.testing.assert_allclose(action, 0.5 * observation, atol=0.1)
