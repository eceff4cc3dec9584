"""Tables for the terminal: one per dataset, one line per setting, means over its seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich import box
from rich.table import Table

from analysis.collect import Cell, by_dataset

# What a recovery that was never seen counts as: longer than any that was.
_NEVER = float("inf")


def finetuning_tables(cells: Sequence[Cell]) -> list[Table]:
    """One table per dataset: offline and online score, δ, and how deep and how long the policy collapsed."""
    return [_table(dataset, alike) for dataset, alike in by_dataset(cells).items()]


def _table(dataset: str, cells: Sequence[Cell]) -> Table:
    with_ratio = any(cell.offline_ratio is not None for cell in cells)
    title = dataset + (" (regenerated data, not D4RL's)" if cells[0].first.regenerated else "")
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("\nalgorithm", no_wrap=True)
    table.add_column("replay\ninit", no_wrap=True)
    if with_ratio:
        table.add_column("offline\nshare", justify="right", no_wrap=True)
    for heading in (
        "offline\nscore",
        "online\nscore",
        "\nδ",
        "collapse\ndepth (points)",
        "recovery\n(env steps)",
        "\nseeds",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    previous = None
    for cell in cells:
        if previous not in (None, (cell.replay_init, cell.offline_ratio)):
            table.add_section()
        previous = (cell.replay_init, cell.offline_ratio)
        ratio = "uniform" if cell.offline_ratio is None else f"{cell.offline_ratio:.0%}"
        results = [run.result for run in cell.runs]
        table.add_row(
            cell.label,
            cell.replay_init,
            *([ratio] if with_ratio else []),
            _mean([result["offline_score"] for result in results]),
            _mean([result["online_score"] for result in results]),
            _mean([result["delta"] for result in results], sign="+"),
            _mean([(result["collapse"] or {}).get("depth") for result in results]),
            _recovery([result["collapse"] for result in results]),
            str(len(cell.runs)),
        )
    return table


def _mean(values: Sequence[float | None], sign: str = "") -> str:
    """The mean, with ± the sample standard deviation where there are several; a dash where there is nothing."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return "–"
    mean = f"{np.mean(numbers):{sign}.1f}"
    return mean if len(numbers) == 1 else f"{mean} ± {np.std(numbers, ddof=1):.1f}"


def _recovery(collapses: Sequence[dict | None]) -> str:
    """The median over the seeds, which, unlike a mean, can be told while fewer than half never recovered."""
    steps = [c["recovery_env_steps"] for c in collapses if c]
    if not steps:
        return "–"
    never = steps.count(None)
    median = float(np.median([_NEVER if step is None else step for step in steps]))
    text = "never" if median == _NEVER else f"{median:,.0f}".replace(",", "\u202f")
    return text if never in (0, len(steps)) else f"{text} ({never} of {len(steps)} never)"
