from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import hidden
import pytest

from o2o.config.build import container
from o2o.errors import ConfigError
from o2o.runs.directory.layout import RESULT, STATUS
from o2o.runs.directory.writer import RunDirectory
from o2o.runs.identity import describe, identity, pretrain_directory, run_directory
from o2o.sweep.__main__ import main
from o2o.sweep.launching import entry, jobs, pool, prepare, submit
from o2o.sweep.launching.entry import Place
from o2o.sweep.launching.jobs import PlannedRun
from o2o.sweep.ledger import manifest, slurm
from o2o.sweep.ledger.manifest import SbatchCall
from o2o.sweep.surveying import launched


@pytest.fixture(autouse=True)
def quiet_submitit(monkeypatch):
    # Or it would set up logging, and close what pytest captures with.
    monkeypatch.setenv("SUBMITIT_LOG_LEVEL", "NOCONFIG")


@pytest.fixture
def planned(configure, tmp_path):
    """Planned runs of seeds, one list for each algorithm."""

    def make(*seeds, overrides=(), algorithms=("td3",)):
        made = []
        for algorithm in algorithms:
            base = configure(tmp_path / "runs", f"algorithm={algorithm}", *overrides)
            for seed in seeds:
                config = dataclasses.replace(base, seed=seed)
                places = run_directory(config), pretrain_directory(config)
                made.append(PlannedRun(config, [], "", identity(config), *places))
        return made

    return make


@pytest.fixture
def sbatch(monkeypatch):
    """Answers SLURM's commands; `sbatch.scripts` has what was submitted, `sbatch.most` the jobs that are let in.

    Of the calls that `sbatch.lost` counts from 0, the answer is lost; where it is `sbatch.silent`, also that of squeue.
    """

    class Answers:
        def __init__(self):
            self.scripts, self.most, self.queue = [], 10**6, ""
            self.lost, self.silent, self.called = (), False, []

        def __call__(self, command, *words, seconds=None):
            self.called.append((command, *words))
            if command == "sbatch":
                text = Path(words[0]).read_text(encoding="utf-8")
                tasks = 1 + int(text.partition("--array=0-")[2].partition("%")[0])
                if tasks > self.most:
                    raise slurm.LimitError(["sbatch: error: AssocMaxSubmitJobLimit"])
                self.most -= tasks
                self.scripts.append(text)
                if len(self.scripts) - 1 in self.lost:
                    name, comment = (
                        text.partition(f"--{key}=")[2].splitlines()[0] for key in ("job-name", "comment")
                    )
                    array = 100 + len(self.scripts)
                    for task in range(tasks):
                        self.queue += f"{array}|{task}|{array + task}|PENDING|None|{comment}|{name}|\n"
                    raise slurm.NoAnswerError(["sbatch: Socket timed out on send/recv operation"])
                return f"Submitted batch job {100 + len(self.scripts)}\n"
            if command == "squeue" and self.silent:
                raise slurm.NoAnswerError(["squeue: Socket timed out on send/recv operation"])
            answers = {"squeue": self.queue, "scontrol": "MaxArraySize            = 4\n"}
            return answers.get(command, "")

    answers = Answers()
    monkeypatch.setattr(slurm, "require", lambda: None)
    monkeypatch.setattr(slurm, "ask", answers)
    return answers


def send(runs, seeds=10, **settings):
    return submit.to_slurm(runs, runs, "test", seeds, {"timeout_min": 5, **settings})


def test_seeds_of_a_cell_share_jobs(planned):
    packed = jobs.pack(planned(*range(5), algorithms=("td3", "td3_c")), 2)
    assert [[run.config.seed for run in members] for members in packed] == [[0, 1], [2, 3], [4]] * 2


def test_pretrainings_come_first_and_each_arm_waits_for_the_one_it_needs(planned, sbatch):
    report = send(planned(0, 1, algorithms=("td3", "td3_c")), seeds=1)
    kinds = [(job.phase, job.seeds, job.id) for job in report.submission.jobs]
    assert kinds[:2] == [("pretrain", [0], "101_0"), ("pretrain", [1], "101_1")]
    first, *arms = sbatch.scripts
    assert "--dependency" not in first
    waits = [line for text in arms for line in text.splitlines() if "--dependency" in line]
    assert waits == ["#SBATCH --dependency=afterany:101_0", "#SBATCH --dependency=afterany:101_1"]


