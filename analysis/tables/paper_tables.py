"""Tables 1 and C3 of the paper from our runs, with the published numbers in columns beside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from analysis.data import published
from analysis.data.cells import Cell, by_dataset, display_name, word
from analysis.data.published import Published, Score
from analysis.data.runs import FROZEN
from analysis.tables.forms import NOTHING, Entry, Table, mean, number, words

CAVEATS = {"regenerated": " (regenerated, not D4RL's)", "imported": " (imported curves)"}
"""The words behind the name of a dataset, by its source."""


def table_1(cells: Sequence[Cell]) -> Table:
    """Table 1 of the paper: the online replay starts with the offline data."""
    return _paper_table(
        "table_1", "Table 1: the replay starts with the offline data", "offline", cells, published.TABLE_1
    )


def table_c3(cells: Sequence[Cell]) -> Table:
    """Table C3 of the paper: the online replay starts empty."""
    return _paper_table("table_c3", "Table C3: the replay starts empty", "empty", cells, published.TABLE_C3)


def dataset_name(cell: Cell) -> str:
    """The dataset's name, marked where the data are not what their name may be taken for."""
    return cell.dataset + ("" if cell.first.without_data else CAVEATS.get(cell.first.source, ""))


def most_seeds(cells: Iterable[Cell]) -> dict[str, int]:
    """By dataset, how many seeds the setting with the most of them has."""
    return {dataset: max(len(c.seeds) for c in alike) for dataset, alike in by_dataset(cells).items()}


def seeds_entry(cell: Cell, most: dict[str, int]) -> Entry:
    """Returns the number of seeds, and of how many where another setting of the dataset has more."""
    count, of = len(cell.seeds), most[cell.dataset]
    return Entry(
        f"{count}" if count == of else f"{count} of {of}",
        count,
        runs=tuple(run.path for run in cell.runs),
    )


def _paper_table(
    name: str, title: str, replay_init: str, cells: Sequence[Cell], printed: Sequence[Published]
) -> Table:
    ours = [
        cell
        for cell in cells
        if cell.replay_init == replay_init
        and cell.offline_ratio is None
        and cell.algorithm != FROZEN
        and not cell.first.from_scratch
    ]
    rows = []
    for alike in by_dataset(ours).values():
        comparable = any(not _unlike_the_papers(cell) for cell in alike)
        lines = [line for line in printed if comparable and line.dataset == alike[0].dataset]
        rows += _dataset_rows(alike, lines)
    columns = (
        "dataset", "method", "seeds", "Offline", "Online", "δ",
        "Offline (published)", "Online (published)", "δ (published)", "published by",
    )  # fmt: skip
    notes = [
        "Mean ± one standard deviation over seeds. Bold: within 10 % of the best method's mean Online, the paper's "
        f"rule, or {published.WITHIN_POINTS:g} points where that is more, applied to our columns and to the published "
        "ones each by themselves.",
        f"Published numbers are means over {published.SEEDS} seeds, and were not measured by us. They stand beside "
        "runs on all of D4RL's set, at the paper's scale and settings only.",
    ]
    if all(_unlike_the_papers(cell) for cell in ours):
        notes.append("None of these runs is like the paper's, so no published number stands beside ours.")
    elif replay_init == "offline":
        notes += [f"The paper departs from its own rule: {line}." for line in published.departures()]
    return Table(name, title, columns, tuple(rows), tuple(notes))


def _dataset_rows(cells: Sequence[Cell], printed: Sequence[Published]) -> list[tuple[Entry, ...]]:
    """Our settings of one dataset with the published line of the same method beside, then the lines that have none."""
    marked = published.within_of_best(
        {c.label: float(np.mean([r.online_score for r in c.runs])) for c in cells}
    )
    known = {line.algorithm: line for line in printed}
    best = (
        published.within_of_best({line.algorithm: line.online.mean for line in printed}) if printed else set()
    )
    most = most_seeds(cells)
    alike = Counter(cell.algorithm for cell in cells if not _unlike_the_papers(cell))
    rows = []
    for cell in cells:
        unlike = _unlike_the_papers(cell)
        if not unlike and alike[cell.algorithm] > 1:
            unlike = "several of our settings may be the paper's"
        line = None if unlike else known.pop(cell.algorithm, None)
        offline = np.array([run.offline_score for run in cell.runs], dtype=np.float64)
        online = np.array([run.online_score for run in cell.runs])
        rows.append(
            (
                words(dataset_name(cell)),
                words(cell.label),
                seeds_entry(cell, most),
                mean(offline, cell.runs, decimals=2),
                _bold(mean(online, cell.runs, decimals=2), cell.label in marked),
                mean(online - offline, cell.runs, sign="+", decimals=2),
                *_published_entries(line, best, unlike),
            )
        )
    for line in known.values():
        label = display_name(line.algorithm)
        rows.append(
            (
                words(dataset_name(cells[0])),
                words(label),
                *([Entry(NOTHING)] * 4),
                *_published_entries(line, best),
            )
        )
    return rows


def _published_entries(line: Published | None, best: set[str], unlike: str = "") -> tuple[Entry, ...]:
    if line is None:
        return (*(Entry(NOTHING),) * 3, words(unlike or NOTHING))
    return (
        _printed(line.offline),
        _bold(_printed(line.online), line.algorithm in best),
        number(line.delta, 2, "+"),
        words(line.source),
    )


def _printed(score: Score) -> Entry:
    entry = number(score.mean, 2)
    if score.deviation is None:
        return entry
    return Entry(f"{entry.text} ± {score.deviation:.2f}", score.mean, score.deviation)


def _unlike_the_papers(cell: Cell) -> str:
    """Says why no published number may stand beside these runs; "" where one may."""
    if cell.first.source != "d4rl":
        return "not the paper's data"
    if cell.dataset not in published.DATASETS:
        return "none of the paper's sets"
    unlike = published.other_settings(cell.first.settings)
    if not unlike:
        return ""
    told = [
        f"{key}={word(value)}, not {word(published.of_the_paper(key, cell.first.settings))}"
        for key, value in list(unlike.items())[:3]
    ]
    more = f" and {len(unlike) - len(told)} more" if len(unlike) > len(told) else ""
    return f"not at the paper's settings: {'; '.join(told)}{more}"


def _bold(entry: Entry, bold: bool) -> Entry:
    return Entry(entry.text, entry.value, entry.spread, bold, entry.runs)
