"""`python -m benchmarks.methods`: the rates of every method (conf/method/), in both phases, beside TD3-BC's.

Each round measures all of them one after the other; ratios are taken round by round, and medians shown. The ratio of
their matrix products says what the rates would be if nothing but those took time. Online every step learns: warm-ups
are left out.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import jax
from rich.console import Console
from rich.table import Table

from benchmarks import results
from benchmarks.flops import update_flops
from benchmarks.workload import CONF, Workload, composed
from o2o.envs.tasks import TASKS
from o2o.machine import device
from o2o.training.reports import Report
from o2o.training.seeds import make_members

REFERENCE = "td3_bc"
WITHOUT_WAITING = ("finetune.warmup_steps=0", "finetune.random_steps=0", "replay_init.min_size=256")
UPDATES, STEPS = 100, 30
"""Of TD3-BC in a round, by phase; others have as many fewer as they have more products."""


def workload(method: str, task: str, seeds: int) -> Workload:
    """Returns a method's workload, the online steps of which all learn from the beginning."""
    config = composed(f"dataset={task}-medium-v2", f"method={method}", *WITHOUT_WAITING)
    return Workload(config, make_members(seeds))


def main(arguments: list[str] | None = None) -> None:
    """Measures and prints the table, and adds it to the file."""
    names = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods")
    parser.add_argument("methods", nargs="*", default=[n for n in names if n not in ("frozen", "bc_top10")])
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--task", choices=TASKS, default="walker2d")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    options = parser.parse_args(arguments)
    device.configure(options.device)
    methods = list(dict.fromkeys([REFERENCE, *options.methods]))
    loads = {name: workload(name, options.task, options.seeds) for name in methods}
    products = {name: _products(load) for name, load in loads.items()}
    rates = {}
    for name, load in loads.items():
        lengths = [
            max(3, round(length * reference / own))
            for length, own, reference in zip(
                (UPDATES, STEPS), products[name], products[REFERENCE], strict=True
            )
        ]
        rates[name] = _rates(
            load, options.rounds, *(min(pair) for pair in zip(lengths, (UPDATES, STEPS), strict=True))
        )
    found = {
        name: _compared(rates[name], rates[REFERENCE], products[name], products[REFERENCE])
        for name in methods
    }
    prefix = results.GPU if options.device == "gpu" else ""
    results.add(options.out, {f"{prefix}methods_of_{options.seeds}_seeds": found})
    _show(found, options.seeds)


def _rates(load: Workload, rounds: int, length: int, env_steps: int) -> list[tuple[float | None, float]]:
    """Returns updates offline and steps online a second, of all members, round by round; the first one compiles.

    Args:
        load: the method's workload.
        rounds: how many are returned.
        length: updates of a round.
        env_steps: env steps of a round.
    """
    count, config = load.members.count, load.config
    waiting = 256 if not config.replay_init.preload or config.offline_ratio.value else 0
    finetuning = load.finetuning(
        [waiting + 1, *(waiting + 1 + env_steps * (i + 1) for i in range(rounds + 1))]
    )
    _seconds(finetuning)
    pretraining = load.pretraining([length * (i + 1) for i in range(rounds + 1)])
    offline = config.pretrain.updates > 0
    found = []
    for i in range(rounds + 1):
        updates = count * length / _seconds(pretraining) if offline else None
        steps = count * env_steps / _seconds(finetuning)
        found += [(updates, steps)] if i else []
    return found


def _products(load: Workload) -> tuple[float, float]:
    """Returns the operations of matrix products of an update offline and of a step online."""
    config = load.config
    offline = update_flops(config.pretrain.algorithm, load.replay)
    return offline, update_flops(config.algorithm, load.replay, config.finetune.updates_per_step)


def _compared(
    own: list[tuple[float | None, float]],
    reference: list[tuple[float | None, float]],
    products: tuple[float, float],
    of_reference: tuple[float, float],
) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for i, phase in enumerate(("updates_per_second", "steps_per_second")):
        pairs = [(mine[i], theirs[i]) for mine, theirs in zip(own, reference, strict=True)]
        known = [(mine, theirs) for mine, theirs in pairs if mine is not None and theirs is not None]
        found[phase] = statistics.median(mine for mine, _ in known) if known else None
        found[f"{phase}_time_ratio"] = (
            statistics.median(theirs / mine for mine, theirs in known) if known else None
        )
        found[f"{phase}_products_ratio"] = products[i] / of_reference[i] if known else None
    return found


def _show(found: dict[str, dict[str, float | None]], seeds: int) -> None:
    table = Table(title=f"{seeds} seeds; times and matrix products in multiples of {REFERENCE}'s")
    table.add_column("method")
    for heading in ("updates/s", "time", "products", "env steps/s", "time", "products"):
        table.add_column(heading, justify="right")
    for name, row in found.items():
        table.add_row(name, *(results.shown(value) for value in row.values()))
    Console().print(table)


def _seconds(reports: Iterator[Report]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(next(reports).state)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