def test_a_pretraining_that_is_there_is_not_made_again(planned, sbatch):
    runs = planned(0, 1)
    runs[0].pretrain_directory.mkdir(parents=True)
    (runs[0].pretrain_directory / RESULT).write_text("{}")
    report = send(runs)
    assert [(job.phase, job.seeds) for job in report.submission.jobs] == [
        ("pretrain", [1]),
        ("finetune", [0, 1]),
    ]


def test_what_is_queued_is_not_submitted_again_and_its_pretraining_is_waited_for(planned, sbatch):
    first = send(planned(0))
    name = first.submission.job_name
    sbatch.queue = f"101|0|101|RUNNING|None|batch-0|{name}|n1\n102|0|102|PENDING|Dependency|batch-1|{name}|\n"
    second = send(planned(0, algorithms=("td3", "td3_c")))
    assert second.already == 1
    assert [(job.phase, job.id) for job in second.submission.jobs] == [("finetune", "103_0")]
    assert "--dependency=afterany:101_0" in sbatch.scripts[-1]


def test_a_redo_that_waits_beside_the_results_it_is_to_replace_is_not_submitted_again(planned, sbatch):
    runs = planned(0, overrides=["launch.redo=true"])
    for directory in (runs[0].pretrain_directory, runs[0].directory):
        RunDirectory(directory).write(STATUS, {"state": "DONE", "updated_at": "2026-01-01T00:00:00+00:00"})
        RunDirectory(directory).write(RESULT, {})
    name = send(runs).submission.job_name
    sbatch.queue = f"101|0|101|PENDING|Priority|batch-0|{name}|\n"
    assert send(runs).already == 1
    assert len(sbatch.scripts) == 1


def test_a_job_of_a_redo_makes_again_what_is_older_than_its_launch(planned, sbatch, tmp_path):
    runs = planned(0, 1, overrides=["launch.redo=true"])
    for run in runs:
        for directory in (run.pretrain_directory, run.directory):
            RunDirectory(directory).write(
                STATUS, {"state": "DONE", "updated_at": "2026-01-01T00:00:00+00:00"}
            )
            RunDirectory(directory).write(RESULT, {})
    launch = send(runs).submission
    RunDirectory(runs[1].directory).write(
        STATUS, {"state": "DONE", "updated_at": "2999-01-01T00:00:00+00:00"}
    )
    place = Place(manifest.submission_directory(tmp_path / "runs", launch.sweep, launch.token), 0, "101_0")
    configs = entry._configurations(place)
    assert [config.execution.launch.redo for config in configs.values()] == [True, False]
    assert all((run.directory / RESULT).is_file() for run in runs)


def test_a_launch_whose_answer_was_lost_is_found_by_its_name(planned, sbatch, tmp_path):
    runs = planned(0)
    launch = send(runs).submission
    for batch in manifest.batches(tmp_path / "runs", launch):
        manifest.write_batch(tmp_path / "runs", launch, dataclasses.replace(batch, id=None))
    sbatch.queue = f"555|0|555|PENDING|None|batch-1|{launch.job_name}|\n"
    found = submit.in_queue(tmp_path / "runs")
    assert {job.id for job in found.values()} == {"555_0"}
    assert set(found) == {prepare.relative((tmp_path / "runs").absolute(), runs[0].directory)}


def test_arrays_are_as_long_as_the_cluster_allows(planned, sbatch):
    report = send(planned(*range(10), overrides=["pretrain.updates=0", "replay_init=empty"]), seeds=1)
    assert [job.id for job in report.submission.jobs][::4] == ["101_0", "102_0", "103_0"]
    assert [text.count("numbers=(") for text in sbatch.scripts] == [1, 1, 1]


def test_as_much_is_submitted_as_the_quota_lets_in_and_the_rest_is_told(planned, sbatch):
    sbatch.most = 3
    report = send(planned(*range(10), overrides=["pretrain.updates=0", "replay_init=empty"]), seeds=1)
    assert sum(job.id is not None for job in report.submission.jobs) == 3
    assert "submitted 3 jobs" in report.text()
    assert "not submitted: 7 of 10 jobs\n  sbatch: error: AssocMaxSubmitJobLimit" in report.text()


def test_a_refusal_is_told_and_stays_on_record_for_retry(planned, sbatch, tmp_path):
    sbatch.most = 0
    with pytest.raises(ConfigError, match="AssocMaxSubmitJobLimit"):
        send(planned(0))
    root = tmp_path / "runs"
    (launch,) = manifest.submissions(root)
    (batch,) = manifest.batches(root, launch)
    assert "AssocMaxSubmitJobLimit" in str(batch.error)
    sbatch.silent = True  # nothing of it can be in the queue, so nobody asks
    assert submit.in_queue(root) == {}


