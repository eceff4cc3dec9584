"""`python -m benchmarks.following [--cells 1000] [--seeds 10] [--rounds 3]`: how long a status of many runs takes.

Half of the made-up runs are done, half are under way, their seeds at different steps: the most there is to read. Every
round is a new process, so that its start counts too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import yaml

EVALUATIONS = 70  # of the paper's online phase
UPDATES, INTERVAL = 500_000, 5_000


def write_runs(root: Path, cells: int, seeds: int) -> None:
    """Writes `cells` times `seeds` runs below `root`."""
    for cell in range(cells):
        for seed in range(seeds):
            path = root / "hopper-medium-v2" / "td3" / f"offline-uniform-{cell:08x}" / f"seed-{seed}"
            path.mkdir(parents=True)
            _write_run(path, cell, seed)


def _write_run(path: Path, cell: int, seed: int) -> None:
    done = cell % 2 == 0
    evaluations = EVALUATIONS if done else 5 + (13 * cell + 7 * seed) % (EVALUATIONS - 5)
    config = {
        "seed": seed,
        "conventions": "paper",
        "batch_size": 256,
        "discount": 0.9 + cell / 100_000,
        "learning_rate": {"policy": 3e-4, "critic": 3e-4},
        "network": {"hidden_sizes": [256, 256]},
        "dataset": {"name": "hopper-medium-v2", "source": "d4rl", "task": "hopper"},
        "algorithm": {"name": "td3", "policy_delay": 2, "exploration_noise": 0.1, "target_step": 0.005},
        "pretrain": {"updates": UPDATES, "algorithm": {"name": "td3_bc", "behavior_cloning_alpha": 2.5}},
        "finetune": {"env_steps": EVALUATIONS * INTERVAL},
        "replay_init": {"name": "offline", "preload": True, "capacity": 1_000_000},
        "offline_ratio": {"name": "uniform", "value": None},
        "paths": {"data": "data", "runs": "runs"},
    }
    steps = [UPDATES + INTERVAL * (i + 1) for i in range(evaluations)]
    returns = [1234.5678901234567 + i for i in range(10)]
    rows = [{"phase": "finetune", "step": step, "score": step / 10_000, "returns": returns} for step in steps]
    clock = [
        {"phase": "finetune", "step": step, "training_seconds": step / 100, "evaluation_seconds": step / 900}
        for step in steps
    ]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    state = {"state": "DONE" if done else "RUNNING", "attempt": 1, "updated_at": now, "step": steps[-1]}
    (path / "config.yaml").write_text(yaml.dump(config, Dumper=yaml.CSafeDumper, sort_keys=False))
    (path / "status.json").write_text(json.dumps(state))
    (path / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "timing.jsonl").write_text("".join(json.dumps(row) + "\n" for row in clock))
    if done:
        (path / "result.json").write_text(json.dumps({"online_score": rows[-1]["score"]}))


def main() -> None:
    """Prints the seconds of every round and their medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.following")
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        write_runs(Path(directory), options.cells, options.seeds)
        command = [sys.executable, "-m", "o2o.sweep", "status", "--runs", directory]
        walls, processors = [], []
        for _ in range(options.rounds):
            before, start = os.times(), time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            walls.append(time.perf_counter() - start)
            after = os.times()
            processors.append(
                after.children_user + after.children_system - before.children_user - before.children_system
            )
            first = done.stdout.splitlines()[0].partition(": ")[2]
            print(f"{first}\n  {walls[-1]:.2f} s, of the processor {processors[-1]:.2f} s")
    load = os.getloadavg()[0]
    print(
        f"median of {options.rounds}: {statistics.median(walls):.2f} s, of the processor "
        f"{statistics.median(processors):.2f} s ({os.cpu_count()} cores, load {load:.1f})"
    )


if __name__ == "__main__":
    main()
