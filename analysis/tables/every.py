"""Tables that the paper lacks (collapse, its sensitivity, every seed's numbers), and all tables together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table as RichTable

from analysis import statistics
from analysis.claims.claim_tables import claims_by_dataset, claims_table
from analysis.claims.guidelines import choices_table, guidelines_table
from analysis.claims.verdicts import findings
from analysis.data.cells import Cell, by_dataset
from analysis.data.measures import EFFECTS, HORIZONS, PERCENTILE, PERCENTILES, Arm, RunOutcome, measure
from analysis.data.runs import FROZEN
from analysis.tables.budget import budget_table, crossover_table
from analysis.tables.comparisons import comparisons_table
from analysis.tables.coverage import DiversityRows, diversity_table
from analysis.tables.fluctuations import fluctuations_table
from analysis.tables.forms import (
    NOTHING,
    Entry,
    Table,
    interval,
    mean,
    number,
    thousands,
    to_terminal,
    truth,
    whole,
    words,
)
from analysis.tables.method_costs import methods_table, protocols_table, updates_of
from analysis.tables.paper_tables import dataset_name, most_seeds, seeds_entry, table_1, table_c3
from o2o import collapse
from o2o.machine.counting import counted

NARROW = ("offline", "online", "regret", "collapsed")
"""The columns that a terminal of 80 letters has room for, besides the setting."""

PER_SEED = (
    "regret",
    "threshold",
    "effect",
    "collapsed",
    "detectable",
    "depth",
    "relative_depth",
    "recovery",
    "training_regret",
    "area",
    "delta",
)


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


def collapse_table(arms: Sequence[Arm]) -> Table:
    """The table of every arm's loss at the switch to online learning, how deep, for how long."""
    most = most_seeds([arm.cell for arm in arms])
    column, updates = _updates([arm.cell for arm in arms])
    rows = []
    for arm in arms:
        runs = [run.run for run in arm.runs]
        offline, _ = arm.scores()
        regrets = arm.values("regret")
        low, high = _iqm_interval(regrets)
        collapsed = int(arm.values("collapsed").sum())
        share_low, share_high = statistics.clopper_pearson(collapsed, len(runs))
        late = np.array([run.late[0].mean() for run in arm.runs if run.late.size])
        rows.append(
            (
                words(dataset_name(arm.cell)),
                words(arm.cell.label),
                words(arm.cell.replay),
                seeds_entry(arm.cell, most),
                *updates[id(arm.cell)],
                mean(offline, runs),
                mean(regrets, runs),
                interval(float(statistics.interquartile_mean(regrets)), low, high),
                Entry(
                    f"{collapsed} of {len(runs)} [{share_low:.0%}, {share_high:.0%}]",
                    collapsed / len(runs),
                    runs=tuple(run.path for run in runs),
                ),
                _outcomes(arm, "detectable"),
                mean(arm.values("threshold")),
                mean(arm.values("effect")),
                mean(arm.values("depth"), runs),
                mean(100 * arm.values("relative_depth"), runs, decimals=0),
                recovery_entry(arm),
                mean(arm.values("training_regret"), runs),
                mean(arm.values("delta"), runs, sign="+"),
                mean(arm.values("area"), runs),
                mean(arm.values("early_as_late")) if late.size else Entry(NOTHING),
                mean(late) if late.size else Entry(NOTHING),
            )
        )
    frozen = sum(run.null.frozen for arm in arms for run in arm.runs)
    unknown = sum(not run.null.known for arm in arms for run in arm.runs)
    total = sum(len(arm.runs) for arm in arms)
    short = [arm for arm in arms if arm.runs[0].curve.last < collapse.HORIZON]
    notes = [
        "Regret, the primary endpoint: mean points below the offline score over the first "
        f"{thousands(collapse.HORIZON)} env steps. ± is one standard deviation over seeds, brackets "
        "are 95 % intervals.",
        f"Collapsed: seeds whose regret is beyond the {PERCENTILE:g}th percentile of what evaluation noise alone "
        f"gives, the null, and beyond the least effect, {collapse.EFFECT_POINTS:g} points and "
        f"{100 * collapse.EFFECT_SHARE:g} % of the offline score. Detectable: beyond the null, but not the effect. The "
        "null is "
        + (
            "drawn from the frozen arm of the same pretraining."
            if frozen == total
            else "drawn from the episodes at the switch; no frozen arm is among the runs."
            if not frozen
            else f"drawn from the frozen arm of the same pretraining for {frozen} of {total} runs, "
            "and from the episodes at the switch for the others."
        ),
        f"Depth: fall of the mean over {thousands(collapse.WINDOW)} env steps; as a share only from an offline score "
        f"of {collapse.RELATIVE_FLOOR:g}.",
        "Recovery: mean env steps until the windowed mean is back, within those watched (Kaplan and Meier's restricted "
        "mean: a seed that never came back counts as long as it was watched).",
        "Late falls: regret in windows of the same length after 100\u202f000 env steps, beside the early regret on the "
        "same grid.",
    ]
    if unknown:
        notes.append(
            f"Of {counted(total, 'run')}, {unknown} have neither a frozen arm nor single episodes at the switch "
            "(imported curves): their null has no noise, so that what is called collapsed or detectable may be noise, "
            "and no claim that something is lost holds by them."
        )
    if short:
        last = min(arm.runs[0].curve.last for arm in short)
        notes.append(
            f"Of {counted(len(arms), 'setting')}, {len(short)} ended before {thousands(collapse.HORIZON)} env steps "
            f"(the earliest at {thousands(last)}): the regret there is the mean over the shorter time."
        )
    columns = (
        "dataset", "algorithm", "replay", "seeds", *column, "offline", "regret", "regret IQM", "collapsed",
        "detectable", "null 99 %", "effect", "depth",
        "depth (% of offline)", "recovery (env steps)", "training regret", "δ", "area", "early regret, late grid",
        "late regret",
    )  # fmt: skip
    return Table("collapse", "Collapse at the switch to online learning", columns, tuple(rows), tuple(notes))


