"""The training of behaviour policies: several seeds in one job, stopped and gone on with, and what is shipped of it."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from regenerated import InlineWorkers, random_policy, shorten_training

from o2o.datasets.regenerated import behavior, rlkit, tanh_gaussian, workers
from o2o.datasets.regenerated.tanh_gaussian import TanhGaussian
from o2o.errors import ConfigError
from o2o.training.seeds import Members

SHIPPED = {
    "ant-medium": "815960abbb52",
    "ant-snapshots": "9d9299630459",
    "halfcheetah-medium": "062c0af8869a",
    "halfcheetah-snapshots": "c381b275ecfa",
    "hopper-medium": "ae9e4342a0e1",
    "hopper-snapshots": "c4cee18e2dbe",
    "walker2d-medium": "c3206fdb879d",
    "walker2d-snapshots": "a35e081eb929",
}
"""Begins of SHA-256 sums: a change makes other sets of everybody's, and belongs into the changelog."""


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_training(monkeypatch)


def assert_same_policy(one: TanhGaussian, other: TanhGaussian, tolerance: float = 0.0) -> None:
    for key, weights in one.weights.items():
        np.testing.assert_allclose(other.weights[key], weights, rtol=0, atol=tolerance, err_msg=key)


def snapshots(directory: Path) -> dict[str, TanhGaussian]:
    return {path.name: tanh_gaussian.load(path)[0][0] for path in sorted(directory.glob("*.npz"))}


def test_a_seed_learns_beside_others_what_it_learns_alone(tmp_path: Path, short: None):
    together = list(rlkit.run("hopper", [3, 5], 2, tmp_path / "together"))
    alone = list(rlkit.run("hopper", [5], 2, tmp_path / "alone"))
    assert [epoch.number for epoch in together] == [0, 1, 2]
    for one, other in zip(alone, together, strict=True):
        assert_same_policy(one.policies[0], other.policies[1])
        assert one.returns == other.returns[1:]
    first, second = together[2].policies
    assert not np.array_equal(first.weights["fc1/weight"], second.weights["fc1/weight"])
    rows = rlkit.block(tmp_path / "together", 2)
    for key, values in rlkit.block(tmp_path / "alone", 2).items():
        np.testing.assert_array_equal(rows[key][1], values[0])


@pytest.mark.slow
def test_one_program_for_all_seeds_learns_what_they_learn_alone(
    tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch
):
    *_, alone = rlkit.run("hopper", [3, 5], 1, tmp_path / "alone")
    monkeypatch.setattr(rlkit, "make_members", functools.partial(Members, together=True))
    *_, together = rlkit.run("hopper", [3, 5], 1, tmp_path / "together")
    for one, other in zip(alone.policies, together.policies, strict=True):
        assert_same_policy(one, other, tolerance=1e-4)  # 20 steps of Adam move weights by 6e-3


def test_every_epoch_learns(tmp_path: Path, short: None):
    found = [epoch.policies[0].weights["fc1/weight"] for epoch in rlkit.run("hopper", [0], 2, tmp_path)]
    moved = [np.abs(after - before).max() for before, after in itertools.pairwise(found)]
    assert min(moved) > 1e-3


def test_inputs_that_are_always_zero_are_not_learned_from(tmp_path: Path, short: None):
    *_, last = rlkit.run("ant", [0], 1, tmp_path)
    (policy,) = last.policies
    assert policy.sizes == (111, 8)
    assert not policy.weights["fc0/weight"][:, 27:].any()
    assert policy.weights["fc0/weight"][:, :27].all()


