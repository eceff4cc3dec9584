"""Evaluation: deterministic episodes of all members in lock-step, and scores.

    python -m o2o.runs.evaluate RUN

scores a trained policy again (o2o/runs/evaluate.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from o2o.envs.episodes import unearned_steps
from o2o.envs.inside import play_inside
from o2o.envs.mujoco_tasks import make_environments
from o2o.envs.tasks import Task
from o2o.training.seeds import Bundle, Members
from o2o.types import Algorithm, State

BLOCK = 100  # steps between two chances to give an evaluation up, and to end it


@dataclass(frozen=True)
class Evaluation:
    """The episodes of one policy, element i of every array being episode i."""

    returns: Float[np.ndarray, " E"]
    """Undiscounted, of each episode."""
    lengths: Int[np.ndarray, " E"]
    overestimation: Float[np.ndarray, " E"]
    """The sum over an episode's states of Q(s, π(s)) minus the discounted return then earned."""
    overestimation_steps: Int[np.ndarray, " E"]
    """The number of states in that sum: not the last ones of a truncated episode, whose return is not all earned."""

    @property
    def q_minus_return(self) -> float | None:
        """The mean overestimation over all states that count; None if none does."""
        steps = int(self.overestimation_steps.sum())
        return float(self.overestimation.sum()) / steps if steps else None


def episode_seeds(seed: int, step: int, episodes: int) -> list[int]:
    """Returns the seeds of the episodes in the evaluation after `step` steps of the run with that seed.

    Those of fewer episodes are the first of those of more.
    """
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
        self._block, self._one_step = _calls(algorithm, members)
        self._members, self._episodes, self._discount = members, episodes, discount
        self._environments = [
            make_environments(task, [0] * (len(own) * episodes))
            for own in members.groups(range(members.count))
        ]

    def evaluate(self, state: Bundle, seeds: Sequence[Sequence[int]]) -> list[Evaluation]:
        """Returns each member's evaluation on the episodes of its `seeds`, of which there may be any number."""
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
        for own in self._environments:
            own.close()

    def _batch(self, state: Bundle, seeds: Sequence[Sequence[int]]) -> list[Evaluation]:
        members, episodes = self._members, len(seeds[0])
        # A last batch that is not full runs all environments, so that the compiled function stays the same.
        padded = [[*own, *([0] * (self._episodes - episodes))] for own in seeds]
        for own, its_seeds in zip(self._environments, members.groups(padded), strict=True):
            own.begin([seed for of_member in its_seeds for seed in of_member])
        values = self._play(state)
        records = [own.record() for own in self._environments]
        reward, lengths, truncated = (
            np.concatenate([getattr(record, name) for record in records], axis=-1)
            for name in ("reward", "lengths", "truncated")
        )
        counted = np.zeros_like(lengths)
        sums = np.zeros(len(lengths))
        if values is not None:
            unearned = unearned_steps(self._discount, self._environments[0].time_limit)
            counted = np.maximum(0, lengths - np.where(truncated, unearned, 0))
            steps = int(lengths.max())
            overestimation = values[:steps] - discounted_returns(reward[:steps], self._discount)
            sums = np.where(np.arange(steps)[:, None] < counted, overestimation, 0.0).sum(axis=0)
        columns = reward.sum(axis=0), lengths, sums, counted
        firsts = [m * self._episodes for m in range(members.count)]
        return [Evaluation(*(column[k : k + episodes] for column in columns)) for k in firsts]

    def _play(self, state: Bundle) -> Float[np.ndarray, "T E"] | None:
        """Plays all episodes to their ends and returns Q(s, π(s)) of every step, where the algorithm has one."""
        environments = self._environments
        observations = [own.observation for own in environments]
        inside = all(own.can_step_inside(jax.default_backend()) for own in environments)
        found: list[Float[np.ndarray, "T E"]] = []
        while any(own.live.any() for own in environments):
            self._between_steps()
            by_member = [self._of_members(own) for own in observations]
            if inside:
                handles = [own.handle for own in environments]
                observations, values = self._block(state, by_member, handles)
                observations = [np.asarray(own) for own in observations]
            else:
                actions, values = self._one_step(state, by_member)
                observations = [
                    own.play(np.asarray(action).reshape(len(own), -1))
                    for own, action in zip(environments, actions, strict=True)
                ]
            if values[0] is not None:
                steps = [np.asarray(own) for own in values]
                found.append(np.concatenate([own.reshape(own.shape[0], -1) for own in steps], axis=1))
        return np.concatenate(found) if found else None

    def _of_members(self, observation: Float[np.ndarray, "E O"]) -> Float[np.ndarray, "*M E O"]:
        shape = (-1, self._episodes, observation.shape[-1])
        return observation.reshape(shape) if self._members.together else observation.reshape(shape[1:])


def discounted_returns(reward: Float[np.ndarray, "T E"], discount: float) -> Float[np.ndarray, "T E"]:
    """Returns the discounted sum of rewards from each step on."""
    returns = np.zeros_like(reward)
    following = np.zeros(reward.shape[1])
    for t in reversed(range(len(reward))):
        following = returns[t] = reward[t] + discount * following
    return returns


@functools.lru_cache(maxsize=4)
def _calls(algorithm: Algorithm, members: Members) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Returns the calls of an evaluation: a block of steps with the environments inside, and one step without them."""
    value = getattr(algorithm, "value", None)

    def choose(state: State, observation: Float[Array, "E O"]) -> tuple[Float[Array, "E A"], Any]:
        action = algorithm.act(state, observation, jax.random.key(0), evaluate=True)
        return action, None if value is None else value(state, observation, action)

    choose_all = members.across(choose)

    def block(state: State, observation: Float[Array, "*M E O"], handle: Any) -> tuple[Any, Any]:
        def one(observation: Float[Array, "*M E O"], _: None) -> tuple[Any, Any]:
            action, values = choose_all(state, observation)
            following = play_inside(handle, action.reshape(-1, action.shape[-1]), observation.shape[-1])
            return following.reshape(observation.shape), values

        return jax.lax.scan(one, observation, None, length=BLOCK)

    def one_step(state: State, observation: Float[Array, "*M E O"]) -> tuple[Any, Any]:
        action, values = choose_all(state, observation)
        return action, None if values is None else values[None]

    return members.programs(block), members.programs(one_step)
