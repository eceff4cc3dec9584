"""From a command line to the runs that are still to be done.

A plan is made in four steps: **expand** products of overrides into cells (all keys but the seed), **compose** each
cell once and check all of its runs, **dedupe** by identity, and **leave out** what is done. All bad cells are
reported together, before anything runs.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from o2o import datasets
from o2o.config import Composed, Config, ConfigError, build, plain
from o2o.datasets.scores import REFERENCE_RETURNS
from o2o.records import IDENTITY, RESULT, State, read_object, read_state
from o2o.sweep.identity import code_hash, identity, pretrain_directory, run_directory

LISTED_RUNS = 12
DEFAULT_SEED = ""
"""Stands among the overrides of the seed for the configuration's own."""

Axes = dict[str, list[str]]
"""Key to its overrides, each a valid word of the command line; one entry where the key is not swept."""


@dataclass(frozen=True)
class Cell:
    """Runs that differ only in their seed; `label` is what tells this cell from the plan's others."""

    overrides: list[str]
    seeds: list[str]
    label: str


@dataclass(frozen=True)
class PlannedRun:
    """One run, the overrides that compose it, and its directories."""

    config: Config
    overrides: list[str]
    identity: str
    directory: Path
    pretrain_directory: Path | None

    @property
    def done(self) -> bool:
        """Whether it has a result, and its directory is this run's and not one of another whose hash begins alike."""
        return (self.directory / RESULT).is_file() and self._described().get("identity") == self.identity

    @property
    def other_code(self) -> bool:
        """Whether what lies in its directory was made by other code than this."""
        return self._described().get("code_hash") != code_hash()

    def _described(self) -> dict[str, Any]:
        try:
            return read_object(self.directory / IDENTITY) or {}
        except ValueError:
            return {}


@dataclass(frozen=True)
class Plan:
    """The runs that were asked for, split into those done and those to do."""

    shape: str
    duplicates: int
    done: list[PlannedRun]
    to_run: list[PlannedRun]
    dry_run: bool

    def text(self) -> str:
        """What is said to the user before anything runs."""
        total = len(self.done) + len(self.to_run)
        lines = [f"{_count(total, 'run')}{self.shape}"]
        if self.duplicates:
            lines.append(f"  {_count(self.duplicates, 'duplicate')} left out")
        if self.done:
            others = sum(run.other_code for run in self.done)
            under = f", {others} of them under other code" if others else ""
            lines.append(f"  done {len(self.done)}{under} (launch.redo=true runs them again)")
        lines.append(f"  to run {len(self.to_run)}{self._pretrainings()}")
        lines += [f"    {run.directory}" for run in self.to_run[:LISTED_RUNS]]
        if len(self.to_run) > LISTED_RUNS:
            lines.append(f"    … and {len(self.to_run) - LISTED_RUNS} more")
        return "\n".join([*lines, *(f"  {line}" for line in self._data())])

    def _pretrainings(self) -> str:
        needed = {run.pretrain_directory for run in self.to_run if run.pretrain_directory != run.directory}
        missing = [path for path in needed if path is not None and not (path / RESULT).is_file()]
        return f", after {_count(len(missing), 'pretraining')}" if missing else ""

    def _data(self) -> Iterable[str]:
        wanted = {run.config.dataset: run.config for run in self.to_run if run.pretrain_directory is not None}
        for dataset, config in wanted.items():
            directory = config.execution.paths.data
            try:
                found = datasets.locate(dataset, directory) is not None
            except ConfigError as error:
                yield f"missing data, whose runs will fail: {error}"
                continue
            if not found and dataset.made_here:
                yield f"{dataset.name} will be generated first, in {directory}"
            elif not found:
                yield f"missing data, whose runs will fail: {dataset.name} is not in {directory}"


def make(products: Sequence[Axes], compose: Callable[[list[str]], Composed]) -> Plan:
    """The plan of a union of products.

    Args:
        products: what is to be run, as the command line and a preset's grids ask for it.
        compose: makes the configuration of a list of overrides without sweeps, as the launcher does.

    Raises:
        ConfigError: with the problems of all cells.
    """
    cells = [cell for axes in products for cell in _cells(axes)]
    if not any(cell.seeds for cell in cells):
        raise ConfigError(["nothing to plan: a sweep is empty, such as seed=range(0)"])
    runs: dict[str, PlannedRun] = {}
    problems: dict[str, list[str]] = {}
    for cell in cells:
        for run in _runs(cell, compose, problems):
            runs.setdefault(run.identity, run)
    if problems:
        raise ConfigError(_located(problem, labels, len(cells)) for problem, labels in problems.items())
    _check_places(runs.values())
    redo = any(run.config.execution.launch.redo for run in runs.values())
    ordered = _neighbours(runs.values())
    return Plan(
        shape=_shape(products),
        duplicates=sum(len(cell.seeds) for cell in cells) - len(runs),
        done=[run for run in ordered if run.done and not redo],
        to_run=[run for run in ordered if redo or not run.done],
        dry_run=any(run.config.execution.launch.dry_run for run in runs.values()),
    )


