"""Small behaviour policies, and sets made with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from o2o.config.schema import Dataset
from o2o.datasets.regenerated import behavior, rlkit, rollouts, tanh_gaussian, workers
from o2o.datasets.regenerated.tanh_gaussian import TanhGaussian
from o2o.envs.mujoco_tasks import MujocoEnvironments
from o2o.envs.tasks import TASKS

WALKER = Dataset(
    name="regen-walker2d-medium",
    source="regenerated",
    task="walker2d",
    quality="medium",
    rows=600,
    seed=3,
)
EPOCHS = [0, 4, 10]
SIZES = {"walker2d": (17, 6), "hopper": (11, 3), "halfcheetah": (17, 6), "ant": (111, 8)}


def random_policy(observation_size: int, action_size: int, seed: int = 0, **changes: Any) -> TanhGaussian:
    """An untrained policy."""
    generator = np.random.default_rng(seed)
    outputs = {"fc0": 64, "fc1": 64, "last_fc": action_size, "last_fc_log_std": action_size}
    arrays: dict[str, Any] = {}
    for layer, size in outputs.items():
        inputs = observation_size if layer == "fc0" else 64
        arrays[f"{layer}/weight"] = generator.normal(0, inputs**-0.5, (size, inputs)).astype(np.float32)
        arrays[f"{layer}/bias"] = generator.normal(0, 0.1, size).astype(np.float32)
    return TanhGaussian({key: value for key, value in (arrays | changes).items() if value is not None})


def write_policies(directory: Path) -> None:
    """Writes what the package would ship."""
    for task, sizes in SIZES.items():
        tanh_gaussian.save(directory / f"{task}-medium.npz", [random_policy(*sizes)], {"command": "none"})
        several = [random_policy(*sizes, seed) for seed in range(len(EPOCHS))]
        tanh_gaussian.save(directory / f"{task}-snapshots.npz", several, {"epochs": EPOCHS})


@contextmanager
def inline(requests: list[rollouts.Request]) -> Iterator[list[Iterator[rollouts.RolloutRows]]]:
    """Stands for `rollouts.streamed` without processes, which take longer to start than to work here."""
    yield [rollouts.pieces(request) for request in requests]


class InlineWorkers(nullcontext):
    """Stands for `workers.Workers` without processes, which take longer to start than to work here."""

    def __init__(self, task: str, kind: str, count: int):
        super().__init__(self)
        self._environments = MujocoEnvironments(TASKS[task], [0])
        self._job = workers.JOBS[kind]

    def submit(self, policy: TanhGaussian, seed: int, number: int) -> Future[rollouts.RolloutRows]:
        """The job, done."""
        future: Future[rollouts.RolloutRows] = Future()
        future.set_result(self._job(self._environments, policy, seed, number))
        return future


def shorten_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes blocks of 20 steps and 20 updates, in this process."""
    for module in (rollouts, rlkit):
        monkeypatch.setattr(module, "BLOCK", 20)
    monkeypatch.setattr(rlkit, "UPDATES", 10)
    for module in (behavior, rlkit):
        monkeypatch.setattr(module, "Workers", InlineWorkers)


def read_all(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file by their names."""
    with h5py.File(path) as opened:
        file: Any = opened
        keys: list[str] = []
        file.visititems(lambda key, item: keys.append(key) if isinstance(item, h5py.Dataset) else None)
        return {key: file[key][()] for key in keys}


def recipe_of(path: Path) -> Any:
    """The recipe that a set says it was made by."""
    with h5py.File(path) as file:
        return json.loads(str(file.attrs["recipe"]))
