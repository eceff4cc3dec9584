"""A table of the paper, scaled down, from its plan to its last run, through everything that clusters do to jobs."""

from __future__ import annotations

from sweeping import LONG, only

from o2o.runs.directory.layout import read_object

SCALED = [
    "experiment=table1",
    "seed=0,1",
    "launch.seeds_per_job=2",
    "hydra.launcher.cpus_per_task=4",  # two to a node, so that they are spread over nodes
    "pretrain.updates=20000",
    "finetune.env_steps=1000",
    "evaluation.interval=500",
    "records.interval=100",
    "checkpoint.interval_seconds=2",
]


def test_table1_gets_through_kills_a_cancellation_a_requeue_and_a_lost_node_each_run_once(sweep, tmp_path):
    other = tmp_path / "other.hdf5"
    sweep.write_steps(other, seed=1)
    command = [*SCALED, f"dataset.path={sweep.data},{other}"]
    code, output, errors = sweep.launch(*command, "launch.dry_run=true", flags=["-m"])
    assert (code, sweep.jobs()) == (0, {}), errors
    assert "12 runs = 3 algorithm × 2 seed × 2 dataset.path\n  to run 12, after 4 pretrainings" in output
    code, output, errors = sweep.launch(*command, flags=["-m"])
    assert code == 0, errors
    assert "submitted 8 jobs as table1-" in output
    assert "2 pretraining, 6 finetuning" in output

    hit = [sweep.wait_for_job("pretrain")]
    sweep.kill_step(hit[0])
    hit.append(sweep.wait_for_job("finetune"))
    sweep.kill_step(hit[1])
    hit.append(cancelled := sweep.wait_for_job("finetune", hit))
    sweep.cluster.ask("scancel", cancelled)
    hit.append(requeued := sweep.wait_for_job("finetune", hit))
    sweep.cluster.ask("scontrol", "requeue", requeued)
    node = sweep.node(sweep.wait_for_job("finetune", hit))
    sweep.cluster.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    try:
        sweep.wait_for_end()
    finally:
        sweep.cluster.ask("scontrol", "update", f"nodename={node}", "state=resume")

    stopped = set(sweep.jobs()[cancelled]["runs"])
    states = sweep.seen("table1")
    assert {run for run, state in states.items() if state != "DONE"} == stopped, states
    assert {states[run] for run in stopped} <= {"INTERRUPTED", "CANCELLED"}
    code, output, _ = sweep.launch(*command, flags=["-m"])
    assert "to run 2 (2 interrupted)" in output
    assert "submitted 1 job " in output
    sweep.wait_for_end()

    sweep.assert_done_once(12)
    code, output = sweep.follow("status", "table1")
    assert (code, "16 runs in 8 cells: DONE 16" in output) == (0, True), output
    assert "submitted" not in sweep.launch(*command, flags=["-m"])[1]
    assert {sweep.endings(job)[0] for job in hit[:2]} == {("infrastructure", "requeued")}


def test_what_was_cancelled_is_given_back_to_slurm_by_retry_and_goes_on(sweep):
    sweep.launch("pretrain.updates=0", "replay_init=empty", *LONG, "seed=0,1", "launch.seeds_per_job=1")
    cancelled, other = sweep.jobs()
    (stopped,) = sweep.jobs()[cancelled]["runs"]
    sweep.wait_for_step(cancelled)
    sweep.wait_for_step(other)
    code, output = sweep.follow("cancel", "seed=0", "--yes")
    assert (code, "asked 1 job and 0 processes to stop" in output) == (0, True), output
    sweep.wait_for_end(cancelled)
    assert sweep.seen("seed=0")[stopped] in ("INTERRUPTED", "CANCELLED")
    # Its end is noted unless it is killed for its slowness.
    assert sweep.endings(cancelled) in ([], [(None, "cancelled")])
    before = read_object(sweep.runs / stopped / "status.json")["step"]
    code, output = sweep.follow("retry", "--set", "timeout_min=20")
    assert (code, "submitted 1 job " in output) == (0, True), output
    again = only(set(sweep.jobs()) - {cancelled, other})
    assert sweep.cluster.ask("squeue", "-h", "-o", "%l", "-j", again).strip() == "20:00"
    code, output = sweep.follow("retry")
    assert "submitted" not in output
    sweep.wait_for_end()
    sweep.assert_done_once(2)
    assert sweep.history(again)[0]["steps"] == before > 0, "it began anew"
    assert sweep.seen() == dict.fromkeys(sweep.states(), "DONE")
