"""Tasks, and many environments stepped together.

The four locomotion tasks are gymnasium's `-v4` environments, which keep the rewards and terminations that
D4RL's `-v2` data were collected with (`-v5` changed both). They are made and reset by gymnasium; their
physics is stepped here, in threads, since MuJoCo releases Python's lock, and their observations and rewards
are computed for all at once (`o2o.envs.locomotion`), equal to gymnasium's bit for bit. Any other gymnasium id is
stepped by gymnasium itself, with all the wrappers that it was registered with.

Ant: D4RL's observations have 111 entries of which the last 84, contact forces, are zero throughout (MuJoCo
2 no longer filled them in). So contact forces stay off and 84 zeros are appended.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import gymnasium
import mujoco
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, UInt64

from o2o.envs.episodes import DEFAULT_TIME_LIMIT
from o2o.envs.locomotion import RULES

_INTEGRATION = int(mujoco.mjtState.mjSTATE_INTEGRATION)  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True)
class Task:
    """What can be run: a gymnasium id, and how many zeros are appended to its observations."""

    name: str
    gymnasium_id: str
    padding: int = 0


TASKS = {
    "hopper": Task("hopper", "Hopper-v4"),
    "halfcheetah": Task("halfcheetah", "HalfCheetah-v4"),
    "walker2d": Task("walker2d", "Walker2d-v4"),
    "ant": Task("ant", "Ant-v4", padding=84),
}


def find_task(name: str) -> Task:
    """The task of that name: one of the four, else the name is taken as a gymnasium id.

    Raises:
        LookupError: if gymnasium does not know it, it has no version, or its spaces are not one-dimensional boxes.
    """
    if name in TASKS:
        return TASKS[name]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*unversioned.*")  # it is refused below
            warnings.filterwarnings("ignore", ".*is out of date.*")  # the version was asked for
            environment = gymnasium.make(name)
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        raise LookupError(
            f"task={name}: neither one of {', '.join(TASKS)} nor a gymnasium id ({error})"
        ) from None
    spaces = environment.observation_space, environment.action_space
    environment.close()
    full = environment.spec.id if environment.spec else name
    if full != name.rpartition(":")[2]:
        near = f", or {name.lower()}, D4RL's" if name.lower() in TASKS else ""
        raise LookupError(
            f"task={name}: without its version it is whatever is newest in this gymnasium; say {full}{near}"
        )
    for space in spaces:
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise LookupError(
                f"task={name}: observations and actions must be one-dimensional boxes, not {space}"
            )
    if not np.isfinite([spaces[1].low, spaces[1].high]).all():  # pyright: ignore[reportAttributeAccessIssue]
        raise LookupError(
            f"task={name}: its actions have no bounds, so a policy that ends in a tanh does not fit"
        )
    return Task(name, name)


@functools.cache
def task_sizes(task: Task) -> tuple[int, int]:
    """The sizes of a task's observations, padding included, and actions."""
    environments = make_environments(task, [0])
    environments.close()
    return environments.observation_size, environments.action_size


@functools.cache
def own_time_limit(task: Task) -> int | None:
    """After how many steps the task itself cuts an episode; None where it never does."""
    if task.name in TASKS:
        return gymnasium.spec(task.gymnasium_id).max_episode_steps
    environment = _make(task)
    try:
        return _time_limit(environment)
    finally:
        environment.close()


