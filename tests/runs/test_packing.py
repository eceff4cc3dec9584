"""Jobs of several seeds: what happens to one changes nothing for the others."""

from __future__ import annotations

import json

import pytest
from exact import contents
from test_resume import ALWAYS, Killed, kill_at

from o2o.runs import job, phases
from o2o.runs.directory import layout
from o2o.runs.directory.layout import read_state
from o2o.runs.identity import pretrain_directory, run_directory
from o2o.runs.lock import HeldError, Leases
from o2o.training import checkpoint

ARM = ("algorithm=td3_c", "replay_init=empty")


@pytest.fixture(scope="module")
def alone(configure, tmp_path_factory):
    """What each seed writes by itself."""
    configs = [configure(tmp_path_factory.mktemp("alone"), *ARM, f"seed={seed}") for seed in (0, 1)]
    for config in configs:
        job.run(config)
    return [contents(config) for config in configs]


@pytest.fixture
def pair(configure, tmp_path):
    return [configure(tmp_path, *ARM, f"seed={seed}") for seed in (0, 1)]


@pytest.mark.parametrize(
    ("pretraining", "step"), [pytest.param(True, 10, marks=pytest.mark.slow), (False, 120)]
)
def test_a_member_that_diverges_fails_and_the_other_goes_on_as_if_alone(
    pretraining, step, pair, alone, monkeypatch
):
    def diverged(self, report):
        here = (not report.online) is pretraining and report.step == step
        seeds = [record.config.seed for record in self._records]
        return {seeds.index(1): f"q_mean not finite at step {step} of seed 1"} if here and 1 in seeds else {}

    monkeypatch.setattr(phases.Recorder, "diverged", diverged)
    with pytest.raises(job.MembersFailed, match=f"1 of 2.*\n.*seed 1: q_mean not finite at step {step}"):
        job.run_members(pair)
    assert contents(pair[0]) == alone[0]
    failed = pretrain_directory(pair[1]) if pretraining else run_directory(pair[1])
    assert read_state(failed) == layout.RunState.FAILED
    assert json.loads((failed / layout.STATUS).read_text())["failure"] == "non-finite"


def test_a_member_that_was_done_is_left_out(pair, alone):
    job.run(pair[0])
    result = run_directory(pair[0]) / layout.RESULT
    before = result.stat().st_mtime_ns
    job.run_members(pair)
    assert result.stat().st_mtime_ns == before
    assert contents(pair[1]) == alone[1]


def test_a_member_that_was_begun_alone_goes_on_beside_one_that_was_not(
    pair, alone, configure, tmp_path, monkeypatch
):
    begun = configure(tmp_path, *ARM, ALWAYS, "seed=0")
    with monkeypatch.context() as patched:
        kill_at(patched, 5)
        with pytest.raises(Killed):
            job.run(begun)
    job.run_members(pair)
    assert [contents(config) for config in pair] == alone


@pytest.mark.parametrize("number", [pytest.param(2, marks=pytest.mark.slow), 9])
def test_killed_between_the_checkpoints_of_two_members_both_end_the_same(
    number, alone, configure, tmp_path, monkeypatch
):
    pair = [configure(tmp_path, *ARM, ALWAYS, f"seed={seed}") for seed in (0, 1)]
    save, saved = checkpoint.Checkpoints.save, 0

    def killing(self, step, state):
        nonlocal saved
        save(self, step, state)
        saved += self.directory.parent.name == "seed-0"
        if saved == number:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.Checkpoints, "save", killing)
        with pytest.raises(Killed):
            job.run_members(pair)
    job.run_members(pair)
    assert [contents(config) for config in pair] == alone


def test_a_run_that_another_process_is_running_is_left_to_it(pair, alone):
    with Leases() as another:
        another.take(run_directory(pair[1]))
        with pytest.raises(job.MembersFailed, match=r"seed 1: .* is being run by process"):
            job.run_members(pair)
        with pytest.raises(HeldError, match="is being run by process"):
            job.run(pair[1])
        assert read_state(run_directory(pair[1])) == layout.RunState.PLANNED
    assert contents(pair[0]) == alone[0]


def test_a_pretraining_that_another_process_makes_is_waited_for(pair, alone, monkeypatch, capsys):
    monkeypatch.setattr("o2o.runs.lock.POLL_SECONDS", 0.01)
    job.run(phases.pretraining(pair[0]))
    directory = pretrain_directory(pair[0])
    result = directory / layout.RESULT
    content = result.read_bytes()
    result.unlink()
    with Leases() as another:
        another.take(directory)
        polls = 0
        call = job._Wait.__call__

        def polled(self, owner):
            nonlocal polls
            call(self, owner)
            polls += 1
            if polls == 3:
                result.write_bytes(content)
                another.release(directory)

        monkeypatch.setattr(job._Wait, "__call__", polled)
        job.run(pair[0])
    assert f"waiting for {directory}, made by process" in capsys.readouterr().err
    assert contents(pair[0]) == alone[0]
    assert len(list((directory / layout.ATTEMPTS).iterdir())) == 1