def failures(runs: Sequence[PlannedRun], errors: Sequence[BaseException | None]) -> str:
    """Which runs failed and why, in a line or two each; empty if none did."""
    failed = [
        f"  {_where(run)}\n    {_reason(error)}"
        for run, error in zip(runs, errors, strict=True)
        if error is not None
    ]
    return "\n".join([f"{len(failed)} of {_count(len(runs), 'run')} failed:", *failed]) if failed else ""


def bad_input(errors: Sequence[BaseException | None]) -> bool:
    """Whether all that failed did so before anything was computed, by what it was given."""
    return all(isinstance(error, ConfigError) for error in errors if error is not None)


def _cells(axes: Axes) -> Iterable[Cell]:
    swept = {key: words for key, words in axes.items() if key != "seed"}
    for words in itertools.product(*swept.values()):
        varied = [word for word, choice in zip(words, swept.values(), strict=True) if len(choice) > 1]
        yield Cell(list(words), axes.get("seed", [DEFAULT_SEED]), label=" ".join(varied))


def _runs(
    cell: Cell, compose: Callable[[list[str]], Composed], problems: dict[str, list[str]]
) -> Iterable[PlannedRun]:
    """The runs of one cell, composed once; `problems` gets the labels of bad cells."""
    composed = compose(cell.overrides)
    default, composed.seed = composed.seed, "???"  # an interpolation of the seed is an error from here on
    tree = plain(composed)
    for word in cell.seeds:
        overrides, tree["seed"] = cell.overrides, default
        if word != DEFAULT_SEED:
            overrides = [*overrides, word]
            tree["seed"] = yaml.safe_load(word.partition("=")[2])
        try:
            config = build(tree)
            yield PlannedRun(
                config, overrides, identity(config), run_directory(config), pretrain_directory(config)
            )
        except ConfigError as error:
            for problem in error.problems:
                labels = problems.setdefault(problem, [])
                if cell.label not in labels:
                    labels.append(cell.label)


def _check_places(runs: Iterable[PlannedRun]) -> None:
    """That runs can be written, and that tasks and the user's own files are what the runs need.

    Raises:
        ConfigError: with all that is wrong.
    """
    problems: list[str] = []
    for directory in {run.config.execution.paths.runs for run in runs}:
        there = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            problems.append(f"paths.runs={directory} cannot be written ({there}); set it, or O2O_RUNS")
    for dataset, config in {run.config.dataset: run.config for run in runs}.items():
        if dataset.task in REFERENCE_RETURNS and dataset.source != "file":
            continue  # nothing that could be wrong, so nothing that need be imported
        from o2o.envs import find_task, task_sizes

        try:
            sizes = task_sizes(find_task(dataset.task))
            if dataset.source == "file" and (config.pretrain.updates or config.replay_init.preload):
                datasets.load_rows(dataset, config.execution.paths.data, *sizes)
        except LookupError as error:
            problems.append(f"dataset.{error}")
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)


def _neighbours(runs: Iterable[PlannedRun]) -> list[PlannedRun]:
    """The runs in order, but those that share a pretraining follow each other."""
    groups: dict[Path, list[PlannedRun]] = {}
    for run in runs:
        groups.setdefault(run.pretrain_directory or run.directory, []).append(run)
    return list(itertools.chain.from_iterable(groups.values()))


def _shape(products: Sequence[Axes]) -> str:
    factors = [
        " × ".join(f"{len(words)} {key}" for key, words in axes.items() if len(words) > 1)
        for axes in products
    ]
    return f" = {' + '.join(factor or '1' for factor in factors)}" if any(factors) else ""


def _located(problem: str, labels: list[str], cells: int) -> str:
    """The problem, and where it is if not everywhere."""
    if len(labels) == cells or labels == [""]:
        return problem
    more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
    return f"{problem}\n  in {'; '.join(labels[:3])}{more}"


def _where(run: PlannedRun) -> Path:
    """Where the failure is recorded: the pretraining's directory if that failed."""
    pretraining = run.pretrain_directory
    return pretraining if pretraining and read_state(pretraining) is State.FAILED else run.directory


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    return (
        text.replace("\n", "\n    ") if isinstance(error, ConfigError) else f"{type(error).__name__}: {text}"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
