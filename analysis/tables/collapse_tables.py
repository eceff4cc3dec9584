"""Tables that the paper lacks: collapse, how sure its verdicts are, and every seed's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis import statistics
from analysis.data.measures import EFFECTS, HORIZONS, PERCENTILE, PERCENTILES, Arm, RunOutcome
from analysis.tables.forms import (
    NOTHING,
    Entry,
    Table,
    interval,
    mean,
    number,
    thousands,
    truth,
    whole,
    words,
)
from analysis.tables.method_costs import update_columns
from analysis.tables.paper_tables import dataset_name, most_seeds, seeds_entry
from o2o import collapse
from o2o.machine.counting import counted

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


def collapse_table(arms: Sequence[Arm]) -> Table:
    """The table of every arm's loss at the switch to online learning, how deep, for how long."""
    most = most_seeds([arm.cell for arm in arms])
    column, updates = update_columns([arm.cell for arm in arms])
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
                outcomes_entry(arm, "detectable"),
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


def _exactly(value: float | bool | None, runs: tuple[Path, ...]) -> Entry:
    if isinstance(value, bool):
        return truth(value, runs)
    return whole(value, runs) if isinstance(value, int) else number(value, 2, runs=runs)


def _iqm_interval(values: np.ndarray) -> tuple[float, float]:
    if len(values) < 2:
        return float("nan"), float("nan")
    return statistics.stratified_bootstrap([values], statistics.interquartile_mean)


def outcomes_entry(arm: Arm, outcome: RunOutcome) -> Entry:
    """How many runs ended so, of how many."""
    count = sum(run.outcome == outcome for run in arm.runs)
    return Entry(
        f"{count} of {len(arm.runs)}", count / len(arm.runs), runs=tuple(r.run.path for r in arm.runs)
    )


def _share(flags: Sequence[bool]) -> Entry:
    return Entry(f"{sum(flags)} of {len(flags)}", sum(flags) / len(flags))
