"""Checks of what planned runs need of this machine: places to write to, arithmetic, their tasks, and data."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from o2o.config.parsing import shown
from o2o.config.schema import Dataset
from o2o.config.validation import starvation
from o2o.datasets import loading, mix
from o2o.datasets.files import hdf5
from o2o.datasets.regenerated.recipes import QUALITIES
from o2o.envs import episodes
from o2o.envs.scores import REFERENCE_RETURNS
from o2o.errors import ConfigError
from o2o.machine import device
from o2o.machine.names import PLAIN, is_plain, project_problem
from o2o.runs.directory.layout import FINAL_STATE, RESULT
from o2o.sweep.launching.jobs import PlannedRun


def check(runs: Collection[PlannedRun]) -> None:
    """Checks that runs can be written, names and the environment are as they must be, and tasks and files fit.

    Raises:
        ConfigError: with all that is wrong.
    """
    problems = device.refused()
    for name in {run.config.execution.launch.name for run in runs} - {None}:
        if not is_plain(str(name)):
            problems.append(f"launch.name={shown(name)} names a folder and jobs of SLURM: {PLAIN}")
    for project in {run.config.execution.tracker.project for run in runs}:
        if problem := project_problem("tracker.project", project):
            problems.append(problem)
    for directory in {run.config.execution.paths.runs for run in runs}:
        problems += _unwritable(directory, "paths.runs", "O2O_RUNS")
    reading = {run.config.dataset for run in runs if _reads_data(run)}
    for dataset, config in {run.config.dataset: run.config for run in runs}.items():
        data = config.execution.paths.data
        if dataset.source in QUALITIES and dataset in reading and not loading.locate(dataset, data):
            problems += _unwritable(data, "paths.data", "O2O_DATA")
        if dataset.task in REFERENCE_RETURNS and dataset.source != "file":
            continue  # nothing that could be wrong, so nothing that need be imported
        from o2o.envs.tasks import find_task, task_sizes

        try:
            sizes = task_sizes(find_task(dataset.task))
            if dataset.source == "file" and dataset in reading:
                loading.load_rows(dataset, config.execution.paths.data, *sizes)
        except LookupError as error:
            problems.append(f"dataset.{error}")
        except ConfigError as error:
            problems += error.problems
    places = {run.pretrain_directory for run in runs if run.pretrain_directory is not None and not run.done}
    for place in sorted(places):
        if (place / RESULT).is_file() and not (place / FINAL_STATE).is_file():
            problems.append(
                f"{place / FINAL_STATE} is not there, from which runs go on (a copy without checkpoints?). Remove "
                f"{place} to pretrain again"
            )
    problems += dict.fromkeys(_starved(runs)) if not problems else []  # of all seeds the same
    if problems:
        raise ConfigError(problems)


def _reads_data(run: PlannedRun) -> bool:
    """Whether it needs its set: to pretrain, or in its replay."""
    return bool(run.config.pretrain.updates or run.config.replay_init.preload)


def remarks(runs: Collection[PlannedRun]) -> Iterable[str]:
    """Returns remarks on the runs' sets and episodes, to be read before they begin."""
    yield from data_to_come(runs)
    for dataset in dict.fromkeys(run.config.dataset for run in runs if _reads_data(run)):
        if dataset.shown_name != dataset.name:
            yield f"tables and figures call this set {dataset.shown_name}"
    yield from hidden_intervals(runs)
    for task, discount in dict.fromkeys((run.config.dataset.task, run.config.discount) for run in runs):
        yield from episodes.remarks(task, loading.time_limit(task), discount)


def hidden_intervals(runs: Iterable[PlannedRun]) -> Iterable[str]:
    """Returns a line where an interval of evaluations was asked for that others have the word before online."""
    asked = [run for run in runs if any(word.startswith("evaluation.interval=") for word in run.overrides)]
    for evaluation in dict.fromkeys(run.config.evaluation for run in asked if run.config.finetune.env_steps):
        if evaluation.online_intervals:
            yield (
                f"evaluation.interval={evaluation.interval} holds online only after env step "
                f"{evaluation.online_intervals[-1][0]}: until then evaluation.online_intervals says when; "
                "'evaluation.online_intervals=[]' leaves it to the interval"
            )


def data_to_come(runs: Iterable[PlannedRun]) -> Iterable[str]:
    """Returns lines on the sets that the runs need and that are not there: how they will come, or that they won't."""
    wanted = {run.config.dataset: run.config for run in runs if _reads_data(run)}
    coming: dict[str, list[str]] = {}
    for dataset, config in wanted.items():
        directory = config.execution.paths.data
        try:
            missing = [part for part in mix.stored(dataset) if loading.locate(part, directory) is None]
        except ConfigError as error:
            yield f"missing data, whose runs will fail: {error}"
            continue
        for part in missing:
            if part.made_here:
                coming.setdefault(f"will be generated first, in {directory}", []).append(part.shown_name)
            elif part.source == "d4rl":
                coming.setdefault(f"will be downloaded first, to {directory}", []).append(part.name)
            else:
                place = "" if part.source == "minari" else f" in {directory}"
                yield f"missing data, whose runs will fail: {part.id or part.name} is not there{place}"
    yield from (f"{', '.join(dict.fromkeys(names))} {how}" for how, names in coming.items())


def _starved(runs: Iterable[PlannedRun]) -> Iterable[str]:
    """Returns the reasons why runs would never learn online, where their sets are there to be counted."""
    counts: dict[Dataset, int] = {}
    for config in (run.config for run in runs):
        dataset, data = config.dataset, config.execution.paths.data
        if not starvation(config, transitions=0) or not loading.locate(dataset, data):
            continue
        if dataset not in counts:
            counts[dataset] = len(hdf5.transitions(loading.load_for_task(dataset, data)).reward)
        yield from starvation(config, counts[dataset])


def _unwritable(directory: Path, key: str, variable: str) -> list[str]:
    """Returns the reason why files cannot be written to a directory, which need not be there yet."""
    there = next(
        path for path in (directory.absolute(), *directory.absolute().parents) if os.path.lexists(path)
    )
    if there.is_dir() and os.access(there, os.W_OK):
        return []
    return [f"{key}={directory} cannot be written ({there}); set it, or {variable}"]
