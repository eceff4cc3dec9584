from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import wandb
from wandb_file import history, read_records, summary, values

from o2o.runs.directory.layout import EVAL, FINETUNE, TRAIN
from o2o.runs.directory.writer import RunDirectory
from o2o.runs.recording import tracker as tracking
from o2o.runs.recording.tracker import Tracker, open_tracker


@pytest.fixture(autouse=True)
def nobody_logged_in(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "home"))
    monkeypatch.setattr(tracking, "_unreachable", False)
    yield
    end_of_process()


def opened(mode, directory, run_id=None, group="td3-offline"):
    return open_tracker(
        mode,
        "project",
        run_id or directory.name,
        group,
        ["tag"],
        {"seed": 3},
        directory,
        job_type="finetune",
        name="td3 3",
    )


def end_of_process():
    """Ends wandb's service, as the end of a process does: `finish` alone does not wait for the file."""
    wandb.teardown()


def the_file(directory):
    (path,) = directory.glob("wandb/offline-run-*/*.wandb")
    return path


def records_of(directory):
    end_of_process()
    return read_records(the_file(directory))


def runs(records):
    return [record.run for record in records if record.HasField("run")]


def a_run(path):
    """A run directory with rows at 0, 500 and 1000, of which 500 has metrics and an evaluation."""
    directory = RunDirectory(path)
    at = {"phase": FINETUNE}
    directory.append(EVAL, at | {"step": 0, "score": 50.0, "returns": [1.0, 2.0]})
    directory.append(TRAIN, at | {"step": 500, "critic_loss": 0.25})
    directory.append(EVAL, at | {"step": 500, "score": float("nan"), "returns": [0.0, 0.0]})
    directory.append(TRAIN, at | {"step": 1000, "critic_loss": 0.5})
    return directory.path


TOLD = [
    {"step": 0, "finetune/score": 50.0},
    {"step": 500, "finetune/critic_loss": 0.25, "finetune/score": "NaN"},
    {"step": 1000, "finetune/critic_loss": 0.5},
]


def test_our_reader_finds_what_wandbs_own_does(tmp_path):
    tracker = opened("offline", tmp_path)
    for step in range(1000):
        tracker.log({"step": step, "score": step / 7})
    tracker.finish()
    end_of_process()
    inspect = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(the_file(tmp_path))]
    lines = subprocess.run(inspect, check=True, capture_output=True, text=True).stdout.splitlines()
    theirs = [json.loads(line) for line in lines]
    rows = [record["history"]["item"] for record in theirs if record["type"] == "history"]
    assert [(row["step"], row["score"]) for row in rows] == [(step, step / 7) for step in range(1000)]
    assert history(records_of(tmp_path)) == [{"step": row["step"], "score": row["score"]} for row in rows]


def test_what_is_recorded_at_one_step_is_one_row_on_our_own_axis(tmp_path):
    tracker = opened("offline", tmp_path)
    tracker.log({"phase": "finetune", "step": 500_500, "critic_loss": 0.5})
    tracker.log({"phase": "finetune", "step": 500_500, "score": 42.5})
    tracker.log({"phase": "finetune", "step": 501_000, "critic_loss": 0.25})
    tracker.finish()
    records = records_of(tmp_path)
    assert history(records) == [
        {"step": 500_500, "finetune/critic_loss": 0.5, "finetune/score": 42.5},
        {"step": 501_000, "finetune/critic_loss": 0.25},
    ]
    metrics = [record.metric for record in records if record.HasField("metric")]
    assert {metric.glob_name: metric.step_metric for metric in metrics}["*"] == "step"


def test_a_run_carries_its_identity_group_type_tags_and_config(tmp_path):
    opened("offline", tmp_path).finish()
    (run,) = runs(records_of(tmp_path))
    assert (run.run_id, run.display_name, run.run_group) == (tmp_path.name, "td3 3", "td3-offline")
    assert (run.job_type, list(run.tags)) == ("finetune", ["tag"])
    assert values(run.config.update)["seed"] == 3


