"""Environments stepped from inside a compiled program, against gymnasium's steps, and how long a step takes.

    python tests/envs/check_inside.py cpu|gpu

A test does it on the CPU (test_native.py); on a GPU it is done by hand.
"""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from o2o.envs import mujoco_tasks
from o2o.envs.inside import advance_inside, play_inside
from o2o.envs.tasks import TASKS


def actions(environments, steps, seed=0):
    """So many random actions, of which some are out of bounds."""
    shape = steps, len(environments), environments.action_size
    return np.random.default_rng(seed).uniform(-1.3, 1.3, shape).astype(np.float32)


@partial(jax.jit, static_argnums=2)
def block(handle, given, observation_size, start, steps):
    """Advances so often; the last packet and a sum over all."""

    def body(i, carry):
        packet = advance_inside(handle, given[start + i], observation_size)
        return packet, carry[1] + packet

    zeros = jnp.zeros((given.shape[1], 3 * observation_size + given.shape[2] + 2))
    return jax.lax.fori_loop(0, steps, body, (zeros, zeros))


@partial(jax.jit, static_argnums=2)
def episodes(handle, given, observation_size):
    """Plays; the last observation."""

    def body(i, observation):
        return play_inside(handle, given[i], observation_size)

    return jax.lax.fori_loop(0, len(given), body, jnp.zeros((given.shape[1], observation_size)))


def python_environments(task, seeds):
    """Environments that gymnasium steps."""
    native, mujoco_tasks.kernels = mujoco_tasks.kernels, lambda: None
    try:
        return mujoco_tasks.make_environments(TASKS[task], seeds)
    finally:
        mujoco_tasks.kernels = native


def check(task, platform, count=10, steps=300):
    """Training and evaluation, from inside and by gymnasium: raises where they differ."""
    ours = mujoco_tasks.make_environments(TASKS[task], range(count))
    theirs = python_environments(task, range(count))
    assert ours.can_step_inside(platform), "no function for this platform"
    assert not theirs.can_step_inside(platform)
    size, given, done = ours.observation_size, actions(ours, steps), 0
    np.testing.assert_array_equal(ours.start(), theirs.start())
    for length in (1, steps // 2, steps - steps // 2 - 1):  # which is no part of the program
        last, _ = block(ours.handle, given, size, done, length)
        for action in given[done : done + length]:
            expected = theirs.advance(action)
        done += length
        np.testing.assert_array_equal(last, expected)
        assert ours.ended() == theirs.ended()
        assert ours.env_steps == theirs.env_steps == done
        same(ours, theirs)
    ours.begin(range(count))
    theirs.begin(range(count))
    last = episodes(ours.handle, given, size)
    for action in given:
        expected = theirs.play(action)
    np.testing.assert_array_equal(last, expected)
    for part in ("reward", "lengths", "truncated"):
        np.testing.assert_array_equal(getattr(ours.record(), part), getattr(theirs.record(), part))
    same(ours, theirs)
    ours.close()


def same(ours, theirs):
    """Raises where the environments' states differ."""
    for mine, other in zip(ours.snapshot(), theirs.snapshot(), strict=True):
        assert mine.keys() == other.keys()
        for name, value in mine.items():
            np.testing.assert_array_equal(value, other[name], err_msg=name)
    np.testing.assert_array_equal(ours.live, theirs.live)


def microseconds(task, platform, count, steps=200):
    """What an environment's step takes, called from Python and inside a program."""
    environments = mujoco_tasks.make_environments(TASKS[task], range(count))
    environments.can_step_inside(platform)
    environments.start()
    handle, given = jnp.asarray(environments.handle), actions(environments, steps)
    on_device = jnp.asarray(given)

    def python():
        for action in given:
            environments.advance(action)

    def inside():
        jax.block_until_ready(block(handle, on_device, environments.observation_size, 0, steps))

    found = []
    for function in (python, inside):
        function()
        start = time.perf_counter()
        function()
        found.append(1e6 * (time.perf_counter() - start) / steps / count)
        environments.ended()
    environments.close()
    return found


def main(platform):
    """Checks and measures."""
    import tempfile

    jax.config.update("jax_platforms", {"gpu": "cuda"}.get(platform, platform))
    jax.config.update("jax_compilation_cache_dir", os.environ.get("CACHE") or tempfile.mkdtemp())
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    print(jax.__version__, jax.devices(), f"{os.cpu_count()} cores", flush=True)
    for task in ("hopper", "ant"):
        start = time.perf_counter()
        check(task, platform)
        print(f"{task}: equal ({time.perf_counter() - start:.1f} s)", flush=True)
    kept = [path.name for path in Path(jax.config.jax_compilation_cache_dir).iterdir()]
    print("in the compilation cache:", *sorted(name[:30] for name in kept if name.endswith("-cache")))
    cores = len(os.sched_getaffinity(0))
    print("µs a step and environment: from Python, inside", flush=True)
    for task in ("hopper", "halfcheetah", "ant"):
        for count in (1, 10, 100):
            print(task, count, *(f"{found:.1f}" for found in microseconds(task, platform, count)), flush=True)
    for threads in (1, 2, 4, 8, 16, 32):
        if threads <= cores:
            mujoco_tasks._cores = lambda threads=threads: threads
            found = microseconds("hopper", platform, 100)
            print("hopper 100", *(f"{each:.1f}" for each in found), f"by {threads} threads", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
