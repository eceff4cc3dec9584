"""A launch is written down before anything of it starts: its jobs, what they run, and the code.

SLURM and the local pool start from the same files; one launch at a time writes them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import secrets
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from o2o.config.build import container
from o2o.config.schema import Config
from o2o.machine.counting import counted
from o2o.machine.names import sweep_command
from o2o.runs.directory.layout import PRETRAIN
from o2o.sweep.launching import snapshot
from o2o.sweep.launching.jobs import PlannedRun, missing_pretrainings, pack
from o2o.sweep.ledger import manifest
from o2o.sweep.ledger.manifest import ManifestEntry, Submission, SubmittedJob

LOCK = ".lock"


def launch(
    root: Path,
    runs: Sequence[PlannedRun],
    name: str,
    seeds: int,
    launcher: Literal["slurm", "local", "here"],
    settings: Mapping[str, Any],
    known: Mapping[str, Any],
) -> Submission:
    """Writes down a launch: its jobs, those that pretrain first, what they run, and the code.

    Args:
        root: the directory of runs.
        runs: those that are to be run.
        name: the sweep's.
        seeds: how many a job trains side by side.
        launcher: who starts the jobs.
        settings: the launcher's.
        known: what is in the queue, by its directory relative to `root`, and not to be made again.
    """
    packed = _packed(root, runs, seeds, known)
    token = secrets.token_hex(3)
    jobs = [_job(root, number, members) for number, members in enumerate(packed)]
    if launcher == "local":
        jobs = [replace(job, id=f"local-{token}-{job.number}") for job in jobs]
    directory = manifest.sweep_directory(root, name)
    code = "" if launcher == "here" else relative(root, snapshot.take(directory / manifest.CODE))
    submission = Submission(
        sweep=name,
        token=token,
        launcher=launcher,
        at=manifest.now(),
        host=platform.node(),
        user=manifest.user(),
        command=sys.argv,
        code=code,
        settings=dict(settings),
        jobs=jobs,
        redo=any(run.config.execution.launch.redo for run in runs),
    )
    manifest.write_submission(root, submission, {job.number: _spec(packed[job.number]) for job in jobs})
    return submission


def preview(runs: Sequence[PlannedRun], seeds: int, launcher: str, settings: Mapping[str, Any]) -> str:
    """The jobs that a launch would have, and with which settings; nothing is written."""
    packed = _packed(runs[0].config.execution.paths.runs.absolute(), runs, seeds, {})
    first = sum(job[0].phase == PRETRAIN for job in packed)
    kinds = f" ({first} pretraining, {len(packed) - first} finetuning)" if first else ""
    given = {key: value for key, value in settings.items() if value not in (None, [], {})}
    told = " ".join(f"{key}={json.dumps(value) if value is True else value}" for key, value in given.items())
    with_settings = f", with these of hydra.launcher:\n    {told}" if told else ""
    return f"  {launcher} would get {counted(len(packed), 'job')}{kinds}{with_settings}"


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Only one launch at a time is in here; the lock of one that died is released by its system."""
    directory = root / manifest.SWEEPS
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOCK).open("a+", encoding="utf-8") as stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            print(f"waiting for another launch to end: {stream.read().strip()}", flush=True)
            fcntl.lockf(stream, fcntl.LOCK_EX)
        stream.seek(0)
        stream.truncate()
        stream.write(f"process {os.getpid()} of {manifest.user()} on {platform.node()}\n")
        stream.flush()
        yield


def next_steps(root: Path, name: str, failed: bool = False) -> str:
    """The commands with which to go on from a sweep that has ended; of all runs where it has no name."""
    which = [name] if name else []
    why = [f"  {sweep_command(root, 'why', *which)}  # why runs failed, and what to do"] if failed else []
    analysis = shlex.join(["python", "-m", "analysis", os.path.relpath(root), "--out", "report"])
    told = [
        f"  {sweep_command(root, 'status', *which)}  # scores, a row for each setting",
        f"  {analysis}  # tables, curves, report/index.html",
    ]
    return "\n".join([*why, *told])


def unwritten(error: OSError, root: Path) -> str:
    """Returns the message about a file that could not be written."""
    place = Path(error.filename2 or error.filename or root)
    key = "paths.runs=" if place == root else ""
    return f"{key}{place} cannot be written: {error.strerror}"


def relative(root: Path, path: Path) -> str:
    """A path as the sweep's files have it."""
    return path.absolute().relative_to(root).as_posix()


def entry(root: Path, run: PlannedRun) -> ManifestEntry:
    """A run as the sweep's manifest has it."""
    return ManifestEntry(relative(root, run.directory), run.identity, run.config.seed, run.label)


def _packed(
    root: Path, runs: Sequence[PlannedRun], seeds: int, known: Mapping[str, Any]
) -> list[list[PlannedRun]]:
    """The runs of each job, pretrainings that are neither there nor `known` to be in the queue first."""
    pretrainings = [run for run in missing_pretrainings(runs) if relative(root, run.directory) not in known]
    return sorted(pack([*pretrainings, *runs], seeds), key=lambda job: job[0].phase != PRETRAIN)


def _job(root: Path, number: int, runs: Sequence[PlannedRun]) -> SubmittedJob:
    needs = [run.pretrain_directory for run in runs] if runs[0].phase != PRETRAIN else []
    return SubmittedJob(
        number=number,
        phase=runs[0].phase,
        runs=[relative(root, run.directory) for run in runs],
        seeds=[run.config.seed for run in runs],
        needs=[relative(root, place) for place in needs if place is not None],
    )


def _spec(runs: Sequence[PlannedRun]) -> dict[str, Any]:
    """Returns the content of a job: the configuration of its first run, with absolute paths, and its seeds."""
    config = runs[0].config
    launch = config.execution.launch
    # A job that is put back goes on, and does not begin again.
    once = replace(config.execution, launch=replace(launch, redo=False, dry_run=False))
    return {
        "config": container(_absolute(replace(config, execution=once))),
        "seeds": [run.config.seed for run in runs],
        "redo": launch.redo,
    }


def _absolute(config: Config) -> Config:
    execution, dataset = config.execution, config.dataset
    paths = replace(
        execution.paths, data=execution.paths.data.absolute(), runs=execution.paths.runs.absolute()
    )
    if dataset.path is not None:
        dataset = replace(dataset, path=dataset.path.absolute())
    return replace(config, dataset=dataset, execution=replace(execution, paths=paths))
