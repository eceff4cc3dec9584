"""What wandb is told of real runs, read back from its files and compared with the run directory."""

from __future__ import annotations

import json

import pytest
import wandb
from test_resume import ALWAYS, Killed, kill_at
from wandb_file import history, read_records, summary

from o2o.runs import job
from o2o.runs.directory.layout import EVAL, RESULT, TRAIN
from o2o.runs.identity import identity, pretrain_directory, run_directory
from o2o.runs.recording.recorder import Recorder


@pytest.fixture(autouse=True)
def nobody_logged_in(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    yield
    wandb.teardown()


def told(directory):
    """What the one offline file of a run holds."""
    wandb.teardown()
    (path,) = directory.glob("wandb/wandb/offline-run-*/*.wandb")
    return read_records(path)


def recorded(directory):
    """The rows of the run directory as wandb should have them: one a step, names prefixed by the phase."""
    rows = {}
    for file in (TRAIN, EVAL):
        for line in (directory / file).read_text().splitlines():
            row = json.loads(line)
            names = {n: v for n, v in row.items() if n not in ("phase", "step") and not isinstance(v, list)}
            own = rows.setdefault(row["step"], {"step": row["step"]})
            own |= {f"{row['phase']}/{name}": value for name, value in names.items()}
    return [rows[step] for step in sorted(rows)]


@pytest.mark.parametrize(
    "safe_point", [2, *(pytest.param(point, marks=pytest.mark.slow) for point in (None, 6))]
)
def test_a_run_killed_or_not_is_told_once_and_whole(safe_point, configure, tmp_path, monkeypatch):
    config = configure(tmp_path, ALWAYS, "tracker.mode=offline", "replay_init=empty")
    if safe_point is not None:
        with monkeypatch.context() as patched:
            kill_at(patched, safe_point)
            with pytest.raises(Killed):
                job.run(config)
    job.run(config)
    for directory in (pretrain_directory(config), run_directory(config)):
        records = told(directory)
        assert history(records) == recorded(directory)
        assert [record.exit.exit_code for record in records if record.HasField("exit")] == [0]
        result = json.loads((directory / RESULT).read_text())
        assert summary(records)["offline_score"] == result["offline_score"]
    (run,) = [record.run for record in records if record.HasField("run")]
    assert run.run_id == identity(config)[:16]
    assert run.job_type == "finetune"


def test_a_failed_run_is_marked_failed(configure, tmp_path, monkeypatch):
    config = configure(tmp_path, "tracker.mode=offline", "replay_init=empty")

    def broken(self, *rest):
        raise OSError("disk full")

    monkeypatch.setattr(Recorder, "reported", broken)
    with pytest.raises(OSError, match="disk full"):
        job.run(config)
    assert [r.exit.exit_code for r in told(pretrain_directory(config)) if r.HasField("exit")] == [1]
