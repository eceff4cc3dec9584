"""Run directories and sweeps as the writers of the project leave them, for the tests of who follows them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from o2o.runs.directory import layout
from o2o.runs.directory.writer import RunDirectory
from o2o.runs.recording.failures import classify
from o2o.sweep.ledger import manifest
from o2o.sweep.ledger.manifest import ManifestEntry, SbatchCall, Submission, SubmittedJob

UPDATES, ENV_STEPS = 1000, 5000


def config(
    algorithm: str = "td3", seed: int = 0, dataset: str = "regen-hopper-medium", **changes: Any
) -> dict[str, Any]:
    """As much of a configuration as is looked at; `changes` replace top-level keys."""
    return {
        "seed": seed,
        "conventions": "paper",
        "discount": 0.99,
        "dataset": {"name": dataset, "task": "hopper", "rows": None},
        "algorithm": {"name": algorithm, "policy_delay": 2},
        "pretrain": {"updates": UPDATES, "algorithm": {"name": "td3_bc"}},
        "finetune": {"env_steps": ENV_STEPS},
        "replay_init": {"name": "offline", "preload": True},
        "offline_ratio": {"name": "uniform", "value": None},
        "paths": {"data": "data", "runs": "runs"},
        "tracker": {"mode": "none"},
    } | changes


def directory(
    root: Path, algorithm: str = "td3", seed: int = 0, cell: str = "offline-uniform-0000aaaa"
) -> RunDirectory:
    """The writer of a run."""
    return RunDirectory(root / "regen-hopper-medium" / algorithm / cell / f"seed-{seed}")


def write(
    root: Path,
    algorithm: str = "td3",
    seed: int = 0,
    *,
    steps: Iterable[int] = (),
    end: str = "",
    quiet: timedelta | None = None,
    cell: str = "offline-uniform-0000aaaa",
    error: str = "ValueError: no such thing",
    **changes: Any,
) -> Path:
    """Writes a run that was evaluated after `steps` env steps, and ended as DONE, FAILED, INTERRUPTED or not at all.

    A run that did not end was silent for `quiet`. Its score is its seed times 10, plus a thousandth of the step.
    """
    run = directory(root, algorithm, seed, cell)
    run.start(config(algorithm, seed, **changes), {"identity": f"{algorithm}-{seed}"})
    (run.path / layout.CHECKPOINTS).mkdir(exist_ok=True)
    for i, step in enumerate(steps):
        place = {"phase": "finetune", "step": UPDATES + step}
        run.append(
            layout.EVAL, place | {"score": 10.0 * seed + (UPDATES + step) / 1000, "returns": [1.0] * 10}
        )
        clock = {"training_seconds": step / 100, "evaluation_seconds": float(i)}
        run.append(layout.TIMING, place | clock)
        run.progress("finetune", UPDATES + step)
    if end == "DONE":
        run.finish({"online_score": 1.0})
    elif end == "FAILED":
        lines = ["Traceback (most recent call last):", '  File "x.py", line 1', error, ""]
        run.fail("\n".join(lines), error, classify(error))
    elif end == "INTERRUPTED":
        run.interrupt("SystemExit(143)")
    if quiet is not None:
        silence(run.path, quiet)
    return run.path


def silence(run: Path, quiet: timedelta) -> None:
    """Makes a run's last sign of life `quiet` old."""
    path = run / layout.STATUS
    content = json.loads(path.read_text())
    content["updated_at"] = (datetime.now(UTC) - quiet).isoformat(timespec="seconds")
    path.write_text(json.dumps(content))


def launch(
    root: Path,
    runs: dict[str, list[Path]],
    sweep: str = "small",
    launcher: Any = "slurm",
    *,
    token: str = "abc123",
    ago: float = 3600.0,
    redo: bool = False,
    **settings: Any,
) -> Submission:
    """Writes a launch whose jobs have the ids and runs of `runs`; ids are tasks 0, 1, … of one array.

    It was made so many seconds `ago`: by default before what is written of the runs now.
    """
    jobs = [
        SubmittedJob(
            number=number,
            phase="finetune",
            runs=[path.relative_to(root).as_posix() for path in paths],
            seeds=[int(path.name.removeprefix("seed-")) for path in paths],
            needs=[],
            id=job_id,
        )
        for number, (job_id, paths) in enumerate(runs.items())
    ]
    submission = Submission(
        sweep=sweep,
        token=token,
        launcher=launcher,
        at=(datetime.now(UTC) - timedelta(seconds=ago)).isoformat(),
        host="login",
        user="someone",
        command=["launch.py"],
        code=f".sweeps/{sweep}/code/0000",
        settings=settings,
        jobs=jobs,
        redo=redo,
    )
    manifest.add_runs(
        root,
        sweep,
        [
            ManifestEntry(run, run, seed, "")
            for job in jobs
            for run, seed in zip(job.runs, job.seeds, strict=True)
        ],
    )
    specs = {
        job.number: {
            "config": config(Path(job.runs[0]).parts[1], job.seeds[0]),
            "seeds": job.seeds,
            "redo": redo,
        }
        for job in jobs
    }
    manifest.write_submission(root, submission, specs)
    if launcher == "slurm":
        array = next(iter(runs)).partition("_")[0]
        manifest.write_batch(root, submission, SbatchCall(0, [job.number for job in jobs], [], id=array))
    for job in jobs:
        manifest.write_job(root, submission, job)
    return submission


def queued(name: str, **states: str) -> str:
    """What squeue prints of the tasks of array 77, by their states as `_0="RUNNING"`."""
    return "\n".join(
        f"77|{task[1:]}|8{task[1:]}|{state}|Priority|batch-0|{name}|n1" for task, state in states.items()
    )


def states(say: Callable[..., tuple[int, str]], *filters: str) -> dict[int, str]:
    """The states of runs by their seeds, as `status` says them."""
    content = json.loads(say("status", "--json", *filters)[1])
    return {run["seed"]: run["state"] for cell in content["cells"] for run in cell["runs"]}
