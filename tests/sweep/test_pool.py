"""The local pool as a user has it: stopped, and gone on with by `retry`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from sweeping import LONG, ROOT, Sweep
from tiny import TINY

from o2o.errors import ConfigError
from o2o.runs.directory.layout import RunState, read_state
from o2o.sweep.launching import pool


def steps(path):
    return [json.loads(line)["step"] for line in (path / "eval.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("wishes", [(-1, None), (0, None), ("abc", None), (1, "0,1"), (1, 0)])
def test_numbers_of_processes_and_lists_of_gpus_that_are_none_are_refused(wishes):
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.(processes|gpus)=.*: write a"):
        pool.slots(*wishes)


@pytest.mark.slow
def test_a_pool_that_was_stopped_is_gone_on_with_by_retry_in_a_pool_again(tmp_path, pytestconfig):
    data, runs = tmp_path / "steps.hdf5", tmp_path / "runs"
    Sweep.write_steps(data, seed=0)
    environment = os.environ | {
        "O2O_RUNS": str(runs),
        "PYTHONPATH": str(ROOT),
        "JAX_COMPILATION_CACHE_DIR": str(pytestconfig.cache.mkdir("jax-jobs")),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    pool = ["hydra/launcher=local", "hydra.launcher.processes=2", "launch.name=pool"]
    runs_asked = [*LONG, "pretrain.updates=0", "replay_init=empty", "seed=0,1", "launch.seeds_per_job=1"]
    command = [sys.executable, str(ROOT / "launch.py"), *TINY, f"dataset.path={data}", *pool, *runs_asked]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL) as launching:
        end = time.monotonic() + 200
        while not (begun := list(runs.glob("*/*/*/*/checkpoints/[0-9]*.npz"))) and time.monotonic() < end:
            time.sleep(0.2)
        launching.send_signal(signal.SIGTERM)
    assert begun, "no run came to a checkpoint"
    assert launching.returncode == 143
    states = {path: read_state(path) for path in runs.glob("*/*/*/seed-*")}
    assert RunState.INTERRUPTED in states.values()
    stopped = {path for path, state in states.items() if state is not RunState.DONE}

    following = [sys.executable, "-m", "o2o.sweep", "retry"]
    done = subprocess.run(
        following, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"by local, as pool: {len(stopped)} runs" in done.stdout
    assert f"{len(stopped)}/{len(stopped)} done" in done.stdout
    assert {read_state(path) for path in states} == {RunState.DONE}
    for path in states:
        assert steps(path) == sorted(set(steps(path))), "a step was run twice"
    assert len(list((runs / ".sweeps/pool/submissions").iterdir())) == 2