def test_names_that_are_too_long_for_wandb_are_shortened_and_the_run_is_tracked(tmp_path):
    long = "regen-" + 200 * "x"
    open_tracker(
        "offline", "project", "id", long, ["finetune", long, "td3"], {}, tmp_path, name=long
    ).finish()
    (run,) = runs(records_of(tmp_path))
    assert ("finetune" in run.tags, "td3" in run.tags) == (True, True)
    assert sorted(map(len, run.tags)) == [3, 8, 64]
    assert (len(run.run_group), len(run.display_name)) == (128, 128)


def test_members_of_a_job_are_runs_of_their_own_in_one_group(tmp_path):
    trackers = [opened("offline", tmp_path / str(seed), f"id{seed}") for seed in range(3)]
    for step in (1, 2):
        for seed, tracker in enumerate(trackers):
            tracker.log({"step": step, "score": 10.0 * seed + step})
    for tracker in trackers:
        tracker.finish()
    found = [records_of(tmp_path / str(seed)) for seed in range(3)]
    assert [run.run_id for records in found for run in runs(records)] == ["id0", "id1", "id2"]
    assert {run.run_group for records in found for run in runs(records)} == {"td3-offline"}
    assert [[row["score"] for row in history(records)] for records in found] == [
        [1.0, 2.0],
        [11.0, 12.0],
        [21.0, 22.0],
    ]


def test_a_second_attempt_tells_the_whole_run_once(tmp_path):
    path = a_run(tmp_path)
    first = opened("offline", tmp_path)
    for step in (0, 500, 1000, 1500):  # 1500 is of a future that its checkpoint does not know
        first.log({"phase": FINETUNE, "step": step, "score": 1.0})
    first.finish(interrupted=True)
    end_of_process()
    second = opened("offline", tmp_path)
    second.retell(path)
    second.log({"phase": FINETUNE, "step": 1500, "score": 60.0})
    second.finish()
    records = records_of(tmp_path)  # one file is left
    assert history(records) == [*TOLD, {"step": 1500, "finetune/score": 60.0}]


def test_a_run_can_go_on_in_the_process_that_finished_it(tmp_path):
    for step in range(4):  # a job whose other members failed goes on without them
        tracker = opened("offline", tmp_path)
        tracker.log({"step": step})
        tracker.finish(interrupted=True)
    end_of_process()
    files = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert sorted(row["step"] for path in files for row in history(read_records(path))) == [0, 1, 2, 3]


def test_a_run_that_starts_again_leaves_nothing_of_the_earlier_one(tmp_path):
    first = opened("offline", tmp_path)
    first.log({"step": 1, "score": 1.0})
    first.finish()
    end_of_process()
    second = opened("offline", tmp_path)
    second.retell(tmp_path)  # whose records are empty
    second.log({"step": 1, "score": 2.0})
    second.finish()
    assert history(records_of(tmp_path)) == [{"step": 1, "score": 2.0}]


def test_another_runs_file_is_left_alone(tmp_path):
    other = opened("offline", tmp_path, "ffff0000")
    other.finish()
    tracker = opened("offline", tmp_path)
    tracker.retell(a_run(tmp_path))
    tracker.finish()
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 2


