"""The command line against a cluster, as the tests use it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
from tiny import TINY

from o2o.runs.directory.layout import RunState, read_object, read_state

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = [
    "hydra/launcher=slurm",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=1",
    "hydra.launcher.timeout_min=10",
    "hydra.launcher.signal_delay_s=30",
]
PATIENCE = 400
"""Seconds for what takes a few on an idle machine."""
LONG = [
    "finetune.env_steps=2000",
    "checkpoint.interval_seconds=2",
    "evaluation.interval=1000",
    "records.interval=100",
]
"""A run that is still at it when something is done to it."""


def only(jobs):
    (job,) = jobs
    return job


def is_held(process, number):
    """Whether a process is still stopped, and has not been sent the signal; SLURM continues whom it signals."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return False
    status = dict(line.split(":", 1) for line in lines)
    pending = int(status["SigPnd"], 16) | int(status["ShdPnd"], 16)
    return status["State"].split()[0] == "T" and not pending >> (number - 1) & 1


class Sweep:
    """The command line against a cluster, in a directory of runs of its own."""

    settings = SETTINGS

    def __init__(self, cluster, directory, cache):
        self.cluster, self.runs, self.data = cluster, directory / "runs", directory / "steps.hdf5"
        self.environment = cluster.environment | {
            "O2O_RUNS": str(self.runs),
            "O2O_DATA": str(directory / "data"),
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        }
        self.write_steps(self.data, seed=0)

    @staticmethod
    def write_steps(path, seed):
        """A dataset of a few random steps."""
        generator = np.random.default_rng(seed)
        with h5py.File(path, "w") as file:
            file["observations"] = generator.normal(size=(120, 11)).astype(np.float32)
            file["actions"] = generator.uniform(-1, 1, (120, 3)).astype(np.float32)
            file["rewards"] = generator.normal(size=120).astype(np.float32)
            file["terminals"] = np.zeros(120, bool)
            file["timeouts"] = np.arange(120) % 20 == 19

    def start(self, *overrides, settings=(), path="", flags=()):
        """A launch in the background; `path` is searched for commands first."""
        words = [*TINY, f"dataset.path={self.data}", *(settings or self.settings)]
        command = [sys.executable, str(ROOT / "launch.py"), *flags, *words]
        environment = self.environment | {"PATH": f"{path}{os.pathsep}{os.environ['PATH']}"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([*command, *overrides], env=environment, cwd=self.runs.parent, **pipes)

    def launch(self, *overrides, **choices):
        """A launch: its exit code, output and errors."""
        with self.start(*overrides, **choices) as launching:
            output, errors = launching.communicate(timeout=PATIENCE)
        return launching.returncode, output, errors

    def follow(self, *words):
        """What `python -m o2o.sweep` says: its exit code and output, errors included."""
        command = [sys.executable, "-P", "-m", "o2o.sweep", *words]
        environment = self.environment | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        return done.returncode, done.stdout + done.stderr

    def seen(self, *filters):
        """The states of runs as `status` has them, by their directories."""
        code, output = self.follow("status", "--json", *filters)
        assert code in (0, 1), output
        cells = json.loads(output)["cells"]
        return {run["path"]: run["state"] for cell in cells for run in cell["runs"]}

    def jobs(self, phase=None):
        """What the launches recorded of their jobs, by SLURM's ids."""
        found = [read_object(path) for path in sorted(self.runs.glob(".jobs/*/job.json"))]
        return {job["id"]: job for job in found if phase in (None, job["phase"])}

    def history(self, job):
        path = self.runs / ".jobs" / job / "attempts.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def endings(self, job):
        return [(row["failure"], row["decision"]) for row in self.history(job) if row["event"] == "ended"]

    def states(self):
        """The states of all runs that finetune, by their directories."""
        runs = [run for job in self.jobs("finetune").values() for run in job["runs"]]
        return {run: read_state(self.runs / run) for run in runs}

    def step(self, job):
        """How far the first run of a job is in its own phase, or None before it began."""
        status = read_object(self.runs / self.jobs()[job]["runs"][0] / "status.json") or {}
        return status.get("step") if status.get("state") == "RUNNING" else None

    def node(self, job):
        return self.cluster.ask("squeue", "-h", "-o", "%N", "-j", job).strip()

    def wait_for_step(self, job):
        self.cluster.wait(f"the first step of {job}", lambda: bool(self.step(job)), PATIENCE)

    def wait_for_job(self, phase, besides=()):
        """A job that is at a step of this phase, of whichever begins first."""
        at_it = []

        def found():
            at_it[:] = [job for job in self.jobs(phase) if job not in besides and self.step(job)]
            return bool(at_it)

        self.cluster.wait(f"a job that does {phase}", found, PATIENCE)
        return at_it[0]

    def kill_step(self, job):
        """Kills the process of a job's last attempt, as the machine would."""
        os.kill(self.process(job), signal.SIGKILL)

    def process(self, job):
        return [row["pid"] for row in self.history(job) if row["event"] == "started"][-1]

    @contextlib.contextmanager
    def held_until_warned(self, job):
        """The job gets no further before SLURM has sent its warning, which may take a minute."""
        process = self.process(job)
        os.kill(process, signal.SIGSTOP)
        try:
            yield
            self.cluster.wait(f"the warning of {job}", lambda: not is_held(process, signal.SIGUSR2), 120)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)

    def wait_for_end(self, *jobs):
        """Waits until SLURM has none of the jobs in its queue."""
        names = jobs or tuple(self.jobs())

        def ended():
            queued = self.cluster.ask("squeue", "-h", "-r", "-o", "%F_%K").split()
            return not set(queued) & set(names)

        try:
            self.cluster.wait(f"the end of {', '.join(names)}", ended, 2 * PATIENCE)
        except TimeoutError as error:
            error.add_note(self.cluster.ask("squeue", "-r") + self.logs())
            raise

    def accounted(self, job):
        """What SLURM says of a job that ended, as soon as its accounting has heard of it."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            state = self.cluster.ask("sacct", "-X", "-n", "-o", "State%30", "-j", job).strip()
            if state not in ("", "PENDING", "RUNNING", "COMPLETING", "REQUEUED"):
                break
            time.sleep(0.5)
        return state

    def logs(self):
        return "\n".join(
            f"{path}: {path.read_text()[-1500:]}"
            for path in sorted(self.runs.glob(".sweeps/*/submissions/*/logs/*"))
        )

    def assert_done_once(self, count):
        """All runs are done, and their records are those of one run from beginning to end."""
        states = self.states()
        assert (len(states), set(states.values())) == (count, {RunState.DONE}), f"{states}\n{self.logs()}"
        for run in states:
            rows = [json.loads(line) for line in (self.runs / run / "eval.jsonl").read_text().splitlines()]
            steps = [row["step"] for row in rows]
            assert steps == sorted(set(steps)), f"{run} was evaluated twice at a step"
