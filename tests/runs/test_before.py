"""Runs that were made before `identity.json` told settings and critics were an ensemble: `before/`, not to be remade.

A pretraining (td3_bc), a finished finetuning from it (td3_c), and a finished run from scratch (sac). Left out of them
is what says when and where they ran.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from composing import CONF, composed
from hydra import compose, initialize_config_dir
from tiny import TINY

from analysis.data.collect import collect
from hydra_plugins.o2o.composition import Composer
from hydra_plugins.o2o.grammar import expand
from o2o.config.build import build, container
from o2o.config.schema import Config
from o2o.runs import job
from o2o.runs.directory import layout, science
from o2o.runs.directory.reader import read_run
from o2o.runs.identity import describe, pretrain_directory, run_directory
from o2o.sweep.planning import plan
from o2o.sweep.surveying import described

BEFORE = Path(__file__).parent / "before"
SHARED = [
    word
    for word in TINY
    if not word.startswith(("finetune.env_steps", "evaluation.interval", "algorithm.", "records.policies"))
]
SHARED += [
    "dataset.path=hopper.hdf5",
    "finetune.env_steps=40",
    "evaluation.interval=20",
    "records.policies=[]",
]
TD3 = [*SHARED, "algorithm.exploration_noise=1.0"]
FINISHED = {
    "td3_c": [*TD3, "algorithm=td3_c"],
    "td3_bc": [*TD3, "algorithm=td3_c", "finetune.env_steps=0"],
    "sac": [*SHARED, "algorithm=sac", "pretrain.updates=0", "replay_init=empty"],
}


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    """A copy of the runs of before, where the configurations expect them."""
    shutil.copytree(BEFORE, tmp_path / "runs")
    shutil.move(tmp_path / "runs" / "hopper.hdf5", tmp_path / "hopper.hdf5")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("O2O_RUNS", "runs")
    return Path("runs")


def planned(words: list[str]) -> plan.Plan:
    def options(group: str) -> list[str]:
        return sorted(path.stem for path in (CONF / group).glob("*.yaml"))

    with initialize_config_dir(str(CONF), version_base="1.3"):
        composer = Composer(lambda overrides: compose("config", overrides), options)
        return plan.make(expand(words, [], options), composer)


def content(path: Path) -> dict[Path, bytes]:
    """The files of run directories; not the compilation cache beside them."""
    files = [file for file in path.rglob("*") if file.is_file() and ".cache" not in file.parts]
    return {file: file.read_bytes() for file in sorted(files)}


@pytest.mark.parametrize("name", FINISHED)
def test_what_is_done_is_left_out_of_a_plan(runs, name):
    made = planned(FINISHED[name])
    assert (len(made.done), made.to_run) == (1, [])
    assert name in str(made.done[0].directory)


def test_what_is_done_is_not_run_again(runs):
    before = content(runs)
    for words in FINISHED.values():
        job.run(build(composed(*words)))
    assert content(runs) == before


def test_a_new_arm_finetunes_from_a_pretraining_of_before(runs):
    config = build(composed(*TD3, "algorithm=td3"))
    there = pretrain_directory(config)
    assert there is not None
    before = content(there)
    (to_run,) = planned([*TD3, "algorithm=td3"]).to_run
    assert to_run.directory == run_directory(config)
    job.run(config)
    assert content(there) == before
    new = read_run(run_directory(config))
    assert new.state == layout.read_state(run_directory(config)) == "DONE"
    switch = json.loads((there / "switch.json").read_text())
    np.testing.assert_array_equal(new.eval["returns"][0], switch["returns"])
    # The critics and the policy at the switch are those that were pretrained: on the same rows of the dataset, the
    # arm of before had the same TD error, before its first step.
    old = read_run(next((runs / "file" / "td3_c").glob("*/seed-0")))
    for name in ("td_error_offline", "q_mean_offline", "action_gradient_norm"):
        assert new.train[name][0] == pytest.approx(old.train[name][0], rel=1e-4), name
    assert new.train["policy_distance"][0] == 0
    arms = [run for run in collect(runs).finetunings if not run.from_scratch]
    assert [run.algorithm for run in arms] == ["td3", "td3_c"]
    assert len({run.pretraining_identity for run in arms}) == len({run.pretraining for run in arms}) == 1


def test_finished_runs_of_before_are_evaluated_again(runs, capsys):
    from o2o.runs.evaluate import main

    for name in FINISHED:
        path = next(runs.glob(f"*/{name}/*/seed-0"), None) or next(runs.glob(f"*/pretrain/{name}*/seed-0"))
        assert main([str(path), "--episodes", "1"]) == 0
        assert capsys.readouterr().out


def test_the_analysis_reads_them(runs):
    collection = collect(runs)
    assert (collection.left_out, [run.algorithm for run in collection.finetunings]) == ((), ["td3_c", "sac"])
    finetuned, scratch = collection.finetunings
    assert finetuned.pretraining == next((runs / "file" / "pretrain").glob("*/seed-0"))
    assert len(finetuned.pretraining_curve[0]) == 1
    assert (finetuned.settings["pretrain.updates"], scratch.settings["pretrain.updates"]) == (20, 0)


@pytest.mark.parametrize("name", FINISHED)
def test_what_they_do_not_tell_is_derived_as_it_is_told_today(runs, name):
    config = build(composed(*FINISHED[name]))
    today = json.loads(json.dumps(describe(config)))
    stored = json.loads((run_directory(config) / layout.IDENTITY).read_text())
    assert "settings" not in stored
    assert science.read(run_directory(config)) == today | {"code_hash": stored["code_hash"]}
    facts = described.of_run(run_directory(config))
    assert facts is not None
    assert facts.keys() - {"dataset.name", "replay_init.name"} <= today["settings"].keys()


def test_configurations_of_before_mean_what_they_meant(runs):
    for name, words in FINISHED.items():
        config = build(composed(*words))
        stored = read_run(run_directory(config)).config
        if name == "td3_c":
            assert build(stored) == config
        assert isinstance(build(stored), Config)
        assert container(build(stored)) == stored


def test_no_file_of_before_says_where_it_was_made():
    for path in sorted(BEFORE.rglob("*")):
        if path.is_file() and path.suffix != ".npz":
            told = path.read_bytes()
            assert not [
                word for word in (b'"host"', b'"pid"', b"/tmp", b"/home", b"/root", b"http") if word in told
            ]
    assert list(BEFORE.rglob("attempts")) == []
