"""The command `status`: one row a cell, with its seeds, states, step, rate, remaining time and score at equal step."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from o2o.machine import terminal
from o2o.sweep.following.filters import select
from o2o.sweep.following.status_table import as_json, summary, text
from o2o.sweep.following.summary import BROKEN, FINAL, rows_of
from o2o.sweep.surveying.survey import SeenRun, survey

REFRESH_SECONDS = 10.0


def look(root: Path, filters: Sequence[str]) -> tuple[list[SeenRun], list[str]]:
    """The runs below `root` that `filters` ask for, and what could not be read or asked.

    Raises:
        ConfigError: there is no such directory, or a filter names nothing.
    """
    notes: list[str] = []
    cells = survey(root, notes)
    if (root / ".sweeps").is_dir():
        from o2o.sweep.surveying import launched  # it needs NumPy

        notes += launched.join(root, cells)
        notes += launched.hear(root, [run for cell in cells for run in cell.runs])
    return select([run for cell in cells for run in cell.runs], filters, root), notes


def run_status(root: Path, filters: Sequence[str], json_wanted: bool) -> int:
    """`status`: prints the table; returns the exit code."""
    runs, notes = look(root, filters)
    rows = rows_of(runs)
    if json_wanted:
        print(as_json(root, rows, notes))
    elif not runs:
        print("\n".join([f"{root}: no runs {'match' if filters else 'yet'}", *notes]))
    else:
        print(terminal.fitted(text(root, rows, notes, terminal.width())))
    return exit_code(runs)


def watch(root: Path, filters: Sequence[str], interval: float) -> int:
    """`status --watch`: the table in place, until nothing is left that could change or Ctrl-C."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    runs: list[SeenRun] = []
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        try:
            while not terminal.unread() and (not runs or any(run.state not in FINAL for run in runs)):
                runs, notes = look(root, filters)
                rows = rows_of(runs)
                shown = text(root, rows, notes, console.width).splitlines()
                if len(shown) >= console.height:  # what is done is what one needs least
                    undone = [row for row in rows if row.done < len(row.runs)]
                    shown = text(root, undone, notes, console.width).splitlines()
                    shown = [summary(root, rows), *shown[1 : console.height - 3], "…"]
                at = f"{datetime.now():%H:%M:%S}, every {interval:g} s, Ctrl-C ends"
                live.update(Text("\n".join([*shown, at]), no_wrap=True, overflow="ellipsis"), refresh=True)
                time.sleep(interval)
        except KeyboardInterrupt:
            pass
    return exit_code(runs)


def exit_code(runs: Iterable[SeenRun]) -> int:
    """1 if something failed or is damaged, else 0."""
    return int(any(run.state in BROKEN for run in runs))
