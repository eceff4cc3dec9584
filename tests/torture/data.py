"""A random policy's steps in hopper, as a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np


def random_steps(path: Path, rows: int = 120) -> Path:
    """Writes so many rows to `path`."""
    from o2o.envs.mujoco_tasks import make_environments  # not above: jaxtyping's plugin must come before o2o
    from o2o.envs.tasks import TASKS

    environments = make_environments(TASKS["hopper"], [0])
    generator = np.random.default_rng(0)
    names = ("observations", "actions", "rewards", "terminals", "timeouts")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    observation = environments.reset()
    for _ in range(rows):
        action = generator.uniform(-1, 1, (1, 3)).astype(np.float32)
        following, reward, terminated, _ = environments.step(action)
        for name, value in zip(names, (observation, action, reward, terminated, [False]), strict=True):
            columns[name].append(value[0])
        observation = environments.reset() if terminated[0] else following
    environments.close()
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            file[name] = np.array(values)
    return path