@pytest.mark.slow
def test_a_training_out_of_time_goes_on_to_the_same_policies(
    tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    behavior.train("hopper", [3, 4], 2, 1, tmp_path / "whole")
    for said in ("stopped after epoch 1: the same command goes on", "snapshots of epoch 2: "):
        clock = itertools.count()  # moves by one when it is looked at, so after every epoch
        monkeypatch.setattr(behavior, "time", types.SimpleNamespace(monotonic=lambda c=clock: next(c)))
        behavior.train("hopper", [3, 4], 2, 1, tmp_path / "stopped", seconds=1.5)
        assert said in capsys.readouterr().out
    whole, stopped = snapshots(tmp_path / "whole"), snapshots(tmp_path / "stopped")
    assert list(whole) == [f"hopper-{seed}-{epoch:04d}.npz" for seed in (3, 4) for epoch in range(3)]
    assert list(stopped) == list(whole)
    for name, policy in whole.items():
        assert_same_policy(policy, stopped[name])


def test_the_command_trains_several_seeds(tmp_path: Path, short: None, capsys: pytest.CaptureFixture[str]):
    words = ["train", "hopper", "--seeds", "3-4", "--epochs", "0", "--out", str(tmp_path)]
    assert behavior.main(words) == 0
    assert "snapshots of epoch 0: " in capsys.readouterr().out
    (policy,), about = tanh_gaussian.load(tmp_path / "hopper-4-0000.npz")
    assert policy.sizes == (11, 3)
    assert about["command"] == f"python -m o2o.datasets.regenerated.behavior {' '.join(words[:6])}"
    assert (about["seed"], about["epoch"], about["episodes"]) == (4, 0, 10)


@pytest.mark.parametrize("text", ["x", "3-", "-3", "5-3", "3,4", "3-4-5"])
def test_seeds_that_are_none_are_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as refused:
        behavior.main(["train", "hopper", f"--seeds={text}", "--out", str(tmp_path)])
    assert refused.value.code == 2
    assert f"{text}: write a seed, as 3, or the first and the last, as 0-9" in capsys.readouterr().err


def test_a_damaged_block_is_refused_with_a_way_out(tmp_path: Path, short: None):
    list(rlkit.run("hopper", [0], 1, tmp_path))
    (tmp_path / "0000.npz").write_bytes(b"no rows")
    with pytest.raises(ConfigError, match=r"0000.npz cannot be read .*delete .* to begin anew"):
        list(rlkit.run("hopper", [0], 2, tmp_path))


def test_processes_do_the_jobs_that_this_one_would_whichever_is_free():
    policies = [random_policy(11, 3, seed) for seed in range(2)]
    for kind in workers.JOBS:
        here = InlineWorkers("hopper", kind, 1)
        with workers.Workers("hopper", kind, 2) as there:
            jobs = [there.submit(policy, 7, number) for policy in policies for number in (0, 1)]
            for k, job in enumerate(jobs):
                expected = here.submit(policies[k // 2], 7, k % 2).result()
                for key, values in job.result().items():
                    np.testing.assert_array_equal(values, expected[key])
    assert len(job.result()["returns"]) == workers.EPISODES


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_training_and_its_workers_without_a_traceback(
    tmp_path: Path, number: signal.Signals, code: int
):
    words = ["train", "hopper", "--epochs", "100", "--out", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "o2o.datasets.regenerated.behavior", *words],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("epoch 0: ")
    process.send_signal(number)
    _, said = process.communicate(timeout=200)  # which waits for the workers too: they hold standard error
    assert process.returncode == code
    assert "Traceback" not in said
    assert (tmp_path / "hopper-0-run" / "state.npz").is_file()


def test_a_worker_that_fails_is_an_error_and_busy_ones_end_with_the_context():
    bad = random_policy(11, 3, **{"fc0/weight": np.zeros((64, 2), np.float32)})
    with workers.Workers("hopper", "collect", 2) as some:
        failed = some.submit(bad, 0, 0)
        with pytest.raises(RuntimeError, match="ended with 1"):
            failed.result()
    with workers.Workers("hopper", "evaluate", 1) as some:
        jobs = [some.submit(random_policy(11, 3), 0, number) for number in range(1000)]
    assert any(job.cancelled() for job in jobs)
    assert all(job.done() for job in jobs)


def test_a_run_exports_its_medium_policy_and_what_led_to_it(tmp_path: Path):
    for epoch, earned in ((0, 10.0), (5, 1400.0), (10, 2000.0)):
        provenance = {"epoch": epoch, "stochastic_return_mean": earned, "stochastic_return_std": 1.0}
        tanh_gaussian.save(tmp_path / f"hopper-7-{epoch:04d}.npz", [random_policy(11, 3, epoch)], provenance)
    behavior.export("hopper", 7, tmp_path, None, None, tmp_path / "to")
    (medium,), about = tanh_gaussian.load(tmp_path / "to" / "hopper-medium.npz")
    assert about["epoch"] == 5  # nearest to D4RL's mean return
    np.testing.assert_array_equal(medium.weights["fc0/bias"], random_policy(11, 3, 5).weights["fc0/bias"])
    assert tanh_gaussian.load(tmp_path / "to" / "hopper-snapshots.npz")[1]["epochs"] == [0, 5]
    behavior.export("hopper", 7, tmp_path, 0, 10, tmp_path / "to")
    assert tanh_gaussian.load(tmp_path / "to" / "hopper-snapshots.npz")[1]["epochs"] == [0, 5, 10]


def test_what_is_shipped_does_not_change_unnoticed_and_stays_small():
    paths = sorted(behavior.POLICIES.glob("*.npz"))
    assert {path.stem: hashlib.sha256(path.read_bytes()).hexdigest()[:12] for path in paths} == SHIPPED
    assert sum(path.stat().st_size for path in paths) < 25e6


@pytest.mark.slow
@pytest.mark.parametrize("task", behavior.MEDIUM_RETURN)
def test_a_shipped_medium_policy_earns_about_what_d4rls_does(task: str):
    (policy,), _ = tanh_gaussian.load(behavior.POLICIES / f"{task}-medium.npz")
    found = InlineWorkers(task, "evaluate", 1).submit(policy, 0, 0).result()["returns"]
    error = found.std() / len(found) ** 0.5
    assert found.mean() == pytest.approx(behavior.MEDIUM_RETURN[task], rel=0.1, abs=3 * error)