def test_a_killed_process_loses_nothing_once_the_run_goes_on(tmp_path):
    code = (
        "import os, sys, time; from o2o.runs.recording.tracker import open_tracker;"
        f"t = open_tracker('offline', 'p', {tmp_path.name!r}, 'g', [], {{}}, {str(tmp_path)!r});"
        "[t.log({'phase': 'finetune', 'step': s, 'score': 1.0}) for s in (0, 500)];"
        "print('logged', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"logged\n"
        process.send_signal(signal.SIGKILL)
    tracker = opened("offline", tmp_path)
    tracker.retell(a_run(tmp_path))
    tracker.finish()
    assert history(records_of(tmp_path)) == TOLD


def test_the_result_is_the_summary(tmp_path):
    tracker = opened("offline", tmp_path)
    tracker.log({"phase": "finetune", "step": 1, "score": 42.5})
    tracker.summarise({"delta": -12.5, "collapse": {"regret": 7.25, "recovery_env_steps": None}})
    tracker.finish()
    found = summary(records_of(tmp_path))
    assert found["delta"] == -12.5
    assert found["collapse"] == {"regret": 7.25, "recovery_env_steps": None}
    assert found["finetune/score"] == 42.5


@pytest.mark.parametrize(
    ("how", "exit_code", "preempted"),
    [({}, 0, False), ({"failed": True}, 1, False), ({"interrupted": True}, 1, True)],
)
def test_how_a_run_ended_is_in_its_file(how, exit_code, preempted, tmp_path):
    tracker = opened("offline", tmp_path)
    tracker.log({"step": 1})
    tracker.finish(**how)
    records = records_of(tmp_path)
    assert [record.exit.exit_code for record in records if record.HasField("exit")] == [exit_code]
    assert any(record.HasField("preempting") for record in records) is preempted


@pytest.mark.parametrize(("mode", "said"), [("auto", False), ("wandb", True)])
def test_without_a_key_online_modes_track_offline(tmp_path, caplog, mode, said):
    opened(mode, tmp_path).finish()
    assert the_file(tmp_path)
    assert ("no wandb API key" in caplog.text) is said


def test_nobody_is_asked_at_a_terminal(tmp_path):
    code = (
        "import sys; from o2o.runs.recording.tracker import open_tracker;"
        f"open_tracker('wandb', 'p', 'id', 'g', [], {{}}, {str(tmp_path)!r}).finish(); print('went on')"
    )
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        assert process.wait(timeout=180) == 0
    assert b"went on" in os.read(ours, 4096)
    os.close(ours)


def test_a_server_that_does_not_answer_is_waited_for_once(tmp_path, caplog, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setattr(tracking, "INIT_SECONDS", 1)
        start = time.monotonic()
        opened("auto", tmp_path / "0").finish()
        first = time.monotonic()
        opened("auto", tmp_path / "1").finish()
        assert time.monotonic() - first < (first - start) + 5
    assert the_file(tmp_path / "0")
    assert the_file(tmp_path / "1")
    assert caplog.text.count("not reachable") == 1


@pytest.mark.parametrize(("variable", "folders"), [("offline", 1), ("disabled", 0)])
def test_auto_does_what_wandb_mode_says(variable, folders, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", variable)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    opened("auto", tmp_path).finish()
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == folders


def test_mode_none_writes_nothing_and_imports_nothing(tmp_path):
    code = (
        "import sys; from o2o.runs.recording.tracker import open_tracker;"
        f"t = open_tracker('none', 'p', 'id', 'g', [], {{}}, {str(tmp_path)!r}); t.log({{'step': 1}}); t.finish();"
        "sys.exit('wandb' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not list(tmp_path.iterdir())


def test_a_failing_tracker_is_reported_once_and_never_raises(caplog):
    class Broken:
        def log(self, row):
            raise OSError("disk full")

    tracker = Tracker(Broken())
    for step in range(3):
        tracker.log({"step": step})
    tracker.summarise({"delta": 1.0})
    tracker.finish()
    assert [record.getMessage().count("disk full") for record in caplog.records] == [1]


def test_records_that_cannot_be_told_stop_the_tracking_only(tmp_path, caplog):
    (tmp_path / TRAIN).write_text("{broken\n")
    tracker = opened("offline", tmp_path)
    tracker.retell(tmp_path)
    tracker.finish()
    assert "tracking stopped (retell" in caplog.text


def test_a_wandb_that_does_not_start_is_survived(tmp_path, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    tracker = opened("offline", tmp_path)
    tracker.log({"step": 1})
    tracker.retell(Path("nowhere"))
    assert "nothing is tracked" in caplog.text


def test_an_unreadable_netrc_is_no_key(tmp_path, monkeypatch):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine nobody knows\n")
    opened("auto", tmp_path).finish()
    assert the_file(tmp_path)
