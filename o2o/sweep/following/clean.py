"""Removing what nothing needs any more below a directory of runs; without being told so, it only says what that is.

Results, configurations, curves, final states and kept policies are never touched, and neither is anything of a run
that is alive.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from o2o.runs.directory.layout import ATTEMPTS, CHECKPOINTS, RESULT
from o2o.sweep.following.status import look
from o2o.sweep.surveying.survey import Seen, SeenRun

STALE_SECONDS = 3600.0
"""A temporary file of this age was left by something that was killed."""
SHOWN = 3

TEMPORARY = "temporary files of writers that were killed"
OLD_CHECKPOINTS = "checkpoints of runs that are done (their final state and kept policies stay)"
ORPHANS = "records of jobs that no launch knows"
SNAPSHOTS = "copies of the code that no unfinished run uses"

_ALIVE = (Seen.RUNNING, Seen.WAITING, Seen.QUEUED)


def run_clean(root: Path, filters: Sequence[str], yes: bool) -> int:
    """`clean`: lists what can go, with its bytes, and removes it if `yes`; 1 if something could not be removed."""
    runs, notes = look(root, filters)
    found: dict[str, list[Path]] = defaultdict(list)
    for run in runs:
        for kind, path in _of_run(run):
            found[kind].append(path)
    if not filters:  # what belongs to no run in particular
        for kind, path in (*_orphans(root), *_snapshots(root, runs)):
            found[kind].append(path)
    total, failed = 0, []
    for kind, paths in found.items():
        size = sum(map(_size, paths))
        total += size
        print(f"{_bytes(size):>9}  {kind}: {len(paths)}")
        for path in sorted(paths)[:SHOWN]:
            print(f"           {path.relative_to(root)}")
        if len(paths) > SHOWN:
            print(f"           … and {len(paths) - SHOWN} more")
        if yes:
            failed += [path for path in paths if not _removed(path)]
    for note in notes:
        print(note)
    if not found:
        print(f"{root}: nothing to remove")
    elif yes:
        print(
            f"{_bytes(total)} removed" + (f", but for {len(failed)}, such as {failed[0]}" if failed else "")
        )
    else:
        print(f"{_bytes(total)} can be removed; --yes removes it")
    return int(bool(failed))


def _of_run(run: SeenRun) -> Iterator[tuple[str, Path]]:
    for folder in (run.path, run.path / CHECKPOINTS, run.path / ATTEMPTS):
        for path in folder.glob(".*.tmp"):
            if run.state not in _ALIVE and _is_stale(path):
                yield TEMPORARY, path
    if run.state is Seen.DONE and (run.path / RESULT).stat().st_size:
        for path in (run.path / CHECKPOINTS).glob("*"):
            if path.name == "online.f32" or (path.suffix == ".npz" and path.stem.isdecimal()):
                yield OLD_CHECKPOINTS, path


def _orphans(root: Path) -> Iterator[tuple[str, Path]]:
    """Directories of jobs whose launch is not there any more."""
    from o2o.sweep.ledger import manifest

    for directory in (root / manifest.JOBS).glob("*"):
        try:
            job = manifest.read_job(root, directory.name)
        except (OSError, ValueError):
            continue  # damaged: somebody should look at it
        launches = [manifest.submission_directory(root, job["sweep"], job["token"])] if job else []
        if not any(launch.is_dir() for launch in launches) and _is_stale(directory):
            yield ORPHANS, directory


def _snapshots(root: Path, runs: Sequence[SeenRun]) -> Iterator[tuple[str, Path]]:
    from o2o.sweep.ledger import manifest

    # A result with a note has a redo that has not begun, and may still.
    unfinished = {str(run.path) for run in runs if run.state is not Seen.DONE or run.note}
    try:
        used = {
            root / launch.code
            for launch in manifest.submissions(root)
            if launch.code and any(str(root / run) in unfinished for job in launch.jobs for run in job.runs)
        }
    except (OSError, ValueError):
        return  # a launch that cannot be read may need any of them
    for directory in (root / manifest.SWEEPS).glob(f"*/{manifest.CODE}/*"):
        if directory not in used and _is_stale(directory):
            yield SNAPSHOTS, directory


def _is_stale(path: Path) -> bool:
    try:
        return time.time() - path.lstat().st_mtime > STALE_SECONDS
    except OSError:
        return False  # gone meanwhile


def _size(path: Path) -> int:
    try:
        if not path.is_dir() or path.is_symlink():
            return path.lstat().st_size
        return sum(_size(Path(entry)) for entry in os.scandir(path))
    except OSError:
        return 0


def _removed(path: Path) -> bool:
    try:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
