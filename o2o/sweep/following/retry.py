"""Running again what failed or stopped, from the configurations that were frozen when it began or was launched.

What SLURM or a local pool had goes back there, under its sweep's name, with the settings it was launched with and the
code as it is now; everything else runs in this process, under its sweep's name where it has one. A run goes on from
its last checkpoint. What is under way is refused, and what would end the same way again is left out.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from o2o.errors import ConfigError
from o2o.machine.counting import counted, named_seeds
from o2o.machine.progress import following
from o2o.runs.directory.layout import CONFIG, RESULT
from o2o.runs.recording.failures import Failure
from o2o.sweep.following.status import look
from o2o.sweep.following.summary import rows_of
from o2o.sweep.following.why import STOPPED, curves_without_checkpoints
from o2o.sweep.surveying.survey import Launched, Seen, SeenRun

if TYPE_CHECKING:
    from o2o.config.schema import Config
    from o2o.sweep.launching.jobs import PlannedRun

UNDER_WAY = (Seen.RUNNING, Seen.WAITING, Seen.QUEUED)
HOPELESS = (Failure.NON_FINITE, Failure.CODE)


@dataclass(frozen=True)
class Wishes:
    """The way in which runs are retried."""

    anyway: bool
    """Also what would end the same way."""
    here: bool
    """In this process, whoever had it before."""
    dry_run: bool
    seeds_per_job: int | None
    settings: Sequence[str]
    """`key=value` for the settings of the launcher."""


def run_retry(root: Path, filters: Sequence[str], wishes: Wishes) -> int:
    """`retry`: says what it will run again, and does; exit codes as `launch.py`'s."""
    settings = _settings(wishes.settings)
    runs, _ = look(root, filters)
    stopped = [run for run in runs if run.state in STOPPED or (run.state is Seen.PLANNED and run.launched)]
    alive = [run for run in runs if run.state in UNDER_WAY]
    if alive and not stopped:
        raise ConfigError(
            [f"{_by_state(alive)} under way: nothing to retry. `cancel` stops what runs or waits"]
        )
    if alive:
        print(f"left alone, for they are under way: {_by_state(alive)}")
    unknown = [run for run in runs if run.state is Seen.PLANNED and not run.launched]
    if unknown:
        print(
            f"left out: {counted(len(unknown), 'run')} that no launch has; the command that planned them launches them"
        )
    if not stopped:
        print(f"{root}: nothing failed or stopped{' among what matches' if filters else ''}")
        return 0
    planned, problems = _planned(root, stopped)
    if not wishes.anyway:
        planned = _hopeful(_with_checkpoints(planned))
    for line in problems:
        print(line, file=sys.stderr)
    if not planned:
        return 2 if problems else 0
    by_launch: dict[Any, list[SeenRun]] = defaultdict(list)
    for run in planned:
        by_launch[_launch(run, wishes.here)].append(run)
    for (launcher, sweep, _), members in by_launch.items():
        where = f"{f'by {launcher}' if launcher else 'here'}{sweep and f', as {sweep}'}"
        print(f"{where}: {counted(len(members), 'run')}")
        for row in rows_of(members):
            print(f"  {row.cell.path.relative_to(root)}: {named_seeds([run.seed for run in row.runs])}")
    if wishes.dry_run:
        return 2 if problems else 0
    codes = [2] if problems else [0]
    for (launcher, sweep, _), members in by_launch.items():
        due = [planned[run] for run in members]
        if launcher:
            launched = [run.launched for run in members if run.launched is not None]
            given = {**launched[0].submission.settings, **settings}
            packed = wishes.seeds_per_job or max(len(each.job.seeds) for each in launched)
            codes.append(_launch_again(launcher, due, sweep, packed, given))
        else:
            codes.append(_here(due, wishes, sweep))
    return max(codes)


def _planned(root: Path, runs: Sequence[SeenRun]) -> tuple[dict[SeenRun, PlannedRun], list[str]]:
    """The runs as a launch plans them, pretrainings first, and why others cannot be run again."""
    from o2o.runs.identity import identity, pretrain_directory, run_directory  # needs JAX, as all below
    from o2o.sweep.launching.jobs import PlannedRun

    planned, problems = {}, []
    for run in sorted(runs, key=lambda run: run.phase, reverse=True):
        try:
            config = _configuration(root, run)
            directory, before = run_directory(config), pretrain_directory(config)
            own = identity(config)
        except (ConfigError, OSError, ValueError, KeyError) as error:
            problems.append(
                f"{run.path.relative_to(root)} cannot be run again: {error}\n  The command that launched it goes on too"
            )
            continue
        if directory != run.path:
            problems.append(
                f"{run.path.relative_to(root)} cannot be run again: with this version of the code its configuration is "
                f"another run, {directory.relative_to(root)}; launch that"
            )
            continue
        label = _label(root, run)
        planned[run] = PlannedRun(config, [], label, own, run.path, before)
    return planned, problems


