"""Whatever happens to a run, what it finally writes is what an undisturbed run writes; see docs/robustness.md."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from torture import costs, interrupted
from torture.harness import ALONE, JOBS, PACKED, ROOT, SELDOM, SENTINEL, Arena, Job, arena, contents

from o2o.runs import job, lock, phases
from o2o.runs.directory.layout import RunState, read_state

PRETRAINING = Job(("finetune.env_steps=0",))
SHUFFLED_CLOCK = [0.0, 3e8, -3e8, 1e5, -60.0]


@pytest.fixture(scope="module")
def ground(request, dataset, tmp_path_factory):
    cache = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or request.config.cache.mkdir("torture"))
    with arena(tmp_path_factory.mktemp("arena"), dataset, cache) as made:
        yield made


def survived(tally, kills: int) -> None:
    assert tally.problems == []
    assert tally.bytes_different == 0
    assert tally.bytes_compared > 0
    assert tally.kills >= kills


def run_of(ground: Arena, phase: str) -> Path:
    """The directory of the job's run, or of its pretraining."""
    found = [path.parent for path in ground.runs.rglob("identity.json")]
    return next(path for path in found if (path.parent.parent.name == "pretrain") == (phase == "pretrain"))


@pytest.mark.slow  # `make torture TORTURE=--short`, which CI runs, kills as often
def test_twenty_kills_change_nothing(ground: Arena):
    survived(ground.torment(ALONE, kills=14, share=SELDOM), 14)
    survived(ground.torment(PACKED, kills=6, share=SELDOM), 6)


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS, ids=str)
def test_killed_at_dangerous_points_by_power_cuts_and_at_random_times_it_ends_the_same(
    ground: Arena, job: Job
):
    survived(ground.torment(job, kills=10, share=SELDOM), 10)
    survived(ground.torment(job, kills=5, share=SELDOM, strike="power cut"), 5)
    survived(ground.harass(job, kills=5, longest=8.0), 1)


@pytest.mark.slow
def test_killed_at_every_dangerous_point_in_turn_it_ends_the_same(ground: Arena):
    tally = ground.torment(ALONE, kills=1000, share=1.0)
    survived(tally, 80)
    for phase in ("pretrain", "finetune"):
        for operation, file, moment in (
            ("replace", "result.json", "before"), ("replace", "result.json", "after"),
            ("replace", "checkpoints/N.npz", "before"), ("replace", "checkpoints/N.npz", "after"),
            ("write", "train.jsonl", "half"), ("write", "eval.jsonl", "half"), ("fsync", "train.jsonl", "before"),
        ):  # fmt: skip
            assert (operation, f"{phase}/seed-0/{file}", moment) in tally.points
        assert ("block of an evaluation", phase, "before") in tally.points
        assert ("evaluate", phase, "half") in tally.points
    assert ("block", "finetune", "before") in tally.points
    assert ("step", "finetune", "half") in tally.points


@pytest.mark.slow
@pytest.mark.parametrize("name", interrupted.DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(ground: Arena, kept: Path, name: str):
    assert interrupted.shortcomings(ground, kept, name) == []


@pytest.fixture(scope="module")
def kept(ground: Arena) -> Path:
    return interrupted.interrupt(ground)


def test_modes_follow_the_umask_and_no_secret_is_written(ground: Arena):
    ground.clear()
    assert ground.start(PRETRAINING, umask=0o027)["code"] == 0
    written = [path for path in ground.runs.rglob("*") if not path.is_symlink()]
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in written}
    assert modes == {(True, 0o750), (False, 0o640)}
    files = [path for path in ground.directory.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if SENTINEL.encode() in path.read_bytes()] == []


# Where a signal comes: when nothing is written, in the pretraining, in each kind of evaluation, before and in a block.
PLACES = {
    "at the start": ["replace", "pretrain/seed-0/config.yaml", "before"],
    "while pretraining": ["write", "pretrain/seed-0/train.jsonl", "after"],
    "evaluating the pretraining": ["evaluate", "pretrain", "half"],
    "at the switch": ["replace", "pretrain/seed-0/switch.json", "before"],
    "before a block": ["block", "finetune", "before"],
    "between env steps": ["step", "finetune", "half"],
    "before a block of an evaluation": ["block of an evaluation", "finetune", "before"],
    "evaluating online": ["evaluate", "finetune", "half"],
    "saving": ["replace", "finetune/seed-0/checkpoints/N.npz", "before"],
    "at the end": ["replace", "finetune/seed-0/checkpoints/final.npz", "before"],
}


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2], ids=lambda s: s.name
)
def test_a_signal_is_obeyed_within_seconds_in_every_phase(ground: Arena, place: str, number: signal.Signals):
    expected = ground.undisturbed(ALONE)
    ground.clear()
    ended = ground.start(ALONE, only=PLACES[place], strike=int(number))
    assert ended["point"] == PLACES[place]
    assert ended["code"] == 128 + number
    assert ended["seconds_after"] < 10
    assert "Traceback" not in ground.said()
    states = {read_state(path.parent) for path in ground.runs.rglob("config.yaml")}
    assert states <= {RunState.INTERRUPTED, RunState.DONE}
    assert ground.start(ALONE)["code"] == 0
    assert contents(ground.runs) == expected


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(ground: Arena):
    ground.clear()
    ended = ground.start(ALONE, only=PLACES["before a block"], strike=int(signal.SIGINT), times=2)
    assert ended["code"] == 130
    assert ended["seconds_after"] < 2
    assert list(run_of(ground, "finetune").glob("checkpoints/*.npz")) == []


