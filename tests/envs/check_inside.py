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


def actions(key, step, count, size):
    """Some actions, of which some are out of bounds."""
    return jax.random.uniform(jax.random.fold_in(key, step), (count, size), minval=-1.3, maxval=1.3)


@partial(jax.jit, static_argnums=(3, 4))
def block(handle, key, start, count, sizes, steps):
    """Steps so often; the last packet and a sum over all."""
    observation_size, action_size = sizes

    def body(i, carry):
        packet = advance_inside(handle, actions(key, start + i, count, action_size), observation_size)
        return packet, carry[1] + packet

    zeros = jnp.zeros((count, 3 * observation_size + action_size + 2))
    return jax.lax.fori_loop(0, steps, body, (zeros, zeros))


@partial(jax.jit, static_argnums=(2, 3))
def episodes(handle, key, count, sizes, steps):
    """Plays so many steps; the last observation."""

    def body(i, observation):
        return play_inside(handle, actions(key, i, count, sizes[1]), sizes[0])

    return jax.lax.fori_loop(0, steps, body, jnp.zeros((count, sizes[0])))


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
    sizes, key = (ours.observation_size, ours.action_size), jax.random.key(3)
    act = jax.jit(partial(actions, count=count, size=sizes[1]))
    np.testing.assert_array_equal(ours.start(), theirs.start())
    done = 0
    for length in (1, steps // 2, steps - steps // 2 - 1):  # a block's length is no part of the program
        last, _ = block(ours.handle, key, done, count, sizes, length)
        for _ in range(length):
            expected = theirs.advance(np.asarray(act(key, done)))
            done += 1
        np.testing.assert_array_equal(last, expected)
        assert ours.ended() == theirs.ended()
        assert ours.env_steps == theirs.env_steps == done
        same(ours, theirs)
    ours.begin(range(count))
    theirs.begin(range(count))
    last = episodes(ours.handle, key, count, sizes, steps)
    for i in range(steps):
        expected = theirs.play(np.asarray(act(key, i)))
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
    """What an environment's step takes: called from Python, inside a program, and there with one thread."""
    environments = mujoco_tasks.make_environments(TASKS[task], range(count))
    environments.can_step_inside(platform)
    environments.start()
    sizes, key = (environments.observation_size, environments.action_size), jax.random.key(3)
    action = np.asarray(jax.random.uniform(key, (count, sizes[1]), minval=-1, maxval=1))

    def python():
        for _ in range(steps):
            environments.advance(action)

    def inside():
        jax.block_until_ready(block(environments.handle, key, 0, count, sizes, steps))

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
    for task in ("hopper", "halfcheetah", "ant"):
        for count in (1, 10, 100):
            python, inside = microseconds(task, platform, count)
            print(
                f"{task} {count:4}: µs a step and environment: {python:7.1f} from Python, {inside:7.1f} inside",
                flush=True,
            )
    cores = mujoco_tasks._cores
    for threads in (1, 2, 4, 8, 16):
        if threads <= cores():
            mujoco_tasks._cores = lambda: threads  # noqa: B023
            found = [microseconds("hopper", platform, 100)]
            print(
                f"hopper  100 by {threads} threads: {found[0][0]:.1f} from Python, {found[0][1]:.1f} inside",
                flush=True,
            )
            mujoco_tasks._cores = cores


if __name__ == "__main__":
    main(sys.argv[1])