def test_a_launcher_setting_that_submitit_does_not_know_is_refused_before_anything_is_written(
    planned, sbatch, tmp_path
):
    with pytest.raises(ConfigError, match="partitionn"):
        send(planned(0), partitionn="main")
    assert not (tmp_path / "runs" / ".sweeps").exists()


@pytest.mark.parametrize(
    ("said", "clear"),
    [
        ("error: Batch job submission failed: Invalid partition name specified", True),
        ("error: Batch job submission failed: Requested node configuration is not available", True),
        (
            "error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, …)",
            True,
        ),
        ("error: Memory specification can not be satisfied", True),
        ("unrecognized option '--bad'", True),
        ("error: Batch job submission failed: Socket timed out on send/recv operation", False),
        ("error: Batch job submission failed: Unable to contact slurm controller (connect failure)", False),
        ("error: Batch job submission failed: Zero Bytes were transmitted or received", False),
        ("error: Batch job submission failed: Invalid authentication credential", False),
        ("error: Batch job submission failed: Slurm backup controller in standby mode", False),
        ("error: something that nobody has heard of", False),
        ("", False),
    ],
)
def test_only_a_clear_refusal_of_sbatch_is_one(monkeypatch, tmp_path, said, clear):
    (tmp_path / "sbatch").write_text(f"#!/bin/sh\ncat >&2 <<'EOF'\nsbatch: {said}\nEOF\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(slurm.SlurmError) as raised:
        slurm.submit("script")
    assert isinstance(raised.value, slurm.NoAnswerError) is not clear
    assert said.removeprefix("error: ") in str(raised.value)


@pytest.mark.parametrize("script", ["kill -KILL $$", "echo queued, thank you"])
def test_an_sbatch_that_was_killed_or_speaks_in_riddles_may_have_been_heard(monkeypatch, tmp_path, script):
    (tmp_path / "sbatch").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(slurm.NoAnswerError):
        slurm.submit("script")


@pytest.mark.parametrize("call", [0, 1])
def test_an_answer_that_is_lost_is_looked_for_by_name_and_the_launch_goes_on(planned, sbatch, tmp_path, call):
    sbatch.lost = (call,)
    report = send(planned(0))
    assert [job.id for job in report.submission.jobs] == ["101_0", "102_0"]
    assert report.problem is None
    assert [job.id for job in next(iter(manifest.submissions(tmp_path / "runs"))).jobs] == [
        "101_0",
        "102_0",
    ]


def test_the_first_call_whose_answer_is_lost_is_kept_and_not_made_twice(planned, sbatch, tmp_path):
    sbatch.lost, sbatch.silent = (0,), True
    report = send(planned(0))
    assert "not known to be submitted: 2 of 2 jobs\n  sbatch: Socket timed out" in report.text()
    assert "looks for them by name" in report.text()
    sbatch.silent = False
    again = send(planned(0))  # the pretraining is in the queue, and only what it is for is submitted
    assert [(job.phase, job.id) for job in again.submission.jobs] == [("finetune", "102_0")]
    assert "--dependency=afterany:101_0" in sbatch.scripts[-1]
    first = next(iter(manifest.submissions(tmp_path / "runs")))
    assert [job.id for job in first.jobs] == ["101_0", None]
    assert manifest.read_job(tmp_path / "runs", "101_0") is not None


def test_a_later_call_whose_answer_is_lost_is_kept_and_not_made_twice(planned, sbatch):
    sbatch.lost, sbatch.silent = (1,), True
    report = send(planned(0))
    assert "submitted 1 job " in report.text()
    assert "not known to be submitted: 1 of 2 jobs" in report.text()
    sbatch.silent = False
    assert send(planned(0)).already == 1
    assert len(sbatch.scripts) == 2


def test_seeds_that_are_to_run_in_different_ways_do_not_share_a_job(planned):
    runs = [*planned(0, 1), *planned(2, 3, overrides=["tracker=offline", "launch.redo=true"]), *planned(4)]
    assert [[run.config.seed for run in job] for job in jobs.pack(runs, 10)] == [[0, 1, 4], [2, 3]]


@pytest.mark.parametrize("name", ["job-name", "job_name", "comment", "dependency"])
def test_what_jobs_are_found_again_by_cannot_be_set(planned, sbatch, name):
    with pytest.raises(ConfigError, match=f"additional_parameters: {name} is for this program"):
        send(planned(0), additional_parameters={name: "mine"})
    assert sbatch.scripts == []


def test_the_commands_that_are_told_find_runs_that_lie_elsewhere(planned, sbatch, tmp_path):
    runs = planned(0)
    report = submit.to_slurm(runs, runs, "größe", 1, {"timeout_min": 5})
    _, status, queue = (shlex.split(line) for line in report.text().splitlines())
    assert status == ["python", "-m", "o2o.sweep", "status", "größe", "--runs", str(tmp_path / "runs")]
    assert queue == ["squeue", "--name", report.submission.job_name]


def test_a_job_is_frozen_with_absolute_paths_and_without_what_was_meant_for_the_launch(
    planned, sbatch, tmp_path
):
    launch = send(planned(3, 4, overrides=["launch.redo=true"])).submission
    spec = manifest.read_spec(tmp_path / "runs", launch, launch.jobs[-1].number)
    assert (spec["seeds"], spec["redo"]) == ([3, 4], True)
    assert spec["config"]["launch"]["redo"] is False
    assert spec["config"]["paths"]["runs"] == str(tmp_path / "runs")


def test_a_full_disk_or_a_directory_that_cannot_be_written_is_one_line(planned, sbatch, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "submission.json")

    monkeypatch.setattr(manifest, "write_submission", full)
    with pytest.raises(ConfigError, match=r"submission\.json cannot be written: No space left on device"):
        send(planned(0))


def test_a_disk_that_fills_while_jobs_are_submitted_leaves_none_of_them_untold(planned, sbatch, monkeypatch):
    write = manifest.write_batch

    def full(root, submission, batch):
        if batch.index == 1 and batch.id is not None:
            raise OSError(28, "No space left on device", "batch-1.json")
        write(root, submission, batch)

    monkeypatch.setattr(manifest, "write_batch", full)
    report = send(planned(0, algorithms=("td3", "td3_c")), seeds=1)
    assert [job.id for job in report.submission.jobs] == ["101_0", "102_0", "102_1"]
    assert "submitted 3 jobs" in report.text()
    assert "batch-1.json cannot be written: No space left on device" in report.text()


def test_a_machine_without_slurm_is_told_of_the_local_pool(planned, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="sbatch, squeue, scontrol, srun not found"):
        send(planned(0))


def test_a_machine_with_slurm_looks_to_the_tests_like_one_without(monkeypatch, tmp_path):
    for name in ("sbatch", "squeue", "program"):
        (tmp_path / name).write_text("#!/bin/sh\necho it is there\n")
        (tmp_path / name).chmod(0o755)
    (place := tmp_path / "links").mkdir()
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    monkeypatch.setenv("PATH", hidden.path_without(hidden.SLURM, path, place))
    assert [shutil.which(name) for name in hidden.SLURM] == [None] * len(hidden.SLURM)
    assert subprocess.run(["program"], capture_output=True, check=True).stdout == b"it is there\n"


def test_a_command_that_hangs_is_ended_and_named(monkeypatch, tmp_path):
    hanging = tmp_path / "sbatch"
    hanging.write_text("#!/bin/sh\nexec sleep 30\n")
    hanging.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "ANSWER_SECONDS", 0.2)
    with pytest.raises(slurm.NoAnswerError, match=r"sbatch gave no answer for 0\.2 s"):
        slurm.ask("sbatch", "script")