@pytest.mark.slow
def test_a_run_directory_that_is_removed_while_it_runs_is_told_and_made_again(ground: Arena):
    expected = ground.undisturbed(ALONE)
    ground.clear()
    ended = ground.start(ALONE, only=PLACES["evaluating online"], strike="remove")
    assert ended["code"] == 1
    assert "was removed while it was being run" in ground.said()
    assert list(ground.runs.rglob("result.json")) == []
    assert ground.start(ALONE)["code"] == 0
    assert contents(ground.runs) == expected


@pytest.mark.slow
def test_a_clock_that_jumps_changes_nothing(ground: Arena):
    survived(ground.torment(ALONE, kills=5, share=SELDOM, clock=SHUFFLED_CLOCK), 5)


@pytest.mark.slow
def test_of_two_processes_that_start_at_once_one_runs_fifty_times(ground: Arena):
    expected = ground.undisturbed(PRETRAINING)
    for _ in range(50):
        ground.clear()
        ended = ground.start(PRETRAINING, count=2)
        assert ended["codes"][0] == 0, ground.said()
        # 0 where the first had finished.
        assert ended["codes"][1] == 0 or "is being run by process" in ground.said()
        assert contents(ground.runs) == expected


@pytest.mark.slow
def test_a_second_process_waits_for_the_pretraining_of_the_first(ground: Arena):
    expected = ground.undisturbed(ALONE)
    ground.clear()
    ended = ground.start(ALONE, count=2)
    assert ended["codes"][0] == 0
    assert contents(ground.runs) == expected
    assert len(list(run_of(ground, "pretrain").glob("attempts/*.json"))) == 1


@pytest.fixture
def small_disk(ground: Arena):
    """The arena's runs lie on a file system of so many KiB; only root may make one."""
    mounted = []

    def mount(size: str, *options: str) -> None:
        ground.clear()
        ground.runs.mkdir(exist_ok=True)
        how = ",".join([f"size={size}", *options])
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(ground.runs)], check=False)
        if made.returncode:
            pytest.skip("file systems cannot be mounted here")
        mounted.append(ground.runs)

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(ground.runs)], check=True)

    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("needs root")
    mount.again = remount  # type: ignore[attr-defined]
    yield mount
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)
    ground.clear()


@pytest.mark.slow
@pytest.mark.parametrize("size", ["60k", "120k", "160k", "200k"])
def test_a_full_disk_stops_a_run_with_its_last_checkpoint_intact(ground: Arena, small_disk, size: str):
    expected = ground.undisturbed(ALONE)
    small_disk(size)
    assert ground.start(ALONE)["code"] == 1
    assert "No space left on device" in ground.said()
    small_disk.again("size=64m")
    assert ground.start(ALONE)["code"] == 0, ground.said()
    assert contents(ground.runs) == expected


@pytest.mark.slow
def test_a_disk_that_cannot_be_written_is_one_line_and_exit_code_2(ground: Arena, small_disk, dataset: Path):
    small_disk("1m", "ro")
    words = ["dataset=file", f"dataset.path={dataset}", "dataset.task=hopper", f"paths.runs={ground.runs}"]
    told = subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert told.returncode == 2
    assert "cannot be written" in told.stderr or "Read-only file system" in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.2, 1.0, 2.5, 6.0])
def test_a_signal_at_startup_or_while_data_are_made_is_obeyed(seconds: float, tmp_path: Path):
    environment = {**os.environ, "O2O_RUNS": str(tmp_path / "runs"), "O2O_DATA": str(tmp_path / "data")}
    words = ["dataset=regen-hopper-medium", "dataset.rows=1000000", "device.platform=cpu"]
    with subprocess.Popen(
        [sys.executable, str(ROOT / "launch.py"), *words],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        time.sleep(seconds)
        process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        _, errors = process.communicate(timeout=30)
    assert time.monotonic() - asked < 10
    assert process.returncode in (143, -signal.SIGTERM)  # the latter before Python has begun
    assert "Traceback" not in errors
    assert list(tmp_path.rglob("*.hdf5")) == []
    assert list(tmp_path.rglob("result.json")) == []


def test_memory_that_runs_out_is_called_that(configure, tmp_path: Path, monkeypatch):
    def exhausted(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 4294967296 bytes.")

    monkeypatch.setattr(phases.loop, "pretrain", exhausted)
    with pytest.raises(jax.errors.JaxRuntimeError):
        job.run(configure(tmp_path))
    (status,) = tmp_path.rglob("status.json")
    told = json.loads(status.read_text())
    assert (told["state"], told["failure"]) == ("FAILED", "memory")
    assert "out of memory: fewer seeds in a job (launch.seeds_per_job)" in told["error"]


@pytest.mark.slow
def test_checkpoints_cost_at_most_two_percent_at_the_default_interval(tmp_path: Path):
    assert costs.share(tmp_path, "ant") < 0.02


@pytest.mark.slow
def test_a_lease_names_its_owner_and_is_gone_when_a_run_is_done(ground: Arena):
    ground.clear()
    ended = ground.start(PRETRAINING, only=PLACES["while pretraining"])
    assert ended["code"] == -signal.SIGKILL
    owner = lock.read(run_of(ground, "pretrain"))
    assert owner is not None
    assert owner.alive is False
    assert (
        json.loads((run_of(ground, "pretrain") / f"lease-{owner.number}.json").read_text())["pid"]
        == owner.pid
    )
    assert ground.start(PRETRAINING)["code"] == 0
    assert lock.read(run_of(ground, "pretrain")) is None
