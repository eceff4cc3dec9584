"""Is the simulator that we train in the one that a set came from? The command `check`.

Two answers. A sample of the file's rows is re-simulated: their state (`infos/qpos`, `infos/qvel`) and action must lead
to their next observation and reward. And a medium set's own behaviour policy (`metadata/policy`) is rolled out: it
must earn what it earned in the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from o2o.config.schema import Dataset, Paths
from o2o.datasets.files import hdf5, inspection
from o2o.datasets.loading import ANT_OBSERVED, locate
from o2o.datasets.regenerated import rollouts, tanh_gaussian
from o2o.datasets.regenerated.tanh_gaussian import LAYERS, TanhGaussian
from o2o.envs.mujoco_tasks import MujocoEnvironments
from o2o.envs.tasks import TASKS
from o2o.errors import ConfigError

ENVIRONMENTS = 50
ROUNDING = 1e-5  # float32 of numbers of up to about 100
CLIP = 10.0  # of the velocities in hopper's and walker2d's observations


@dataclass(frozen=True)
class Resimulation:
    """How far off the environment is, row by row; absolute differences as float32 numbers."""

    state: Float[np.ndarray, "S O"]
    """Of the observation from what qpos and qvel say; else the file's infos are not those of its rows."""
    observation: Float[np.ndarray, "S O"]
    """Of the next observation."""
    reward: Float[np.ndarray, " S"] | None
    """None where the file lacks what the reward is measured on."""
    spread: Float[np.ndarray, " O"]
    """The standard deviation of each entry of the next observation."""


def check_sets(sets: Sequence[Dataset], paths: Paths, rows: int, episodes: int) -> None:
    """Re-simulates a sample of a set's rows in our environment, and rolls out its behaviour policy."""
    for dataset in sets:
        path = locate(dataset, paths.data)
        if dataset.mix or path is None:
            raise ConfigError(
                [
                    f"dataset={dataset.name}: not one file that is there. Name a single set, and get it first: "
                    "python -m o2o.datasets fetch (or generate) NAME"
                ]
            )
        if dataset.task not in TASKS:
            raise ConfigError(
                [f"dataset.task={dataset.task}: only {', '.join(TASKS)} can be put into a recorded state."]
            )
        task = TASKS[dataset.task]
        print(f"{dataset.name}  in {task.gymnasium_id}, mujoco {version('mujoco')}")
        _print_resimulation(resimulate(path, dataset.task, rows))
        if (policy := stored_policy(path)) is None:
            print("  behaviour policy: the file holds none (only medium sets do)")
        else:
            earned = behaviour_returns(policy, path, dataset.task, episodes)
            _print_returns(hdf5.statistics(hdf5.read(path, rows=dataset.rows)), earned)


def resimulate(path: Path, task: str, rows: int, seed: int = 0) -> Resimulation:
    """Puts the environment into the recorded states of a random sample of rows, and takes the recorded actions.

    Raises:
        ConfigError: if the file does not hold what that needs.
    """
    sample = _sampled(path, task, rows, seed)
    environments = MujocoEnvironments(TASKS[task], [0] * ENVIRONMENTS)
    environments.reset()
    observations, rewards = [], []
    size = len(sample["actions"])
    for start in range(0, size, ENVIRONMENTS):
        part = np.arange(start, start + ENVIRONMENTS) % size  # all environments run, also in a last part
        torso = sample["xpos"][part] if "xpos" in sample else None
        environments.place(sample["qpos"][part], sample["qvel"][part], torso)
        observation, reward, _, _ = environments.step(sample["actions"][part])
        observations.append(observation)
        rewards.append(reward)
    environments.close()
    recorded = sample["next_observations"]
    told = np.concatenate([sample["qpos"], sample["qvel"]], axis=1)
    own = sample["observations"][:, : ANT_OBSERVED if task == "ant" else None]
    hidden = told.shape[1] - own.shape[1]  # the positions along the floor
    return Resimulation(
        state=np.abs(np.clip(told[:, hidden:], -CLIP, CLIP) - np.clip(own, -CLIP, CLIP)),
        observation=np.abs(np.concatenate(observations)[:size] - recorded),
        reward=None
        if task == "ant" and "xpos" not in sample
        else np.abs(np.concatenate(rewards)[:size] - sample["rewards"]),
        spread=recorded.std(axis=0),
    )


def stored_policy(path: Path) -> TanhGaussian | None:
    """The behaviour policy in the file, if it holds one.

    Raises:
        ConfigError: if it is not of D4RL's kind.
    """
    with hdf5.opened(path) as file:
        if "metadata/policy" not in file:
            return None
        group = file["metadata/policy"]
        kind = [_text(group, name) for name in ("nonlinearity", "output_distribution")]
        hdf5.raise_any(
            path,
            [f"its policy is {' and '.join(kind)} instead of relu and tanh_gaussian."]
            if kind != ["relu", "tanh_gaussian"]
            else [],
        )
        weights = {}
        for layer in LAYERS:
            kinds = {"weight": "matrix", "bias": "column"}
            hdf5.raise_any(path, inspection.storage_problems(group[layer], kinds, path.stat().st_size))
            weights |= {f"{layer}/{part}": np.asarray(group[layer][part][()]) for part in kinds}
        return tanh_gaussian.checked(weights)


