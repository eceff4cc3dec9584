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
from o2o.machine.progress import Progress
from o2o.machine.signals import signals
from o2o.runs.directory.layout import PRETRAIN, STATUS, read_object
from o2o.runs.lock import Leases
from o2o.runs.recording import failures
from o2o.sweep.launching import entry, prepare
from o2o.sweep.launching.jobs import PlannedRun, missing_pretrainings
from o2o.sweep.ledger import manifest
from o2o.sweep.ledger.manifest import Submission, SubmittedJob

POLL_SECONDS, LOOK_SECONDS = 0.2, 1.0
RATE_SECONDS = 600.0
"""Of which the rate is told: runs say how far they are every now and then, and begin with steps that take longer."""
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
    with Leases() as leases:
        try:
            with prepare.locked(root):
                submission = prepare.launch(root, due, name, seeds, "local", settings, {})
                manifest.add_runs(root, name, [prepare.entry(root, run) for run in asked])
            leases.take(manifest.submission_directory(root, name, submission.token))
        except OSError as error:
            raise ConfigError([prepare.unwritten(error, root)]) from None
        code = _Pool(root, submission, places, _spans(root, due)).run()
    if code in (0, failures.RUNS_FAILED):
        print(prepare.next_steps(root, name, failed=bool(code)), flush=True)
    return code


def slots(processes: int | None, gpus: Sequence[int | str] | None) -> list[Slot]:
    """The places for jobs: on each GPU in turn, or on the CPU.

    Raises:
        ConfigError: a number of processes that is none, or no list of GPUs.
    """
    if processes is not None and (not isinstance(processes, int) or processes < 1):
        raise ConfigError([f"hydra.launcher.processes={processes}: write a number above 0, or null"])
    if gpus is not None and (isinstance(gpus, str) or not isinstance(gpus, Sequence)):
        raise ConfigError([f"hydra.launcher.gpus={gpus}: write a list, such as [0,1], or null"])
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


def _spans(root: Path, runs: Sequence[PlannedRun]) -> dict[str, range]:
    """The steps that runs and the pretrainings which they lack pass through, as their `status.json` counts them."""
    spans = {}
    for run in (*missing_pretrainings(runs), *runs):
        updates, env_steps = run.config.pretrain.updates, run.config.finetune.env_steps
        span = range(updates) if run.phase == PRETRAIN else range(updates, updates + env_steps)
        spans[prepare.relative(root, run.directory)] = span
    return spans


class _Pool:
    def __init__(
        self, root: Path, submission: Submission, places: list[Slot], spans: Mapping[str, range]
    ) -> None:
        self._root, self._submission, self._spans = root, submission, spans
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
        total = sum(map(len, self._spans.values()))
        self._progress = Progress([self._submission.sweep, ""], total, "steps", window=RATE_SECONDS)
        looked = 0.0
        try:
            while self._running or (self._due and self._stopped is None):
                while self._free and self._stopped is None and (ready := self._next()) is not None:
                    self._start(ready, directory)
                time.sleep(POLL_SECONDS)
                for process in [process for process in self._running if process.poll() is not None]:
                    self._end(process, directory)
                if time.monotonic() - looked > LOOK_SECONDS:
                    looked = time.monotonic()
                    self._progress.at(self._steps(), self._told())
        finally:
            self._progress.at(self._steps(), self._told())
            self._progress.close()
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
        self._progress.say(f"{len(self._ended)}/{len(self._submission.jobs)} {how}: {what}")
        if code and self._stopped is None:
            self._progress.say(f"  {sweep_command(self._root, 'why', ended.runs[0])}", is_error=True)

    def _steps(self) -> int:
        """The steps that are made of all that are to be made; of jobs that have ended, all."""
        made = 0
        for job in self._submission.jobs:
            for run in job.runs:
                span = self._spans.get(run, range(0))
                status = {} if job.number in self._ended else read_object(self._root / run / STATUS) or {}
                step = span.stop if job.number in self._ended else int(status.get("step", 0))
                made += len(range(span.start, min(step, span.stop)))
        return made

    def _told(self) -> str:
        ended = f"{len(self._ended)} of {counted(len(self._submission.jobs), 'job')} done"
        return f"{ended}, {len(self._running)} under way" if self._running else ended

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
