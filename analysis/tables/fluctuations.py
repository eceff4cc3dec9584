"""How much the scores moved before the switch and after it (not in the paper), and what was won and lost again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from analysis.data.measures import Arm
from analysis.tables.forms import Table, mean, thousands, words
from analysis.tables.paper_tables import dataset_name
from o2o import collapse


def fluctuations_table(arms: Sequence[Arm]) -> Table:
    """Mean, standard deviation over time, and mean points below the offline score, before the switch and after it.

    And, over all that was run, the best moving average, and how far below it the end is.
    """
    rows = []
    for arm in arms:
        runs = [run.run for run in arm.runs]
        before = [run.scores_before for run in arm.runs]
        after = [run.scores_after for run in arm.runs]
        rows.append(
            (
                words(dataset_name(arm.cell)),
                words(arm.cell.label),
                words(arm.cell.replay),
                mean(arm.scores()[0], runs),
                mean(list(map(_level, before)), runs),
                mean(list(map(_level, after)), runs),
                mean(list(map(_deviation, before)), runs),
                mean(list(map(_deviation, after)), runs),
                mean(arm.values("regret_before"), runs),
                mean(arm.values("regret"), runs),
                mean([float(collapse.best(run.curve)) for run in arm.runs], runs),
                mean([float(collapse.decline(run.curve)) for run in arm.runs], runs),
            )
        )
    columns = (
        "dataset", "algorithm", "replay", "offline", "mean before", "mean after", "deviation before",
        "deviation after", "below the offline score before", "after: the regret", "best", "below it in the end",
    )  # fmt: skip
    notes = (
        "Before: the evaluations in the last fifth of the pretraining. After: those of the first "
        f"{thousands(collapse.HORIZON)} env steps. Deviation: one seed's standard deviation over time, which holds "
        "evaluation noise (that of the frozen policy), fluctuations, and whatever trend there is. ± is over seeds.",
        "Where the regret is no more than the points below the offline score before, the fall is no larger than the "
        "pretraining's own fluctuations, and need not be the switch's doing.",
        f"Best: the highest mean over {thousands(collapse.WINDOW)} env steps of all that was run, which fluctuations "
        "raise. Below it in the end: what is lost of that; regret does not see it above the offline score.",
    )
    return Table("fluctuations", "Fluctuations before the switch and after", columns, tuple(rows), notes)


def _level(scores: Float[np.ndarray, " E"]) -> float:
    return float(scores.mean()) if scores.size else float("nan")


def _deviation(scores: Float[np.ndarray, " E"]) -> float:
    return float(scores.std(ddof=1)) if scores.size > 1 else float("nan")
