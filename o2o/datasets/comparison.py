"""Regenerated sets beside D4RL's originals: the command `compare`, which writes the table of docs/regenerated.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from o2o.config.schema import Dataset, Paths
from o2o.datasets import d4rl
from o2o.datasets.files import hdf5
from o2o.datasets.loading import load_rows, locate
from o2o.datasets.regenerated import recipes
from o2o.envs.scores import REFERENCE_RETURNS, normalised_score
from o2o.errors import ConfigError

BEGIN = "<!-- begin: python -m o2o.datasets compare -->"
END = "<!-- end -->"
FAR = 0.15  # of the mean return, from which on a difference is pointed at
COLUMNS = ("set", "policies", "rows", "episodes", "mean return", "std", "min", "max", "normalised")


def compare_sets(sets: Sequence[Dataset], paths: Paths, write: Path | None) -> None:
    """Puts regenerated sets beside D4RL's originals, as a table; without names, all that are there.

    Raises:
        ConfigError: one is a mixture, none is there, or the file has no place for the table.
    """
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    mixed = [dataset.shown_name for dataset in sets if dataset.mix]
    if mixed:
        raise ConfigError(
            [f"{name} is a mixture, which has no original to be compared with" for name in mixed]
        )
    for dataset in sets:
        if not dataset.made_here or locate(dataset, paths.data) is None:
            continue
        lines += [_row(dataset, hdf5.statistics(load_rows(dataset, paths.data))), _published_row(dataset)]
    if len(lines) == 2:
        raise ConfigError(
            [
                "no regenerated set is there. Make one first: python -m o2o.datasets generate regen-hopper-medium"
            ]
        )
    table = "\n".join(lines)
    print(table)
    if write is not None:
        _write(write, table)


def _row(dataset: Dataset, found: hdf5.Statistics) -> str:
    published = d4rl.EXPECTED[_original(dataset)].return_mean
    off = 0.0 if published is None else found.return_mean / published - 1
    mean = f"{found.return_mean:.0f}" + (f" (**{off:+.0%}**)" if abs(off) > FAR else "")
    cells = [
        f"`{dataset.shown_name}`",
        str(recipes.count_policies(dataset)),
        f"{found.rows:,}",
        f"{found.episodes:,}",
        mean,
        *(f"{value:.0f}" for value in (found.return_std, found.return_min, found.return_max)),
        f"{_score(dataset, found.return_mean):.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def _published_row(dataset: Dataset) -> str:
    name = _original(dataset)
    published = d4rl.EXPECTED[name]
    policies = "1" if dataset.quality == "medium" else f"{(dataset.rows or 0) // 1000 - 1} (inferred)"
    rows = "1,000,000" if dataset.quality == "medium" else f"{dataset.rows:,}"
    cells = [f"D4RL's {name}", policies, rows, f"{published.episodes:,}"]
    if published.return_mean is None:
        cells += ["not published"] + ["–"] * 4
    else:
        mean = published.return_mean
        values = mean, published.return_std, published.return_min, published.return_max
        cells += [f"{value:.0f}" for value in values] + [f"{_score(dataset, mean):.1f}"]
    return f"| {' | '.join(cells)} |"


def _original(dataset: Dataset) -> str:
    return f"{dataset.task}-{dataset.quality}-v2"


def _score(dataset: Dataset, mean: float) -> float:
    return float(normalised_score(mean, *REFERENCE_RETURNS[dataset.task]))


def _write(path: Path, table: str) -> None:
    """Replaces what stands between the marks in the file."""
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror}). Name a file with --write."]) from None
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ConfigError([f"{path}: lacks the lines {BEGIN} and {END}, between which the table goes."])
    path.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}")
