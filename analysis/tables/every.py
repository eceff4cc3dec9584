"""All tables together, and those for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console
from rich.table import Table as RichTable

from analysis.claims.claim_tables import claims_by_dataset, claims_table
from analysis.claims.guidelines import choices_table, guidelines_table
from analysis.claims.verdicts import findings
from analysis.data.cells import Cell, by_dataset
from analysis.data.measures import Arm, measure
from analysis.tables.budget import budget_table, crossover_table
from analysis.tables.collapse_tables import (
    collapse_table,
    outcomes_entry,
    per_seed_table,
    recovery_entry,
    sensitivity_table,
)
from analysis.tables.comparisons import comparisons_table
from analysis.tables.coverage import DiversityRows, diversity_table
from analysis.tables.fluctuations import fluctuations_table
from analysis.tables.forms import (
    NOTHING,
    Entry,
    Table,
    mean,
    to_terminal,
    words,
)
from analysis.tables.method_costs import methods_table, protocols_table, update_columns
from analysis.tables.paper_tables import dataset_name, most_seeds, seeds_entry, table_1, table_c3

NARROW = ("offline", "online", "regret", "collapsed")
"""The columns that a terminal of 80 letters has room for, besides the setting."""


def every_table(cells: Sequence[Cell], diversity: DiversityRows | None = None) -> list[Table]:
    """All tables of a report, in its order; without arms those that need none."""
    arms = measure(cells)
    found = findings(cells, arms)
    made = [
        collapse_table(arms),
        methods_table(cells, arms),
        protocols_table(cells),
        sensitivity_table(arms),
        fluctuations_table(arms),
        table_1(cells),
        table_c3(cells),
        comparisons_table(arms),
        budget_table(arms),
        crossover_table(arms),
        claims_table(found),
        claims_by_dataset(found),
        guidelines_table(found),
        choices_table(arms),
        per_seed_table(arms),
    ]
    return made if diversity is None else [*made, diversity_table(arms, diversity)]


def finetuning_tables(cells: Sequence[Cell], width: int | None = None) -> list[RichTable]:
    """For the terminal, one table a dataset: offline and online score, δ, and how much and how deep was lost.

    Where not all columns fit into `width` letters, there are only those that a terminal of 80 has room for.
    """
    arms = {id(arm.cell): arm for arm in measure(cells)}
    tables = [_short(dataset, alike, arms) for dataset, alike in by_dataset(cells).items()]
    unlimited = Console(width=1000)
    return [
        full if width is None or unlimited.measure(full).maximum <= width else to_terminal(_narrowed(table))
        for table, full in zip(tables, map(to_terminal, tables), strict=True)
    ]


def _narrowed(table: Table) -> Table:
    kept = [i for i, column in enumerate(table.columns) if column in NARROW]
    rows = tuple(
        (words(f"{row[0].text}, replay {row[1].text}"), *(row[i] for i in kept)) for row in table.rows
    )
    return replace(table, columns=("setting", *NARROW), rows=rows)


def _short(dataset: str, cells: Sequence[Cell], arms: dict[int, Arm]) -> Table:
    rows = []
    most = most_seeds(cells)
    column, updates = update_columns(cells)
    for cell in cells:
        arm = arms.get(id(cell))
        online = mean([run.online_score for run in cell.runs])
        front = (words(cell.label), words(cell.replay), seeds_entry(cell, most), *updates[id(cell)])
        if arm is None:
            rows.append((*front, Entry(NOTHING), online, *([Entry(NOTHING)] * 6)))
            continue
        rows.append(
            (
                *front,
                mean(arm.scores()[0]),
                online,
                mean(arm.values("delta"), sign="+"),
                mean(arm.values("regret")),
                mean(arm.values("depth")),
                recovery_entry(arm),
                outcomes_entry(arm, "collapsed"),
                outcomes_entry(arm, "detectable"),
            )
        )
    columns = (
        "algorithm",
        "replay",
        "seeds",
        *column,
        "offline",
        "online",
        "δ",
        "regret",
        "depth",
        "recovery",
        "collapsed",
        "detectable",
    )
    return Table(dataset, dataset_name(cells[0]), columns, tuple(rows))
