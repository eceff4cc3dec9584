"""Whole jobs, tiny: what they write, share and survive."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import assert_equal, differ

from o2o.algorithms.td3 import TD3State
from o2o.config.build import container
from o2o.config.schema import Config
from o2o.errors import ConfigError
from o2o.machine.signals import Interruption
from o2o.runs import job, phases, preparation
from o2o.runs.directory import layout, reader
from o2o.runs.directory.reader import read_run
from o2o.runs.directory.writer import RunDirectory
from o2o.runs.identity import describe, identity, pretrain_directory, refuse_other_run, run_directory
from o2o.runs.lock import Leases
from o2o.runs.recording import recorder, run_record
from o2o.training import diagnostics
from o2o.types import Facts


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(configure, tmp_path_factory) -> Config:
    config = configure(tmp_path_factory.mktemp("runs"))
    job.run(config)
    return config


def test_a_run_writes_the_files_that_it_promises(finished):
    for directory in (run_directory(finished), pretrain_directory(finished)):
        names = {p.name for p in directory.iterdir()}
        assert names >= {
            layout.CONFIG,
            layout.IDENTITY,
            layout.STATUS,
            layout.TRAIN,
            layout.EVAL,
            layout.RESULT,
        }
        assert (directory / layout.FINAL_STATE).is_file()
        assert read_run(directory).state == layout.RunState.DONE


def test_a_run_that_can_never_learn_is_refused_before_anything_is_computed(configure, tmp_path):
    config = configure(tmp_path, "replay_init.min_size=1000")
    with pytest.raises(ConfigError, match=r"replay_init\.min_size=1000: updates would never begin"):
        job.run(config)
    assert layout.read_state(run_directory(config)) == "FAILED"
    assert not (run_directory(config) / layout.EVAL).exists()


def test_what_must_be_known_of_episodes_stands_in_the_result(configure, tmp_path, finished):
    config = configure(tmp_path, "discount=1", "finetune.env_steps=0")
    job.run(config)
    (remark,) = json.loads((run_directory(config) / layout.RESULT).read_text())["remarks"]
    assert "too few to earn 95% of a return at discount=1" in remark
    assert "remarks" not in json.loads((run_directory(finished) / layout.RESULT).read_text())


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([], "file"),
        (["pretrain.updates=0", "replay_init=empty"], "hopper"),
    ],
)
def test_a_run_is_called_after_its_data_and_from_scratch_after_its_task(
    configure, tmp_path, monkeypatch, words, name
):
    told: dict[str, Any] = {}
    monkeypatch.setattr(run_record, "open_tracker", lambda **settings: told.update(settings) or NoTracker())
    monkeypatch.setattr(
        recorder, "Progress", lambda labels, *_, **__: told.update(label=labels[0]) or NoTracker()
    )
    with recorder.Recorder([configure(tmp_path, *words)]):
        pass
    assert f" {name} seed 0" in told["label"]
    assert name in told["tags"]
    assert told["group"].startswith(f"{name}-")


class NoTracker:
    """Takes what a tracker and a progress line are told."""

    def finish(self, **_: bool) -> None:
        pass

    def close(self) -> None:
        pass


def test_evaluations_come_at_their_steps_with_their_columns(finished):
    rows = lines(run_directory(finished) / layout.EVAL)
    assert [row["env_steps"] for row in rows] == [0, 10, 20, 120, 150]
    assert [row["step"] for row in rows] == [20, 30, 40, 140, 170]
    assert [row["updates"] for row in rows] == [0, 10, 20, 120, 150]
    assert [len(row["returns"]) for row in rows] == [3, 2, 2, 2, 2]
    for row in rows:
        assert set(reader.EVAL_COLUMNS) <= set(row)
        assert row["return_mean"] == pytest.approx(np.mean(row["returns"]))
        assert row["score"] == pytest.approx(100 * (row["return_mean"] + 20.272305) / 3254.572305)
    (before,) = lines(pretrain_directory(finished) / layout.EVAL)
    assert (before["phase"], before["step"], before["env_steps"]) == ("pretrain", 20, 0)


def test_the_first_episodes_at_the_switch_are_those_of_the_end_of_pretraining(finished):
    (before,) = lines(pretrain_directory(finished) / layout.EVAL)
    at_the_switch = lines(run_directory(finished) / layout.EVAL)[0]
    # evaluated with other networks' code compiled, so not bit for bit
    assert at_the_switch["returns"][:2] == pytest.approx(before["returns"], rel=1e-4)


def test_training_rows_come_at_their_steps_with_metrics_and_diagnostics(finished):
    rows = lines(run_directory(finished) / layout.TRAIN)
    assert [row["step"] for row in rows] == [20, *range(30, 171, 10)]
    assert rows[0]["policy_distance"] == 0
    for row in rows[1:]:
        assert {"critic_loss", "q_mean", "policy_loss"} <= set(row)
    assert {"policy_distance", "td_error_offline", "td_error_fresh"} <= set(rows[-1])
    assert rows[-1]["policy_distance"] > 0
    before = lines(pretrain_directory(finished) / layout.TRAIN)
    assert {name for row in rows + before for name in row} <= {
        "phase",
        "step",
        *finished.algorithm.metrics,
        *finished.pretrain.algorithm.metrics,
        *diagnostics.METRICS,
    }
    assert [row["step"] for row in before] == [10, 20]
    assert "behavior_cloning" in before[0]


def test_training_episodes_fit_into_the_steps(finished):
    rows = lines(run_directory(finished) / layout.EPISODES)
    assert rows
    assert all(set(row) == set(reader.EPISODE_COLUMNS) for row in rows)
    ends = [row["env_step"] for row in rows]
    assert [row["length"] for row in rows] == np.diff([0, *ends]).tolist()


def test_the_result_sums_the_run_up(finished):
    directory = run_directory(finished)
    result = json.loads((directory / layout.RESULT).read_text())
    scores = [row["score"] for row in lines(directory / layout.EVAL)]
    assert set(result) == {
        "offline_score", "offline_score_first_episodes", "online_score", "online_score_last_10", "delta",
        "collapse", "identity", "execution",
    }  # fmt: skip
    first = lines(directory / layout.EVAL)[0]["returns"][: finished.evaluation.episodes]
    assert result["offline_score_first_episodes"] == pytest.approx(
        100 * (np.mean(first) + 20.272305) / 3254.572305
    )
    assert result["identity"] == identity(finished)
    assert result["offline_score"] == pytest.approx(scores[0])
    assert result["online_score"] == pytest.approx(scores[-1])
    assert result["online_score_last_10"] == pytest.approx(np.mean(scores[1:]))
    assert result["delta"] == pytest.approx(scores[-1] - scores[0])
    assert {"seconds", "device", "versions"} <= set(result["execution"])
    before = json.loads((pretrain_directory(finished) / layout.RESULT).read_text())
    assert set(before) == {"offline_score", "identity", "execution"}


def test_a_second_arm_shares_pretraining_and_switch(finished, configure, monkeypatch):
    def never(*arguments):
        raise AssertionError("pretrained again")

    monkeypatch.setattr(job, "pretrain", never)
    runs = finished.execution.paths.runs
    arm = configure(runs, "replay_init=empty", "finetune.env_steps=20")
    assert pretrain_directory(arm) == pretrain_directory(finished)
    switch = pretrain_directory(arm) / phases.SWITCH
    stored = json.loads(switch.read_text())
    switch.write_text(json.dumps(stored | {"returns": [1.0, 2.0, 3.0]}))
    try:
        job.run(arm)
    finally:
        switch.write_text(json.dumps(stored))
    assert lines(run_directory(arm) / layout.EVAL)[0]["returns"] == [1, 2, 3]


def test_the_same_run_elsewhere_is_the_same_bit_for_bit(finished, configure, tmp_path):
    again = configure(tmp_path)
    job.run(again)
    for one, other in zip(
        (run_directory(finished), pretrain_directory(finished)),
        (run_directory(again), pretrain_directory(again)),
        strict=True,
    ):
        for name in (layout.TRAIN, layout.EVAL, layout.EPISODES):
            assert (one / name).exists() == (other / name).exists()
            if (one / name).exists():
                assert (one / name).read_bytes() == (other / name).read_bytes()
        states = [np.load(directory / layout.FINAL_STATE) for directory in (one, other)]
        for name in states[0].files:
            np.testing.assert_array_equal(states[0][name], states[1][name])


def test_without_env_steps_a_run_is_its_pretraining(configure, tmp_path):
    config = configure(tmp_path, "finetune.env_steps=0")
    job.run(config)
    assert [p.parent for p in tmp_path.rglob(layout.RESULT)] == [pretrain_directory(config)]


def test_td3_c_finetunes_what_td3_bc_pretrained(finished, configure):
    config = configure(finished.execution.paths.runs, "algorithm=td3_c", "finetune.env_steps=20")
    job.run(config)
    rows = lines(run_directory(config) / layout.TRAIN)
    assert {"lambda", "constraint", "constraint_satisfied_share"} <= set(rows[-1])


@pytest.mark.slow  # it compiles everything once more
def test_seeds_in_one_job_are_those_of_one_job_each(finished, configure, tmp_path):
    both = [configure(tmp_path, f"seed={seed}") for seed in (0, 1)]
    job.run_members(both)
    for name in (layout.TRAIN, layout.EVAL, layout.EPISODES):
        alone, beside = (run_directory(c) / name for c in (finished, both[0]))
        assert alone.read_bytes() == beside.read_bytes()
    rows = [lines(run_directory(c) / layout.EVAL)[-1]["returns"] for c in both]
    assert rows[0] != rows[1]


def test_a_number_that_is_not_finite_fails_the_run_and_is_named(configure, tmp_path):
    config = configure(tmp_path, "learning_rate.critic=1e30", "finetune.env_steps=0")
    with pytest.raises(FloatingPointError, match=r"critic_loss.* not finite at pretrain step .* of seed 0"):
        job.run(config)
    directory = run_directory(config)
    run = read_run(directory)
    assert run.state == layout.RunState.FAILED
    assert run.result is None
    assert '"failure": "non-finite"' in (directory / layout.STATUS).read_text()


def test_a_missing_file_is_a_configuration_error_and_nothing_is_written(configure, tmp_path):
    config = configure(tmp_path, "dataset.path=nowhere.hdf5")
    with pytest.raises(ConfigError, match=r"nowhere\.hdf5"):
        job.run(config)
    assert not list(tmp_path.rglob(layout.CONFIG))


def test_the_last_step_is_evaluated_whatever_the_intervals(configure, tmp_path):
    config = configure(tmp_path, "finetune.env_steps=155", "pretrain.updates=130")
    assert phases.evaluation_steps(config, layout.FINETUNE) == [10, 20, 120, 155]
    assert phases.evaluation_steps(config, layout.PRETRAIN) == [100, 130]


def test_the_states_that_runs_leave_are_the_algorithms(finished):
    names = np.load(run_directory(finished) / layout.FINAL_STATE).files
    assert {name.split("/")[0] for name in names} == {*TD3State.__dataclass_fields__, "version"}


def test_from_scratch_nothing_was_pretrained_so_nothing_can_be_lost(configure, tmp_path):
    config = configure(tmp_path, "pretrain.updates=0", "replay_init=empty", "finetune.env_steps=20")
    job.run(config)
    rows = lines(run_directory(config) / layout.EVAL)
    assert [row["step"] for row in rows] == [0, 10, 20]
    assert [row["updates"] for row in rows] == [0, 0, 5]  # it waits for 16 steps, the 16th included
    assert pretrain_directory(config) is None
    assert not list(tmp_path.rglob(phases.SWITCH))
    result = json.loads((run_directory(config) / layout.RESULT).read_text())
    assert (result["offline_score"], result["delta"], result["collapse"]) == (None, None, None)
    assert result["online_score"] == rows[-1]["score"]


def test_an_identity_that_names_another_run_is_refused_though_no_key_differs(configure, tmp_path):
    config = configure(tmp_path)
    begun = RunDirectory(run_directory(config))
    begun.write(layout.CONFIG, container(config))
    begun.write(layout.IDENTITY, describe(config))
    refuse_other_run(config)
    begun.write(layout.IDENTITY, describe(config) | {"identity": "0" * 64})
    with pytest.raises(ConfigError, match=r"identity\.json names another"):
        refuse_other_run(config)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "damaged"),
        (None, "has a result, but no identity"),
        ('{"identity": "0"}', "than the one asked for"),
    ],
)
def test_a_result_that_is_not_known_to_be_the_runs_is_not_taken_for_it(configure, tmp_path, content, told):
    config = configure(tmp_path)
    finished = RunDirectory(run_directory(config))
    finished.write(layout.RESULT, {})
    if content is not None:
        (finished.path / layout.IDENTITY).write_text(content)
    with pytest.raises(ConfigError, match=told):
        job.run(config)
    assert (finished.path / layout.RESULT).is_file()


def test_a_seed_whose_result_is_another_runs_does_not_stop_the_others(configure, tmp_path):
    configs = [configure(tmp_path, f"seed={seed}") for seed in range(2)]
    pretrained = RunDirectory(pretrain_directory(configs[0]))
    pretrained.write(layout.RESULT, {})
    pretrained.write(layout.IDENTITY, {"identity": "0" * 64})
    with pytest.raises(job.MembersFailed, match="1 of 2 seeds failed") as failed:
        job.run_members(configs)
    assert "holds another run than the one asked for" in str(failed.value)
    assert (run_directory(configs[1]) / layout.RESULT).is_file()
    status = json.loads((run_directory(configs[0]) / layout.STATUS).read_text())
    assert status["state"] == "FAILED"
    assert "another run" in status["error"]


def test_a_redo_of_what_is_another_run_touches_nothing_of_it(configure, tmp_path):
    config = configure(tmp_path, "finetune.env_steps=0", "launch.redo=true")
    other = RunDirectory(run_directory(config))
    other.write(layout.RESULT, {})
    other.write(layout.IDENTITY, {"identity": "0" * 64})
    other.write(layout.CONFIG, container(config))
    kept = other.path / layout.CHECKPOINTS / "4000.npz"
    kept.parent.mkdir()
    kept.write_bytes(b"of the other")
    with pytest.raises(ConfigError, match="holds another run"):
        job.run(config)
    assert kept.exists()
    assert (other.path / layout.RESULT).is_file()


def test_seeds_that_are_all_refused_are_bad_input(configure, tmp_path):
    configs = [configure(tmp_path, f"seed={seed}", "finetune.env_steps=0") for seed in range(2)]
    for config in configs:
        RunDirectory(run_directory(config)).write(layout.RESULT, {})
    with pytest.raises(ConfigError, match="has a result, but no identity") as refused:
        job.run_members(configs)
    assert len(refused.value.problems) == 2


def test_what_a_kill_left_of_the_switchs_evaluation_is_gone_afterwards(configure, tmp_path):
    config = configure(tmp_path)
    left = pretrain_directory(config) / f".{phases.SWITCH}.{run_directory(config).parent.name}.tmp"
    stays = left.with_name(f".{phases.SWITCH}.of-another-arm.tmp")
    job.run(configure(tmp_path, "finetune.env_steps=0"))
    left.touch()
    stays.touch()
    job.run(config)
    assert not left.exists()
    assert stays.exists()


@pytest.mark.parametrize("name", ["bc", "iql", pytest.param("awac", marks=pytest.mark.slow)])
def test_every_method_goes_from_data_to_a_result(name, configure, tmp_path):
    config = configure(tmp_path, f"algorithm={name}", f"algorithm@pretrain.algorithm={name}", exploring=False)
    job.run(config)
    (last,) = lines(run_directory(config) / layout.EVAL)[-1:]
    assert (last["q_minus_return"] is None) == (name == "bc")
    reported = {key for row in lines(run_directory(config) / layout.TRAIN) for key in row}
    assert set(config.algorithm.metrics) <= reported


@pytest.mark.slow  # test_resume runs it too
def test_offline_data_may_be_learned_from_without_pretraining(configure, tmp_path):
    config = configure(
        tmp_path,
        "method=rlpd",
        "pretrain.updates=0",
        "algorithm.critics=3",
        "replay_init=offline",
        "finetune.updates_per_step=2",
        "finetune.warmup_steps=20",
        "finetune.random_steps=10",
        exploring=False,
    )
    job.run(config)
    directory = run_directory(config)
    assert config.dataset.name in directory.parts
    assert read_run(directory).state == layout.RunState.DONE
    last = lines(directory / layout.TRAIN)[-1]
    assert {"critic_loss", "policy_loss", "policy_distance"} <= last.keys()


def test_what_is_reset_begins_anew_at_the_switch_and_the_rest_is_carried(finished, configure, tmp_path):
    config = configure(finished.execution.paths.runs, "finetune.reset=[critics]")
    with Interruption() as stop, Leases() as leases:
        made = preparation.prepare(config, stop, leases)
    carried = phases._initial_state(replace(config, finetune=replace(config.finetune, reset=())), made)
    anew = phases._initial_state(config, made)
    assert_equal(anew.policy, carried.policy)
    assert_equal(anew.policy_optimizer, carried.policy_optimizer)
    assert differ(anew.critics, carried.critics)
    assert int(np.max(optax.tree_utils.tree_get(anew.critic_optimizers, "count"))) == 0
    with pytest.raises(ConfigError, match=r"finetune\.reset=temperature: algorithm=td3 has none"):
        job.run(configure(tmp_path, "finetune.reset=[temperature]"))


def test_a_set_that_knows_no_return_is_refused_to_who_needs_them(configure, tmp_path, monkeypatch):
    rows = jnp.zeros((120, 28)).at[:, -1].set(jnp.nan)
    monkeypatch.setattr(preparation, "_offline_rows", lambda *_: (rows, Facts(0.0, 5.0)))
    config = configure(tmp_path, "method=cal_ql", "finetune.warmup_steps=0", exploring=False)
    with pytest.raises(ConfigError, match="no row's return_to_go is known, which the algorithm needs"):
        job.run(config)


def test_a_set_whose_trajectories_all_return_the_same_has_no_range(configure, tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "_offline_rows", lambda *_: (jnp.zeros((120, 27)), Facts(5.0, 5.0)))
    config = configure(tmp_path, "algorithm=iql", "algorithm@pretrain.algorithm=iql", exploring=False)
    with pytest.raises(ConfigError, match="all its trajectories return 5"):
        job.run(config)
    # It failed before it began, and that is on record.
    run = run_directory(config)
    assert layout.read_state(run) == "FAILED"
    status = json.loads((run / layout.STATUS).read_text())
    assert (status["failure"], "all its trajectories return 5" in status["error"]) == ("code", True)
    assert "Traceback" in json.loads((run / layout.ATTEMPTS / "1.json").read_text())["traceback"]
    assert list(run.glob("lease-*.json")) == []


def test_a_failure_before_the_beginning_touches_neither_what_is_done_nor_another_run(
    configure, tmp_path, monkeypatch
):
    def fails(*_):
        raise ConfigError(["no such device"])

    monkeypatch.setattr(preparation, "prepare", fails)
    done, other = configure(tmp_path, "seed=1"), configure(tmp_path, "seed=2")
    for config, written in ((done, {"result.json": "{}"}), (other, {"identity.json": '{"identity": "x"}'})):
        run_directory(config).mkdir(parents=True)
        for name, text in written.items():
            (run_directory(config) / name).write_text(text)
    (run_directory(other) / "config.yaml").write_text("records: {interval: 1}")
    before = sorted(path for path in tmp_path.rglob("*"))
    with pytest.raises(ConfigError):
        job.run_members([done, other])
    assert sorted(path for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("writable", [True, False])
def test_where_code_cannot_be_kept_beside_the_package_it_is_kept_with_the_runs(
    writable, configure, tmp_path, monkeypatch
):
    def read_only(dir: Path) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), dir)

    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    if not writable:
        monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    preparation.configure(configure(tmp_path))
    assert os.environ["NUMBA_CACHE_DIR"] == ("" if writable else str(tmp_path / ".cache" / "numba"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", "mine")
    preparation.configure(configure(tmp_path))
    assert os.environ["NUMBA_CACHE_DIR"] == "mine"


def test_numba_is_not_imported_before_it_is_said_where_code_is_kept():
    said = "import sys, o2o.runs.job; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", said], check=False).returncode == 0
