"""From a command line to the runs that are still to be done.

A plan is made in four steps: **expand** products of overrides into cells (all keys but the seed), **compose** each
cell once and check all of its runs, **dedupe** by identity, and **leave out** what is done. All bad cells are
reported together, before anything runs.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from o2o.config.build import build
from o2o.config.parsing import shown
from o2o.errors import ConfigError
from o2o.machine.counting import counted
from o2o.machine.names import PLAIN, is_plain
from o2o.machine.progress import Progress
from o2o.runs import lock
from o2o.runs.directory.layout import RunState, read_state
from o2o.runs.identity import identity, pretrain_directory, run_directory
from o2o.sweep.launching import jobs, prepare, submit
from o2o.sweep.launching.jobs import PlannedRun
from o2o.sweep.ledger import manifest
from o2o.sweep.planning import estimate, grid, prerequisites
from o2o.sweep.planning.grid import DEFAULT_SEED, PlannedCell, Product

LISTED_RUNS = 12
UNKNOWN_HOURS = "device-hours: unknown, for no run of this kind has been measured here"
STARTED = {RunState.FAILED: "failed before", RunState.INTERRUPTED: "interrupted", RunState.RUNNING: "cut off"}
"""States in which a run that is to be run may be, and what they are called."""


@dataclass(frozen=True)
class Plan:
    """The runs that were asked for, split into those done, those under way and those to do."""

    shape: str
    duplicates: int
    excluded: int
    done: list[PlannedRun]
    busy: dict[str, list[PlannedRun]]
    """Runs that need not be started, by what they are: `running` or `queued`."""
    to_run: list[PlannedRun]
    seeds_per_job: int
    dry_run: bool
    on_cluster: bool
    notes: list[str]

    @property
    def asked(self) -> list[PlannedRun]:
        """All runs."""
        return [*self.done, *itertools.chain.from_iterable(self.busy.values()), *self.to_run]

    @property
    def root(self) -> Path:
        """The directory of runs."""
        return self.asked[0].config.execution.paths.runs

    def name(self, experiment: str | None) -> str:
        """The sweep's: what was asked for, or the experiment's, or a hash of its runs.

        Raises:
            ConfigError: the experiment's cannot be it.
        """
        if asked := self.asked[0].config.execution.launch.name:
            return asked
        if experiment is not None:
            name = experiment.replace("/", ".")  # of a preset in a folder
            if not is_plain(name):
                raise ConfigError(
                    [
                        f"experiment={shown(experiment)} names the sweep, its folder and jobs of SLURM: "
                        "rename the preset or set launch.name=…; " + PLAIN
                    ]
                )
            return name
        grid = sorted({run.directory.parent.as_posix() for run in self.asked})
        return f"sweep-{hashlib.sha256(json.dumps(grid).encode()).hexdigest()[:6]}"

    @property
    def due(self) -> list[PlannedRun]:
        """The runs that are to be run, and the pretrainings that are made for them."""
        return [*self.to_run, *jobs.missing_pretrainings(self.to_run)]

    @property
    def jobs(self) -> list[list[PlannedRun]]:
        """The runs that are to be run, packed into jobs."""
        return jobs.pack(self.to_run, self.seeds_per_job)

    def text(self) -> str:
        """Returns the message to the user before anything runs."""
        lines = [f"{counted(len(self.asked), 'run')}{self.shape}"]
        if self.duplicates:
            lines.append(f"  {counted(self.duplicates, 'duplicate')} left out")
        if self.excluded:
            lines.append(f"  {self.excluded} excluded")
        if self.done:
            others = sum(run.other_code for run in self.done)
            under = f", {others} of them under other code" if others else ""
            lines.append(f"  done {len(self.done)}{under} (launch.redo=true runs them again)")
        lines += [f"  {state} {len(runs)}, left alone" for state, runs in self.busy.items() if runs]
        lines.append(f"  to run {len(self.to_run)}{self._states()}{self._pretrainings()}")
        if len(packed := self.jobs) < len(self.to_run):
            lines.append(
                f"    in {counted(len(packed), 'job')} of up to {max(map(len, packed))} seeds side by side"
            )
        lines += [f"    {run.directory}{self._choice(run)}" for run in self.to_run[:LISTED_RUNS]]
        if len(self.to_run) > LISTED_RUNS:
            lines.append(f"    … and {len(self.to_run) - LISTED_RUNS} more")
        if self.to_run:
            told = estimate.device_hours(self.due, self.root)
            if told or self.dry_run or self.on_cluster:
                lines.append(f"  {told or UNKNOWN_HOURS}")
        notes = [*self.notes, *prerequisites.remarks(self.to_run)]
        return "\n".join([*lines, *(f"  {line}" for line in notes)])

    def _choice(self, run: PlannedRun) -> str:
        """Returns what was asked for of a run, where its directory tells it from others by nothing but a hash."""
        look = _unhashed(run)
        alike = {
            other.label: set(other.label.split())
            for other in self.to_run[:LISTED_RUNS]
            if _unhashed(other) == look
        }
        shared = set.intersection(*alike.values())
        told = " ".join(word for word in run.label.split() if word not in shared)
        return f"  {told}" if told else ""

    def _states(self) -> str:
        states = [_state(run) for run in self.to_run]
        told = [(states.count(state), word) for state, word in STARTED.items() if state in states]
        return f" ({', '.join(f'{number} {word}' for number, word in told)})" if told else ""

    def _pretrainings(self) -> str:
        missing = jobs.missing_pretrainings(self.to_run)
        told = f", after {counted(len(missing), 'pretraining')}" if missing else ""
        absent = {run.directory for run in missing}
        there = {run.pretrain_directory: run.pretraining for run in self.to_run}
        made = [run for place, run in there.items() if run is not None and place not in absent]
        others = sum(run.other_code for run in made)
        return f"{told}, from {counted(others, 'pretraining')} made by other code" if others else told


def _state(run: PlannedRun) -> RunState | None:
    """Its state; None where its file is damaged, which is then replaced."""
    try:
        return read_state(run.directory)
    except (ValueError, KeyError, TypeError):
        return None


def make(
    products: Sequence[Product], compose: Callable[[list[str]], dict[str, Any]], on_cluster: bool = False
) -> Plan:
    """The plan of a union of products.

    Args:
        products: what is to be run, as the command line and a preset's grids ask for it.
        compose: makes the plain tree of a list of overrides without sweeps, as the launcher composes it.
        on_cluster: whether it is for SLURM, where seeds share a device and the queue must be known.

    Raises:
        ConfigError: with the problems of all cells.
    """
    found = grid.union(products)
    if not any(cell.seeds for cell in found):
        raise ConfigError(["nothing to plan: a sweep is empty, such as seed=range(0)"])
    runs: dict[str, PlannedRun] = {}
    problems: dict[str, list[str]] = {}
    planned = sum(len(cell.seeds) for cell in found)
    with closing(Progress(["planning"], planned, "runs", stays=False)) as progress:
        for count, run in enumerate(
            itertools.chain.from_iterable(_runs(cell, compose, problems) for cell in found), start=1
        ):
            runs.setdefault(run.identity, run)
            progress.at(count)
    if problems:
        raise ConfigError(_located(problem, labels, len(found)) for problem, labels in problems.items())
    prerequisites.check(runs.values())
    launch = next(iter(runs.values())).config.execution.launch
    ordered = _neighbours(runs.values())
    done = [run for run in ordered if run.done and not launch.redo]
    not_done = [run for run in ordered if launch.redo or not run.done]
    busy, notes = _busy(not_done, on_cluster)
    left_alone = {run.identity for each in busy.values() for run in each}
    return Plan(
        shape=_shape(products),
        duplicates=planned - len(runs),
        excluded=sum(map(grid.count, products)) - planned,
        done=done,
        busy=busy,
        to_run=[run for run in not_done if run.identity not in left_alone],
        seeds_per_job=jobs.seeds_per_job(ordered[0].config, on_cluster),
        dry_run=launch.dry_run,
        on_cluster=on_cluster,
        notes=notes,
    )


def overrides(job: Sequence[PlannedRun]) -> list[str]:
    """The overrides that compose a job."""
    seeds = [run.config.seed for run in job]
    packed = [f"launch.seeds=[{','.join(map(str, seeds))}]"] if len(job) > 1 else []
    return [*job[0].overrides, *packed]


def failures(packed: Sequence[Sequence[PlannedRun]], errors: Sequence[BaseException | None]) -> str:
    """Which runs failed and why, in a line or two each; empty if none did."""
    failed = [
        ([run for run in job if not run.done] or job, error)
        for job, error in zip(packed, errors, strict=True)
        if error is not None
    ]
    if not failed:
        return ""
    lines = [f"{sum(len(job) for job, _ in failed)} of {counted(sum(map(len, packed)), 'run')} failed:"]
    for job, error in failed:
        lines += [*dict.fromkeys(f"  {_where(run)}" for run in job), f"    {_reason(error)}"]
    return "\n".join(lines)


def bad_input(errors: Sequence[BaseException | None]) -> bool:
    """Whether all that failed did so before anything was computed, by what it was given."""
    return all(isinstance(error, ConfigError) for error in errors if error is not None)


def _runs(
    cell: PlannedCell, compose: Callable[[list[str]], dict[str, Any]], problems: dict[str, list[str]]
) -> Iterable[PlannedRun]:
    """The runs of one cell, composed once; `problems` gets the labels of bad cells."""
    tree = compose(cell.overrides)
    default = tree["seed"]
    for word in cell.seeds:
        overrides, tree["seed"] = cell.overrides, default
        if word != DEFAULT_SEED:
            overrides = [*overrides, word]
            tree["seed"] = _seed(word)
        try:
            config = build(tree)
            places = run_directory(config), pretrain_directory(config)
            yield PlannedRun(config, overrides, cell.label, identity(config), *places)
        except ConfigError as error:
            for problem in error.problems:
                labels = problems.setdefault(problem, [])
                if cell.label not in labels:
                    labels.append(cell.label)


def _seed(word: str) -> object:
    """The value of `seed=…`, as the job will read it."""
    text = word.partition("=")[2]
    return int(text) if text.isdecimal() else OverridesParser.create().parse_override(word).value()


def _neighbours(runs: Iterable[PlannedRun]) -> list[PlannedRun]:
    """The runs in order, but those that share a pretraining follow each other."""
    groups: dict[Path, list[PlannedRun]] = {}
    for run in runs:
        groups.setdefault(run.pretrain_directory or run.directory, []).append(run)
    return list(itertools.chain.from_iterable(groups.values()))


def _unhashed(run: PlannedRun) -> str:
    return run.directory.parent.as_posix().rpartition("-")[0]


def _shape(products: Sequence[Product]) -> str:
    factors = [grid.shape(product) for product in products]
    return f" = {' + '.join(factor or '1' for factor in factors)}" if any(factors) else ""


def _busy(runs: Sequence[PlannedRun], on_cluster: bool) -> tuple[dict[str, list[PlannedRun]], list[str]]:
    """The runs that are under way already, and what could not be found out."""
    busy: dict[str, list[PlannedRun]] = {"running": [], "queued": []}
    notes: list[str] = []
    for root in {run.config.execution.paths.runs.absolute() for run in runs}:
        try:
            queue = submit.in_queue(root) if (root / manifest.SWEEPS).is_dir() else {}
        except ConfigError as error:
            if on_cluster:
                raise
            queue = {}
            notes.append(f"what is in SLURM's queue is not known: {error}")
        for run in runs:
            if run.directory.absolute().is_relative_to(root):
                job = queue.get(prepare.relative(root, run.directory))
                if job is not None:
                    busy["queued" if job.state == "PENDING" else "running"].append(run)
                elif lock.is_held(run.directory):
                    busy["running"].append(run)
    return busy, notes


def _located(problem: str, labels: list[str], cells: int) -> str:
    """The problem, and where it is if not everywhere."""
    if len(labels) == cells or labels == [""]:
        return problem
    more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
    return f"{problem}\n  in {'; '.join(labels[:3])}{more}"


def _where(run: PlannedRun) -> Path:
    """Returns the directory in which the failure is recorded: the pretraining's if that failed."""
    pretraining = run.pretrain_directory
    return pretraining if pretraining and read_state(pretraining) is RunState.FAILED else run.directory


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    return (
        text.replace("\n", "\n    ") if isinstance(error, ConfigError) else f"{type(error).__name__}: {text}"
    )
