"""Evaluation: deterministic episodes of all members in lock-step, and scores.

    python -m o2o.runs.evaluate RUN

scores a trained policy again (o2o/runs/evaluate.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from o2o.envs.episodes import unearned_steps
from o2o.envs.mujoco_tasks import make_environments
from o2o.envs.tasks import Task
from o2o.envs.vector import Environments
from o2o.training.seeds import Bundle, Members
from o2o.types import Algorithm, State


@dataclass(frozen=True)
class Evaluation:
    """What one policy did in a number of episodes."""

    returns: Float[np.ndarray, " E"]
    """Undiscounted."""
    lengths: Int[np.ndarray, " E"]
    overestimation: Float[np.ndarray, " E"]
    """The sum over an episode's states of Q(s, π(s)) minus the discounted return then earned."""
    overestimation_steps: Int[np.ndarray, " E"]
    """Over how many states; the last ones of a truncated episode are left out, whose return is not all earned."""

    @property
    def q_minus_return(self) -> float | None:
        """The mean overestimation over all states that count; None if none does."""
        steps = int(self.overestimation_steps.sum())
        return float(self.overestimation.sum()) / steps if steps else None


def episode_seeds(seed: int, step: int, episodes: int) -> list[int]:
    """The seeds of the evaluation after `step` steps of the run with that seed; of more episodes, the first agree."""
    sequences = [np.random.SeedSequence([seed], spawn_key=(step, i)) for i in range(episodes)]
    return [int(sequence.generate_state(1)[0]) for sequence in sequences]


class Evaluator:
    """Evaluates the members of a job, `episodes` at a time each, in environments that it keeps."""

    def __init__(
        self,
        algorithm: Algorithm,
        members: Members,
        task: Task,
        episodes: int,
        discount: float,
        between_steps: Callable[[], None] = lambda: None,
    ):
        """Makes the environments. `between_steps` may raise, to give an evaluation up."""
        self._between_steps = between_steps
        self._functions = _functions(algorithm, members)
        self._members, self._episodes, self._discount = members, episodes, discount
        self._environments = make_environments(task, [0] * (members.count * episodes))

    def evaluate(self, state: Bundle, seeds: Sequence[Sequence[int]]) -> list[Evaluation]:
        """Each member's evaluation on the episodes of its `seeds`, of which there may be any number."""
        batches = [
            self._batch(state, [own[k : k + self._episodes] for own in seeds])
            for k in range(0, len(seeds[0]), self._episodes)
        ]
        names = [field.name for field in fields(Evaluation)]
        return [
            Evaluation(*(np.concatenate([getattr(batch[m], name) for batch in batches]) for name in names))
            for m in range(self._members.count)
        ]

    def close(self) -> None:
        """Releases the environments."""
        self._environments.close()

    def _batch(self, state: Bundle, seeds: Sequence[Sequence[int]]) -> list[Evaluation]:
        act, value = self._functions
        count, episodes = self._members.count, len(seeds[0])
        # A last batch that is not full runs all environments, so that the compiled function stays the same.
        padded = [[*own, *([0] * (self._episodes - episodes))] for own in seeds]
        self._environments.reseed([seed for own in padded for seed in own])
        trajectory = rollout(self._environments, lambda o: self._act(act, state, o))
        (q,) = value(
            state,
            self._by_member(trajectory.observation.swapaxes(0, 1)),
            self._by_member(trajectory.action.swapaxes(0, 1)),
        )
        q = self._members.to_host(q).reshape(count * self._episodes, -1).T
        overestimation = q - discounted_returns(trajectory.reward, self._discount)
        unearned = unearned_steps(self._discount, self._environments.time_limit)
        counted = np.maximum(0, trajectory.lengths - np.where(trajectory.truncated, unearned, 0))
        sums = np.where(np.arange(len(q))[:, None] < counted, overestimation, 0.0).sum(axis=0)
        columns = trajectory.reward.sum(axis=0), trajectory.lengths, sums, counted
        firsts = [m * self._episodes for m in range(count)]
        return [Evaluation(*(column[k : k + episodes] for column in columns)) for k in firsts]

    def _act(self, act: Callable[..., Any], state: Bundle, observation: np.ndarray) -> np.ndarray:
        self._between_steps()
        (action,) = act(state, self._by_member(observation))
        return self._members.to_host(action).reshape(len(self._environments), -1)

    def _by_member(self, array: np.ndarray) -> Bundle:
        """(members × episodes, …) as a bundle of each member's (episodes × …, size)."""
        return self._members.bundle(list(array.reshape(self._members.count, -1, array.shape[-1])))


@dataclass(frozen=True)
class Trajectories:
    """Episodes in lock-step, T the time limit; after an episode's end everything is zero."""

    observation: Float[np.ndarray, "T E O"]
    action: Float[np.ndarray, "T E A"]
    reward: Float[np.ndarray, "T E"]
    lengths: Int[np.ndarray, " E"]
    truncated: np.ndarray  # E, whether the time limit alone ended it


def rollout(
    environments: Environments, policy: Callable[[Float[np.ndarray, "E O"]], Float[np.ndarray, "E A"]]
) -> Trajectories:
    """One episode in every environment, from a reset on."""
    count, limit = len(environments), environments.time_limit
    observations = np.zeros((limit, count, environments.observation_size), np.float32)
    actions = np.zeros((limit, count, environments.action_size), np.float32)
    rewards = np.zeros((limit, count))
    lengths = np.zeros(count, np.int64)
    ended_by_limit = np.zeros(count, bool)
    observation = environments.reset()
    live = np.arange(count)
    for t in range(limit):
        action = policy(observation)
        observations[t, live], actions[t, live] = observation[live], action[live]
        following, rewards[t, live], terminated, truncated = environments.step(action[live], live.tolist())
        observation[live] = following
        lengths[live] += 1
        ended_by_limit[live] = truncated & ~terminated
        live = live[~(terminated | truncated)]
        if not len(live):
            break
    return Trajectories(observations, actions, rewards, lengths, ended_by_limit)


def discounted_returns(reward: Float[np.ndarray, "T E"], discount: float) -> Float[np.ndarray, "T E"]:
    """The discounted sum of rewards from each step on."""
    returns = np.zeros_like(reward)
    following = np.zeros(reward.shape[1])
    for t in reversed(range(len(reward))):
        following = returns[t] = reward[t] + discount * following
    return returns


@functools.cache
def _functions(algorithm: Algorithm, members: Members) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def act(state: State, observation: Any) -> tuple[Any]:
        return (algorithm.act(state, observation),)

    def value(state: State, observation: Any, action: Any) -> tuple[Any]:
        return (algorithm.value(state, observation, action),)

    return members.map(act), members.map(value)