class Environments:
    """A number of environments of one task, stepped together; element i of every array is environment i.

    They are independent: each has its own simulator and random generator, seeded by its own seed. There is no
    automatic reset. Actions are clipped to [-1, 1] and mapped to the task's own bounds; observations and rewards come
    as float32.
    """

    def __init__(self, task: Task, seeds: Sequence[int]):
        """Makes one environment a seed; `reset` must come before the first `step`."""
        self.task = task
        self.time_limit: int = own_time_limit(task) or DEFAULT_TIME_LIMIT
        self._envs: list[Any] = [_make(task) for _ in seeds]
        self.observation_size: int = self._envs[0].observation_space.shape[0] + task.padding
        self.action_size: int = self._envs[0].action_space.shape[0]
        self.elapsed = np.zeros(len(seeds), np.int64)
        self._low, self._high = self._envs[0].action_space.low, self._envs[0].action_space.high
        # Not even a mapping onto the same interval is exact in float32.
        self._rescale = bool((self._low != -1).any() or (self._high != 1).any())
        self._seeds: list[int | None] = list(seeds)

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
    def can_be_saved(self) -> bool:
        """Whether `snapshot` and `restore` are on offer: gymnasium has no such thing for any id."""
        return False

    def snapshot(self) -> list[dict[str, np.ndarray]]:
        """Everything that each environment's future depends on, as arrays."""
        raise NotImplementedError(f"{self.task.gymnasium_id} cannot be saved")

    def restore(self, snapshots: Sequence[dict[str, np.ndarray]]) -> None:
        """Puts every environment where it was when its snapshot was taken."""
        raise NotImplementedError(f"{self.task.gymnasium_id} cannot be restored")

    def close(self) -> None:
        """Releases the simulators."""
        for env in self._envs:
            env.close()

    def _advance(self, members: Sequence[int], actions: np.ndarray) -> tuple[np.ndarray, ...]:
        steps = [self._envs[i].step(action) for i, action in zip(members, actions, strict=True)]
        observation, reward, terminated, truncated, _ = zip(*steps, strict=True)
        return np.stack(observation), np.array(reward, np.float64), np.array(terminated), np.array(truncated)


