"""`python -m benchmarks [--task walker2d] [--rounds 5]`: update rate, online rate, and their share of the machine.

Every round measures the matrix-product peak, pretraining and finetuning one after the other in this process, so that
a machine whose speed drifts drifts under all three; ratios are taken round by round and the medians printed. It also
writes `bench.json`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from o2o import training
from o2o.algorithms import TD3, TD3BC
from o2o.envs import TASKS, make_environments
from o2o.members import make_members
from o2o.replay import Replay, row_width
from o2o.types import LearningRate, Network

BATCH, HIDDEN, ROWS, PEAK_SIZE = 256, 256, 200_000, 2048
UPDATES_A_ROUND = 1000

# The paper's settings (conf/).
SETTINGS = {
    "discount": 0.99,
    "learning_rate": LearningRate(policy=3e-4, critic=3e-4),
    "network": Network((HIDDEN, HIDDEN)),
    "target_step": 5e-3,
    "policy_delay": 2,
    "exploration_noise": 0.1,
    "target_noise": 0.2,
    "target_noise_clip": 0.5,
    "action_gradient_clip": None,
    "gradient_norm_clip": None,
    "dpg_reduce": "sum",
    "target_noise_shared_in_batch": True,
    "delay_target_critic": False,
}


def update_flops(observation_size: int, action_size: int) -> float:
    """Floating-point operations of the matrix products in one TD3 update, the policy's counted by half (delay 2)."""

    def layers(inputs: int, outputs: int) -> tuple[float, float]:
        """The products of a forward pass, and of its first layer alone."""
        first = 2.0 * BATCH * inputs * HIDDEN
        return first + 2.0 * BATCH * (HIDDEN * HIDDEN + HIDDEN * outputs), first

    policy, policy_first = layers(observation_size, action_size)
    critic, critic_first = layers(observation_size + action_size, 1)
    # A backward pass costs a forward pass for the weights, and one without the first layer for the inputs.
    critic_step = policy + 2 * critic + 2 * (3 * critic - critic_first)
    action_input = critic_first * action_size / (observation_size + action_size)
    policy_step = 3 * policy - policy_first + 2 * critic - critic_first + action_input
    return critic_step + policy_step / 2


def matmul_peak() -> float:
    """The rate of float32 matrix products of this process, in floating-point operations a second."""
    a = jnp.ones((PEAK_SIZE, PEAK_SIZE))
    product = jax.jit(jnp.matmul)
    b = product(a, a).block_until_ready()
    repeats = 10 if jax.default_backend() == "cpu" else 200
    start = time.perf_counter()
    for _ in range(repeats):
        b = product(a, a)
    b.block_until_ready()
    return repeats * 2 * PEAK_SIZE**3 / (time.perf_counter() - start)


def rates(task: str, rounds: int, members_count: int) -> Iterator[tuple[float, float, float]]:
    """A round's matrix-product peak (flop/s), pretraining rate and finetuning rate (steps/s over all members)."""
    members = make_members(members_count)
    environments = make_environments(TASKS[task], range(members_count))
    replay = Replay(BATCH, 10**6, 1000, environments.observation_size, environments.action_size)
    offline = jax.random.normal(
        jax.random.key(0), (ROWS, row_width(environments.observation_size, environments.action_size))
    )
    offline = offline.at[:, -environments.observation_size - 1].set(0.0)  # nothing terminates
    keys = members.bundle([jax.random.key(seed) for seed in range(members_count)])
    example = replay.example()
    pretraining = TD3BC(**SETTINGS, behavior_cloning_alpha=2.5, bc_normaliser="mean_abs_q")
    finetuning = TD3(**SETTINGS)
    stops = range(UPDATES_A_ROUND, UPDATES_A_ROUND * (rounds + 2), UPDATES_A_ROUND)
    offline_reports = training.pretrain(
        pretraining, replay, members, _states(pretraining, members_count, example), offline, keys, stops
    )
    online_reports = training.finetune(
        finetuning,
        replay,
        members,
        environments,
        _states(finetuning, members_count, example),
        offline,
        keys,
        stops,
    )
    for i in range(rounds + 1):
        peak = matmul_peak()
        seconds = []
        for reports in (offline_reports, online_reports):
            start = time.perf_counter()
            jax.block_until_ready(next(reports).state)
            seconds.append(time.perf_counter() - start)
        if i > 0:  # the first round compiles
            yield peak, *(members_count * UPDATES_A_ROUND / s for s in seconds)


def _states(algorithm: TD3, count: int, example: training.Transition) -> list[training.State]:
    states = [algorithm.init(jax.random.key(seed), example) for seed in range(count)]
    return make_members(count).bundle(states)


def main() -> None:
    """Prints the table and writes `bench.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--task", choices=TASKS, default="walker2d")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    options = parser.parse_args()
    environments = make_environments(TASKS[options.task], [0])
    flops = update_flops(environments.observation_size, environments.action_size)
    measured = list(rates(options.task, options.rounds, members_count=1))
    peak, pretrain, finetune = (statistics.median(column) for column in zip(*measured, strict=True))
    result = {
        "pretrain_updates_per_second": pretrain,
        "matmul_peak_gflops": peak / 1e9,
        "pretrain_share_of_peak": statistics.median(flops * p / top for top, p, _ in measured),
        "finetune_steps_per_second": finetune,
        "finetune_over_pretrain": statistics.median(f / p for _, p, f in measured),
    }
    device = jax.devices()[0]
    about = {
        "task": options.task,
        "rounds": options.rounds,
        "device": f"{device.platform}: {device.device_kind}",
        "machine": platform.processor() or platform.machine(),
        **{f"version_{name}": version(name) for name in ("jax", "flax", "optax", "mujoco")},
    }
    options.out.write_text(json.dumps(result | about, indent=2) + "\n")
    table = Table(
        title=f"{options.task}, batch {BATCH}, 2×{HIDDEN}, {about['device']}, medians of {options.rounds}"
    )
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in result.items():
        table.add_row(name, f"{value:.3g}" if value < 10 else f"{value:.0f}")
    console = Console()
    console.print(table)
    console.print(f"written to {options.out}")


if __name__ == "__main__":
    main()
