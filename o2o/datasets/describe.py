"""What sets there are, and what one holds: the commands `list` and `info`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from o2o.config import ConfigError, Dataset, Paths
from o2o.datasets import d4rl, hdf5, load_rows, locate
from o2o.datasets.scores import REFERENCE_RETURNS, normalised_score


def show_list(sets: Sequence[Dataset], paths: Paths) -> None:
    """Lists the sets, and which of them are there."""
    for dataset in sets:
        try:
            found = locate(dataset, paths.data)
        except ConfigError as error:
            print(f"{dataset.name:32} {error}")
            continue
        print(f"{dataset.name:32} {_size(found) if found else '-'}")


def show_info(sets: Sequence[Dataset], paths: Paths) -> None:
    """Prints rows, episodes, returns and ends of sets, beside what was published of D4RL's own."""
    for dataset in sets:
        path = locate(dataset, paths.data)
        if dataset.made_here and path is None:
            raise ConfigError(
                [
                    f"{dataset.name}: not generated yet. "
                    f"Do it with: python -m o2o.datasets generate {dataset.name}"
                ]
            )
        _print_table(dataset, hdf5.statistics(load_rows(dataset, paths.data)), path)


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.0f} MB"


def _print_table(dataset: Dataset, statistics: hdf5.Statistics, path: Path | None) -> None:
    print(f"{dataset.name}  {path}")
    published = d4rl.SETS[dataset.name] if dataset.source == "d4rl" else None
    expected: dict[str, float] = {}
    if published:
        expected["episodes"] = published.episodes
        if published.returns:
            expected |= {f"return_{key}": value for key, value in published.returns._asdict().items()}
    shown = dict(vars(statistics))
    reference = REFERENCE_RETURNS.get(dataset.task)
    if dataset.reference_min is not None and dataset.reference_max is not None:
        shown["score_mean"] = normalised_score(
            statistics.return_mean, dataset.reference_min, dataset.reference_max
        )
    elif reference:
        shown["score_mean"] = normalised_score(statistics.return_mean, *reference)
    for label, value in shown.items():
        note = f"   published for the whole set: {expected[label]:.10g}" if label in expected else ""
        print(f"  {label.replace('_', ' '):16}{value:>16.10g}{note}")