def behaviour_returns(
    policy: TanhGaussian, path: Path, task: str, episodes: int, seed: int = 0
) -> Float[np.ndarray, " E"]:
    """Returns of stochastic episodes of a file's behaviour policy in our environment.

    Raises:
        ConfigError: if the policy is not one of the task's.
    """
    environments = MujocoEnvironments(TASKS[task], range(seed, seed + episodes))
    sizes = environments.observation_size, environments.action_size
    if policy.sizes != sizes:
        raise ConfigError([f"{path}: its policy has sizes {policy.sizes}, but {task} has {sizes}."])
    earned = rollouts.returns(environments, policy, np.random.default_rng(seed))
    environments.close()
    return earned


def _sampled(path: Path, task: str, rows: int, seed: int) -> dict[str, np.ndarray]:
    """A random sample of rows, with what is needed to simulate them."""
    with hdf5.opened(path) as file:
        size = path.stat().st_size
        hdf5.raise_any(path, inspection.storage_problems(file, hdf5.KINDS, size))
        if "infos" not in file:
            hdf5.raise_any(
                path, ["no infos/qpos and infos/qvel, without which no row can be simulated again."]
            )
        infos = {"qpos": "matrix", "qvel": "matrix"}
        if "xpos" in file["infos"]:
            infos["xpos"] = "matrix"
        hdf5.raise_any(path, inspection.storage_problems(file["infos"], infos, size))
        count = len(file["rewards"])
        candidates = np.arange(count)
        if "next_observations" in file:
            hdf5.raise_any(path, inspection.storage_problems(file, {"next_observations": "matrix"}, size))
        else:
            ends = np.asarray(file["terminals"][()]).reshape(-1) | np.asarray(file["timeouts"][()]).reshape(
                -1
            )
            candidates = np.flatnonzero(~ends[:-1].astype(bool))
        chosen = np.sort(np.random.default_rng(seed).permutation(candidates)[:rows])
        sample = {key: file["infos"][key][chosen] for key in infos}
        for key in ("observations", "actions", "rewards"):
            sample[key] = file[key][chosen].astype(np.float32)
        following = file.get("next_observations")
        sample["next_observations"] = (
            file["observations"][chosen + 1] if following is None else following[chosen]
        ).astype(np.float32)
    sample["rewards"] = sample["rewards"].reshape(-1)
    _check_sizes(path, task, sample)
    return sample


def _check_sizes(path: Path, task: str, sample: dict[str, np.ndarray]) -> None:
    environments = MujocoEnvironments(TASKS[task], [0])
    environments.reset()
    wanted = {
        "qpos": environments.qpos.shape[1],
        "qvel": environments.qvel.shape[1],
        "actions": environments.action_size,
        "observations": environments.observation_size,
        "next_observations": environments.observation_size,
    }
    environments.close()
    hdf5.raise_any(
        path,
        [
            f"{key!r} has {sample[key].shape[1]} columns, but {task} has {size}. Check dataset.task."
            for key, size in wanted.items()
            if sample[key].shape[1] != size
        ],
    )


def _text(group: Any, name: str) -> str:
    value = group[name][()] if name in group else b"nothing"
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _print_resimulation(result: Resimulation) -> None:
    print(f"  rows re-simulated: {len(result.observation)}")
    print(f"  observations against their own qpos and qvel: {_verdict(result.state)}")
    print(f"  next observations: {_verdict(result.observation)}")
    print("    entry      spread  mean error   max error")
    padded = np.flatnonzero((result.spread == 0) & (result.observation.max(axis=0) == 0))
    for i in range(len(result.spread)):
        if i not in padded:
            errors = result.observation[:, i]
            print(f"    {i:5} {result.spread[i]:11.3g} {errors.mean():11.3g} {errors.max():11.3g}")
    if padded.size:
        print(f"    {padded[0]}–{padded[-1]}: constant, and equal")
    if result.reward is None:
        print(
            "  rewards: not compared. Ant's are measured on the torso, which lags the joints by a physics step; D4RL's "
            "files do not hold where it was (ours do, as infos/xpos)"
        )
    else:
        print(f"  rewards: {_verdict(result.reward)}")


def _verdict(errors: np.ndarray) -> str:
    how = "zero to rounding" if errors.max() <= ROUNDING else "NOT equal"
    off = float((errors > ROUNDING).mean())
    share = f", {100 * off:.3g} % of the numbers are off by more than {ROUNDING:g}" if off else ""
    return f"{how} (error: mean {errors.mean():.2g}, max {errors.max():.2g}{share})"


def _print_returns(file: hdf5.Statistics, earned: np.ndarray) -> None:
    error = np.hypot(earned.std() / len(earned) ** 0.5, file.return_std / file.episodes**0.5)
    off = abs(earned.mean() - file.return_mean) / error
    print("  behaviour policy        episodes       mean        std        min        max")
    print(
        f"    in the file           {file.episodes:8} {file.return_mean:10.1f} {file.return_std:10.1f} "
        f"{file.return_min:10.1f} {file.return_max:10.1f}"
    )
    print(
        f"    rolled out here       {len(earned):8} {earned.mean():10.1f} {earned.std():10.1f} "
        f"{earned.min():10.1f} {earned.max():10.1f}"
    )
    print(f"    the means differ by {off:.1f} standard errors{'' if off < 3 else ': more than chance'}")
