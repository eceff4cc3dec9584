"""The time to the first update, from nothing, and that of bringing a million rows to the device.

Run as a program, it is the process whose start is timed: `python -m benchmarks.startup first-update`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

MILLION = 1_000_000
DONE = "done"
"""The word of the timed process after its first updates. The time that it takes to end is not part of a start."""


def start_seconds(platform: str) -> dict[str, float]:
    """Seconds from a process's start until it has composed, built and compiled a pretraining and made first updates.

    Cold is with an empty compilation cache, warm with the one that the cold start filled.
    """
    with tempfile.TemporaryDirectory() as cache:
        return {f"start_{state}_seconds": _process_seconds(platform, cache) for state in ("cold", "warm")}


def load_seconds(rows: int = MILLION) -> float:
    """Seconds to read, check and pack a compressed file of so many rows of walker2d's size, until it is on the device.

    The file's contents are in the page cache.
    """
    import jax
    import jax.numpy as jnp

    from benchmarks.workload import composed
    from o2o.datasets import loading
    from o2o.replay.buffer import pack

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "noise.hdf5"
        _write(path, rows)
        dataset = composed("dataset=file", f"dataset.path={path}", "dataset.task=walker2d").dataset
        start = time.perf_counter()
        packed = pack(*map(np.asarray, loading.load(dataset, Path(directory))[:5]))
        jax.block_until_ready(jnp.asarray(packed))
        return time.perf_counter() - start


def _process_seconds(platform: str, cache: str) -> float:
    as_in_a_job = {
        "JAX_PLATFORMS": platform,
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
    }
    start = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.startup", "first-update"]
    with subprocess.Popen(
        command, env=os.environ | as_in_a_job, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        seconds = next((time.perf_counter() - start for line in process.stdout if line.strip() == DONE), None)
        process.stdout.read()
    if seconds is None or process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {process.returncode}")
    return seconds


def _write(path: Path, rows: int) -> None:
    """Noise in D4RL's layout, in episodes of a thousand steps."""
    from o2o.datasets.files import hdf5
    from o2o.envs.tasks import TASKS, task_sizes

    observation, action = task_sizes(TASKS["walker2d"])
    generator = np.random.default_rng(0)
    observations = generator.normal(size=(rows, observation)).astype(np.float32)
    columns = {
        "observations": observations,
        "next_observations": np.roll(observations, -1, axis=0),
        "actions": generator.uniform(-1, 1, (rows, action)).astype(np.float32),
        "rewards": generator.normal(size=rows).astype(np.float32),
        "terminals": np.zeros(rows, bool),
        "timeouts": np.arange(rows) % 1000 == 999,
    }
    with hdf5.create(path) as file:
        for name, values in columns.items():
            file.create_dataset(name, data=values, compression="gzip")


def _first_update() -> None:
    import jax

    from benchmarks.workload import Workload, composed
    from o2o.training.loop import CHUNK
    from o2o.training.seeds import make_members

    workload = Workload(composed("dataset=walker2d-medium-v2"), make_members(1))
    jax.block_until_ready(next(workload.pretraining([CHUNK])).state)
    print(DONE, flush=True)


if __name__ == "__main__":
    _first_update()
