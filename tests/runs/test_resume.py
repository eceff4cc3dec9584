"""A run that was stopped anywhere and started again writes what an uninterrupted one writes."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest
from exact import contents

from o2o.errors import ConfigError
from o2o.runs import job, phases, resume
from o2o.runs.directory import layout
from o2o.runs.directory.layout import read_state
from o2o.runs.identity import pretrain_directory, run_directory
from o2o.training import evaluation
from o2o.training.checkpoint import Checkpoints

ALWAYS = "checkpoint.interval_seconds=1e-9"


@pytest.fixture
def heard():
    """Signals as in a terminal; nohup, or a script's `&`, leaves some ignored, which a run respects."""
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGINT)}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def kill_at(monkeypatch, number: int) -> None:
    """Makes the process end at its `number`-th safe point, after what is done there."""
    reached = 0
    save_if_due = resume.Checkpointer.save_if_due

    def counting(self, report):
        nonlocal reached
        save_if_due(self, report)
        reached += 1
        if reached == number:
            raise Killed

    monkeypatch.setattr(resume.Checkpointer, "save_if_due", counting)


@pytest.fixture(scope="module")
def uninterrupted(configure, tmp_path_factory):
    made = {}

    def of(*overrides: str, exploring: bool = True) -> dict[str, bytes]:
        if overrides not in made:
            config = configure(tmp_path_factory.mktemp("whole"), *overrides, exploring=exploring)
            job.run(config)
            made[overrides] = contents(config)
        return made[overrides]

    return of


@pytest.mark.parametrize(
    ("number", "replay", "algorithm"),
    [
        (5, "replay_init=empty", "td3_c"),
        *(
            pytest.param(number, "replay_init=empty", "td3_c", marks=pytest.mark.slow)
            for number in (1, 2, 3, 8)
        ),
        pytest.param(6, "replay_init=offline", "td3_bc", marks=pytest.mark.slow),
    ],
)
def test_killed_at_any_safe_point_it_ends_the_same(
    number, replay, algorithm, configure, uninterrupted, tmp_path, monkeypatch
):
    overrides = (f"algorithm={algorithm}", replay)
    config = configure(tmp_path, ALWAYS, *overrides)
    with monkeypatch.context() as patched:
        kill_at(patched, number)
        with pytest.raises(Killed):
            job.run(config)
    later = run_directory(config) / layout.CHECKPOINTS / "policy-150.npz"
    later.parent.mkdir(parents=True, exist_ok=True)
    later.write_bytes(b"of a future that was wanted otherwise")
    job.run(config)
    assert contents(config) == uninterrupted(*overrides)


ENSEMBLE = ("algorithm.critics=3", "algorithm.target_critics=2")
METHODS: dict[str, tuple[str, ...]] = {
    "iql": (),
    "awac": ("algorithm.policy_hidden_sizes=[8,8]", "pretrain.algorithm.policy_hidden_sizes=[8,8]"),
    "cql": (),
    "cal_ql": (),
    "wsrl": (*ENSEMBLE, "pretrain.algorithm.critics=3", "finetune.critic_only_steps=40"),
    "rlpd": (
        *ENSEMBLE,
        "pretrain.updates=0",
        "finetune.updates_per_step=2",
        "finetune.random_steps=30",
        "finetune.first_updates_multiplier=2",
        "finetune.first_updates_steps=25",
        "offline_ratio.value=0.75",
        "offline_ratio.last=0.25",
        "offline_ratio.steps=100",
    ),
}


@pytest.mark.parametrize(
    "method", [name if name == "rlpd" else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
)
def test_killed_each_method_ends_the_same(method, configure, uninterrupted, tmp_path, monkeypatch):
    overrides = (f"method={method}", "finetune.warmup_steps=20", *METHODS[method])
    config = configure(tmp_path, ALWAYS, *overrides, exploring=False)
    with monkeypatch.context() as patched:
        kill_at(patched, 6)
        with pytest.raises(Killed):
            job.run(config)
    job.run(config)
    assert contents(config) == uninterrupted(*overrides, exploring=False)


@pytest.mark.parametrize(
    "often",
    [
        pytest.param(ALWAYS, marks=pytest.mark.slow),
        "checkpoint.interval_steps=30",  # more steps than there is room for
    ],
)
def test_a_ring_that_has_wrapped_is_restored(often, configure, uninterrupted, tmp_path, monkeypatch):
    overrides = ("algorithm=td3", "replay_init=empty", "replay_init.capacity=25")
    config = configure(tmp_path, often, *overrides)
    with monkeypatch.context() as patched:
        kill_at(patched, 5)  # after 30 env steps
        with pytest.raises(Killed):
            job.run(config)
    job.run(config)
    assert contents(config) == uninterrupted(*overrides)


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(
    configure, uninterrupted, tmp_path, monkeypatch
):
    overrides = ("algorithm=td3", "replay_init=empty")
    config = configure(tmp_path, ALWAYS, *overrides)
    with monkeypatch.context() as patched:
        kill_at(patched, 5)
        with pytest.raises(Killed):
            job.run(config)
    store = Checkpoints(run_directory(config) / layout.CHECKPOINTS)
    newest, before = store.steps()
    path = store.directory / f"{newest}.npz"
    path.write_bytes(path.read_bytes()[:-200])
    job.run(config)
    assert contents(config) == uninterrupted(*overrides)
    events = (run_directory(config) / layout.EVENTS).read_text()
    assert "checkpoint refused" in events
    assert f'"step": {config.pretrain.updates + before}' in events


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, None)]
)
def test_a_signal_is_obeyed_at_the_next_safe_point(
    number, code, heard, configure, uninterrupted, tmp_path, monkeypatch
):
    overrides = ("algorithm=td3", "replay_init=empty")
    config = configure(tmp_path, *overrides)  # its interval never passes: only the signal makes it save
    reported = phases.Recorder.reported

    def signalling(self, report, *rest):
        reported(self, report, *rest)
        if report.online and report.step == 20:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patched:
        patched.setattr(phases.Recorder, "reported", signalling)
        with pytest.raises(KeyboardInterrupt if code is None else SystemExit) as stopped:
            job.run(config)
    if code is not None:
        assert stopped.value.code == code
    assert read_state(run_directory(config)) == layout.RunState.INTERRUPTED
    assert Checkpoints(run_directory(config) / layout.CHECKPOINTS).steps() == [20]
    job.run(config)
    assert contents(config) == uninterrupted(*overrides)


