"""Bad input is told on one screen that names the culprit; the exit code is 2, and nothing on disk has changed."""

from __future__ import annotations

import copy
import shutil
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from composing import composed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torture import files, results, words
from torture.trial import Case, shortcomings

from o2o.config.build import build, container, load
from o2o.errors import TOLD_PROBLEMS, ConfigError
from o2o.training import checkpoint
from o2o.training.checkpoint import CheckpointError


def named(cases: list[Case], fast: int = 1) -> list[object]:
    """The cases under their names, of which every `fast`-th is not slow: `make torture` and `test-slow` run all."""
    return [
        pytest.param(case, id=case.name, marks=() if i % fast == 0 else pytest.mark.slow)
        for i, case in enumerate(cases)
    ]


@pytest.mark.parametrize("case", named(words.cases(), fast=20))
def test_a_malformed_command_line_is_refused(case: Case, tmp_path: Path):
    assert shortcomings(case, tmp_path) == []


@pytest.mark.parametrize("case", named(files.cases(), fast=4))
def test_a_malformed_dataset_is_refused(case: Case, tmp_path: Path):
    assert shortcomings(case, tmp_path) == []


@pytest.fixture(scope="session")
def finished(dataset: Path, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("finished")
    results.finished(directory, dataset)
    return directory


@pytest.mark.parametrize("case", named(results.cases()))
def test_a_malformed_run_directory_is_refused(case: Case, finished: Path, tmp_path: Path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    assert shortcomings(case, tmp_path) == []


# Values of every kind that YAML has, some of them right for some key.
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["???", "td3_c", "hopper", "auto", "${seed}", "1e-3", 0.5, 16, 1, 10**400, "a\0b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(tree: dict, above: tuple = ()) -> list[tuple]:
    """The way to every key."""
    inner = [
        way for key, value in tree.items() if isinstance(value, dict) for way in places(value, (*above, key))
    ]
    return [*((*above, key) for key in tree), *inner]


@pytest.fixture(scope="module")
def tree() -> dict:
    return composed("dataset=hopper-medium-v2", "algorithm=td3_c")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_stands_anywhere_is_told_or_builds_what_is_read_back_equal(
    data, tree: dict, tmp_path_factory
):
    changed = copy.deepcopy(tree)
    for _ in range(data.draw(st.integers(1, 3))):
        *above, key = data.draw(st.sampled_from(places(changed)))
        node = changed
        for name in above:
            node = node[name]
        match data.draw(st.sampled_from(["another value", "no key", "another key"])):
            case "another value":
                node[key] = data.draw(values)
            case "no key":
                del node[key]
            case "another key":
                node[data.draw(st.text(max_size=8))] = data.draw(values)
        if not changed:
            break
    problems: list[str] = []
    try:
        config = build(changed)
    except ConfigError as error:
        problems = error.problems
        assert problems, "an error that says nothing"
    assert len(problems) <= TOLD_PROBLEMS + 1
    assert all(len(problem) < 1500 for problem in problems)
    if problems:
        return
    path = tmp_path_factory.mktemp("stored") / "config.yaml"
    path.write_text(yaml.safe_dump(container(config)))
    assert load(path) == config


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path):
    path = tmp_path / "final.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights.npy", results.bomb())
    tracemalloc.start()
    with pytest.raises(CheckpointError):
        checkpoint.load(path, {"weights": np.zeros(3, np.float32)})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**23
