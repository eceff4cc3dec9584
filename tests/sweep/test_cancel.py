"""What is alive, and stopping it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from datetime import timedelta
from pathlib import Path

import pytest
from following import launch, queued, silence, states, write

from o2o.runs.directory import layout
from o2o.runs.lock import Leases
from o2o.sweep.ledger import manifest
from o2o.sweep.ledger.manifest import SbatchCall

OLD = timedelta(hours=2)

CELL = "regen-hopper-medium/td3/offline-uniform-0000aaaa"


def test_cancel_reaches_only_jobs_of_its_launches(tmp_path, say, slurm):
    paths = [write(tmp_path, seed=seed, steps=[500]) for seed in range(4)]
    name = launch(tmp_path, {"77_0": paths[:2], "77_1": paths[2:3], "77_2": paths[3:]}).job_name
    squeue = f"{queued(name, _0='RUNNING', _1='PENDING')}\n{queued('other', _2='RUNNING')}"
    called = slurm(squeue=squeue, sacct="")
    code, said = say("cancel", "--yes", "seed=0,3")
    assert [line for line in called() if line.startswith("scancel")] == ["scancel 77_0"]
    assert "stops also seed 1" in said
    assert code == 0
    assert [manifest.read_attempts(tmp_path, job)[-1:] != [] for job in ("77_0", "77_1")] == [True, False]


def test_a_job_that_was_cancelled_is_not_tried_again_however_it_ends(tmp_path, say):
    from o2o.sweep.launching.entry import Place, end

    submission = launch(
        tmp_path, {"77_0": [write(tmp_path, steps=[500])], "77_1": [tmp_path / CELL / "seed-1"]}
    )
    place = manifest.submission_directory(tmp_path, submission.sweep, submission.token)
    for job in ("77_0", "77_1"):
        manifest.note_attempt(tmp_path, job, "cancelled", by="somebody")
    assert states(say) == {0: "RUNNING", 1: "CANCELLED"}
    assert not end(Place(place, 0, "77_0"), 137, {"JobState": "RUNNING"})
    assert states(say) == {0: "CANCELLED", 1: "CANCELLED"}


def test_cancel_does_nothing_unasked(tmp_path, say, slurm, monkeypatch):
    name = launch(tmp_path, {"77_0": [write(tmp_path, steps=[500])]}).job_name
    called = slurm(squeue=queued(name, _0="RUNNING"), sacct="")
    code, said = say("cancel")
    assert code == 2
    assert "--yes" in said
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert say("cancel")[0] == 0
    assert not [line for line in called() if line.startswith("scancel")]


def before_redo(root: Path, seed: int = 0) -> Path:
    """A run that was done two hours ago."""
    path = write(root, seed=seed, steps=[500], end="DONE")
    silence(path, OLD)
    return path


def test_a_redo_that_waits_is_seen_and_cancelled(tmp_path, say, slurm):
    paths = [before_redo(tmp_path, seed) for seed in range(2)]
    name = launch(tmp_path, {"77_0": paths[:1], "77_1": paths[1:]}, redo=True).job_name
    called = slurm(squeue=queued(name, _0="PENDING", _1="PENDING"), sacct="")
    assert states(say) == {0: "QUEUED", 1: "QUEUED"}
    assert "none failed or stopped" in say("why")[1]
    assert "asked 1 job and" in say("cancel", "--yes", "seed=0")[1]
    assert [line for line in called() if line.startswith("scancel")] == ["scancel 77_0"]
    assert states(say) == {0: "QUEUED", 1: "QUEUED"}  # SLURM still has it, whatever was asked of it
    slurm(squeue=queued(name, _1="PENDING"), sacct="")
    assert states(say) == {0: "DONE", 1: "QUEUED"}
    said = " ".join(say("why")[1].split())
    assert "its redo has not begun: its job was cancelled" in said
    assert "the earlier result stands" in said


def test_a_redo_is_seen_whose_answer_of_sbatch_was_lost(tmp_path, say, slurm):
    submission = launch(tmp_path, {"77_0": [before_redo(tmp_path)]}, redo=True)
    manifest.write_batch(tmp_path, submission, SbatchCall(0, [0], [], id=None))
    shutil.rmtree(tmp_path / manifest.JOBS)
    slurm(squeue=queued(submission.job_name, _0="PENDING"), sacct="")
    assert states(say) == {0: "QUEUED"}


def test_the_newest_launch_has_a_run_whatever_its_sweep_is_called(tmp_path, say, slurm):
    path = before_redo(tmp_path)
    launch(tmp_path, {"66_0": [path]}, sweep="small", ago=4 * 3600)
    name = launch(tmp_path, {"77_0": [path]}, sweep="again", redo=True).job_name
    slurm(squeue=queued(name, _0="PENDING"), sacct="")
    assert states(say) == {0: "QUEUED"}


@pytest.mark.parametrize("ended", ["", "77_0|small-abc123|CANCELLED by 0"])
def test_a_result_is_one_again_when_its_redo_is_gone_before_it_began(tmp_path, say, slurm, ended):
    launch(tmp_path, {"77_0": [before_redo(tmp_path)]}, redo=True)
    slurm(squeue="", sacct=ended)
    assert states(say) == {0: "DONE"}
    assert "its redo has not begun" in " ".join(say("why")[1].split())


def test_a_redo_whose_job_died_before_it_began_is_told(tmp_path, say):
    launch(tmp_path, {"77_0": [before_redo(tmp_path)]}, redo=True)
    manifest.note_attempt(tmp_path, "77_0", "started", attempt=1, node="n1", pid=1, steps=0)
    ended = {
        "attempt": 1,
        "exit_code": 2,
        "failure": "code",
        "failed": {},
        "decision": "given up",
        "reason": None,
    }
    manifest.note_attempt(tmp_path, "77_0", "ended", **ended)
    assert states(say) == {0: "DONE"}
    assert "its redo has not begun: its job ended: code" in " ".join(say("why")[1].split())


def test_a_result_that_is_newer_than_its_redo_is_the_redos(tmp_path, say, slurm):
    paths = [write(tmp_path, seed=seed, steps=[500], end="DONE") for seed in range(2)]
    name = launch(tmp_path, {"77_0": paths}, redo=True).job_name
    (paths[1] / layout.RESULT).unlink()
    slurm(squeue=queued(name, _0="RUNNING"), sacct="")
    assert states(say)[0] == "DONE"
    assert states(say)[1] != "DONE"
    shutil.rmtree(tmp_path / manifest.JOBS)  # as in a copy
    assert states(say)[0] == "DONE"


def test_a_redo_beside_a_result_without_a_time_is_seen(tmp_path, say, slurm):
    path = before_redo(tmp_path)
    (path / layout.STATUS).unlink()
    name = launch(tmp_path, {"77_0": [path]}, redo=True).job_name
    slurm(squeue=queued(name, _0="PENDING"), sacct="")
    assert states(say) == {0: "QUEUED"}
    slurm(squeue="", sacct=f"77_0|{name}|COMPLETED")
    assert states(say) == {0: "DONE"}


def test_a_pool_that_holds_its_launch_will_start_what_is_queued(tmp_path, say):
    submission = launch(tmp_path, {"local-abc123-0": [before_redo(tmp_path)]}, launcher="local", redo=True)
    with Leases() as leases:
        leases.take(manifest.submission_directory(tmp_path, submission.sweep, submission.token))
        assert states(say) == {0: "QUEUED"}
    assert states(say) == {0: "DONE"}


@pytest.mark.parametrize("launcher", ["local", "here"])
def test_a_redo_of_a_launch_on_this_machine_that_has_ended_leaves_the_result(tmp_path, say, launcher):
    submission = launch(tmp_path, {"local-abc123-0": [before_redo(tmp_path)]}, launcher=launcher, redo=True)
    if launcher == "here":  # its jobs have no ids
        submission = dataclasses.replace(submission, jobs=[dataclasses.replace(submission.jobs[0], id=None)])
        manifest.write_submission(tmp_path, submission, {})
    assert states(say) == {0: "DONE"}
    assert not manifest.awaited(
        tmp_path, dataclasses.replace(submission, redo=False), submission.jobs[0].runs[0]
    )
    assert manifest.awaited(tmp_path, submission, submission.jobs[0].runs[0])


@pytest.fixture
def program(tmp_path):
    """A living process that owns a run, as `launch.py` does."""
    source = """
    import pathlib, sys, time
    from following import write
    from o2o.runs.lock import Leases
    with Leases() as leases:
        leases.take(write(pathlib.Path(sys.argv[1]), steps=[500]))
        print("up", flush=True)
        time.sleep(60)
    """
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(source))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, str(path), str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_cancel_ends_local_processes_by_sigterm(tmp_path, say, program):
    assert "asked 0 jobs and 1 process " in say("cancel", "--yes")[1]
    assert program.wait(timeout=30) == -signal.SIGTERM


def test_cancel_names_all_seeds_of_a_process(tmp_path, say, program):
    lease = next(tmp_path.glob("*/*/*/seed-0/lease-*.json"))
    (write(tmp_path, seed=1, steps=[500]) / lease.name).write_bytes(lease.read_bytes())
    code, said = say("cancel", "seed=0")
    assert f"process {program.pid}: {CELL} seeds 0-1; stops also seed 1, not asked for" in said
    assert code == 2


def test_a_living_owner_is_believed_and_a_dead_one_is_not(tmp_path, say, program):
    (path,) = tmp_path.glob("*/*/*/seed-0")
    silence(path, OLD)
    assert states(say) == {0: "RUNNING"}
    silence(path, timedelta())
    program.kill()
    program.wait()
    assert states(say) == {0: "STALLED"}


def owned(path: Path, **changes) -> Path:
    """Gives the run an owner."""
    owner = {
        "number": 1,
        "host": "far",
        "machine": "far",
        "pid": os.getpid(),
        "process_started": "0",
        "job": None,
    }
    file = path / "lease-1.json"
    file.write_text(json.dumps(owner | {"since": "then"} | changes))
    return file


def test_the_beat_of_another_machine_is_a_sign_of_life_but_not_in_a_copy(tmp_path, say):
    path = write(tmp_path, steps=[500], quiet=OLD)
    before = time.time() - OLD.total_seconds()
    os.utime(path / layout.STATUS, (before, before))
    lease = owned(path)
    assert states(say) == {0: "RUNNING"}
    os.utime(path / layout.STATUS)  # as if copied: every file is of today
    assert states(say) == {0: "STALLED"}
    os.utime(path / layout.STATUS, (before, before))
    os.utime(lease, (before, before))
    assert states(say) == {0: "STALLED"}


def test_cancel_spares_a_process_that_only_has_the_number(tmp_path, say):
    from o2o.runs.lock import _machine

    with subprocess.Popen(["sleep", "60"]) as stranger:
        owned(write(tmp_path, steps=[500]), machine=_machine(), pid=stranger.pid)
        try:
            assert say("cancel", "--yes") == (0, f"{tmp_path}: nothing to cancel\n")
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_cancel_names_the_machine_that_has_the_run(tmp_path, say):
    owned(write(tmp_path, steps=[500]))
    code, said = say("cancel", "--yes")
    assert code == 1
    assert "on far" in said
