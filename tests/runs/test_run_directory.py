from __future__ import annotations

import json

import numpy as np
import pytest
from started import CONFIG, IDENTITY, started

from o2o.runs.directory import layout
from o2o.runs.directory.layout import RunState
from o2o.runs.directory.reader import read_run
from o2o.runs.directory.writer import RunDirectory


@pytest.fixture
def directory(tmp_path):
    return started(tmp_path / "seed-3")


def test_a_new_attempt_does_not_continue_a_torn_row(directory):
    directory.event("first")
    with (directory.path / layout.EVENTS).open("a") as stream:
        stream.write('{"event": "to')
    again = RunDirectory(directory.path)
    again.start(CONFIG, IDENTITY)
    again.event("second")
    events = [json.loads(line) for line in (directory.path / layout.EVENTS).read_text().splitlines()]
    assert [(row["attempt"], row["event"]) for row in events] == [(1, "first"), (2, "second")]


def test_states_follow_the_life_of_a_run(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    assert directory.state() is RunState.PLANNED
    directory.start(CONFIG, IDENTITY)
    assert directory.state() is RunState.RUNNING
    directory.interrupt("SIGTERM")
    assert directory.state() is RunState.INTERRUPTED
    directory.start(CONFIG, IDENTITY)
    directory.fail("Traceback …\nValueError: bad", "ValueError: bad", "code")
    assert directory.state() is RunState.FAILED
    directory.start(CONFIG, IDENTITY)
    directory.finish({"online_score": np.float32(50)})
    assert directory.state() is RunState.DONE
    assert read_run(directory.path).result == {"online_score": 50.0}


def test_a_failure_keeps_its_traceback_in_its_attempt_and_its_step_in_the_status(directory):
    directory.progress("finetune", 512_000)
    directory.fail("Traceback …\nValueError: bad", "ValueError: bad", "code")
    attempt = json.loads((directory.path / "attempts/1.json").read_text())
    assert attempt["traceback"] == "Traceback …\nValueError: bad"
    assert attempt["error"] == "ValueError: bad"
    status = json.loads((directory.path / layout.STATUS).read_text())
    assert (status["state"], status["phase"], status["step"]) == ("FAILED", "finetune", 512_000)


def test_killed_before_the_result_is_not_done(directory, monkeypatch):
    def write(file, content):
        if file == layout.RESULT:
            raise KeyboardInterrupt
        RunDirectory.write(directory, file, content)

    monkeypatch.setattr(directory, "write", write)
    with pytest.raises(KeyboardInterrupt):
        directory.finish({"online_score": 50.0})
    assert directory.state() is RunState.INTERRUPTED


def test_starting_again_makes_a_done_run_not_done(directory):
    directory.finish({})
    directory.start(CONFIG, IDENTITY)
    assert directory.state() is RunState.RUNNING


def test_a_write_that_fails_leaves_the_old_file_and_no_temporary(directory):
    directory.write("result.json", {"a": 1})
    with pytest.raises(TypeError):
        directory.write("result.json", {"a": object()})
    assert json.loads((directory.path / "result.json").read_text()) == {"a": 1}
    assert not list(directory.path.glob(".*"))


def test_rewinding_restores_the_files_of_the_checkpoint_byte_for_byte(directory):
    directory.append(layout.TRAIN, {"step": 1, "critic_loss": 0.1})
    directory.append(layout.EVAL, {"step": 1, "score": 1.0})
    before = {file: (directory.path / file).read_bytes() for file in (layout.TRAIN, layout.EVAL)}
    offsets = directory.offsets()
    directory.append(layout.TRAIN, {"step": 2, "critic_loss": 0.2})
    directory.append(layout.EPISODES, {"env_step": 1000, "return": 5.0, "length": 1000})
    directory.rewind(offsets)
    assert {file: (directory.path / file).read_bytes() for file in before} == before
    assert read_run(directory.path).episodes == {}


def test_rewinding_refuses_a_file_that_lost_rows(directory):
    directory.append(layout.TRAIN, {"step": 1})
    offsets = directory.offsets()
    (directory.path / layout.TRAIN).write_text("")
    with pytest.raises(ValueError, match=r"train\.jsonl has 0 bytes"):
        directory.rewind(offsets)
