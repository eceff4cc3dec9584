from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import hidden
import pytest

from o2o.errors import ConfigError
from o2o.layout import RESULT
from o2o.sweep import jobs, manifest, pool, prepare, slurm, snapshot, submit
from o2o.sweep.identity import describe, identity, pretrain_directory, run_directory
from o2o.sweep.jobs import PlannedRun
from o2o.sweep.manifest import Batch


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
    """Answers SLURM's commands; `sbatch.scripts` has what was submitted, `sbatch.most` the jobs that are let in."""

    class Answers:
        def __init__(self):
            self.scripts, self.most, self.queue = [], 10**6, ""

        def __call__(self, command, *words, seconds=None):
            if command == "sbatch":
                text = Path(words[0]).read_text(encoding="utf-8")
                tasks = 1 + int(text.partition("--array=0-")[2].partition("%")[0])
                if tasks > self.most:
                    raise slurm.LimitError(["sbatch: error: AssocMaxSubmitJobLimit"])
                self.most -= tasks
                self.scripts.append(text)
                return f"Submitted batch job {100 + len(self.scripts)}\n"
            return {"squeue": self.queue, "scontrol": "MaxArraySize            = 4\n"}[command]

    answers = Answers()
    monkeypatch.setattr(slurm, "require", lambda: None)
    monkeypatch.setattr(slurm, "ask", answers)
    monkeypatch.setattr("o2o.sweep.array.ask", answers)
    return answers


def send(runs, seeds=10, **settings):
    return submit.to_slurm(runs, runs, "test", seeds, {"timeout_min": 5, **settings})


def test_seeds_of_a_cell_share_jobs(planned):
    packed = jobs.pack(planned(*range(5), algorithms=("td3", "td3_c")), 2)
    assert [[run.config.seed for run in job] for job in packed] == [[0, 1], [2, 3], [4]] * 2


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


def test_a_refusal_leaves_nothing_behind(planned, sbatch, tmp_path):
    sbatch.most = 0
    with pytest.raises(ConfigError, match="AssocMaxSubmitJobLimit"):
        send(planned(0))
    assert list((tmp_path / "runs").glob(".sweeps/*/submissions/*")) == []


def test_a_launcher_setting_that_submitit_does_not_know_is_refused(planned, sbatch):
    with pytest.raises(ConfigError, match="partitionn"):
        send(planned(0), partitionn="main")


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
    assert Batch(0, [4, 7], [], "12").ids() == {4: "12_0", 7: "12_1"}
    assert Batch(0, [4], []).ids() == {4: None}


def test_what_a_job_needs_and_does_not_find_is_told_by_the_run(planned, sbatch, tmp_path):
    launch = send(planned(0)).submission
    place = manifest.submission_directory(tmp_path / "runs", launch.sweep, launch.token)
    command = [sys.executable, "-m", "o2o.sweep.job", "run", str(place), "1", "102_0"]
    done = subprocess.run(command, cwd=snapshot.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "is PLANNED, not DONE" in done.stderr
    status = json.loads((tmp_path / "runs" / launch.jobs[1].runs[0] / "status.json").read_text())
    assert status["state"] == "FAILED"
    assert describe(planned(0)[0].config)["identity"] == planned(0)[0].identity


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