class MujocoEnvironments(Environments):
    """The four locomotion tasks, stepped without gymnasium's Python in between."""

    def __init__(self, task: Task, seeds: Sequence[int]):
        """As in `Environments`."""
        super().__init__(task, seeds)
        self._threads = min(len(seeds), os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(self._threads - 1) if self._threads > 1 else None

    @property
    def qpos(self) -> Float64[np.ndarray, "E Q"]:
        """The simulators' joint positions, a copy."""
        return np.stack([env.data.qpos for env in self._envs])

    @property
    def qvel(self) -> Float64[np.ndarray, "E V"]:
        """The simulators' joint velocities, a copy."""
        return np.stack([env.data.qvel for env in self._envs])

    @property
    def torso(self) -> Float64[np.ndarray, "E 3"]:
        """Where the torsos are, a copy; after a step they lag the joints by a physics step."""
        return np.stack([env.data.body("torso").xpos for env in self._envs])

    def place(
        self,
        qpos: Float64[np.ndarray, "E Q"],
        qvel: Float64[np.ndarray, "E V"],
        torso: Float64[np.ndarray, "E 3"] | None = None,
    ) -> None:
        """Puts every simulator into a state; without `torso`, torsos are where the joints say, without a lag."""
        for i, env in enumerate(self._envs):
            env.set_state(qpos[i], qvel[i])
            if torso is not None:
                env.data.body("torso").xpos[:] = torso[i]
        self.elapsed[:] = 0

    @property
    def can_be_saved(self) -> bool:
        """As in `Environments`."""
        return True

    def snapshot(self) -> list[dict[str, np.ndarray]]:
        """As in `Environments`: the simulator's state, the steps taken, and the random generator of the resets.

        Ant's forward velocity also reads the torso's position, which the simulator's state does not hold.
        """
        return [
            {
                "physics": _physics(env),
                "body_positions": env.data.xpos.copy(),
                "elapsed": np.asarray(elapsed),
                "generator": _generator_words(env.np_random),
            }
            for env, elapsed in zip(self._envs, self.elapsed, strict=True)
        ]

    def restore(self, snapshots: Sequence[dict[str, np.ndarray]]) -> None:
        """As in `Environments`."""
        for i, (env, snapshot) in enumerate(zip(self._envs, snapshots, strict=True)):
            mujoco.mj_setState(env.model, env.data, snapshot["physics"], _INTEGRATION)  # pyright: ignore[reportAttributeAccessIssue]
            env.data.xpos[:] = snapshot["body_positions"]
            self.elapsed[i] = snapshot["elapsed"]
            env.np_random = _generator(snapshot["generator"])
            self._seeds[i] = None

    def close(self) -> None:
        """Releases the simulators and the threads."""
        super().close()
        if self._pool:
            self._pool.shutdown()

    def _advance(self, members: Sequence[int], actions: np.ndarray) -> tuple[np.ndarray, ...]:
        envs = [self._envs[i] for i in members]
        x_before = self._forward_position(envs)
        share = -(-len(envs) // self._threads)
        parts = [slice(k, k + share) for k in range(0, len(envs), share)]
        pending = (
            [self._pool.submit(_simulate, envs[part], actions[part]) for part in parts[1:]]
            if self._pool
            else []
        )
        _simulate(envs[parts[0]], actions[parts[0]])
        for part in pending:
            part.result()
        x_velocity = (self._forward_position(envs) - x_before) / envs[0].dt
        qpos = np.stack([env.data.qpos for env in envs])
        qvel = np.stack([env.data.qvel for env in envs])
        observation, healthy_reward, control_weight, terminated = RULES[self.task.name](qpos, qvel)
        reward = x_velocity + healthy_reward - control_weight * np.sum(np.square(actions), axis=1)
        return observation, reward, terminated, np.zeros(len(envs), bool)

    def _forward_position(self, envs: Sequence[Any]) -> Float64[np.ndarray, " E"]:
        """What the forward velocity is measured on: Ant's is the torso's, which lags the joints by a physics step."""
        if self.task.name == "ant":
            return np.array([env.data.body("torso").xpos[0] for env in envs])
        return np.array([env.data.qpos[0] for env in envs])


def make_environments(task: Task, seeds: Sequence[int]) -> Environments:
    """Environments of `task`, one a seed, by the fastest exact implementation there is."""
    return (MujocoEnvironments if task.name in TASKS else Environments)(task, seeds)


def _make(task: Task) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is out of date.*")  # -v4 is meant: see the module's docstring
        environment = gymnasium.make(task.gymnasium_id, disable_env_checker=True)
    # Of the four tasks, gymnasium's order and time limit wrappers cost more than the physics; others' wrappers may be
    # what the task is.
    return environment.unwrapped if task.name in TASKS else environment


def _time_limit(environment: Any) -> int | None:
    """The shortest of the limits that its wrappers set."""
    limits = []
    while isinstance(environment, gymnasium.Wrapper):
        if isinstance(environment, gymnasium.wrappers.TimeLimit):
            limits.append(environment._max_episode_steps)
        environment = environment.env
    return min(limits, default=None)


def _physics(env: Any) -> Float64[np.ndarray, " S"]:
    size = mujoco.mj_stateSize(env.model, _INTEGRATION)  # pyright: ignore[reportAttributeAccessIssue]
    state = np.zeros(size)
    mujoco.mj_getState(env.model, env.data, state, _INTEGRATION)  # pyright: ignore[reportAttributeAccessIssue]
    return state


def _generator_words(generator: np.random.Generator) -> UInt64[np.ndarray, " 6"]:
    """The state of a PCG64 generator: two 128-bit integers as 64-bit halves, and its half-used draw."""
    state = generator.bit_generator.state
    low = (1 << 64) - 1
    words = [half for n in (state["state"]["state"], state["state"]["inc"]) for half in (n >> 64, n & low)]
    return np.array([*words, state["has_uint32"], state["uinteger"]], np.uint64)


def _generator(words: UInt64[np.ndarray, " 6"]) -> np.random.Generator:
    bits = np.random.PCG64()
    a, b, c, d, has_half, half = (int(word) for word in words)
    bits.state = {
        "bit_generator": "PCG64",
        "state": {"state": a << 64 | b, "inc": c << 64 | d},
        "has_uint32": has_half,
        "uinteger": half,
    }
    return np.random.Generator(bits)


def _simulate(envs: Sequence[Any], actions: np.ndarray) -> None:
    for env, action in zip(envs, actions, strict=True):
        env.data.ctrl[:] = action
        mujoco.mj_step(env.model, env.data, nstep=env.frame_skip)  # pyright: ignore[reportAttributeAccessIssue]