def test_a_finished_run_keeps_its_final_state_and_the_wanted_policies(configure, tmp_path: Path):
    config = configure(tmp_path, ALWAYS)
    job.run(config)
    kept = {
        run_directory(config): ["final.npz", "policy-0.npz", "policy-120.npz", "policy-20.npz"],
        pretrain_directory(config): ["final.npz"],
    }
    for directory, names in kept.items():
        assert sorted(p.name for p in (directory / layout.CHECKPOINTS).iterdir()) == names


# Chunks of an odd length begin in the middle of TD3's cycle, and each is a program to compile.
@pytest.mark.parametrize(
    ("chunk", "number"),
    [(4, 2), pytest.param(3, 2, marks=pytest.mark.slow), pytest.param(3, 9, marks=pytest.mark.slow)],
)
def test_killed_between_two_reports_it_ends_the_same(
    chunk, number, configure, uninterrupted, tmp_path, monkeypatch
):
    overrides = ("algorithm=td3_c", "replay_init=empty")
    monkeypatch.setattr("o2o.training.loop.CHUNK", chunk)
    config = configure(tmp_path, f"checkpoint.interval_steps={chunk}", *overrides)
    with monkeypatch.context() as patched:
        kill_at(patched, number)
        with pytest.raises(Killed):
            job.run(config)
    job.run(config)
    monkeypatch.undo()
    whole = uninterrupted(*overrides)
    found = contents(config)
    assert found["run/eval.jsonl"] == whole["run/eval.jsonl"]
    assert found == whole


def test_a_signal_during_an_evaluation_gives_it_up_until_the_next_start(
    configure, uninterrupted, tmp_path, monkeypatch
):
    overrides = ("algorithm=td3", "replay_init=empty")
    config = configure(tmp_path, *overrides)
    play, count = evaluation.Evaluator._play, 0

    def signalling(*arguments):
        nonlocal count
        count += 1
        if count == 5:  # one while pretraining, two at the switch, one after 10 env steps
            os.kill(os.getpid(), signal.SIGUSR2)
        return play(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(evaluation.Evaluator, "_play", signalling)
        with pytest.raises(SystemExit) as stopped:
            job.run(config)
    assert stopped.value.code == 128 + signal.SIGUSR2
    assert Checkpoints(run_directory(config) / layout.CHECKPOINTS).steps() == [20]
    assert '"env_steps": 20' not in (run_directory(config) / layout.EVAL).read_text()
    job.run(config)
    assert contents(config) == uninterrupted(*overrides)


def test_a_second_signal_ends_at_once(configure, tmp_path, monkeypatch):
    config = configure(tmp_path)

    def signalling(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("it should have ended")

    monkeypatch.setattr(evaluation.Evaluator, "_play", signalling)
    with pytest.raises(KeyboardInterrupt):
        job.run(config)
    directory = pretrain_directory(config)
    assert read_state(directory) == layout.RunState.INTERRUPTED
    assert not Checkpoints(directory / layout.CHECKPOINTS).steps()


def test_what_was_begun_as_another_run_is_refused_with_what_differs(configure, tmp_path, monkeypatch):
    config = configure(tmp_path, ALWAYS)
    with monkeypatch.context() as patched:
        kill_at(patched, 1)
        with pytest.raises(Killed):
            job.run(config)
    with pytest.raises(ConfigError, match=r"records.interval: 10 there, 5 here"):
        job.run(configure(tmp_path, "records.interval=5"))
    path = pretrain_directory(config) / layout.IDENTITY
    path.write_text(
        path.read_text()
        .replace('"batch_size": 16', '"batch_size": 17')
        .replace('"identity": "', '"identity": "0')
    )
    with pytest.raises(ConfigError, match=r"batch_size: 17 there, 16 here"):
        job.run(config)


def test_a_full_disk_is_named_and_what_was_saved_stays(
    configure, uninterrupted, tmp_path, monkeypatch, capsys
):
    overrides = ("algorithm=td3", "replay_init=empty")
    config = configure(tmp_path, ALWAYS, *overrides)
    save, count = Checkpoints.save, 0

    def full(self, step, state):
        nonlocal count
        count += 1
        if count >= 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(self, step, state)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", full)
        with pytest.raises(OSError, match="No space left"):
            job.run(config)
    status = (run_directory(config) / layout.STATUS).read_text()
    assert "goes on from its last checkpoint" in status
    job.run(config)
    assert contents(config) == uninterrupted(*overrides)