def test_settings_of_a_job_do_not_become_those_of_the_jobs_it_submits(monkeypatch, tmp_path):
    shown = tmp_path / "squeue"
    shown.write_text("#!/bin/sh\nenv\n")
    shown.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "100")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    said = slurm.ask("squeue")
    assert "SLURM_MEM_PER_NODE" not in said
    assert "SLURM_CONF=/etc/slurm.conf" in said


def test_slots_are_spread_over_gpus_and_share_their_memory(monkeypatch):
    assert [slot.environment for slot in pool.slots(3, [0, 1])] == [
        {"CUDA_VISIBLE_DEVICES": "0", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.45"},
        {"CUDA_VISIBLE_DEVICES": "1"},
        {"CUDA_VISIBLE_DEVICES": "0", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.45"},
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert len(pool.slots(None, None)) == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [slot.environment for slot in pool.slots(2, None)] == [{}, {}]


def test_a_batch_knows_the_ids_of_its_jobs():
    assert SbatchCall(0, [4, 7], [], "12").ids() == {4: "12_0", 7: "12_1"}
    assert SbatchCall(0, [4], []).ids() == {4: None}


@pytest.fixture
def follow(sbatch, tmp_path, capsys, monkeypatch):
    """A command of `o2o.sweep` where there is a SLURM: its exit code and what it said."""
    monkeypatch.setattr(slurm, "present", lambda: True)

    def call(*words):
        launched._answers.cache_clear()
        code = main([words[0], "--runs", str(tmp_path / "runs"), *words[1:]])
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def test_status_and_cancel_know_what_slurm_took_without_saying_so(planned, sbatch, tmp_path, follow):
    sbatch.lost, sbatch.silent = (0,), True
    run = planned(0, overrides=["pretrain.updates=0", "replay_init=empty"])
    send(run)
    code, said = follow("status")
    assert (code, "seed 0 PLANNED: SLURM gave no clear answer when it was submitted" in said) == (0, True), (
        said
    )
    sbatch.silent = False
    assert "QUEUED 1" in follow("status")[1]
    assert "job 101_0: " in follow("cancel", "--yes")[1]
    assert ("scancel", "101_0") in sbatch.called
    sbatch.queue = ""
    assert "CANCELLED 1" in follow("status")[1]  # though it never began


def test_what_slurm_did_not_take_is_planned_and_retried(planned, sbatch, tmp_path, follow):
    sbatch.lost, sbatch.silent = (0,), True
    send(planned(0, overrides=["pretrain.updates=0", "replay_init=empty"]))
    sbatch.silent, sbatch.queue = False, ""
    code, said = follow("why")
    assert (
        "PLANNED\n  SLURM gave no clear answer when it was submitted, and it has no such job in its queue"
        in said
    )
    assert "`retry` gives it a job" in said
    code, said = follow("retry")
    assert (code, "submitted 1 job " in said) == (0, True), said
    assert "QUEUED 1" not in said


def test_retry_gives_jobs_to_what_a_first_launch_that_was_refused_left_planned(planned, sbatch, follow):
    sbatch.most = 0
    with pytest.raises(ConfigError):
        send(planned(0))
    code, said = follow("status")
    assert code == 0
    assert said.count("2 cells: seed 0 PLANNED: not submitted: sbatch: error: AssocMax") == 1, said
    assert "`retry` gives it a job" in follow("why")[1]
    sbatch.most = 10
    code, said = follow("retry", "--set", "timeout_min=7")
    assert (code, "submitted 2 jobs as test-" in said) == (0, True), said
    assert ["--time=7" in text for text in sbatch.scripts] == [True, True]
    assert "--dependency=afterany:101_0" in sbatch.scripts[1]


def test_a_refused_retry_leaves_the_job_that_ran_the_newest(planned, sbatch, tmp_path, follow):
    run = planned(0, overrides=["pretrain.updates=0", "replay_init=empty"])
    send(run)
    end = {
        "exit_code": 137,
        "failure": "infrastructure",
        "failed": {},
        "decision": "given up",
        "reason": "enough",
    }
    manifest.note_attempt(tmp_path / "runs", "101_0", "ended", **end)
    assert "FAILED 1" in follow("status")[1]
    sbatch.most = 0
    assert follow("retry")[0] == 2
    assert "its job ended: enough" in follow("status")[1]


def test_retry_names_what_no_launch_has(planned, tmp_path, follow):
    root = tmp_path / "runs"
    manifest.add_runs(root, "test", [prepare.entry(root, run) for run in planned(0)])
    code, said = follow("retry")
    assert (code, "left out: 1 run that no launch has" in said) == (0, True), said


@pytest.fixture
def began(capsys, monkeypatch):
    """What a job said that SLURM began and that could run nothing."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def run(root, launch, number, job_id):
        place = Place(manifest.submission_directory(root, launch.sweep, launch.token), number, job_id)
        assert entry.run(place) == 1
        return place, capsys.readouterr().err

    return run


def test_what_a_job_needs_and_does_not_find_is_told_by_the_run(planned, sbatch, tmp_path, began):
    launch = send(planned(0)).submission
    assert "is PLANNED, not DONE" in began(tmp_path / "runs", launch, 1, "102_0")[1]
    status = json.loads((tmp_path / "runs" / launch.jobs[1].runs[0] / "status.json").read_text())
    assert status["state"] == "FAILED"
    assert describe(planned(0)[0].config)["identity"] == planned(0)[0].identity


def test_a_job_that_begins_notes_what_its_submitter_could_not(planned, sbatch, tmp_path, began):
    sbatch.lost, sbatch.silent = (1,), True
    launch = send(planned(0)).submission
    began(tmp_path / "runs", launch, 1, "102_0")
    assert [each.id for each in next(iter(manifest.submissions(tmp_path / "runs"))).jobs] == [
        "101_0",
        "102_0",
    ]


@pytest.mark.parametrize(
    ("decision", "noted", "reason", "told"),
    [
        ("given up", "infrastructure", "3 attempts more", "FAILED, not DONE: its job ended: 3 attempts more"),
        ("given up", "memory", "not even one seed", "FAILED, not DONE: its job ended: not even one seed"),
        ("cancelled", None, None, "CANCELLED, not DONE: its job was cancelled"),
        (None, None, None, "STALLED, not DONE\n"),  # killed with its node
    ],
)
def test_an_arm_whose_pretraining_was_killed_has_its_class_and_is_not_tried_again(
    planned, sbatch, tmp_path, began, decision, noted, reason, told
):
    root = tmp_path / "runs"
    (run,) = planned(0)
    launch = send([run]).submission
    manifest.note_attempt(root, "101_0", "started", attempt=1, node="n1", pid=1, steps=0, log_size=0)
    writer = RunDirectory(run.pretrain_directory)
    writer.start(container(run.pretraining.config), describe(run.pretraining.config))  # and not a word more
    if decision:
        end = {"exit_code": 137, "failure": noted, "failed": {}, "decision": decision, "reason": reason}
        manifest.note_attempt(root, "101_0", "ended", **end)
    place, said = began(root, launch, 1, "102_0")
    assert f"{launch.jobs[0].runs[0]} is {told}" in said
    status = json.loads((run.directory / "status.json").read_text())
    assert (status["state"], status["failure"]) == ("FAILED", noted or "infrastructure")
    # Its own job has nothing to try again, though others of this class are.
    assert not entry.end(place, 1, {"JobState": "RUNNING"})
    assert (place.endings[-1]["reason"], place.endings[-1]["failed"]) == (
        "what it finetunes from is not there",
        {},
    )


@pytest.fixture
def in_pool(planned, monkeypatch, tmp_path):
    """Runs a pool whose jobs only say that they began, and end as `codes` of their numbers say."""

    def call(runs, codes, processes=1):
        told = tmp_path / "began"
        job = tmp_path / "job"
        cases = "\n".join(
            f"{number}) set -- {' '.join(map(str, each))}; shift $(($n - 1)); exit $1;;"
            for number, each in codes.items()
        )
        count = f'echo "$2 $PYTHONPATH" >> {told}; n=$(grep -c "^$2 " {told})'
        job.write_text(f"#!/bin/sh\nshift 5\n{count}\ncase $2 in\n{cases}\nesac\n")
        job.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(job))
        monkeypatch.setattr(pool, "POLL_SECONDS", 0.01)
        code = pool.run(runs, runs, "test", 1, {"processes": processes, "gpus": []})
        return code, [int(line.split()[0]) for line in told.read_text().splitlines()]

    return call


def test_the_pool_runs_pretrainings_first_and_an_arm_when_its_own_has_ended(in_pool, planned):
    runs = planned(0, 1)
    assert in_pool(runs, {0: [0], 1: [0], 2: [0], 3: [0]}) == (0, [0, 1, 2, 3])
    assert [run.phase for run in runs] == ["finetune", "finetune"]


def test_the_pool_tries_a_killed_job_again_and_not_one_that_failed(in_pool, planned, capsys):
    scratch = planned(0, 1, overrides=["pretrain.updates=0", "replay_init=empty"])
    assert in_pool(scratch, {0: [137, 137, 0], 1: [1]}) == (1, [0, 0, 0, 1])
    said = capsys.readouterr()
    assert "2/2 ended with 1" in said.out
    assert "python -m o2o.sweep why hopper/td3/" in said.err


def test_jobs_of_the_pool_run_the_code_of_the_launch(in_pool, planned, tmp_path):
    in_pool(planned(0, overrides=["pretrain.updates=0", "replay_init=empty"]), {0: [0]})
    (code,) = (tmp_path / "runs").glob(".sweeps/test/code/*")
    assert (tmp_path / "began").read_text().split()[1].partition(os.pathsep)[0] == str(code)
