"""`python -m benchmarks`: update rate, online rate, evaluation, start and loading, as `bench.json` and a table.

Every round measures the matrix-product peak and all phases one after the other in this process, so that a
machine whose speed drifts drifts under all of them; ratios are taken round by round, and medians shown. What
is measured on a GPU (`--device gpu`) is added to the same file, with `gpu_` before its names.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks import rates, results, startup, stepping
from benchmarks.workload import Workload, composed
from o2o.envs.tasks import TASKS
from o2o.errors import ConfigError
from o2o.machine import device
from o2o.training.seeds import Members, make_members

FULL_EPISODES = (
    "halfcheetah"  # its episodes all last to the time limit, so an evaluation takes as long as it can
)
SPLIT_STEPS = 400


def measure(
    task: str,
    counts: Sequence[int],
    rounds: int,
    updates: int,
    make_members: Callable[[int], Members],
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """All that is measured in this process, on JAX's default device."""
    config = composed(f"dataset={task}-medium-v2", *overrides)
    evaluated = composed(f"dataset={FULL_EPISODES}-medium-v2", *overrides)
    measured = list(rates.measure(config, evaluated, make_members, counts, rounds, updates))
    single = Workload(config, make_members(1))
    parts = stepping.split(single, min(SPLIT_STEPS, updates))
    for members in filter(lambda members: members.together, map(make_members, counts)):
        found = stepping.split(Workload(config, members), min(SPLIT_STEPS, updates))
        parts |= {f"members_{members.count}_{name}": value for name, value in found.items()}
    memory = jax.devices()[0].memory_stats() or {}
    return {
        "task": task,
        "batch_size": config.batch_size,
        "hidden_sizes": list(config.network.hidden_sizes),
        "rounds": rounds,
        **rates.summary(config, single, measured),
        **parts,
        **({"memory_peak_gib": memory["peak_bytes_in_use"] / 2**30} if "peak_bytes_in_use" in memory else {}),
        **results.machine(),
    }


def main(arguments: list[str] | None = None) -> None:
    """Measures, adds to the file, and prints the table of all that it holds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--task", choices=TASKS, default="walker2d")
    parser.add_argument("--members", default="1,2,5,10", help="numbers of seeds side by side; the first is 1")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=1000, help="of a phase in a round, about")
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    options = parser.parse_args(arguments)
    counts = sorted({1, *map(int, options.members.split(","))})
    platform = "cuda" if options.device == "gpu" else "cpu"
    # Before this process takes the device.
    started = startup.start_seconds(platform)
    try:
        device.configure(options.device)
    except ConfigError as error:
        parser.error(str(error))
    started["load_1m_rows_seconds"] = startup.load_seconds()
    measured = measure(options.task, counts, options.rounds, options.updates, make_members) | started
    prefix = results.GPU if options.device == "gpu" else ""
    results.show(results.add(options.out, {f"{prefix}{name}": value for name, value in measured.items()}))
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
