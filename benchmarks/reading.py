"""`python -m benchmarks.reading [--rows 1000000] [--rounds 5]`: from a file in D4RL's layout to transitions.

It writes a file of halfcheetah-medium's shape, and measures by turns in one process: reading and checking it, making
transitions of its rows, and the same transitions by a Python loop over the rows, which is how D4RL itself makes them.
Medians over the rounds are printed; the ratio is taken round by round, of processor time, which other processes on the
machine disturb less.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from o2o.datasets.files import digest, hdf5
from o2o.datasets.files.hdf5 import StoredRows

OBSERVATION_SIZE, ACTION_SIZE, EPISODE = 17, 6, 1000  # halfcheetah's


def transitions_by_a_loop(rows: StoredRows) -> dict[str, np.ndarray]:
    """D4RL's q-learning transitions, made row by row and collected in lists."""
    columns: dict[str, list[Any]] = {name: [] for name in ("s", "a", "r", "d", "n")}
    for i in range(len(rows.rewards) - 1):
        if rows.timeouts[i]:
            continue
        columns["s"].append(rows.observations[i].astype(np.float32))
        columns["a"].append(rows.actions[i].astype(np.float32))
        columns["r"].append(rows.rewards[i].astype(np.float32))
        columns["d"].append(bool(rows.terminals[i]))
        columns["n"].append(rows.observations[i + 1].astype(np.float32))
    return {name: np.array(values) for name, values in columns.items()}


def write(path: Path, rows: int) -> None:
    """A file of so many rows, as D4RL writes them but for the values."""
    generator = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["observations"] = generator.standard_normal((rows, OBSERVATION_SIZE), np.float32)
        file["actions"] = generator.random((rows, ACTION_SIZE), np.float32)
        file["rewards"] = generator.random(rows, np.float32)
        file["terminals"] = np.zeros(rows, bool)
        file["timeouts"] = np.arange(1, rows + 1) % EPISODE == 0


def measured(path: Path) -> dict[str, tuple[float, float]]:
    """One round: what was done, and its seconds by the clock and of the processor."""
    path.with_name(path.name + ".sha256.json").unlink(missing_ok=True)
    found = {
        "SHA-256, first time": seconds(lambda: digest.sha256(path)),
        "SHA-256, remembered": seconds(lambda: digest.sha256(path)),
    }
    start = time.perf_counter(), time.process_time()
    rows = hdf5.read(path)
    found["read and check"] = time.perf_counter() - start[0], time.process_time() - start[1]
    found["transitions"] = seconds(lambda: hdf5.transitions(rows))
    found["transitions by a loop"] = seconds(lambda: transitions_by_a_loop(rows))
    return found


def seconds(work: Callable[[], Any]) -> tuple[float, float]:
    """The seconds that it takes, by the clock and of the processor."""
    start = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reading")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "set.hdf5"
        write(path, options.rows)
        rounds = [measured(path) for _ in range(options.rounds)]
    print(f"{options.rows} rows, medians of {options.rounds} rounds, load {os.getloadavg()[0]:.1f}")
    for name in rounds[0]:
        wall, processor = (statistics.median(r[name][clock] for r in rounds) for clock in (0, 1))
        print(f"  {name:24}{wall:10.4f} s, of the processor {processor:10.4f} s")
    load = [r["read and check"][1] + r["transitions"][1] for r in rounds]
    ratio = [r["transitions by a loop"][1] / r["transitions"][1] for r in rounds]
    print(f"  from file to transitions {statistics.median(load):.2f} s of the processor")
    print(f"  the loop takes {statistics.median(ratio):.0f} times as long")


if __name__ == "__main__":
    main()
