"""Many environments of one task, stepped together, for training and evaluation.

Any gymnasium id works here, stepped by gymnasium itself; the four locomotion tasks have faster ways
(`o2o.envs.mujoco_tasks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8, UInt32

from o2o.envs.episodes import DEFAULT_TIME_LIMIT, Episode, Record
from o2o.envs.tasks import Task, make, own_time_limit


class Environments:
    """A number of environments of one task, stepped together; element i of every array is environment i.

    They are independent: each has its own simulator and random generator, seeded by its own seed. Actions are clipped
    to [-1, 1] and mapped to the task's own bounds; observations and rewards come as float32.

    Training is `start` and `advance`, evaluation `begin` and `play`; `reset` and `step` leave all else to the caller.

    Attributes (written in place):
        observation: the latest observations, for which the next actions are, in training and in evaluation.
        episode_return: the undiscounted return so far of each training episode; its length is in `elapsed`.
        live: which environments have not ended their evaluation episode.
    """

    def __init__(self, task: Task, seeds: Sequence[int], render_mode: str | None = None):
        """Makes one environment a seed; `reset` must come before the first `step`, `rgb_array` before `picture`."""
        self.task = task
        self.time_limit: int = own_time_limit(task) or DEFAULT_TIME_LIMIT
        self._envs: list[Any] = [make(task, render_mode) for _ in seeds]
        self.observation_size: int = self._envs[0].observation_space.shape[0] + task.padding
        self.action_size: int = self._envs[0].action_space.shape[0]
        self.elapsed = np.zeros(len(seeds), np.int64)
        self._low, self._high = self._envs[0].action_space.low, self._envs[0].action_space.high
        # Not even a mapping onto the same interval is exact in float32.
        self._rescale = bool((self._low != -1).any() or (self._high != 1).any())
        self._seeds: list[int | None] = list(seeds)
        self.observation = np.zeros((len(seeds), self.observation_size), np.float32)
        self.episode_return = np.zeros(len(seeds))
        self.live = np.zeros(len(seeds), bool)
        self._env_steps = np.zeros(1, np.int64)
        self._ended: list[Episode] = []

    def __len__(self) -> int:
        return len(self._envs)

    def reset(self, members: Sequence[int] | None = None) -> Float32[np.ndarray, "E O"]:
        """Starts new episodes in `members` (default: all) and returns their first observations."""
        members = range(len(self)) if members is None else members
        observations = np.zeros((len(members), self.observation_size), np.float32)
        for row, i in enumerate(members):
            observation, _ = self._envs[i].reset(seed=self._seeds[i])
            self._seeds[i] = None  # the first reset seeds the generator, later ones draw from it
            observations[row, : len(observation)] = observation
        self.elapsed[list(members)] = 0
        return observations

    def reseed(self, seeds: Sequence[int]) -> None:
        """Makes the next `reset` of environment i start the random stream of `seeds[i]`."""
        self._seeds = list(seeds)

    def step(
        self, actions: Float[np.ndarray, "E A"], members: Sequence[int] | None = None
    ) -> tuple[
        Float32[np.ndarray, "E O"], Float32[np.ndarray, " E"], Bool[np.ndarray, " E"], Bool[np.ndarray, " E"]
    ]:
        """Advances `members` (default: all) by one action each: next observation, reward, terminated, truncated.

        Where the time limit and a termination coincide, both are set.
        """
        members = range(len(self)) if members is None else members
        actions = np.clip(actions, -1, 1, dtype=np.float32)
        if self._rescale:
            actions = self._low + (actions + 1) * (0.5 * (self._high - self._low))
        observation, reward, terminated, truncated = self._advance(members, actions)
        padded = np.zeros((len(members), self.observation_size), np.float32)
        padded[:, : observation.shape[1]] = observation
        self.elapsed[list(members)] += 1
        truncated = truncated | (self.elapsed[list(members)] >= self.time_limit)
        return padded, reward.astype(np.float32), terminated, truncated

    @property
    def env_steps(self) -> int:
        """The number of steps by `advance` since `start`, of each environment."""
        return int(self._env_steps[0])

    def start(self) -> Float32[np.ndarray, "E O"]:
        """Begins training with new episodes everywhere and returns their first observations."""
        self.ended()
        self._env_steps[:] = 0
        self.episode_return[:] = 0
        self.observation[:] = self.reset()
        return self.observation.copy()

    def advance(self, action: Float32[np.ndarray, "E A"]) -> Float32[np.ndarray, "E P"]:
        """Steps every environment and begins a new episode where one ended.

        Returns:
            each one's *packet*: its transition, packed as `o2o.replay.buffer.pack` does it with the action as given,
            and behind it the observation to act on next.
        """
        following, reward, terminated, truncated = self.step(action)
        parts = self.observation, action, reward[:, None], terminated[:, None], following
        row = np.concatenate(parts, axis=1, dtype=np.float32)
        self._env_steps += 1
        self.episode_return += reward
        ended = np.flatnonzero(terminated | truncated)
        if len(ended):
            returns, lengths = self.episode_return[ended].tolist(), self.elapsed[ended].tolist()
            self._ended += map(Episode, ended.tolist(), [self.env_steps] * len(ended), returns, lengths)
            self.episode_return[ended] = 0
            following[ended] = self.reset(ended.tolist())
        self.observation[:] = following
        return np.concatenate([row, following], axis=1)

    def ended(self) -> list[Episode]:
        """Returns the training episodes that ended since the last call, by step and then by environment."""
        ended, self._ended = self._ended, []
        return ended

    def begin(self, seeds: Sequence[int]) -> Float32[np.ndarray, "E O"]:
        """Begins an evaluation episode everywhere, by these seeds, and returns the first observations."""
        self.reseed(seeds)
        self.observation[:] = self.reset()
        self.live[:] = True
        self._record = Record(
            np.zeros((self.time_limit, len(self))), np.zeros(len(self), np.int64), np.zeros(len(self), bool)
        )
        return self.observation.copy()

    def play(self, action: Float32[np.ndarray, "E A"]) -> Float32[np.ndarray, "E O"]:
        """Steps the environments that are still live and returns all observations; the others keep theirs."""
        members = np.flatnonzero(self.live)
        if len(members):
            self.observation[members], reward, terminated, truncated = self.step(
                action[members], members.tolist()
            )
            self._record.reward[self._record.lengths[members], members] = reward
            self._record.lengths[members] += 1
            self._record.truncated[members] = truncated & ~terminated
            self.live[members] = ~(terminated | truncated)
        return self.observation.copy()

    def record(self) -> Record:
        """Returns the episodes played since `begin`."""
        return self._record

    @property
    def steps_per_second(self) -> float:
        """The number of steps in a second of the simulated time."""
        return self._envs[0].metadata.get("render_fps", 30)

    def picture(self, i: int) -> UInt8[np.ndarray, "H V 3"]:
        """Returns what environment i looks like now, in whatever size gymnasium gives it."""
        return self._envs[i].render()

    def can_step_inside(self, platform: str) -> bool:
        """Returns whether a compiled program on that platform of JAX can step these environments by their `handle`."""
        return False

    @property
    def handle(self) -> UInt32[np.ndarray, " 2"]:
        """The operand by which a compiled program finds these environments; they must outlive its run."""
        raise NotImplementedError(f"{self.task.gymnasium_id} is stepped by Python alone")

    @property
    def can_be_saved(self) -> bool:
        """Whether `snapshot` and `restore` are on offer: gymnasium has no such thing for any id."""
        return False

    def snapshot(self) -> list[dict[str, np.ndarray]]:
        """Returns everything that each environment's future depends on, as arrays."""
        raise NotImplementedError(f"{self.task.gymnasium_id} cannot be saved")

    def restore(self, snapshots: Sequence[dict[str, np.ndarray]], env_steps: int = 0) -> None:
        """Puts every environment where it was when its snapshot was taken, after that many steps of training."""
        raise NotImplementedError(f"{self.task.gymnasium_id} cannot be restored")

    def close(self) -> None:
        """Releases the simulators."""
        for env in self._envs:
            env.close()

    def _advance(self, members: Sequence[int], actions: np.ndarray) -> tuple[np.ndarray, ...]:
        steps = [self._envs[i].step(action) for i, action in zip(members, actions, strict=True)]
        observation, reward, terminated, truncated, _ = zip(*steps, strict=True)
        return np.stack(observation), np.array(reward, np.float64), np.array(terminated), np.array(truncated)
