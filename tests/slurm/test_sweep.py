"""What becomes of runs on a real SLURM, where jobs are limited, preempted, killed and lost."""

from __future__ import annotations

import signal
import time

import pytest
from sweeping import LONG, only

from o2o.runs.directory.layout import RunState, read_object, read_state


def test_a_grid_shares_its_pretrainings_and_is_run_once_whatever_is_asked_for_again(sweep):
    grid = ["replay_init=offline,empty", "seed=0,1", "launch.seeds_per_job=2"]
    code, output, errors = sweep.launch("algorithm=td3,td3_c", *grid)
    assert code == 0, errors
    assert "submitted 5 jobs" in output
    assert "1 pretraining, 4 finetuning" in output
    assert "python -m o2o.sweep status" in output
    code, output, _ = sweep.launch("algorithm=td3,td3_c", *grid)
    assert (code, "submitted" in output, "to run 0" in output) == (0, False, True), output
    code, output, _ = sweep.launch("algorithm=td3,td3_c,td3_bc", *grid)
    assert "submitted 2 jobs" in output, output
    assert len(sweep.jobs("pretrain")) == 1
    sweep.wait_for_end()
    sweep.assert_done_once(12)
    assert {sweep.accounted(job) for job in sweep.jobs()} == {"COMPLETED"}
    assert all(sweep.endings(job) == [(None, "done")] for job in sweep.jobs())
    code, output, _ = sweep.launch("algorithm=td3,td3_c", *grid)
    assert "done 8" in output
    assert "submitted" not in output


def test_what_is_queued_runs_the_code_of_its_launch(sweep):
    sweep.launch("seed=0")
    job = only(sweep.jobs("finetune"))
    sweep.wait_for_end()
    sweep.assert_done_once(1)
    (code,) = sweep.runs.glob(".sweeps/*/code/*")
    assert f"code {code}\n" in (sweep.runs / ".jobs" / job / "stdout").read_text()


def test_a_job_goes_on_after_its_time_limit_until_it_is_done(sweep):
    sweep.launch(*LONG, "pretrain.updates=0", "replay_init=empty", "hydra.launcher.signal_delay_s=90")
    job = only(sweep.jobs())
    sweep.wait_for_step(job)
    minutes = 2 + int(sweep.cluster.ask("squeue", "-h", "-o", "%M", "-j", job).strip().rpartition(":")[0])
    with sweep.held_until_warned(job):
        sweep.cluster.ask("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")
    sweep.cluster.wait("the requeue", lambda: len(sweep.endings(job)) == 1, 120)
    sweep.cluster.ask("scontrol", "update", f"JobId={job}", "TimeLimit=30")
    sweep.wait_for_end()
    sweep.assert_done_once(1)
    assert sweep.endings(job) == [("time", "requeued"), (None, "done")]
    assert sweep.accounted(job) == "COMPLETED"


def test_a_preempted_job_goes_on_when_it_is_its_turn_again(sweep):
    scratch = ["pretrain.updates=0", "replay_init=empty"]
    sweep.launch(*LONG, *scratch, "hydra.launcher.partition=preemptible", "hydra.launcher.timeout_min=30")
    job = only(sweep.jobs())
    sweep.wait_for_step(job)
    urgent = ["--partition=urgent", "--exclusive", f"--nodelist={sweep.node(job)}", "--output=/dev/null"]
    sweep.cluster.ask("sbatch", *urgent, "--wrap=sleep 3")
    sweep.wait_for_end()
    sweep.assert_done_once(1)
    assert sweep.endings(job) == [("preemption", "requeued"), (None, "done")]


def test_a_killed_step_goes_on(sweep):
    sweep.launch(*LONG, "pretrain.updates=0", "replay_init=empty")
    job = only(sweep.jobs())
    sweep.wait_for_step(job)
    sweep.kill_step(job)
    sweep.wait_for_end()
    sweep.assert_done_once(1)
    assert sweep.endings(job) == [("infrastructure", "requeued"), (None, "done")]


