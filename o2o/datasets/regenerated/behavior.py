"""Behaviour policies for the regenerated datasets: SAC on the schedule that D4RL's came from (rlkit's).

    python -m o2o.datasets.regenerated.behavior train walker2d --seeds 0 --epochs 300 --out DIRECTORY
    python -m o2o.datasets.regenerated.behavior train ant --seeds 0-9 --epochs 400 --out DIRECTORY
    python -m o2o.datasets.regenerated.behavior export ant --seed 3 --out DIRECTORY

The training is `o2o.datasets.regenerated.rlkit`'s, of several seeds in one job. It is saved after every epoch and
goes on from there. Every few epochs a snapshot of each seed's policy is written, with the mean return of stochastic
episodes, which other processes play meanwhile; `export` makes of a run's snapshots what the package ships.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import jax

from o2o.datasets.regenerated import rlkit, tanh_gaussian
from o2o.datasets.regenerated.rollouts import RolloutRows
from o2o.datasets.regenerated.workers import Workers
from o2o.envs.tasks import TASKS
from o2o.errors import ConfigError
from o2o.machine import terminal
from o2o.machine.arguments import number, whole_number
from o2o.machine.signals import Interruption

POLICIES = Path(__file__).with_name("policies")
MEDIUM_RETURN = {
    "hopper": 1422.06,
    "halfcheetah": 4770.33,
    "walker2d": 2852.09,
    "ant": 3039.0,
}
"""The mean returns of D4RL's medium sets; ant's is not published: about 80 normalised (docs/regenerated.md)."""


def train(
    task: str, seeds: Sequence[int], epochs: int, every: int, directory: Path, seconds: float = math.inf
) -> None:
    """Runs, or goes on with runs, and writes `<task>-<seed>-<epoch>.npz` snapshots to `directory`.

    Args:
        task: which one.
        seeds: of the runs, which are one job and are resumed together.
        epochs: after the first.
        every: how many epochs a snapshot is written.
        directory: where snapshots belong, and the run.
        seconds: after which no epoch is begun.
    """
    end = time.monotonic() + seconds
    named = f"{seeds[0]}-{seeds[-1]}" if len(seeds) > 1 else str(seeds[0])
    command = f"python -m o2o.datasets.regenerated.behavior train {task} --seeds {named} --epochs {epochs}"
    spare = max(1, min(len(seeds), (os.cpu_count() or 1) - len(seeds)))
    with (
        Workers(task, "evaluate", spare) as workers,
        closing(rlkit.run(task, seeds, epochs, directory / f"{task}-{named}-run")) as running,
    ):
        waiting: list[tuple[rlkit.Epoch, list[Future[RolloutRows]]]] = []
        for epoch in running:
            print(epoch.note, flush=True)
            if epoch.number % every == 0:
                jobs = zip(epoch.policies, seeds, strict=True)
                waiting.append((epoch, [workers.submit(*job, epoch.number) for job in jobs]))
            while waiting and all(job.done() for job in waiting[0][1]):
                _write_snapshots(directory, task, seeds, command, *waiting.pop(0))
            if epoch.number < epochs and time.monotonic() > end:
                print(f"stopped after epoch {epoch.number}: the same command goes on", flush=True)
                break
        for epoch, jobs in waiting:
            _write_snapshots(directory, task, seeds, command, epoch, jobs)


def _write_snapshots(
    directory: Path,
    task: str,
    seeds: Sequence[int],
    command: str,
    epoch: rlkit.Epoch,
    jobs: list[Future[RolloutRows]],
) -> None:
    """Writes a file a seed, once the episodes are played."""
    notes = []
    for seed, policy, job in zip(seeds, epoch.policies, jobs, strict=True):
        earned = job.result()["returns"]
        provenance = {
            "command": command,
            "algorithm": "SAC, rlkit's schedule (o2o/datasets/regenerated/rlkit.py)",
            "task": task,
            "seed": seed,
            "epoch": epoch.number,
            "stochastic_return_mean": float(earned.mean()),
            "stochastic_return_std": float(earned.std()),
            "episodes": len(earned),
            "device": jax.devices()[0].device_kind,
            "versions": {name: version(name) for name in ("jax", "mujoco", "gymnasium")},
        }
        tanh_gaussian.save(directory / f"{task}-{seed}-{epoch.number:04d}.npz", [policy], provenance)
        notes.append(f"{earned.mean():.0f} ± {earned.std():.0f}")
    print(f"snapshots of epoch {epoch.number}: {', '.join(notes)}", flush=True)


def export(
    task: str, seed: int, directory: Path, epoch: int | None, last: int | None, destination: Path
) -> list[Path]:
    """Makes a run's snapshots what is shipped: the medium policy, and a run's policies in one file.

    Args:
        task: which one's.
        seed: of the run.
        directory: where its snapshots are.
        epoch: of the medium policy; None is the one nearest to D4RL's medium set in its mean return.
        last: epoch of the last policy that the replay is made with; None is the medium one's.
        destination: where shipped policies belong.
    """
    found = {}
    for path in sorted(directory.glob(f"{task}-{seed}-*.npz")):
        (policy,), provenance = tanh_gaussian.load(path)
        found[provenance["epoch"]] = policy, provenance
    if epoch is None:
        target = MEDIUM_RETURN[task]
        epoch = min(found, key=lambda k: abs(found[k][1]["stochastic_return_mean"] - target))
    medium, about = found[epoch]
    upto = [k for k in sorted(found) if k <= (epoch if last is None else last)]
    of_each = ("stochastic_return_mean", "stochastic_return_std")
    provenance = {key: value for key, value in about.items() if key not in ("epoch", *of_each)}
    provenance |= {key: [found[k][1][key] for k in upto] for key in of_each}
    paths = destination / f"{task}-medium.npz", destination / f"{task}-snapshots.npz"
    tanh_gaussian.save(paths[0], [medium], about)
    tanh_gaussian.save(paths[1], [found[k][0] for k in upto], provenance | {"epochs": upto})
    return list(paths)


def _seeds(text: str) -> list[int]:
    first, dash, last = text.partition("-")
    numbers = first, last if dash else first
    if all(number.isdecimal() for number in numbers) and (
        seeds := [*range(int(numbers[0]), int(numbers[1]) + 1)]
    ):
        return seeds
    raise argparse.ArgumentTypeError(f"{text}: write a seed, as 3, or the first and the last, as 0-9")


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0, 2 for bad input, or 130 if interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m o2o.datasets.regenerated.behavior",
        description="Behaviour policies for the regenerated datasets.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train SAC on rlkit's schedule, or go on")
    exporting = commands.add_parser("export", help="make a run's snapshots what the package ships")
    for command in (training, exporting):
        command.add_argument("task", choices=TASKS)
        command.add_argument("--out", type=Path, required=True, help="where the run and its snapshots are")
    training.add_argument("--seeds", type=_seeds, default=[0], help="a number, or first-last")
    training.add_argument("--epochs", type=whole_number, default=300)
    training.add_argument("--snapshot-every", type=whole_number, default=5)
    training.add_argument("--seconds", type=number, default=math.inf, help="after which no epoch is begun")
    exporting.add_argument("--seed", type=whole_number, default=0)
    exporting.add_argument(
        "--epoch", type=whole_number, help="the medium policy's; else nearest D4RL's mean return"
    )
    exporting.add_argument(
        "--last", type=whole_number, help="the last policy of the replay; else the medium one"
    )
    exporting.add_argument("--to", type=Path, default=POLICIES)
    options = parser.parse_args(arguments)
    try:
        if options.command == "train":
            epochs = options.epochs, options.snapshot_every
            with Interruption():  # so that processes end with this one
                train(options.task, options.seeds, *epochs, options.out, options.seconds)
        else:
            chosen = options.epoch, options.last
            print(*export(options.task, options.seed, options.out, *chosen, options.to), sep="\n")
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(terminal.run(main))
