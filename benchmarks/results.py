"""Measurements as a flat JSON file that later ones add to, and as a table."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console
from rich.table import Table

GPU = "gpu_"
"""Before the names of what was measured on one."""


class Figure(NamedTuple):
    """A row of the table: what it is, and the bar that it is held against."""

    text: str
    bar: str = ""


PARTS = {
    "step_ms": "an online step, ms",
    "step_update_ms": "  an update of pretraining",
    "step_collecting_ms": "  a step without learning: environments, add, act",
    "step_environments_ms": "  the environments alone, from Python",
    "calls_per_100_steps": "  compiled calls in 100 steps",
}
BEGINNING = {
    "start_cold_seconds": Figure("start to the first 100 updates, nothing compiled, s", "≤ 15"),
    "start_warm_seconds": Figure("the same, compiled before, s", "≤ 5"),
    "load_1m_rows_seconds": Figure("loading a million rows, s", "≤ 3"),
}
FIGURES = {
    "pretrain_updates_per_second": Figure("pretraining, one seed, updates/s"),
    "matmul_peak_gflops": Figure("float32 matrix products of 2048 × 2048, GFLOP/s"),
    "pretrain_share_of_peak": Figure("pretraining, share of that", "≥ 0.5"),
    "finetune_steps_per_second": Figure("finetuning, one seed, env steps/s, one update each"),
    "finetune_over_pretrain": Figure("finetuning over pretraining", "≥ 0.85"),
    "members_2_over_single": Figure("pretraining, 2 seeds together over one"),
    "members_5_over_single": Figure("pretraining, 5 seeds"),
    "members_10_over_single": Figure("pretraining, 10 seeds", "≥ 1.25"),
    "members_2_over_single_finetune": Figure("finetuning, 2 seeds together over one"),
    "members_5_over_single_finetune": Figure("finetuning, 5 seeds"),
    "members_10_over_single_finetune": Figure("finetuning, 10 seeds", "≥ 1.25"),
    "members_10_pretrain_updates_per_second": Figure("pretraining, 10 seeds, updates/s of all"),
    "members_10_finetune_steps_per_second": Figure("finetuning, 10 seeds, env steps/s of all"),
    **{name: Figure(text) for name, text in PARTS.items()},
    "evaluation_seconds": Figure("an evaluation of 10 full episodes, s"),
    "members_10_evaluation_seconds": Figure("the same of 10 seeds, 100 episodes, s"),
    "evaluation_share": Figure("evaluation's share of finetuning, default schedule", "≤ 0.33"),
    **BEGINNING,
    "over_d3rlpy": Figure("pretraining over d3rlpy's TD3+BC", "≥ 3"),
    "over_sbx": Figure("finetuning over sbx's TD3, with its ReLU networks"),
    "over_sbx_same_networks": Figure("finetuning over sbx's TD3, with our networks", "≥ 1.2"),
}
ON_A_GPU = {
    "pretrain_updates_per_second": Figure("pretraining, one seed, updates/s"),
    "members_10_pretrain_updates_per_second": Figure("pretraining, 10 seeds, updates/s of all", "≥ 24 000"),
    "members_40_pretrain_updates_per_second": Figure("pretraining, 40 seeds"),
    "finetune_steps_per_second": Figure("finetuning, one seed, env steps/s", "≥ 2 000"),
    "members_10_finetune_steps_per_second": Figure("finetuning, 10 seeds, env steps/s of all", "≥ 10 000"),
    "members_40_finetune_steps_per_second": Figure("finetuning, 40 seeds", "≥ 18 000"),
    "matmul_peak_gflops": FIGURES["matmul_peak_gflops"],
    **{
        f"members_10_{name}": Figure(text.replace("step,", "step of 10 seeds,"))
        for name, text in PARTS.items()
    },
    **{
        f"members_40_{name}": Figure(text.replace("step,", "step of 40 seeds,"))
        for name, text in PARTS.items()
    },
    "members_10_evaluation_seconds": Figure("an evaluation of 10 seeds, 100 full episodes, s", "≤ 1.2"),
    "members_10_evaluation_share": Figure("its share of finetuning, default schedule", "≤ 0.33"),
    **BEGINNING,
    "memory_peak_gib": Figure("memory in use at most, GiB"),
}


def add(path: Path, measured: dict[str, Any]) -> dict[str, Any]:
    """Writes what was measured over what the file says of the same names, and returns all that it then holds."""
    before = json.loads(path.read_text()) if path.exists() else {}
    together = before | measured
    path.write_text(json.dumps(together, indent=2) + "\n")
    return together


def machine() -> dict[str, Any]:
    """The machine that the figures were measured on."""
    device = jax.devices()[0]
    return {
        "device": f"{device.platform}: {device.device_kind}",
        "machine": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        **{f"version_{name}": version(name) for name in ("jax", "flax", "optax", "mujoco")},
    }


def show(results: dict[str, Any]) -> None:
    """Prints the table."""
    table = Table(
        title="{task}, batch {batch_size}, networks of {hidden_sizes}".format_map(results),
        caption=f"{results['machine']}, {results['cores']} cores; medians of {results['rounds']} rounds",
    )
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("bar", justify="right")
    on_a_gpu = {GPU + name: Figure(f"GPU: {text}", bar) for name, (text, bar) in ON_A_GPU.items()}
    for name, figure in (FIGURES | on_a_gpu).items():
        table.add_row(figure.text, shown(results.get(name)), figure.bar)
    Console().print(table)


def shown(value: float | None) -> str:
    """Three digits, or that there is none."""
    if value is None:
        return "not measured"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}".replace(",", " ")


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