def sensitivity_table(arms: Sequence[Arm]) -> Table:
    """The table of how the verdict depends on the horizon T_c and on the threshold."""
    rows = []
    for arm in arms:
        entries = [words(dataset_name(arm.cell)), words(arm.cell.label), words(arm.cell.replay)]
        for horizon in HORIZONS:
            entries.append(mean([float(collapse.regret(run.curve, horizon)) for run in arm.runs]))
        for horizon in HORIZONS:
            entries.append(_share([run.outcome_at(horizon=horizon) == "collapsed" for run in arm.runs]))
        for percentile in PERCENTILES:
            entries.append(_share([run.outcome_at(percentile) == "collapsed" for run in arm.runs]))
        for least in EFFECTS:
            entries.append(_share([run.outcome_at(least=least) == "collapsed" for run in arm.runs]))
        for percentile in PERCENTILES:
            entries.append(_share([run.outcome_at(percentile) != "none" for run in arm.runs]))
        relative = arm.values("relative_depth")
        for share in (0.25, 0.5, 0.75):
            if np.isnan(relative).all():
                entries.append(Entry(NOTHING))
            else:
                known = relative[~np.isnan(relative)]
                entries.append(_share((known > share).tolist()))
        rows.append(tuple(entries))
    columns = (
        "dataset", "algorithm", "replay",
        *(f"regret, T_c {h // 1000}k" for h in HORIZONS),
        *(f"collapsed, T_c {h // 1000}k" for h in HORIZONS),
        *(f"collapsed, null {p:g} %" for p in PERCENTILES),
        *(f"collapsed, effect {points:g} points and {100 * share:g} %" for points, share in EFFECTS),
        *(f"collapsed or detectable, null {p:g} %" for p in PERCENTILES),
        *(f"depth above {s} %" for s in (25, 50, 75)),
    )  # fmt: skip
    notes = (
        "Collapsed: beyond the null's percentile at that horizon, and beyond the least effect; detectable: beyond the "
        f"null, but not the effect. In use elsewhere: T_c {collapse.HORIZON // 1000}k, null {PERCENTILE:g} %, effect "
        f"{collapse.EFFECT_POINTS:g} points and {100 * collapse.EFFECT_SHARE:g} % of the offline score.",
        "Depths in per cent of the offline score, over seeds whose offline score is at least "
        f"{collapse.RELATIVE_FLOOR:g}.",
    )
    return Table(
        "sensitivity", "Sensitivity to the horizon, the null and the effect", columns, tuple(rows), notes
    )


