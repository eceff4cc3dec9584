"""Run directories with hand-made curves, whose collapse is known: for the tests of the analysis.

    write_run(root, "hopper-medium-v2", "td3", collapsing(80.0, 30.0, 120.0), seed=3)
    write_grid(root, datasets=("hopper-medium-v2",), seeds=range(3))

`python -m tests.synthetic_runs DIRECTORY` writes the paper's whole grid with three seeds, to look at reports with.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from analysis.data.runs import Finetuning
from o2o.runs.directory.science import describe

PRETRAIN_UPDATES = 500_000
BUDGET = 200_000
GRID = np.concatenate(
    [np.arange(0, 10_000, 500), np.arange(10_000, 20_000, 1_000), np.arange(20_000, BUDGET + 1, 5_000)]
)
"""The default evaluations of a finetuning: finer where collapse happens."""

DATASETS = tuple(
    f"{task}-{quality}-v2"
    for task in ("ant", "halfcheetah", "hopper", "walker2d")
    for quality in ("medium-replay", "medium")
)
VERSIONS = {"python": "3.11.7", "jax": "0.10.2", "mujoco": "3.4.0"}

Shape = Callable[[np.ndarray], np.ndarray]


def steady(start: float, end: float) -> Shape:
    """A straight line from `start` at the switch to `end` at 200 000 env steps."""
    return lambda steps: start + (end - start) * steps / BUDGET


def collapsing(start: float, lowest: float, end: float, fall: int = 2_000, back: int = 60_000) -> Shape:
    """From `start` straight to `lowest` within `fall` env steps, straight back to `start` at `back`, then to `end`."""
    return lambda steps: np.interp(steps, [0, fall, back, BUDGET], [start, lowest, start, end])


def write_run(
    root: Path,
    dataset: str,
    algorithm: str,
    shape: Shape,
    *,
    seed: int = 0,
    replay: str = "offline",
    ratio: float | None = None,
    steps: np.ndarray = GRID,
    noise: float = 0.0,
    scratch: bool = False,
    source: str = "d4rl",
    state: str = "DONE",
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Writes one finetuning run and returns its directory; `overrides` change dotted keys of its configuration.

    Every evaluation has ten episodes whose mean is the score (returns are scores here) and whose standard deviation is
    `noise`·√10, so that scores scatter by `noise`; the one at the switch has a hundred and is exact.
    """
    config = run_config(dataset, algorithm, seed, replay, ratio, int(steps[-1]), scratch, source)
    for key, value in (overrides or {}).items():
        *parents, last = key.split(".")
        tree = config
        for parent in parents:
            tree = tree[parent]
        tree[last] = value
    text = json.dumps(config | {"seed": 0}, sort_keys=True)
    code = hashlib.sha256(text.encode()).hexdigest()[:8]
    share = "uniform" if ratio is None else f"r{100 * ratio:g}"
    place = config["dataset"]["task"] if scratch else dataset
    path = root / place / algorithm / f"{replay}-{share}-{code}" / f"seed-{seed}"
    path.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng([seed, len(algorithm), len(replay)])
    switch = config["pretrain"]["updates"]
    evaluations, train = [], []
    for step, score in zip(steps.tolist(), shape(steps).tolist(), strict=True):
        episodes = 100 if step == 0 else 10
        returns = score + noise * 10**0.5 * generator.standard_normal(episodes)
        if step == 0:
            returns += score - returns.mean()
        mean = float(returns.mean())
        evaluations.append(
            {"phase": "finetune", "step": switch + step, "updates": step, "env_steps": step}
            | {"return_mean": mean, "return_std": float(returns.std()), "score": mean}
            | {"returns": returns.tolist(), "length_mean": 500.0, "q_minus_return": 200.0 - 2.0 * mean}
        )
        if step % 1_000 == 0:
            train.append(
                {"phase": "finetune", "step": switch + step, "critic_loss": 3.0, "q_mean": 150.0 - mean}
                | {"policy_distance": step / BUDGET, "td_error_offline": 2.0, "td_error_fresh": 4.0}
                | ({"lambda": 10.0, "constraint": 1e-5} if algorithm == "td3_c" else {})
            )
    env_steps = np.arange(500, int(steps[-1]) + 1, 500)
    rows = zip(env_steps.tolist(), np.interp(env_steps, steps, shape(steps)).tolist(), strict=True)
    episodes = [{"env_step": step, "return": value, "length": 500} for step, value in rows]
    (path / "config.yaml").write_text(yaml.dump(config, sort_keys=False, Dumper=yaml.CSafeDumper))
    (path / "identity.json").write_text(json.dumps({"identity": f"{code}{seed}", "code_hash": "c0de" * 16}))
    for name, lines in (("eval", evaluations), ("train", train), ("episodes", episodes)):
        (path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    status = {"state": state, "attempt": 1, "phase": "finetune", "step": switch + int(steps[-1])}
    (path / "status.json").write_text(json.dumps(status))
    if state == "DONE":
        offline = None if scratch else evaluations[0]["score"]
        online = evaluations[-1]["score"]
        result = {"offline_score": offline, "online_score": online}
        result |= {"delta": None if offline is None else online - offline, "identity": f"{code}{seed}"}
        result |= {"execution": {"seconds": 60.0, "members": 1, "device": "cpu: cpu", "versions": VERSIONS}}
        (path / "result.json").write_text(json.dumps(result))
    return path


def write_pretraining(
    root: Path, dataset: str, offline_score: float, seed: int = 0, source: str = "d4rl", dips: float = 0.0
) -> Path:
    """Writes the pretraining that the runs of this dataset and seed came from: a straight line to its score.

    Every second of its evaluations lies `dips` points lower, but not the last.
    """
    config = run_config(dataset, "td3", seed, "offline", None, 0, False, source)
    path = root / dataset / "pretrain" / "td3_bc-00000000" / f"seed-{seed}"
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.yaml").write_text(yaml.dump(config, sort_keys=False, Dumper=yaml.CSafeDumper))
    rows = [
        {"phase": "pretrain", "step": step, "env_steps": 0}
        | {"score": offline_score * step / PRETRAIN_UPDATES - dips * (step // 5_000 % 2)}
        for step in range(5_000, PRETRAIN_UPDATES + 1, 5_000)
    ]
    (path / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "result.json").write_text(json.dumps({"offline_score": offline_score}))
    return path


def write_grid(
    root: Path,
    datasets: Iterable[str] = DATASETS,
    seeds: Iterable[int] = range(3),
    ratios: Iterable[float] = (0.25, 0.5, 0.75),
    source: str = "d4rl",
    noise: float = 2.0,
) -> int:
    """Writes the paper's grid, a frozen arm and training from scratch, with made-up curves; returns how many runs.

    TD3 collapses, deeper on `medium` than on `medium-replay`, and ends highest; TD3-C falls half as deep; TD3-BC never
    falls, and gains more from an empty replay.
    """
    written = 0
    tasks = set()
    for dataset in datasets:
        for seed in seeds:
            write_pretraining(root, dataset, 50.0 + seed, seed, source)
            for algorithm, replay, ratio, shape in grid_arms(dataset, seed, ratios):
                write_run(
                    root,
                    dataset,
                    algorithm,
                    shape,
                    seed=seed,
                    replay=replay,
                    ratio=ratio,
                    noise=noise,
                    source=source,
                )
                written += 1
            task = _task(dataset)
            if (task, seed) not in tasks:
                tasks.add((task, seed))
                shape = steady(1.0, 60.0)
                write_run(root, dataset, "td3", shape, seed=seed, replay="empty", scratch=True, noise=noise)
                written += 1
    return written


def grid_arms(dataset: str, seed: int, ratios: Iterable[float]) -> list[tuple[str, str, float | None, Shape]]:
    """The arms of `write_grid`: algorithm, replay, ratio, and the curve."""
    start = 50.0 + seed
    lowest = 35.0 if "replay" in dataset else 10.0
    arms: list[tuple[str, str, float | None, Shape]] = [
        ("frozen", "empty", None, steady(start, start)),
        ("td3", "offline", None, collapsing(start, lowest, 100.0)),
        ("td3", "empty", None, collapsing(start, lowest - 5.0, 95.0)),
        ("td3_c", "offline", None, collapsing(start, (start + lowest) / 2, 92.0)),
        ("td3_c", "empty", None, collapsing(start, start - 5.0, 98.0)),
        ("td3_bc", "offline", None, steady(start, 60.0)),
        ("td3_bc", "empty", None, steady(start, 92.0)),
    ]
    for ratio in ratios:
        arms.append(("td3", "offline", ratio, collapsing(start, lowest, 97.0)))
        arms.append(("td3_bc", "offline", ratio, steady(start, 60.0 + 20.0 * (1.0 - ratio))))
    return arms


def run_in_memory(
    dataset: str,
    algorithm: str,
    seed: int,
    scores: np.ndarray,
    *,
    replay: str = "offline",
    ratio: float | None = None,
    switch: np.ndarray | None = None,
) -> Finetuning:
    """A run of 200 000 env steps that was never on disk, on the default evaluations, whose returns are its scores.

    `switch` has those of the episodes at the switch; without them it was trained from scratch.
    """
    config = run_config(dataset, algorithm, seed, replay, ratio, BUDGET, scratch=switch is None)
    evaluations: dict[str, Any] = {"env_steps": GRID, "score": scores, "return_mean": scores}
    if switch is not None:
        evaluations["returns"] = [switch, np.empty(10)]
    return Finetuning(
        path=Path(f"{dataset}/{algorithm}/{replay}-{ratio}-{switch is None}/seed-{seed}"),
        config=config,
        result={"offline_score": None if switch is None else float(switch.mean())},
        identity=describe(config),
        evaluations=evaluations,
        pretraining=None,
    )


def grid_in_memory(noise: float, seeds: Iterable[int], ratios: Iterable[float]) -> list[Finetuning]:
    """What `write_grid` writes of the paper's eight sets, but for the files."""
    runs, random = [], np.random.default_rng(0)
    for dataset, seed in itertools.product(DATASETS, seeds):
        switch = 50.0 + seed + noise * random.choice([-1.0, 1.0], 100)
        switch += 50.0 + seed - switch.mean()
        for algorithm, replay, ratio, shape in grid_arms(dataset, seed, ratios):
            scores = shape(GRID) + noise * random.standard_normal(len(GRID))
            scores[0] = switch.mean()
            runs.append(
                run_in_memory(dataset, algorithm, seed, scores, replay=replay, ratio=ratio, switch=switch)
            )
        if dataset.endswith("medium-v2"):
            runs.append(run_in_memory(dataset, "td3", seed, steady(1.0, 60.0)(GRID), replay="empty"))
    return runs


def _task(dataset: str) -> str:
    return dataset.removeprefix("regen-").split("-")[0]


def run_config(
    dataset: str,
    algorithm: str,
    seed: int,
    replay: str,
    ratio: float | None,
    env_steps: int,
    scratch: bool = False,
    source: str = "d4rl",
) -> dict[str, Any]:
    """As much of a configuration as the analysis looks at."""
    return {
        "seed": seed,
        "batch_size": 256,
        "discount": 0.99,
        "learning_rate": {"policy": 3e-4, "critic": 3e-4},
        "network": {"hidden_sizes": [256, 256]},
        "dataset": {"name": dataset, "source": source, "task": _task(dataset), "path": None},
        "algorithm": {"name": algorithm, "policy_delay": 2},
        "pretrain": {"updates": 0 if scratch else PRETRAIN_UPDATES, "algorithm": {"name": "td3_bc"}},
        "finetune": {"env_steps": env_steps},
        "replay_init": {"name": replay, "preload": replay == "offline"},
        "offline_ratio": {"name": "uniform" if ratio is None else f"r{100 * ratio:g}", "value": ratio},
        "evaluation": {"episodes": 10, "switch_episodes": 100},
        "paths": {"data": "data", "runs": "runs"},
    }


if __name__ == "__main__":
    count = write_grid(Path(sys.argv[1]))
    print(f"wrote {count} finetuning runs below {sys.argv[1]}")
