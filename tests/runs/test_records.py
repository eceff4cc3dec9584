from __future__ import annotations

import errno
import json
import math
import os

import numpy as np
import pytest
import yaml
from started import started

from o2o.runs.directory import layout
from o2o.runs.directory.reader import read_run


@pytest.fixture
def directory(tmp_path):
    return started(tmp_path / "seed-3")


@pytest.mark.parametrize(
    "value", [0.1, 1e-310, 1 / 3, 123456789.123456789, np.float64(2 / 3), np.float32(0.1)]
)
def test_floats_read_back_exactly(directory, value):
    directory.append(layout.TRAIN, {"x": value})
    assert read_run(directory.path).train["x"][0] == float(value)


def test_non_finite_values_are_legal_json_and_read_back_as_floats(directory):
    directory.append(layout.TRAIN, {"x": math.nan, "y": np.float32("inf"), "z": -math.inf, "n": None})
    text = (directory.path / layout.TRAIN).read_text()
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
    directory.append(layout.EVAL, {"phase": "pretrain", "step": 1, "score": 2, "returns": [1.0, 2.0]})
    directory.append(
        layout.EVAL, {"phase": "finetune", "step": 2, "score": 2.5, "returns": (3.0,), "late": 7}
    )
    columns = read_run(directory.path).eval
    assert columns["phase"].tolist() == ["pretrain", "finetune"]
    assert columns["step"].dtype == np.int64
    assert columns["score"].tolist() == [2.0, 2.5]
    assert [r.tolist() for r in columns["returns"]] == [[1.0, 2.0], [3.0]]
    assert np.isnan(columns["late"][0])
    assert columns["late"][1] == 7


def test_a_torn_row_is_dropped_and_named(directory):
    directory.append(layout.EVAL, {"step": 1})
    with (directory.path / layout.EVAL).open("a") as stream:
        stream.write('{"step": 2, "sco\n{"step": 3}\n{"st')
    run = read_run(directory.path)
    assert run.eval["step"].tolist() == [1, 3]
    assert ["row 2" in run.notes[0], "row 4" in run.notes[1]] == [True, True]


def test_the_config_reads_back_as_it_was(directory):
    expected = {"seed": 3, "learning_rate": {"policy": 3e-4}, "network": {"hidden_sizes": [256, 256]}}
    assert read_run(directory.path).config == expected
    assert yaml.safe_load((directory.path / "config.yaml").read_text()) == expected


def test_run_directories_are_found_and_hidden_folders_are_not_searched(tmp_path):
    for name in ("hopper/td3/a/seed-1", "hopper/td3/a/seed-0", ".sweeps/x/seed-0"):
        started(tmp_path / name)
    assert [p.name for p in layout.find_runs(tmp_path, [])] == ["seed-0", "seed-1"]


def test_linked_directories_are_searched_and_no_circle_is_run_round(tmp_path):
    root, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    started(root / "hopper/td3/a/seed-0")
    started(elsewhere / "sac/b/seed-1")
    started(tmp_path / "alone/seed-2")
    (root / "linked").symlink_to(elsewhere)
    (root / "ant/td3/c").mkdir(parents=True)
    (root / "ant/td3/c/seed-2").symlink_to(tmp_path / "alone/seed-2")
    (root / "hopper/up").symlink_to(root)
    (root / "gone").symlink_to(tmp_path / "nowhere")
    (elsewhere / "back").symlink_to(root)  # from there to here, and from here to there
    found = layout.find_runs(root, unreadable := [])
    below = [path.relative_to(root).as_posix() for path in found]
    assert below == ["ant/td3/c/seed-2", "hopper/td3/a/seed-0", "linked/sac/b/seed-1"]
    assert unreadable == []


def test_one_run_is_found_by_its_own_directory(tmp_path):
    started(tmp_path / "a/seed-0")
    assert layout.find_runs(tmp_path / "a/seed-0", []) == [tmp_path / "a/seed-0"]


def test_a_directory_that_cannot_be_searched_is_told(tmp_path, monkeypatch):
    for name in ("a/x/seed-0", "b/y/seed-0"):
        started(tmp_path / name)
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("/a"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert layout.find_runs(tmp_path, unreadable := []) == [tmp_path / "b/y/seed-0"]
    assert unreadable == [f"{tmp_path}/a cannot be searched: Permission denied"]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no config\.yaml"):
        read_run(tmp_path)
