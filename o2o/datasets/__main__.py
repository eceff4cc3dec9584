"""Looks at a set, or generates it: `python -m o2o.datasets info walker2d-medium-v2`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from o2o import config
from o2o.config import ConfigError, Dataset
from o2o.datasets import d4rl, hdf5, load_rows, locate, regenerate
from o2o.datasets.scores import REFERENCE_RETURNS, normalised_score

CONF = Path(__file__).parents[2] / "conf"


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m o2o.datasets", description=__doc__)
    parser.add_argument("command", choices=("info", "generate"))
    parser.add_argument("name", help="a name in conf/dataset, such as regen-hopper-medium")
    parser.add_argument(
        "overrides", nargs="*", help="key=value, such as dataset.rows=1000000 or paths.data=DIR"
    )
    options = parser.parse_args(arguments)
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = compose("config", [f"dataset={options.name}", *options.overrides])
        settings = config.build(config.plain(composed))
        dataset, data_directory = settings.dataset, settings.execution.paths.data
        if options.command == "generate":
            _require(dataset.source == "regenerated", f"{dataset.name}: only regen-… sets can be generated.")
            regenerate.obtain(dataset, data_directory)
        elif dataset.source == "regenerated":
            _require(
                locate(dataset, data_directory) is not None,
                f"{dataset.name}: not generated yet. Do it with: python -m o2o.datasets generate {dataset.name}",
            )
        _print_table(
            dataset, hdf5.statistics(load_rows(dataset, data_directory)), locate(dataset, data_directory)
        )
    except (HydraException, OmegaConfBaseException) as error:
        print(error, file=sys.stderr)
        return 2
    except ConfigError as error:
        print("\n".join(error.problems), file=sys.stderr)
        return 2
    return 0


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise ConfigError([problem])


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


if __name__ == "__main__":
    sys.exit(main())