def test_a_cancelled_job_stays_cancelled_and_the_others_go_on(sweep):
    command = [*LONG, "pretrain.updates=0", "replay_init=empty", "seed=0,1", "launch.seeds_per_job=1"]
    sweep.launch(*command)
    cancelled, other = sweep.jobs()
    sweep.wait_for_step(cancelled)
    sweep.cluster.ask("scancel", cancelled)
    sweep.wait_for_end()
    states = [read_state(sweep.runs / sweep.jobs()[job]["runs"][0]) for job in (cancelled, other)]
    assert states[0] in (RunState.INTERRUPTED, RunState.RUNNING)
    assert states[1] is RunState.DONE
    assert sweep.accounted(cancelled).startswith("CANCELLED")
    assert "submitted 1 job " in sweep.launch(*command)[1]
    sweep.wait_for_end()
    sweep.assert_done_once(2)


def test_a_redo_that_waits_is_submitted_once_can_be_cancelled_and_replaces_the_result(sweep):
    scratch = ["pretrain.updates=0", "replay_init=empty"]
    sweep.launch(*scratch)
    sweep.wait_for_end()
    redo = [*scratch, "launch.redo=true"]
    held = [*redo, "hydra.launcher.additional_parameters={hold: true}"]
    assert "submitted 1 job " in sweep.launch(*held)[1]
    assert set(sweep.seen().values()) == {"QUEUED"}
    assert "submitted" not in sweep.launch(*redo)[1]
    code, output = sweep.follow("cancel", "--yes")
    assert (code, "asked 1 job and" in output) == (0, True), output
    sweep.wait_for_end()
    assert set(sweep.seen().values()) == {"DONE"}
    assert "the earlier result stands" in " ".join(sweep.follow("why")[1].split())
    assert "submitted 1 job " in sweep.launch(*redo)[1]
    sweep.wait_for_end()
    sweep.assert_done_once(1)
    assert set(sweep.seen().values()) == {"DONE"}
    attempts = {path.name for path in sweep.runs.glob("*/td3/*/seed-0/attempts/*")}
    assert attempts == {"1.json", "2.json"}


def test_a_job_goes_on_elsewhere_when_its_node_is_lost(sweep):
    sweep.launch(*LONG, "pretrain.updates=0", "replay_init=empty")
    job = only(sweep.jobs())
    sweep.wait_for_step(job)
    node = sweep.node(job)
    sweep.cluster.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    try:
        sweep.wait_for_end()
    finally:
        sweep.cluster.ask("scontrol", "update", f"nodename={node}", "state=resume")
    sweep.assert_done_once(1)
    assert [row["node"] != node for row in sweep.history(job) if row["event"] == "started"] == [False, True]
    assert sweep.endings(job)[-1] == (None, "done")


def test_jobs_outlive_a_restart_of_the_controller(sweep):
    sweep.launch(*LONG, "pretrain.updates=0", "replay_init=empty")
    job = only(sweep.jobs())
    sweep.wait_for_step(job)
    sweep.cluster.stop("slurmctld")
    time.sleep(1)
    sweep.cluster.start_controller()
    sweep.wait_for_end()
    sweep.assert_done_once(1)
    assert sweep.endings(job) == [(None, "done")]


def test_a_launch_that_dies_before_it_records_what_it_submitted_is_gone_on_with(sweep, tmp_path):
    real = sweep.cluster.ask("which", "sbatch").strip()
    deadly = tmp_path / "bin" / "sbatch"
    deadly.parent.mkdir()
    deadly.write_text(f'#!/bin/sh\n{real} "$@" > /dev/null && kill -KILL $PPID\n')
    deadly.chmod(0o755)
    command = ["seed=0,1", "launch.seeds_per_job=1", "pretrain.updates=0", "replay_init=empty"]
    assert sweep.launch(*command, path=deadly.parent)[0] == -signal.SIGKILL
    assert sweep.jobs() == {} or all(sweep.history(job) for job in sweep.jobs())
    code, output, _ = sweep.launch(*command)
    assert (code, "submitted" in output) == (0, False), output
    assert len(sweep.jobs()) == 2
    sweep.wait_for_end()
    sweep.assert_done_once(2)


def test_a_run_that_raises_is_failed_everywhere_and_not_tried_again(sweep):
    code, _, errors = sweep.launch("learning_rate.critic=1e30", "seed=0")
    assert code == 0, errors
    sweep.wait_for_end()
    pretrain, finetune = only(sweep.jobs("pretrain")), only(sweep.jobs("finetune"))
    for job in (pretrain, finetune):
        run = sweep.runs / sweep.jobs()[job]["runs"][0]
        assert read_state(run) is RunState.FAILED
        assert sweep.accounted(job) == "FAILED"
        assert len(sweep.endings(job)) == 1
        assert read_object(run / "attempts" / "1.json")["traceback"]
    assert sweep.endings(pretrain) == [("non-finite", "given up")]
    told = (sweep.runs / ".jobs" / finetune / "stderr").read_text()
    assert "is FAILED, not DONE: " in told
    assert "not finite" in told


