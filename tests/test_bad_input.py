"""Bad input is told on one screen that names the culprit; the exit code is 2, and nothing on disk has changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from torture import files, results, words
from torture.trial import Case, shortcomings


def named(cases: list[Case]) -> list[object]:
    return [pytest.param(case, id=case.name) for case in cases]


@pytest.mark.parametrize("case", named(words.cases()))
def test_a_malformed_command_line_is_refused(case: Case, tmp_path: Path):
    assert shortcomings(case, tmp_path) == []


@pytest.mark.parametrize("case", named(files.cases()))
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
