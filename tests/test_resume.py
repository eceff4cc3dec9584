"""A run that was stopped anywhere and started again writes what an uninterrupted one writes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from o2o import experiment, keeper, phases, records
from o2o.checkpoint import Checkpoints
from o2o.records import read_state
from o2o.sweep.identity import pretrain_directory, run_directory

EXACT = (records.TRAIN, records.EVAL, records.EPISODES, "checkpoints/final.npz")
ALWAYS = "checkpoint.interval_seconds=1e-9"


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def contents(config) -> dict[str, bytes]:
    """The bytes that must be the same, of the run and of its pretraining."""
    places = {"run": run_directory(config), "pretrain": pretrain_directory(config)}
    return {
        f"{name}/{file}": (place / file).read_bytes()
        for name, place in places.items()
        for file in EXACT
        if (place / file).is_file()
    }


def kill_at(monkeypatch, number: int) -> None:
    """Makes the process end at its `number`-th safe point, after what is done there."""
    reached = 0
    at = keeper.Keeper.at

    def counting(self, report):
        nonlocal reached
        at(self, report)
        reached += 1
        if reached == number:
            raise Killed

    monkeypatch.setattr(keeper.Keeper, "at", counting)


@pytest.fixture(scope="module")
def uninterrupted(configure, tmp_path_factory):
    made = {}

    def of(*overrides: str) -> dict[str, bytes]:
        if overrides not in made:
            config = configure(tmp_path_factory.mktemp("whole"), *overrides)
            experiment.run(config)
            made[overrides] = contents(config)
        return made[overrides]

    return of


@pytest.mark.parametrize(
    ("number", "replay", "algorithm"),
    [
        *((number, "replay_init=empty", "td3_c") for number in (1, 2, 3, 5, 8)),
        *((number, "replay_init=offline", "td3_bc") for number in (3, 6)),
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
            experiment.run(config)
    experiment.run(config)
    assert contents(config) == uninterrupted(*overrides)


def test_a_ring_that_has_wrapped_is_restored(configure, uninterrupted, tmp_path, monkeypatch):
    overrides = ("algorithm=td3", "replay_init=empty", "replay_init.capacity=25")
    config = configure(tmp_path, ALWAYS, *overrides)
    with monkeypatch.context() as patched:
        kill_at(patched, 5)  # after 30 env steps
        with pytest.raises(Killed):
            experiment.run(config)
    experiment.run(config)
    assert contents(config) == uninterrupted(*overrides)


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(
    configure, uninterrupted, tmp_path, monkeypatch
):
    overrides = ("algorithm=td3", "replay_init=empty")
    config = configure(tmp_path, ALWAYS, *overrides)
    with monkeypatch.context() as patched:
        kill_at(patched, 5)
        with pytest.raises(Killed):
            experiment.run(config)
    store = Checkpoints(run_directory(config) / records.CHECKPOINTS)
    newest, before = store.steps()
    path = store.directory / f"{newest}.npz"
    path.write_bytes(path.read_bytes()[:-200])
    experiment.run(config)
    assert contents(config) == uninterrupted(*overrides)
    events = (run_directory(config) / records.EVENTS).read_text()
    assert "checkpoint refused" in events
    assert f'"step": {config.pretrain.updates + before}' in events


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, None)])
def test_a_signal_is_obeyed_at_the_next_safe_point(
    number, code, configure, uninterrupted, tmp_path, monkeypatch
):
    overrides = ("algorithm=td3", "replay_init=empty")
    config = configure(tmp_path, *overrides)  # its interval never passes: only the signal makes it save
    reported = phases.Journal.reported

    def signalling(self, report, *rest):
        reported(self, report, *rest)
        if report.online is not None and report.step == 20:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patched:
        patched.setattr(phases.Journal, "reported", signalling)
        with pytest.raises(KeyboardInterrupt if code is None else SystemExit) as stopped:
            experiment.run(config)
    if code is not None:
        assert stopped.value.code == code
    assert read_state(run_directory(config)) == records.State.INTERRUPTED
    assert Checkpoints(run_directory(config) / records.CHECKPOINTS).steps() == [20]
    experiment.run(config)
    assert contents(config) == uninterrupted(*overrides)


def test_a_finished_run_keeps_its_final_state_alone(configure, tmp_path: Path):
    config = configure(tmp_path, ALWAYS)
    experiment.run(config)
    for directory in (run_directory(config), pretrain_directory(config)):
        assert [p.name for p in (directory / records.CHECKPOINTS).iterdir()] == ["final.npz"]