def per_seed_table(arms: Sequence[Arm]) -> Table:
    """Every seed's numbers, one line a run."""
    rows = []
    for arm in arms:
        for run in arm.runs:
            path = (run.run.path,)
            numbers = [_exactly(getattr(run, metric), path) for metric in PER_SEED]
            rows.append(
                (
                    words(dataset_name(arm.cell)),
                    words(arm.cell.label),
                    words(arm.cell.replay),
                    whole(run.run.seed, path),
                    number(run.run.offline_score, 2, runs=path),
                    number(run.run.online_score, 2, runs=path),
                    *numbers,
                    words(run.run.path),
                )
            )
    columns = ("dataset", "algorithm", "replay", "seed", "offline", "online", *PER_SEED, "run")
    notes = ("An empty recovery: not back while watched (censored at the last evaluation).",)
    return Table("per_seed", "Every seed", columns, tuple(rows), notes)


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


def recovery_entry(arm: Arm) -> Entry:
    """The restricted mean of the recovery, and how many seeds never came back while watched."""
    times = arm.values("recovery_time")
    seen = np.array([run.recovery is not None for run in arm.runs])
    until = float(min(run.curve.last for run in arm.runs))
    found = statistics.restricted_mean(times, seen, until)
    never = int((~seen).sum())
    text = thousands(found) + (f" ({never} of {len(seen)} never)" if never else "")
    if never == len(seen):
        text = "never"
    return Entry(text, found, runs=tuple(run.run.path for run in arm.runs))


def _short(dataset: str, cells: Sequence[Cell], arms: dict[int, Arm]) -> Table:
    rows = []
    most = most_seeds(cells)
    column, updates = _updates(cells)
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
                _outcomes(arm, "collapsed"),
                _outcomes(arm, "detectable"),
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


def _exactly(value: float | bool | None, runs: tuple[Path, ...]) -> Entry:
    if isinstance(value, bool):
        return truth(value, runs)
    return whole(value, runs) if isinstance(value, int) else number(value, 2, runs=runs)


def _updates(cells: Sequence[Cell]) -> tuple[tuple[str, ...], dict[int, tuple[Entry, ...]]]:
    """A column of the updates an env step, where settings differ in it, and its entry of each cell."""
    if len({cell.first.updates_per_step for cell in cells if cell.algorithm != FROZEN}) < 2:
        return (), {id(cell): () for cell in cells}
    return ("updates per env step",), {id(cell): (whole(updates_of(cell)),) for cell in cells}


def _iqm_interval(values: np.ndarray) -> tuple[float, float]:
    if len(values) < 2:
        return float("nan"), float("nan")
    return statistics.stratified_bootstrap([values], statistics.interquartile_mean)


def _outcomes(arm: Arm, outcome: RunOutcome) -> Entry:
    count = sum(run.outcome == outcome for run in arm.runs)
    return Entry(
        f"{count} of {len(arm.runs)}", count / len(arm.runs), runs=tuple(r.run.path for r in arm.runs)
    )


def _share(flags: Sequence[bool]) -> Entry:
    return Entry(f"{sum(flags)} of {len(flags)}", sum(flags) / len(flags))