def test_a_failed_job_of_hydras_own_launcher_is_failed_in_slurm_too(sweep):
    settings = [word.replace("=slurm", "=submitit_slurm") for word in sweep.settings]
    code, _, errors = sweep.launch("learning_rate.critic=1e30", "seed=0", settings=settings)
    assert code == 1, errors
    states = sweep.cluster.ask("sacct", "-X", "-n", "-o", "State%20", "--name", "o2o").split()
    assert states == ["FAILED"]


def test_two_launches_at_once_submit_every_run_once(sweep):
    command = ["pretrain.updates=0", "replay_init=empty", "seed=range(3)", "launch.seeds_per_job=1"]
    both = [sweep.start(*command), sweep.start(*command)]
    outputs = [launching.communicate(timeout=400)[0] for launching in both]
    assert [launching.returncode for launching in both] == [0, 0]
    assert sum("submitted 3 jobs" in output for output in outputs) == 1, outputs
    assert len(sweep.jobs()) == 3


def test_a_quota_lets_part_of_a_sweep_in_and_the_rest_later(sweep):
    command = ["pretrain.updates=0", "replay_init=empty", "seed=range(3)", "launch.seeds_per_job=1"]
    sweep.cluster.ask("sacctmgr", "-i", "modify", "user", "root", "set", "maxsubmitjobs=2")
    try:
        code, output, _ = sweep.launch(*command)
    finally:
        sweep.cluster.ask("sacctmgr", "-i", "modify", "user", "root", "set", "maxsubmitjobs=-1")
    assert code == 2
    assert "submitted 2 jobs" not in output or "not submitted: 1 of 3 jobs" in output, output
    assert "The same command submits what is missing" in output
    first = len(sweep.jobs())
    assert 0 < first < 3
    assert f"submitted {3 - first} job" in sweep.launch(*command)[1]


def test_arrays_are_no_longer_than_the_cluster_allows(sweep):
    command = ["pretrain.updates=0", "replay_init=empty", "seed=range(150)", "launch.seeds_per_job=1"]
    code, output, errors = sweep.launch(*command, "hydra.launcher.additional_parameters={hold: true}")
    assert code == 0, errors
    assert "submitted 150 jobs" in output
    assert sorted(job.partition("_")[2] for job in sweep.jobs()).count("0") == 2


def test_a_setting_that_there_is_not_is_refused_before_anything_is_written(sweep):
    code, _, errors = sweep.launch("+hydra.launcher.queue=main")
    assert (code, "Traceback" in errors, "queue" in errors) == (2, False, True), errors
    assert not (sweep.runs / ".sweeps").exists()


@pytest.mark.parametrize(
    ("override", "said", "mended"),
    [
        ("hydra.launcher.partition=gpuu", "Invalid partition", "partition=main"),
        ("hydra.launcher.mem_gb=100000", "Memory", "mem_gb=1"),
    ],
)
def test_what_sbatch_refuses_is_told_and_retry_gives_it_a_job(sweep, override, said, mended):
    code, _, errors = sweep.launch(override, "pretrain.updates=0", "replay_init=empty")
    assert (code, "Traceback" in errors, said in errors) == (2, False, True), errors
    assert set(sweep.seen().values()) == {"PLANNED"}
    assert said in sweep.follow("why")[1]
    code, output = sweep.follow("retry")
    assert (code, said in output) == (2, True), output  # it is refused again, as it was
    code, output = sweep.follow("retry", "--set", mended)
    assert (code, "submitted 1 job " in output) == (0, True), output
    sweep.wait_for_end()
    sweep.assert_done_once(1)


def test_a_cluster_without_accounting_is_as_good(sweep_without_accounting):
    sweep = sweep_without_accounting
    command = ["seed=0,1", "replay_init=offline"]
    assert sweep.launch(*command)[0] == 0
    assert "submitted" not in sweep.launch(*command)[1]
    sweep.wait_for_end()
    sweep.assert_done_once(2)
    assert "submitted" not in sweep.launch(*command)[1]
