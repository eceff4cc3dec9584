"""`python -m analysis RUNS_DIR [--out DIR]`: the table of all finished finetuning runs, and their learning curves."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from analysis.collect import collect
from analysis.figures import learning_curves, save
from analysis.tables import finetuning_tables


def main(arguments: list[str] | None = None) -> int:
    """Prints the tables, writes the figure and prints its path; 1 if no run is finished, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    parser.add_argument("runs", type=Path, help="the directory of runs, or a part of it")
    parser.add_argument(
        "--out", type=Path, default=Path("figures"), help="where figures go (default: figures)"
    )
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=120)  # a log has room
    if not options.runs.is_dir():
        print(f"{options.runs} is not a directory: name the directory that holds the runs", file=sys.stderr)
        return 2
    collection = collect(options.runs)
    for note in collection.notes:
        console.print(f"note: {note}", markup=False)
    for run in collection.left_out:
        console.print(f"left out: {run}", markup=False, soft_wrap=True)
    if not collection.cells:
        console.print(f"no finished finetuning run below {options.runs}", markup=False, soft_wrap=True)
        return 1
    for table in finetuning_tables(collection.cells):
        console.print(table)
    console.print(
        "Scores are D4RL-normalised points; ± is one standard deviation over seeds. Depth: the largest drop of the "
        "windowed mean below the offline score. Recovery: env steps until it is back, median over seeds."
    )
    figure = save(learning_curves(collection.cells), options.out / "learning_curves")
    console.print(f"learning curves: {figure}", markup=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
