"""Uploading what was tracked without a network, from a machine that has one: wandb's own `sync`, with an end to it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from o2o.errors import ConfigError
from o2o.machine.counting import counted
from o2o.sweep.following.status import look
from o2o.sweep.surveying.survey import Seen, SeenRun

RUNS_A_CALL = 20


def run_sync(root: Path, filters: Sequence[str], dry_run: bool, seconds: float) -> int:
    """`sync`: uploads what is not uploaded; 1 if something of it could not be within `seconds`.

    Raises:
        ConfigError: nobody is logged in.
    """
    runs, _ = look(root, filters)
    alive = [run for run in runs if run.state in (Seen.RUNNING, Seen.WAITING) and _offline(run)]
    resting = [run for run in runs if run not in alive]
    waiting = {
        run: found for run in resting if (found := [path for path in _offline(run) if not _is_synced(path)])
    }
    if alive:
        print(f"{counted(len(alive), 'run')} under way: what is tracked there is uploaded afterwards")
    if not waiting:
        print(f"{root}: nothing to upload")
        return 0
    parts = sum(map(len, waiting.values()))
    print(f"{counted(len(waiting), 'run')} to upload, in {counted(parts, 'part')}")
    if dry_run:
        print("\n".join(f"  {path.relative_to(root)}" for found in waiting.values() for path in found))
        return 0
    from o2o.runs.recording.tracker import logged_in

    if not logged_in():
        raise ConfigError(["nobody is logged in to wandb here: `wandb login`, or set WANDB_API_KEY"])
    _upload(list(waiting.values()), seconds)
    left = [path for found in waiting.values() for path in found if not _is_synced(path)]
    print(f"uploaded {parts - len(left)} of {counted(parts, 'part')}")
    for path in left[:RUNS_A_CALL]:
        print(f"  not uploaded: {path.relative_to(root)}", file=sys.stderr)
    return int(bool(left))


def _offline(run: SeenRun) -> list[Path]:
    """Returns wandb's directories of the run, one for each attempt, oldest first."""
    return sorted((run.path / "wandb" / "wandb").glob("offline-run-*"))


def _is_synced(directory: Path) -> bool:
    """Whether wandb left its mark that it was uploaded; what holds no records has nothing to upload."""
    records = list(directory.glob("run-*.wandb"))
    return all(path.with_suffix(".wandb.synced").exists() for path in records)


def _upload(runs: Sequence[Sequence[Path]], seconds: float) -> None:
    """Uploads runs, all parts of one in the same call: wandb puts them in order."""
    end = time.monotonic() + seconds
    for start in range(0, len(runs), RUNS_A_CALL):
        left = end - time.monotonic()
        if left <= 0:
            print(f"stopped after {seconds:.0f} s (--timeout); the same command goes on", file=sys.stderr)
            return
        paths = [str(path) for parts in runs[start : start + RUNS_A_CALL] for path in parts]
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "wandb", "sync", "--yes", *paths],
                capture_output=True,
                text=True,
                timeout=left,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except subprocess.TimeoutExpired:
            print(
                f"wandb did not finish within {seconds:.0f} s (--timeout); is there a network?",
                file=sys.stderr,
            )
            return
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if "rror" in line] or [
                f"exit code {done.returncode}"
            ]
            print(f"wandb sync: {said[-1]}", file=sys.stderr)
