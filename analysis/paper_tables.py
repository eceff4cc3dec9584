"""Tables 1 and C3 of the paper from our runs, with the published numbers in columns beside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from analysis import published
from analysis.cells import Cell, by_dataset, display_name
from analysis.published import Published, Score
from analysis.runs import FROZEN
from analysis.table import NOTHING, Entry, Table, mean, number, words


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
    labels = {"regenerated": " (regenerated, not D4RL's)", "imported": " (imported curves)"}
    return cell.dataset + ("" if cell.first.from_scratch else labels.get(cell.first.source, ""))


def most_seeds(cells: Iterable[Cell]) -> dict[str, int]:
    """By dataset, how many seeds the setting with the most of them has."""
    return {dataset: max(len(c.seeds) for c in alike) for dataset, alike in by_dataset(cells).items()}


def seeds_entry(cell: Cell, most: dict[str, int]) -> Entry:
    """How many seeds, and of how many where another setting of the dataset has more."""
    count, of = len(cell.seeds), most[cell.dataset]
    return Entry(
        f"{count}" if count == of else f"{count} of {of}",
        float(count),
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
        lines = [line for line in printed if _is_the_papers(alike[0]) and line.dataset == alike[0].dataset]
        rows += _dataset_rows(alike, lines)
    columns = (
        "dataset", "method", "seeds", "Offline", "Online", "δ",
        "Offline (published)", "Online (published)", "δ (published)", "published by",
    )  # fmt: skip
    notes = [
        "Mean ± one standard deviation over seeds. Bold: within 10 % of the best method's mean Online, the paper's "
        "rule, applied to our columns and to the published ones each by themselves.",
        f"Published numbers are means over {published.SEEDS} seeds, and were not measured by us.",
    ]
    if not any(_is_the_papers(cell) for cell in ours):
        notes.append("None of these sets is the paper's, so no published number stands beside ours.")
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
    rows = []
    for cell in cells:
        line = None if cell.variant else known.pop(cell.algorithm, None)
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
                *_published_entries(line, best),
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


def _published_entries(line: Published | None, best: set[str]) -> tuple[Entry, ...]:
    if line is None:
        return (Entry(NOTHING),) * 4
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


def _is_the_papers(cell: Cell) -> bool:
    return cell.first.source == "d4rl"


def _bold(entry: Entry, bold: bool) -> Entry:
    return Entry(entry.text, entry.value, entry.spread, bold, entry.runs)