def _configuration(root: Path, run: SeenRun) -> Config:
    """The run's own configuration, or the one that was frozen at its launch; runs are where they lie now.

    Data are where the launch had them, if they still are: its paths are absolute, those of a run relative to where it
    began.
    """
    from o2o.config.build import load

    if run.launched is not None and not (run.path / CONFIG).is_file():
        config = _frozen(root, run.launched, run.seed)
    else:
        config = load(run.path / CONFIG)
        if run.launched is not None:
            # Of a launch that is damaged nothing is known: the run's own words hold.
            with suppress(ConfigError, OSError, ValueError, KeyError):
                config = _with_data_of(config, _frozen(root, run.launched, run.seed))
    execution = config.execution
    launch = replace(execution.launch, redo=False, dry_run=False)
    return replace(
        config, execution=replace(execution, launch=launch, paths=replace(execution.paths, runs=root))
    )


def _with_data_of(config: Config, launched: Config) -> Config:
    path, data = launched.dataset.path, launched.execution.paths.data
    if path is not None and path.is_file():
        config = replace(config, dataset=replace(config.dataset, path=path))
    if data.is_dir():
        paths = replace(config.execution.paths, data=data)
        config = replace(config, execution=replace(config.execution, paths=paths))
    return config


def _frozen(root: Path, launched: Launched, seed: int) -> Config:
    from o2o.config.build import build
    from o2o.sweep.ledger import manifest

    spec = manifest.read_spec(root, launched.submission, launched.job.number)
    return build({**spec["config"], "seed": seed})


def _with_checkpoints(planned: Mapping[SeenRun, PlannedRun]) -> dict[SeenRun, PlannedRun]:
    """Without runs that would lose their curves, since their checkpoints are not there; says so."""
    kept = {run: plan for run, plan in planned.items() if not curves_without_checkpoints(run)}
    if left := len(planned) - len(kept):
        print(
            f"left out, for their checkpoints are not there: {counted(left, 'run')}; --anyway starts them again from "
            "the beginning, without the curves that are there"
        )
    return kept


def _hopeful(planned: Mapping[SeenRun, PlannedRun]) -> dict[SeenRun, PlannedRun]:
    """Without what would end the same way again, and what finetunes from that; says so."""
    hopeless = {
        plan.directory
        for run, plan in planned.items()
        if run.failure in HOPELESS and not plan.other_code and _could_begin(plan)
    }
    kept = {
        run: plan
        for run, plan in planned.items()
        if plan.directory not in hopeless and plan.pretrain_directory not in hopeless
    }
    left_out = Counter(run.failure or "their pretraining" for run in planned if run not in kept)
    for kind, number in left_out.items():
        print(
            f"left out, for under this code they would end the same way: {number} ({kind}); --anyway runs them"
        )
    return kept


def _could_begin(plan: PlannedRun) -> bool:
    """Whether what it finetunes from is there; if not, its own failure says nothing of it."""
    place = plan.pretrain_directory
    return place in (None, plan.directory) or (place / RESULT).is_file()


def _launch(run: SeenRun, here: bool) -> tuple[str, str, str]:
    """Returns what the runs of one new launch share: launcher, sweep and settings; empty where they run here."""
    if here or run.launched is None:
        return "", "", ""
    submission = run.launched.submission
    if submission.launcher == "here":
        return "", submission.sweep, ""
    return submission.launcher, submission.sweep, json.dumps(submission.settings, sort_keys=True)


def _launch_again(
    launcher: str, due: Sequence[PlannedRun], sweep: str, seeds: int, settings: Mapping[str, Any]
) -> int:
    if launcher == "local":
        from o2o.sweep.launching import pool

        return pool.run(due, due, sweep, seeds, settings)
    from o2o.sweep.launching import submit

    report = submit.to_slurm(due, due, sweep, seeds, settings)
    print(report.text())
    return 2 if report.problem else 0


def _here(due: Sequence[PlannedRun], wishes: Wishes, sweep: str) -> int:
    from o2o.runs import job
    from o2o.sweep.launching import here, prepare
    from o2o.sweep.launching.jobs import pack, seeds_per_job
    from o2o.sweep.planning import estimate

    code, root = 0, due[0].config.execution.paths.runs
    seeds = wishes.seeds_per_job or seeds_per_job(due[0].config, on_cluster=False)
    agenda = estimate.agenda(due, seeds, estimate.seconds_here(root))
    with here.under_way(due, due, sweep, seeds) if sweep else nullcontext(), following(agenda):
        for members in pack(due, seeds):
            try:
                job.run_members([run.config for run in members])
            except ConfigError as error:
                print(f"{members[0].directory}: {error}", file=sys.stderr)
                code = max(code, 2)
            except Exception:  # recorded in its directory; the others go on
                traceback.print_exc()
                code = max(code, 1)
    print(prepare.next_steps(root, sweep, failed=bool(code)))
    return code


def _label(root: Path, run: SeenRun) -> str:
    if run.launched is None:
        return ""
    from o2o.sweep.ledger import manifest

    asked = manifest.read_manifest(root, run.launched.submission.sweep)
    return (
        next((entry.cell for entry in asked.runs if entry.directory == run.launched.directory), "")
        if asked
        else ""
    )


def _settings(words: Sequence[str]) -> dict[str, Any]:
    import yaml

    bad = [word for word in words if "=" not in word]
    if bad:
        raise ConfigError([f"--set {word}: say --set key=value, such as timeout_min=480" for word in bad])
    return {key: yaml.safe_load(value) for key, _, value in (word.partition("=") for word in words)}


def _by_state(runs: Sequence[SeenRun]) -> str:
    states = Counter(run.state for run in runs)
    return ", ".join(f"{number} {state}" for state, number in states.items())
