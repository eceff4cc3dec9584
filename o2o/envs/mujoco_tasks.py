"""The four locomotion tasks, many environments at once.

They are gymnasium's, which makes and resets them. They are stepped by compiled code (`o2o.envs.kernels`), or by
gymnasium where numba is not to be had or O2O_NATIVE=0 says so, with the same results.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, UInt32, UInt64

from o2o.envs.episodes import Episode
from o2o.envs.tasks import TASKS, Task
from o2o.envs.vector import Environments

_INTEGRATION = int(mujoco.mjtState.mjSTATE_INTEGRATION)  # pyright: ignore[reportAttributeAccessIssue]


class MujocoEnvironments(Environments):
    """The four locomotion tasks, which can be saved, placed and stepped from inside a compiled program."""

    def __init__(self, task: Task, seeds: Sequence[int]):
        """Makes one environment a seed, and the workers that step them; `reset` must come before the first `step`."""
        super().__init__(task, seeds)
        self._kernels = kernels()
        if self._kernels:
            self._make_control()

    @property
    def qpos(self) -> Float64[np.ndarray, "E Q"]:
        """A copy of the simulators' joint positions."""
        return np.stack([env.data.qpos for env in self._envs])

    @property
    def qvel(self) -> Float64[np.ndarray, "E V"]:
        """A copy of the simulators' joint velocities."""
        return np.stack([env.data.qvel for env in self._envs])

    @property
    def torso(self) -> Float64[np.ndarray, "E 3"]:
        """A copy of the torsos' positions; after a step they lag the joints by a physics step."""
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
        """True: MuJoCo's state can be read and set."""
        return True

    def snapshot(self) -> list[dict[str, np.ndarray]]:
        """Returns each simulator's state, the random generator of its resets, and its episode so far.

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
        """Puts every environment where it was when its snapshot was taken, after that many steps of training.

        A snapshot may lack the observation and the return so far, which only training needs.
        """
        self.ended()
        self._env_steps[:] = env_steps
        for i, (env, snapshot) in enumerate(zip(self._envs, snapshots, strict=True)):
            mujoco.mj_setState(env.model, env.data, snapshot["physics"], _INTEGRATION)  # pyright: ignore[reportAttributeAccessIssue]
            env.data.xpos[:] = snapshot["body_positions"]
            self.elapsed[i] = snapshot["elapsed"]
            env.np_random = _generator(snapshot["generator"])
            self._seeds[i] = None
            self.observation[i] = snapshot.get("observation", 0)
            self.episode_return[i] = snapshot.get("episode_return", 0)
        self._point_to_generators()

    def reset(self, members: Sequence[int] | None = None) -> Float32[np.ndarray, "E O"]:
        """Starts new episodes in `members` (default: all) and returns their first observations."""
        observation = super().reset(members)
        self._point_to_generators()
        return observation

    def step(
        self, actions: Float[np.ndarray, "E A"], members: Sequence[int] | None = None
    ) -> tuple[
        Float32[np.ndarray, "E O"], Float32[np.ndarray, " E"], Bool[np.ndarray, " E"], Bool[np.ndarray, " E"]
    ]:
        """Advances `members` (default: all) by one action each: next observation, reward, terminated, truncated."""
        if not self._kernels:
            return super().step(actions, members)
        which = np.arange(len(self))[slice(None) if members is None else list(members)]
        size = self.observation_size
        found, _ = self._run(self._kernels.STEP, actions, size + 3, which)
        return found[:, :size], found[:, size], found[:, size + 1] != 0, found[:, size + 2] != 0

    def advance(self, action: Float32[np.ndarray, "E A"]) -> Float32[np.ndarray, "E P"]:
        """Steps every environment and returns its packet; begins a new episode where one ended."""
        if not self._kernels:
            return super().advance(action)
        found, full = self._run(self._kernels.ADVANCE, action, self._host_packets.shape[1])
        if full:
            self._ended = self.ended()
        return found

    def ended(self) -> list[Episode]:
        """Returns the training episodes that ended since the last call, by step and then by environment."""
        ended = super().ended()
        if self._kernels and self._ends.any():
            if (self._ends > self._kernels.MOST_ENDED).any():
                raise RuntimeError(
                    f"over {self._kernels.MOST_ENDED} episodes of an environment ended in a block"
                )
            found = [(i, *self._ended_at[i, n]) for i, count in enumerate(self._ends) for n in range(count)]
            ended += [
                Episode(i, int(s), float(r), int(n)) for i, s, r, n in sorted(found, key=lambda f: f[1])
            ]
            self._ends[:] = self._control[self._kernels.FULL] = 0
        return ended

    def play(self, action: Float32[np.ndarray, "E A"]) -> Float32[np.ndarray, "E O"]:
        """Steps the environments that are still live; returns all observations."""
        if not self._kernels:
            return super().play(action)
        return self._run(self._kernels.PLAY, action, self.observation_size)[0]

    def begin(self, seeds: Sequence[int]) -> Float32[np.ndarray, "E O"]:
        """Begins an evaluation episode everywhere, by these seeds, and returns the first observations."""
        observation = super().begin(seeds)
        if self._kernels:
            k, record = self._kernels, self._record
            parts = record.reward, record.lengths, record.truncated
            self._control[[k.REWARDS, k.LENGTHS, k.TRUNCATED]] = [_address(part) for part in parts]
        return observation

    def can_step_inside(self, platform: str) -> bool:
        """Returns whether a compiled program on that platform of JAX can step these environments by their `handle`."""
        if not self._kernels:
            return False
        from o2o.envs.inside import register  # not above: who only collects data does without JAX

        return register("cpu" if platform == "cpu" else "CUDA") is not None

    @property
    def handle(self) -> UInt32[np.ndarray, " 2"]:
        """The address of the control, as two words of 32 bits, which JAX has without enabling 64."""
        if not self._stop.alive:
            raise ValueError("these environments are closed")
        return np.array([_address(self._control)], np.uint64).view(np.uint32)

    def close(self) -> None:
        """Releases the simulators and the threads."""
        if self._kernels:
            self._stop()
        super().close()

    def _run(
        self, mode: int, actions: np.ndarray, width: int, members: np.ndarray | None = None
    ) -> tuple[Float32[np.ndarray, "E W"], int]:
        actions = np.ascontiguousarray(actions, np.float32)
        count = len(self) if members is None else len(members)
        if actions.shape != (count, self.action_size):
            raise ValueError(f"actions of shape {actions.shape} for {count} environments")
        found = np.empty((count, width), np.float32)
        which = 0 if members is None else _address(members)
        return found, self._kernels.run(
            _address(self._control), mode, count, which, _address(actions), _address(found)
        )

    def _make_control(self) -> None:
        """Tells the compiled code where everything is."""
        k, env, count = self._kernels, self._envs[0], len(self)
        self._places = np.zeros((count, k.PLACES), np.int64)
        for place, each in zip(self._places, self._envs, strict=True):
            data, torso = each.data, each.data.body("torso")
            arrays = data.ctrl, data.qpos, data.qvel, torso.xpos
            place[: k.GENERATOR] = each.model._address, data._address, *map(_address, arrays)
        anything = -np.inf, np.inf
        self._constants = np.array(
            [
                env.dt,
                env._ctrl_cost_weight,
                env._reset_noise_scale,
                getattr(env, "_healthy_reward", 0),
                *getattr(env, "_healthy_z_range", anything),
                *getattr(env, "_healthy_angle_range", anything),
                *getattr(env, "_healthy_state_range", anything),
                *env.init_qpos,
                *env.init_qvel,
            ]
        )
        self._ends, self._ended_at = np.zeros(count, np.int64), np.zeros((count, k.MOST_ENDED, 3))
        width = 3 * self.observation_size + self.action_size + 2
        self._host_actions = np.zeros((count, self.action_size), np.float32)
        self._host_packets = np.zeros((count, width), np.float32)
        words = np.zeros(k.CONTROL + 8, np.int64)
        self._control = control = words[-(_address(words) // 8) % 8 :][: k.CONTROL]  # at a line of the cache
        for word, value in {
            k.TASK: k.NAMES.index(self.task.name),
            k.OBSERVATION_SIZE: self.observation_size,
            k.ACTION_SIZE: self.action_size,
            k.POSITIONS: len(env.init_qpos),
            k.VELOCITIES: len(env.init_qvel),
            k.FRAME_SKIP: env.frame_skip,
            k.TIME_LIMIT: self.time_limit,
            k.ENVIRONMENTS: count,
            k.WORKERS: k.prepare_semaphore(_address(control), min(count, _cores()) - 1),
            k.SPINS: k.USUAL_SPINS,
        }.items():
            control[word] = value
        for word, array in {
            k.CONSTANTS: self._constants,
            k.SIMULATORS: self._places,
            k.OBSERVATIONS: self.observation,
            k.ELAPSED: self.elapsed,
            k.EPISODE_RETURNS: self.episode_return,
            k.ENV_STEPS: self._env_steps,
            k.ENDED: self._ends,
            k.ENDED_AT: self._ended_at,
            k.LIVE: self.live,
            k.HOST_ACTIONS: self._host_actions,
            k.HOST_PACKETS: self._host_packets,
        }.items():
            control[word] = _address(array)
        self._point_to_generators()
        workers = [
            threading.Thread(target=k.serve, args=(_address(control),), daemon=True)
            for _ in range(control[k.WORKERS])
        ]
        for worker in workers:
            worker.start()
        outliving = control, self._host_actions, self._host_packets
        self._stop = weakref.finalize(self, _stop, k, outliving, workers)

    def _point_to_generators(self) -> None:
        """Tells the compiled code where the random generators are, which a seed or a snapshot makes anew."""
        if self._kernels:
            self._places[:, self._kernels.GENERATOR] = [
                env.np_random.bit_generator.ctypes.bit_generator.value for env in self._envs
            ]


def make_environments(task: Task, seeds: Sequence[int]) -> Environments:
    """Returns environments of `task`, one a seed, in the fastest exact implementation there is."""
    return (MujocoEnvironments if task.name in TASKS else Environments)(task, seeds)


def _physics(env: Any) -> Float64[np.ndarray, " S"]:
    size = mujoco.mj_stateSize(env.model, _INTEGRATION)  # pyright: ignore[reportAttributeAccessIssue]
    state = np.zeros(size)
    mujoco.mj_getState(env.model, env.data, state, _INTEGRATION)  # pyright: ignore[reportAttributeAccessIssue]
    return state


def _generator_words(generator: np.random.Generator) -> UInt64[np.ndarray, " 6"]:
    """Returns the state of a PCG64 generator: two 128-bit integers as 64-bit halves, and its half-used draw."""
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


@functools.cache
def kernels() -> Any:
    """Returns the module of compiled code; None where it cannot be had, which is said once."""
    try:
        if os.environ.get("O2O_NATIVE") == "0":
            raise ImportError("O2O_NATIVE=0")
        from o2o.envs import kernels
    except Exception as error:  # no numba, or one or libraries that differ from those this was written for
        (reason, *_) = str(error).splitlines() or [type(error).__name__]
        print(f"environments are stepped by gymnasium, which is slow: {reason}", file=sys.stderr, flush=True)
        return None
    return kernels


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


_outliving: list[tuple[np.ndarray, ...]] = []
"""Arrays that a program may still look at when the environments are closed; little."""


def _stop(kernels: Any, outliving: tuple[np.ndarray, ...], workers: Sequence[threading.Thread]) -> None:
    _outliving.append(outliving)
    kernels.stop(_address(outliving[0]))
    for worker in workers:
        worker.join()
