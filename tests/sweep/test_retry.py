from __future__ import annotations

import json
from pathlib import Path

import pytest
from following import launch, write

from o2o.runs.directory import layout
from o2o.runs.directory.writer import RunDirectory
from o2o.sweep.ledger import manifest


def test_retry_refuses_what_is_under_way(tmp_path, say):
    write(tmp_path, steps=[500])
    code, said = say("retry")
    assert code == 2
    assert "under way" in said


def test_retry_finds_nothing_where_nothing_stopped(tmp_path, say):
    write(tmp_path, end="DONE")
    assert say("retry")[0] == 0


def test_retry_names_settings_that_are_none(tmp_path, say):
    write(tmp_path, end="FAILED")
    assert say("retry", "--set", "timeout_min")[0] == 2


def test_retry_says_which_configuration_is_unreadable(tmp_path, say):
    path = write(tmp_path, end="INTERRUPTED")
    (path / layout.CONFIG).write_text("seed: [")
    code, said = say("retry", "--dry-run")
    assert code == 2
    assert "is damaged" in said


def test_curves_whose_checkpoints_are_not_there_are_left_alone(tmp_path, say, configure):
    for seed in range(2):
        run = started(configure, tmp_path, seed)
        run.append(layout.EVAL, {"phase": "finetune", "step": 500, "env_steps": 0, "score": 50.0})
        run.interrupt("SystemExit(143)")
    (run.path / layout.CHECKPOINTS).mkdir()
    code, said = say("why", "seed=0")
    assert "its checkpoints are not there: `retry --anyway` starts it again from the beginning" in " ".join(
        said.split()
    )
    code, said = say("why", "seed=1")
    assert "`retry` goes on from the last checkpoint" in said
    code, said = say("retry", "--dry-run")
    assert "left out, for their checkpoints are not there: 1 run" in " ".join(said.split())
    assert "here: 1 run" in said
    code, said = say("retry", "--dry-run", "--anyway")
    assert "here: 2 runs" in said


def started(configure, runs, seed, *overrides):
    """A run of a real configuration that has begun."""
    from o2o.config.build import container
    from o2o.runs.identity import describe, run_directory

    config = configure(runs, f"seed={seed}", *overrides)
    run = RunDirectory(run_directory(config))
    run.start(container(config), describe(config))
    return run


def test_retry_takes_frozen_configurations_and_leaves_out_what_is_hopeless(
    tmp_path, say, configure, monkeypatch
):
    from o2o.runs import job

    ran = []
    monkeypatch.setattr(job, "run_members", lambda configs: ran.extend(configs))
    elsewhere = tmp_path / "was elsewhere"
    started(configure, elsewhere, 0).interrupt("SystemExit(143)")
    started(configure, elsewhere, 1).fail("", "FloatingPointError: q_mean not finite", "non-finite")
    started(configure, elsewhere, 2).fail("", "ValueError: a mistake", "code")
    started(configure, elsewhere, 3).fail("", "MemoryError: ", "memory")
    started(configure, elsewhere, 4).finish({})
    for seed in range(5):
        started(configure, elsewhere, seed, "finetune.env_steps=0").finish({})
    for path in list(elsewhere.iterdir()):
        path.rename(tmp_path / path.name)
    code, said = say("retry")
    assert code == 0
    assert "1 (non-finite)" in said
    assert "1 (code)" in said
    assert sorted(config.seed for config in ran) == [0, 3]
    assert {config.execution.paths.runs for config in ran} == {tmp_path}
    ran.clear()
    say("retry", "--anyway", "seed=1-2")
    assert sorted(config.seed for config in ran) == [1, 2]


def test_retry_runs_what_failed_under_other_code(tmp_path, say, configure, monkeypatch):
    from o2o.runs import job

    ran = []
    monkeypatch.setattr(job, "run_members", lambda configs: ran.extend(configs))
    started(configure, tmp_path, 2, "finetune.env_steps=0").finish({})
    run = started(configure, tmp_path, 2)
    run.fail("", "ValueError: a mistake", "code")
    identity = json.loads((run.path / layout.IDENTITY).read_text())
    (run.path / layout.IDENTITY).write_text(
        json.dumps(identity | {"code_hash": "before the mistake was mended"})
    )
    assert say("retry")[0] == 0
    assert len(ran) == 1


def test_what_could_not_begin_is_judged_by_its_pretraining(tmp_path, say, configure):
    for seed, failure in ((0, "infrastructure"), (1, "non-finite")):
        started(configure, tmp_path, seed, "finetune.env_steps=0").fail("", "what it was", failure)
        started(configure, tmp_path, seed).fail("", "its pretraining is FAILED, not DONE", "code")
    code, said = say("retry", "--dry-run")
    assert code == 0
    assert "here: 2 runs" in said
    assert said.count("seed 0") == 2
    assert "seed 1" not in said


def test_retry_gives_back_to_slurm_what_slurm_had(tmp_path, say, configure, monkeypatch):
    from o2o.sweep.launching import submit

    sent = []

    def to_slurm(asked, due, name, seeds, settings):
        sent.append((sorted(run.config.seed for run in due), name, seeds, settings))
        return submit.SubmissionReport(tmp_path, submission, 0, None)

    runs = [started(configure, tmp_path, seed) for seed in (0, 1)]
    for run in runs:
        run.interrupt("SystemExit(140)")
    submission = launch(tmp_path, {"77_0": [run.path for run in runs]}, partition="gpu", timeout_min=60)
    monkeypatch.setattr(submit, "to_slurm", to_slurm)
    assert say("retry", "--set", "timeout_min=480")[0] == 0
    assert sent == [([0, 1], "small", 2, {"partition": "gpu", "timeout_min": 480})]


@pytest.mark.parametrize("moved", [False, True])
def test_retry_finds_data_that_were_named_relative_to_the_launch(
    tmp_path, say, configure, dataset, monkeypatch, moved
):
    from o2o.config.build import container
    from o2o.runs import job

    ran = []
    monkeypatch.setattr(job, "run_members", lambda configs: ran.extend(configs))
    started(configure, tmp_path, 0, "finetune.env_steps=0").finish({})
    monkeypatch.chdir(dataset.parent)
    run = started(configure, tmp_path, 0, f"dataset.path={dataset.name}", "paths.data=data")
    run.interrupt("SystemExit(140)")
    submission = launch(tmp_path, {"local-abc123-0": [run.path]}, launcher="here")
    (data := tmp_path / "data").mkdir()
    frozen = container(configure(tmp_path, f"paths.data={data}"))
    if moved:  # and where the command is given now, the run's own words are right
        frozen["dataset"]["path"], frozen["paths"]["data"] = (
            str(tmp_path / "gone.hdf5"),
            str(tmp_path / "gone"),
        )
    else:
        monkeypatch.chdir(tmp_path)
    manifest.write_submission(tmp_path, submission, {0: {"config": frozen, "seeds": [0], "redo": False}})
    assert say("retry")[0] == 0
    found = (Path(dataset.name), Path("data")) if moved else (dataset, data)
    assert [(c.dataset.path, c.execution.paths.data) for c in ran] == [found]


def test_retry_of_a_run_that_is_another_one_now_is_refused(tmp_path, say, configure):
    run = started(configure, tmp_path, 0)
    run.interrupt("SystemExit(143)")
    run.path.parent.rename(run.path.parent.with_name("offline-uniform-ffffffff"))
    code, said = say("retry", "--dry-run")
    assert code == 2
    assert "is another run" in said
