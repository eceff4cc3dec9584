from __future__ import annotations

import json
import subprocess
import sys

import pytest

from o2o.tracker import Tracker, open_tracker


@pytest.fixture
def nobody_logged_in(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "home"))


def opened(mode, directory):
    return open_tracker(mode, "project", "0123abcd", "td3-offline", ["tag"], {"seed": 3}, directory)


def records_of(directory):
    (path,) = directory.glob("wandb/offline-run-*/*.wandb")
    inspect = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    lines = subprocess.run(inspect, check=True, capture_output=True, text=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.usefixtures("nobody_logged_in")
def test_offline_rows_are_read_back_with_their_own_step(tmp_path):
    tracker = opened("offline", tmp_path)
    tracker.log({"phase": "finetune", "step": 500_500, "score": 42.5})
    tracker.log({"phase": "finetune", "step": 501_000, "score": 43.5})
    tracker.finish()
    text = json.dumps(records_of(tmp_path))
    assert [word in text for word in ("finetune/score", "42.5", "43.5", "500500", "0123abcd")] == [True] * 5


@pytest.mark.usefixtures("nobody_logged_in")
@pytest.mark.parametrize(("mode", "said"), [("auto", False), ("online", True)])
def test_without_a_key_online_modes_track_offline_and_never_prompt(tmp_path, caplog, mode, said):
    opened(mode, tmp_path).finish()
    assert list(tmp_path.glob("wandb/offline-run-*"))
    assert ("no wandb API key" in caplog.text) is said


def test_mode_none_writes_nothing_and_imports_nothing(tmp_path):
    code = (
        "import sys; from o2o.tracker import open_tracker;"
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
    tracker.log({"step": 1})
    tracker.log({"step": 2})
    tracker.finish()
    assert [record.getMessage().count("disk full") for record in caplog.records] == [1]


def test_a_wandb_that_does_not_start_is_survived(tmp_path, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    opened("offline", tmp_path).log({"step": 1})
    assert "nothing is tracked" in caplog.text


def test_a_failed_run_is_marked_with_an_exit_code():
    class Run:
        def finish(self, exit_code):
            self.exit_code = exit_code

    failed, finished = Run(), Run()
    Tracker(failed).finish(failed=True)
    Tracker(finished).finish()
    assert (failed.exit_code, finished.exit_code) == (1, 0)
