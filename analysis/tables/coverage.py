"""Collapse against the diversity of the data: within a task, do the less diverse sets lose more (paper, section 3.2)?

The figures come from a JSON file, one object a dataset, as `python -m o2o.datasets diversity --json FILE` writes it:

    {"hopper-medium-v2": {"entropy": 1.3, "residual_action_variance": 0.1}, "hopper-medium-replay-v2": {…}}

Names of figures are free; a higher number means more diverse. Figures are compared within a task only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from analysis.data.measures import Arm
from analysis.data.runs import FROZEN
from analysis.tables.forms import Table, mean, number, words
from o2o.machine.counting import counted

DiversityRows = Mapping[str, Mapping[str, float]]


def read_diversity(path: Path) -> DiversityRows:
    """The figures of a file.

    Raises:
        ValueError: it cannot be read, or is not of the form above.
    """
    form = 'it must be like {"hopper-medium-v2": {"entropy": 1.3}}'
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}; {form}") from None
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}; {form}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no object; {form}")
    for dataset, figures in content.items():
        if not isinstance(figures, dict):
            raise ValueError(f"{path} has no figures of {dataset}; {form}")
        for name, figure in figures.items():
            if isinstance(figure, bool) or not isinstance(figure, int | float) or not math.isfinite(figure):
                raise ValueError(f"{path}: {name} of {dataset} is {figure!r}, not a number; {form}")
    return content


def diversity_table(arms: Sequence[Arm], diversity: DiversityRows) -> Table:
    """The regret of every arm beside its dataset's figures, and how often less diversity went with more regret."""
    known = [arm for arm in arms if arm.cell.dataset in diversity and arm.cell.algorithm != FROZEN]
    known.sort(key=lambda arm: arm.cell.first.task)
    names = list(dict.fromkeys(name for arm in known for name in diversity[arm.cell.dataset]))
    rows = []
    for arm in known:
        figures = [number(diversity[arm.cell.dataset].get(name), 3) for name in names]
        cell = arm.cell
        runs = [run.run for run in arm.runs]
        rows.append(
            (
                words(cell.first.task),
                words(cell.dataset),
                words(cell.label),
                words(cell.replay),
                mean(arm.values("regret"), runs),
                mean(arm.values("depth"), runs),
                *figures,
            )
        )
    notes = [_agreement(known, diversity, name) for name in names]
    missing = sorted({arm.cell.dataset for arm in arms} - set(diversity))
    if missing:
        notes.append(f"No figures of {', '.join(missing)}.")
    columns = ("task", "dataset", "algorithm", "replay", "regret", "depth", *names)
    return Table(
        "diversity", "Collapse against the diversity of the data", columns, tuple(rows), tuple(notes)
    )


def _agreement(arms: Sequence[Arm], diversity: DiversityRows, name: str) -> str:
    """Over all two sets of one task under the same arm, where the policy collapsed on at least one of them."""
    agreed = compared = 0
    for one, other in combinations(arms, 2):
        a, b = one.cell, other.cell
        if (a.first.task, a.label, a.replay) != (b.first.task, b.label, b.replay):
            continue
        first, second = diversity[a.dataset].get(name), diversity[b.dataset].get(name)
        collapsed = one.values("collapsed").any() or other.values("collapsed").any()
        if first is None or second is None or first == second or not collapsed:
            continue
        less, more = (one, other) if first < second else (other, one)
        compared += 1
        agreed += bool(np.mean(less.values("regret")) > np.mean(more.values("regret")))
    if not compared:
        return f"{name}: no two sets of one task with a collapse under the same arm to compare."
    return f"{name}: the less diverse of two sets of a task lost more in {agreed} of {counted(compared, 'comparison')}."
