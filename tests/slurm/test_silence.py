"""A controller that is slow to answer or away, and jobs that are killed without a word: what is then told."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest
from sweeping import LONG, ROOT, only

SCRATCH = ["pretrain.updates=0", "replay_init=empty"]


@pytest.fixture
def holding(sweep, tmp_path):
    """A directory whose sbatch stops the controller before its first call; it goes on when the test ends or before."""
    controller, real = sweep.cluster.process("slurmctld"), sweep.cluster.ask("which", "sbatch").strip()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()

    def write(seconds):
        goes_on = f"(sleep {seconds}; kill -CONT {controller}) > /dev/null 2>&1 &"
        first = f"if mkdir {tmp_path}/called; then kill -STOP {controller}; {goes_on if seconds else ''}\nfi"
        sbatch.write_text(f'#!/bin/sh\n{first}\nexec {real} "$@"\n')
        sbatch.chmod(0o755)
        return sbatch.parent

    yield write
    os.kill(controller, signal.SIGCONT)


def test_a_first_sbatch_that_times_out_though_slurm_takes_the_job_does_not_end_the_launch(sweep, holding):
    command = ["seed=0,1", "launch.seeds_per_job=2"]
    code, output, errors = sweep.launch(*command, path=holding(16))
    assert (code, "submitted 2 jobs" in output) == (0, True), output + errors
    assert "submitted" not in sweep.launch(*command)[1]
    sweep.wait_for_end()
    sweep.assert_done_once(2)
    names = sweep.cluster.ask(
        "sacct", "-X", "-n", "-o", "JobID%20,JobName%40", "-S", "now-1hour"
    ).splitlines()
    mine = [
        line
        for line in names
        if line.split()[-1] in {job["sweep"] + "-" + job["token"] for job in sweep.jobs().values()}
    ]
    assert len(mine) == 2, "something was submitted twice"


def test_what_slurm_took_without_ever_saying_so_is_not_submitted_again_and_known_to_status_and_cancel(
    sweep, holding
):
    command = [*SCRATCH, "seed=0,1", "launch.seeds_per_job=1"]
    held = [*command, "hydra.launcher.additional_parameters={hold: true}"]
    code, output, errors = sweep.launch(*held, path=holding(0))
    assert (code, "not known to be submitted: 2 of 2 jobs" in output) == (2, True), output + errors
    assert set(sweep.seen().values()) == {"PLANNED"}
    os.kill(sweep.cluster.process("slurmctld"), signal.SIGCONT)
    sweep.cluster.wait("the jobs", lambda: len(sweep.cluster.ask("squeue", "-h", "-r").splitlines()) == 2, 60)
    assert set(sweep.seen().values()) == {"QUEUED"}
    code, output = sweep.follow("cancel", "seed=0", "--yes")
    assert (code, "asked 1 job and 0 processes" in output) == (0, True), output
    code, output, _ = sweep.launch(*command, "seed=1")
    assert (code, "queued 1, left alone" in output, "submitted" in output) == (0, True, False), output
    assert sorted(sweep.seen().values()) == ["CANCELLED", "QUEUED"]
    (left,) = sweep.cluster.ask("squeue", "-h", "-r", "-o", "%F_%K").split()
    sweep.cluster.ask("scontrol", "release", left)
    sweep.wait_for_end(left)
    assert sorted(sweep.seen().values()) == ["CANCELLED", "DONE"]


def test_a_job_that_is_killed_while_the_controller_is_away_is_put_back_when_it_returns(sweep):
    sweep.launch(*LONG, *SCRATCH)
    job = only(sweep.jobs())
    sweep.wait_for_step(job)
    sweep.cluster.stop("slurmctld")
    try:
        away = time.monotonic()
        sweep.kill_step(job)
        waited_for = lambda: any(row["event"] == "unanswered" for row in sweep.history(job))  # noqa: E731
        sweep.cluster.wait("word that SLURM is waited for", waited_for, 60)
        assert set(sweep.seen().values()) == {"WAITING"}
        code, output = sweep.follow("why")
        assert (code, "its job waits for SLURM's answer" in output) == (0, True), output
        time.sleep(max(0, 25 - (time.monotonic() - away)))
    finally:
        sweep.cluster.start_controller()
    sweep.wait_for_end()
    sweep.assert_done_once(1)
    assert sweep.endings(job) == [("infrastructure", "requeued"), (None, "done")]
    assert set(sweep.seen().values()) == {"DONE"}


def test_a_killed_job_that_may_not_be_put_back_is_told(sweep):
    sweep.launch(*LONG, *SCRATCH)
    job = only(sweep.jobs())
    sweep.wait_for_step(job)
    sweep.cluster.ask("scontrol", "update", f"JobId={job}", "Requeue=0")
    sweep.kill_step(job)
    sweep.wait_for_end()
    assert set(sweep.seen().values()) == {"FAILED"}
    code, output = sweep.follow("why")
    assert code == 1
    assert "FAILED (infrastructure)" in output
    assert "its job ended: not requeued: scontrol: " in output
    assert "Traceback" not in output


def test_arms_of_a_pretraining_that_was_killed_share_its_class_and_are_cured_by_a_plain_retry(sweep):
    slow = ["pretrain.updates=20000", "checkpoint.interval_seconds=2", "records.interval=1000"]
    sweep.launch(*slow, "algorithm=td3,td3_c")
    job = only(sweep.jobs("pretrain"))
    sweep.wait_for_step(job)
    raw = sweep.cluster.ask("squeue", "-h", "-o", "%A", "-j", job).strip()
    for process in sweep.cluster.job_processes(raw):  # its shell too, so that nobody says how it ended
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    sweep.wait_for_end()
    states = sweep.seen()
    assert sorted(states.values()) in (["FAILED"] * 3, ["FAILED", "FAILED", "STALLED"]), states
    code, output = sweep.follow("why", "phase=finetune")
    assert "FAILED (infrastructure)" in output, output
    assert "is STALLED, not DONE" in output
    assert "mend what the traceback names" not in output

    code, output = sweep.follow("retry", "--set", "additional_parameters={hold: true}")
    assert (code, "submitted 3 jobs" in output) == (0, True), output
    assert set(sweep.seen().values()) == {"QUEUED"}
    assert "before that: FAILED (infrastructure)" in sweep.follow("why", "phase=finetune")[1]
    words = [sys.executable, "-P", "-m", "o2o.sweep", "status", "--watch", "--interval", "1"]
    environment = sweep.environment | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL) as watching:
        time.sleep(8)
        assert watching.poll() is None, "it ended though everything is still to come"
        for queued in sweep.cluster.ask("squeue", "-h", "-r", "-o", "%F_%K").split():
            sweep.cluster.ask("scontrol", "release", queued)
        sweep.wait_for_end()
        assert watching.wait(120) == 0
    assert set(sweep.seen().values()) == {"DONE"}
