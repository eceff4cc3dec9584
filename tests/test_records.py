from __future__ import annotations

import json
import math

import numpy as np
import pytest
import yaml

from o2o import records
from o2o.records import RunDirectory, State, read_run

CONFIG = {"seed": 3, "learning_rate": {"policy": 3e-4}, "network": {"hidden_sizes": (256, 256)}}
IDENTITY = {"hash": "0123abcd"}


@pytest.fixture
def directory(tmp_path):
    directory = RunDirectory(tmp_path / "seed-3")
    directory.start(CONFIG, IDENTITY)
    return directory


@pytest.mark.parametrize(
    "value", [0.1, 1e-310, 1 / 3, 123456789.123456789, np.float64(2 / 3), np.float32(0.1)]
)
def test_floats_read_back_exactly(directory, value):
    directory.append(records.TRAIN, {"x": value})
    assert read_run(directory.path).train["x"][0] == float(value)


def test_non_finite_values_are_legal_json_and_read_back_as_floats(directory):
    directory.append(records.TRAIN, {"x": math.nan, "y": np.float32("inf"), "z": -math.inf, "n": None})
    text = (directory.path / records.TRAIN).read_text()
    assert json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON")) == {
        "x": "NaN",
        "y": "Infinity",
        "z": "-Infinity",
        "n": None,
    }
    train = read_run(directory.path).train
    assert np.isnan(train["x"][0])
    assert train["y"][0] == math.inf
    assert train["z"][0] == -math.inf
    assert np.isnan(train["n"][0])


def test_columns_have_the_kind_of_their_values(directory):
    directory.append(records.EVAL, {"phase": "pretrain", "step": 1, "score": 2, "returns": [1.0, 2.0]})
    directory.append(
        records.EVAL, {"phase": "finetune", "step": 2, "score": 2.5, "returns": (3.0,), "late": 7}
    )
    columns = read_run(directory.path).eval
    assert columns["phase"].tolist() == ["pretrain", "finetune"]
    assert columns["step"].dtype == np.int64
    assert columns["score"].tolist() == [2.0, 2.5]
    assert [r.tolist() for r in columns["returns"]] == [[1.0, 2.0], [3.0]]
    assert np.isnan(columns["late"][0])
    assert columns["late"][1] == 7


def test_a_torn_row_is_dropped_and_named(directory):
    directory.append(records.EVAL, {"step": 1})
    with (directory.path / records.EVAL).open("a") as stream:
        stream.write('{"step": 2, "sco\n{"step": 3}\n{"st')
    run = read_run(directory.path)
    assert run.eval["step"].tolist() == [1, 3]
    assert ["row 2" in run.notes[0], "row 4" in run.notes[1]] == [True, True]


def test_a_new_attempt_does_not_continue_a_torn_row(directory):
    directory.event("first")
    with (directory.path / records.EVENTS).open("a") as stream:
        stream.write('{"event": "to')
    again = RunDirectory(directory.path)
    again.start(CONFIG, IDENTITY)
    again.event("second")
    events = [json.loads(line) for line in (directory.path / records.EVENTS).read_text().splitlines()]
    assert [(row["attempt"], row["event"]) for row in events] == [(1, "first"), (2, "second")]


def test_states_follow_the_life_of_a_run(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    assert directory.state() is State.PLANNED
    directory.start(CONFIG, IDENTITY)
    assert directory.state() is State.RUNNING
    directory.interrupt("SIGTERM")
    assert directory.state() is State.INTERRUPTED
    directory.start(CONFIG, IDENTITY)
    directory.fail("Traceback …\nValueError: bad", "ValueError: bad", "code")
    assert directory.state() is State.FAILED
    directory.start(CONFIG, IDENTITY)
    directory.finish({"online_score": np.float32(50)})
    assert directory.state() is State.DONE
    assert read_run(directory.path).result == {"online_score": 50.0}


def test_a_failure_keeps_its_traceback_in_its_attempt_and_its_step_in_the_status(directory):
    directory.progress("finetune", 512_000)
    directory.fail("Traceback …\nValueError: bad", "ValueError: bad", "code")
    attempt = json.loads((directory.path / "attempts/1.json").read_text())
    assert attempt["traceback"] == "Traceback …\nValueError: bad"
    assert attempt["error"] == "ValueError: bad"
    status = json.loads((directory.path / records.STATUS).read_text())
    assert (status["state"], status["phase"], status["step"]) == ("FAILED", "finetune", 512_000)


def test_killed_before_the_result_is_not_done(directory, monkeypatch):
    def write(file, content):
        if file == records.RESULT:
            raise KeyboardInterrupt
        RunDirectory.write(directory, file, content)

    monkeypatch.setattr(directory, "write", write)
    with pytest.raises(KeyboardInterrupt):
        directory.finish({"online_score": 50.0})
    assert directory.state() is State.INTERRUPTED


def test_starting_again_makes_a_done_run_not_done(directory):
    directory.finish({})
    directory.start(CONFIG, IDENTITY)
    assert directory.state() is State.RUNNING


def test_a_write_that_fails_leaves_the_old_file_and_no_temporary(directory):
    directory.write("result.json", {"a": 1})
    with pytest.raises(TypeError):
        directory.write("result.json", {"a": object()})
    assert json.loads((directory.path / "result.json").read_text()) == {"a": 1}
    assert not list(directory.path.glob(".*"))


def test_rewinding_restores_the_files_of_the_checkpoint_byte_for_byte(directory):
    directory.append(records.TRAIN, {"step": 1, "critic_loss": 0.1})
    directory.append(records.EVAL, {"step": 1, "score": 1.0})
    before = {file: (directory.path / file).read_bytes() for file in (records.TRAIN, records.EVAL)}
    offsets = directory.offsets()
    directory.append(records.TRAIN, {"step": 2, "critic_loss": 0.2})
    directory.append(records.EPISODES, {"env_step": 1000, "return": 5.0, "length": 1000})
    directory.rewind(offsets)
    assert {file: (directory.path / file).read_bytes() for file in before} == before
    assert read_run(directory.path).episodes == {}


def test_rewinding_refuses_a_file_that_lost_rows(directory):
    directory.append(records.TRAIN, {"step": 1})
    offsets = directory.offsets()
    (directory.path / records.TRAIN).write_text("")
    with pytest.raises(ValueError, match=r"train\.jsonl has 0 bytes"):
        directory.rewind(offsets)


def test_the_config_reads_back_as_it_was(directory):
    expected = {"seed": 3, "learning_rate": {"policy": 3e-4}, "network": {"hidden_sizes": [256, 256]}}
    assert read_run(directory.path).config == expected
    assert yaml.safe_load((directory.path / "config.yaml").read_text()) == expected


def test_run_directories_are_found_and_hidden_folders_are_not_searched(tmp_path):
    for name in ("hopper/td3/a/seed-1", "hopper/td3/a/seed-0", ".sweeps/x/seed-0"):
        RunDirectory(tmp_path / name).start(CONFIG, IDENTITY)
    assert [p.name for p in records.find_runs(tmp_path)] == ["seed-0", "seed-1"]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no config\.yaml"):
        read_run(tmp_path)
