"""A bounded pool of processes on this machine: so many jobs at a time, spread over its GPUs, pretrainings first."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from o2o.errors import ConfigError
from o2o.machine import device
from o2o.machine.counting import counted, named_seeds
from o2o.machine.names import sweep_command
from o2o.machine.signals import signals
from o2o.runs.directory.layout import PRETRAIN
from o2o.sweep.launching import entry, prepare
from o2o.sweep.launching.jobs import PlannedRun
from o2o.sweep.ledger import manifest
from o2o.sweep.ledger.manifest import Submission, SubmittedJob

POLL_SECONDS = 0.2
MEMORY_SHARE = 0.9
"""Of a GPU, for all jobs on it."""


@dataclass(frozen=True)
class Slot:
    """A place for one job at a time."""

    environment: dict[str, str]


def run(
    asked: Sequence[PlannedRun], due: Sequence[PlannedRun], name: str, seeds: int, settings: Mapping[str, Any]
) -> int:
    """Runs the `due` runs, `seeds` to a job: 0 all done, 1 a run failed, 128 and the signal's number if stopped.

    Args:
        asked: all runs of the sweep, those that are done among them.
        due: those that are to be run.
        name: the sweep's.
        seeds: how many a job trains side by side.
        settings: `processes` and `gpus` of the launcher.

    Raises:
        ConfigError: nothing was started, and why.
    """
    root = due[0].config.execution.paths.runs.absolute()
    for platform in {run.config.execution.device.platform for run in due}:
        device.probe(platform)
    places = slots(settings["processes"], settings["gpus"])
    try:
        with prepare.locked(root):
            submission = prepare.launch(root, due, name, seeds, "local", settings, {})
            manifest.add_runs(root, name, [prepare.entry(root, run) for run in asked])
    except OSError as error:
        raise ConfigError([prepare.unwritten(error, root)]) from None
    return _Pool(root, submission, places).run()


def slots(processes: int | None, gpus: Sequence[int | str] | None) -> list[Slot]:
    """The places for jobs: on each GPU in turn, or on the CPU."""
    devices = [str(gpu) for gpu in (_gpus() if gpus is None else gpus)]
    count = processes or len(devices) or max(1, (os.cpu_count() or 1) // 2)
    if not devices:
        return [Slot({}) for _ in range(count)]
    chosen = [devices[i % len(devices)] for i in range(count)]
    sharing = Counter(chosen)
    shares = {device: f"{MEMORY_SHARE / sharing[device]:.2f}" for device in sharing if sharing[device] > 1}
    return [
        Slot(
            {"CUDA_VISIBLE_DEVICES": device}
            | ({"XLA_PYTHON_CLIENT_MEM_FRACTION": shares[device]} if device in shares else {})
        )
        for device in chosen
    ]


class _Pool:
    def __init__(self, root: Path, submission: Submission, places: list[Slot]) -> None:
        self._root, self._submission = root, submission
        self._free = places
        self._due = list(submission.jobs)
        self._running: dict[subprocess.Popen[bytes], tuple[SubmittedJob, Slot]] = {}
        self._failed: list[SubmittedJob] = []
        self._ended: set[int] = set()
        self._stopped: int | None = None

    def run(self) -> int:
        directory = manifest.submission_directory(self._root, self._submission.sweep, self._submission.token)
        due = counted(len(self._due), "job")
        print(f"{due}, {len(self._free)} at a time; output in {directory / manifest.LOGS}")
        (directory / manifest.LOGS).mkdir(parents=True, exist_ok=True)
        before = {number: signal.signal(number, self._stop) for number in signals()}
        try:
            while self._running or (self._due and self._stopped is None):
                while self._free and self._stopped is None and (ready := self._next()) is not None:
                    self._start(ready, directory)
                time.sleep(POLL_SECONDS)
                for process in [process for process in self._running if process.poll() is not None]:
                    self._end(process, directory)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._stopped is not None:
            print("interrupted; the same command goes on", file=sys.stderr)
            return 128 + self._stopped
        return 1 if self._failed else 0

    def _next(self) -> SubmittedJob | None:
        waits = {run for each in self._submission.jobs if each.number not in self._ended for run in each.runs}
        for ready in self._due:
            if ready.phase == PRETRAIN or not waits & set(ready.needs):
                return ready
        return None

    def _start(self, ready: SubmittedJob, directory: Path) -> None:
        slot = self._free.pop(0)
        code = str(self._root / self._submission.code)
        paths = os.pathsep.join([code, *filter(None, [os.environ.get("PYTHONPATH")])])
        words = ["run", str(directory), str(ready.number), str(ready.id)]
        log = directory / manifest.LOGS / f"{ready.id}_0_log"
        with log.with_suffix(".out").open("ab") as output, log.with_suffix(".err").open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, "-P", "-u", "-m", "o2o.sweep.launching.entry", *words],
                env={**os.environ, **slot.environment, "PYTHONPATH": paths},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,  # Ctrl-C comes here, and is handed on once
            )
        self._due.remove(ready)
        self._running[process] = ready, slot

    def _end(self, process: subprocess.Popen[bytes], directory: Path) -> None:
        ended, slot = self._running.pop(process)
        self._free.append(slot)
        code = process.returncode if process.returncode >= 0 else 128 - process.returncode
        if entry.end(entry.Place(directory, ended.number, str(ended.id)), code, {}) and self._stopped is None:
            self._due.insert(0, ended)
            return
        self._ended.add(ended.number)
        if code:
            self._failed.append(ended)
        how = "done" if code == 0 else f"ended with {code}"
        what = f"{Path(ended.runs[0]).parent} {named_seeds(ended.seeds)}"
        print(f"{len(self._ended)}/{len(self._submission.jobs)} {how}: {what}", flush=True)
        if code and self._stopped is None:
            print(f"  {sweep_command(self._root, 'why', ended.runs[0])}", file=sys.stderr, flush=True)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        again, self._stopped = self._stopped is not None, number
        for process in self._running:
            process.send_signal(signal.SIGKILL if again else signal.SIGTERM)


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device for device in visible.split(",") if device]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False).stdout
    return [str(index) for index, line in enumerate(listed.splitlines()) if line.startswith("GPU")]
