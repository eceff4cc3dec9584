"""The four locomotion tasks, many environments at once.

They are made and reset by gymnasium; their
physics is stepped here, in threads, since MuJoCo releases Python's lock, and their observations and rewards
are computed for all at once (`o2o.envs.locomotion`), equal to gymnasium's bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float64, UInt64

from o2o.envs.locomotion import RULES
from o2o.envs.tasks import TASKS, Task
from o2o.envs.vector import Environments

_INTEGRATION = int(mujoco.mjtState.mjSTATE_INTEGRATION)  # pyright: ignore[reportAttributeAccessIssue]


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
        """As in `Environments`: the simulator's state, the random generator of the resets, and the episode so far.

        Ant's forward velocity also reads the torso's position, which the simulator's state does not hold.
        """
        return [
            {
                "physics": _physics(env),
                "body_positions": env.data.xpos.copy(),
                "elapsed": np.array(self.elapsed[i]),
                "generator": _generator_words(env.np_random),
                "observation": self.observation[i].copy(),
                "episode_return": np.array(self.episode_return[i]),
            }
            for i, env in enumerate(self._envs)
        ]

    def restore(self, snapshots: Sequence[dict[str, np.ndarray]], env_steps: int = 0) -> None:
        """As in `Environments`; a snapshot may lack what only training needs."""
        self._env_steps[:] = env_steps
        self._ended = []
        for i, (env, snapshot) in enumerate(zip(self._envs, snapshots, strict=True)):
            mujoco.mj_setState(env.model, env.data, snapshot["physics"], _INTEGRATION)  # pyright: ignore[reportAttributeAccessIssue]
            env.data.xpos[:] = snapshot["body_positions"]
            self.elapsed[i] = snapshot["elapsed"]
            env.np_random = _generator(snapshot["generator"])
            self._seeds[i] = None
            self.observation[i] = snapshot.get("observation", 0)
            self.episode_return[i] = snapshot.get("episode_return", 0)

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
