"""The commands `list` and `info`: which sets there are, and what one holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from o2o.config.schema import Dataset, Paths
from o2o.datasets import columns, d4rl
from o2o.datasets.files import hdf5
from o2o.datasets.loading import load_for_task, locate
from o2o.datasets.regenerated import recipes
from o2o.envs.scores import REFERENCE_RETURNS, normalised_score
from o2o.errors import ConfigError
from o2o.machine.counting import counted

RETURN_TOLERANCE = 1e-5  # relative; what was published was summed in float32


def show_list(sets: Sequence[Dataset], paths: Paths) -> None:
    """Lists the sets, and which of them are there."""
    papers = [name for name in d4rl.SETS if name.split("-", 1)[1] in d4rl.PAPERS]
    groups = {
        f"D4RL's own, the paper's ({paths.data / 'd4rl'})": {
            name: _d4rl_state(name, paths) for name in papers
        },
        "Regenerated: made here by policies of this project, not D4RL's": {
            f"regen-{dataset.task}-{dataset.quality}": _state(dataset, paths) for dataset in sets
        },
        "D4RL's own, other qualities": {
            name: _d4rl_state(name, paths) for name in d4rl.SETS if name not in papers
        },
    }
    width = max(len(name) for group in groups.values() for name in group)
    for title, group in groups.items():
        print(title)
        for name, state in group.items():
            print(f"  {name:{width}}  {state}")
    print("On first use, or by `fetch` and `generate`, sets are downloaded and generated.")
    print("dataset=file and dataset=minari read sets of your own: see docs/datasets.md")


def show_info(sets: Sequence[Dataset], paths: Paths) -> None:
    """Prints rows, episodes, returns and ends of sets, beside what was published of D4RL's own."""
    missing = [dataset for dataset in sets if locate(dataset, paths.data) is None]
    if missing:
        raise ConfigError(_way(dataset, paths) for dataset in missing)
    for dataset in sets:
        path = locate(dataset, paths.data)
        rows = load_for_task(dataset, paths.data)
        _print_table(dataset, hdf5.statistics(rows), path)
        if dataset.top_fraction is not None:
            kept = columns.best(hdf5.transitions(rows), dataset.top_fraction)
            returns, _ = columns.trajectories(kept)
            print(
                f"  dataset.top_fraction={dataset.top_fraction:g} keeps {len(kept.reward):,} rows of the best "
                f"{counted(len(returns), 'trajectory')}, mean return {returns.mean():.10g}"
            )


def _d4rl_state(name: str, paths: Paths) -> str:
    path = d4rl.file_path(name, paths.data)
    return _there(path) if path.is_file() else f"not there, {d4rl.SETS[name].bytes / 1e6:.0f} MB to download"


def _state(dataset: Dataset, paths: Paths) -> str:
    try:
        found = locate(dataset, paths.data)
    except ConfigError as error:
        return str(error)
    if found:
        return _there(found)
    others = recipes.others_there(dataset, paths.data)
    return f"there with {'; '.join(others)}" if others else "not there, to be generated"


def _there(path: Path) -> str:
    return f"there, {path.stat().st_size / 1e6:.0f} MB"


def _way(dataset: Dataset, paths: Paths) -> str:
    if dataset.source in ("file", "minari"):
        return (
            f"{dataset.name}: {dataset.path or dataset.id} is not there. Check dataset.path, or dataset.id."
        )
    how = (
        "'fetch' in place of 'info' downloads"
        if dataset.source == "d4rl"
        else "'generate' in place of 'info' makes"
    )
    others = recipes.others_there(dataset, paths.data) if dataset.made_here and not dataset.mix else []
    there = f" (there with {'; '.join(others)})" if others else ""
    return f"{dataset.shown_name}: not there yet{there}. The same command with {how} it."


def _print_table(dataset: Dataset, statistics: hdf5.Statistics, path: Path | None) -> None:
    print(f"{dataset.shown_name}  {path}")
    shown = dict(vars(statistics))
    reference = REFERENCE_RETURNS.get(dataset.task)
    if dataset.reference_min is not None and dataset.reference_max is not None:
        shown["score_mean"] = normalised_score(
            statistics.return_mean, dataset.reference_min, dataset.reference_max
        )
    elif reference:
        shown["score_mean"] = normalised_score(statistics.return_mean, *reference)
    published = None
    if dataset.source == "d4rl" and dataset.mix is None:
        published = d4rl.EXPECTED.get(d4rl.set_name(dataset))
    expected = published._asdict() if published else {}
    for label, value in shown.items():
        note = _comparison(value, expected.get(label), dataset.rows)
        print(f"  {label.replace('_', ' '):16}{value:>16.10g}{note}")


def _comparison(value: float, published: float | None, rows: int | None) -> str:
    if published is None:
        return ""
    if rows is not None:
        return f"   published for the whole set: {published:.10g}"
    same = math.isclose(value, published, rel_tol=RETURN_TOLERANCE)
    return f"   published: {published:.10g}{'' if same else ', which DIFFERS'}"
