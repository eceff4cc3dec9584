"""The command `logs`: the stdout and stderr of runs' jobs."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from o2o.machine import terminal
from o2o.machine.counting import counted
from o2o.sweep.following.status import look
from o2o.sweep.following.summary import FINAL
from o2o.sweep.surveying.survey import SeenRun

STREAMS = ("stdout", "stderr")
POLL_SECONDS = 1.0
LOOK_AGAIN_SECONDS = 30.0
TAIL_BYTES = 65536


def job_directory(root: Path, run: SeenRun) -> Path | None:
    """Returns the directory of the logs of the newest job that was to run it; None where no job is known."""
    return root / ".jobs" / run.launched.job.id if run.launched and run.launched.job.id else None


def log_of(root: Path, run: SeenRun) -> Path | None:
    """The run's stderr, where its job wrote one."""
    directory = job_directory(root, run)
    return directory / "stderr" if directory is not None and (directory / "stderr").is_file() else None


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a file, all of them where `lines` is 0; of a line that was rewritten, its last state."""
    return _tail(path, lines)[0]


def _tail(path: Path, lines: int) -> tuple[list[str], int]:
    """Returns what `tail` does, and the byte at which it stopped reading."""
    try:
        with path.open("rb") as stream:
            if lines:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - TAIL_BYTES))
            content = stream.read().decode(errors="replace")
            end = stream.tell()
    except OSError:
        return [], 0
    said = [line.rstrip("\r").rpartition("\r")[2] for line in content.rstrip("\n").split("\n")]
    return said[-lines:], end


def run_logs(root: Path, filters: Sequence[str], lines: int, follow: bool) -> int:
    """`logs`: prints the ends of the logs, and goes on printing if `follow`; 1 where there are none."""
    runs, notes = look(root, filters)
    jobs: dict[Path, list[SeenRun]] = {}
    without = []
    for run in runs:
        if (directory := job_directory(root, run)) is not None:
            jobs.setdefault(directory, []).append(run)
        else:
            without.append(run)
    files = [directory / stream for directory in jobs for stream in STREAMS if (directory / stream).is_file()]
    shown: dict[Path, int] = {}
    for file in files:
        said, shown[file] = _tail(file, lines)
        print("\n".join([f"==> {file} <==", *said]), flush=True)
    absent = [
        directory for directory in jobs if not any((directory / stream).is_file() for stream in STREAMS)
    ]
    for directory in absent:
        print(f"{directory}: its job has not written anything yet")
    if without:
        remark = (
            f"{counted(len(without), 'run')} in no job of a launch, such as {without[0].path}: the output went to the "
            "terminal; why shows the end, events.jsonl and attempts/ what was noted"
        )
        print(terminal.fitted(remark))
    print("\n".join(notes), end="\n" if notes else "")
    if follow and jobs:
        _follow(root, filters, list(jobs), shown)
    return int(not jobs)


def _follow(root: Path, filters: Sequence[str], directories: Sequence[Path], shown: dict[Path, int]) -> None:
    """Prints what is added to the logs after the bytes `shown`, until all runs have ended or Ctrl-C."""
    offsets = dict(shown)
    last, looked = None, time.monotonic()
    ended = False
    while True:
        for file in (directory / stream for directory in directories for stream in STREAMS):
            size = file.stat().st_size if file.is_file() else 0
            if size < offsets.get(file, 0):
                offsets[file] = 0  # written anew
            if size <= offsets.get(file, 0):
                continue
            with file.open("rb") as stream:
                stream.seek(offsets.get(file, 0))
                added = stream.read(size - offsets.get(file, 0))
            offsets[file] = size
            if file != last:
                print(f"==> {file} <==")
            print(added.decode(errors="replace").replace("\r", "\n"), end="", flush=True)
            last = file
        if ended or terminal.unread():
            return
        time.sleep(POLL_SECONDS)
        if time.monotonic() - looked >= LOOK_AGAIN_SECONDS:
            ended = all(run.state in FINAL for run in look(root, filters)[0])
            looked = time.monotonic()
