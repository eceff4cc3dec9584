"""A user without a name and without a home directory, as in many a container, is no reason to stop."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
from composing import composed

from o2o.config.build import build
from o2o.datasets import minari
from o2o.errors import ConfigError
from o2o.runs.recording import tracker
from o2o.sweep.ledger import manifest

ROOT = Path(__file__).parents[2]
NO_ENTRY = """
import pwd

def getpwuid(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")

pwd.getpwuid = getpwuid
"""


@pytest.fixture
def nobody(monkeypatch):
    """This process has a number, but neither a name nor a home."""

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for variable in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME", "MINARI_DATASETS_PATH", "WANDB_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.delenv("WANDB_CONFIG_DIR", raising=False)


def test_who_launched_it_is_a_number(nobody):
    assert manifest.user() == str(os.getuid())


def test_a_path_in_a_home_that_is_not_known_is_named(nobody):
    with pytest.raises(ConfigError, match=r"paths\.data=~/x: no home directory is known"):
        build(composed("paths.data='~/x'"))


def test_what_is_looked_for_in_a_home_is_not_there(nobody, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not minari.file_path("mujoco/hopper/medium-v0").exists()
    assert not tracker.logged_in()
    # wandb's settings, which it would look for in a home; put back by the fixture
    monkeypatch.setenv("WANDB_CONFIG_DIR", os.environ["WANDB_CONFIG_DIR"])


@pytest.mark.parametrize(
    "words",
    [
        [str(ROOT / "launch.py"), "launch.dry_run=true"],
        ["-m", "o2o.sweep", "status"],
        ["-m", "o2o.datasets", "list"],
        ["-m", "analysis", "runs"],
    ],
    ids=lambda words: " ".join(Path(word).name for word in words),
)
def test_every_command_works_for_nobody(words, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "sitecustomize.py").write_text(NO_ENTRY)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    checked = [sys.executable, "-c", "import getpass; getpass.getuser()"]
    assert subprocess.run(checked, env=environment, capture_output=True, check=False).returncode == 1
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr
