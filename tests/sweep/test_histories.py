"""What is said of runs that a job has again, or that SLURM is slow to take back."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
from following import directory, launch, queued, states, write

from o2o.runs.lock import Leases
from o2o.sweep.following import status
from o2o.sweep.launching import entry
from o2o.sweep.launching.entry import Place
from o2o.sweep.ledger import manifest, slurm

CELL = "regen-hopper-medium/td3/offline-uniform-0000aaaa"
OLD = timedelta(hours=2)
STARTED = {"attempt": 1, "node": "n1", "pid": 1, "steps": 0, "log_size": 0}


def ended(root, job_id, decision, failure="infrastructure", **details):
    told = {"exit_code": 137, "failure": failure, "failed": {}, "decision": decision} | details
    manifest.note_attempt(root, job_id, "ended", **told)


@pytest.fixture
def retried(tmp_path):
    """Runs that failed, and stalled, in a launch two hours ago, and that were given to SLURM again just now."""
    paths = [
        write(tmp_path, seed=0, steps=[500], end="FAILED", quiet=OLD),
        write(tmp_path, seed=1, steps=[500], quiet=OLD),
    ]
    launch(tmp_path, {"77_0": paths[:1], "77_1": paths[1:]}, token="aaaaaa", ago=3 * 3600)
    again = {"88_0": paths[:1], "88_1": paths[1:]}
    return launch(tmp_path, again, token="bbbbbb", ago=0)


def test_what_was_retried_and_has_not_begun_is_queued_with_its_old_end_in_why(tmp_path, say, retried):
    assert states(say) == {0: "QUEUED", 1: "QUEUED"}
    code, said = say("why")
    assert code == 0  # nothing is failed now
    assert "QUEUED\nbefore that: FAILED (code) at step 1.5k, attempt 1" in said
    assert "QUEUED\nbefore that: STALLED at step 1.5k" in said
    assert "ValueError: no such thing" in said
    assert "what to do: nothing, a job has it again" in said
    assert "mend what the traceback names" not in said
    code, said = say("retry")
    assert (code, "2 QUEUED under way" in said) == (2, True)


def test_what_was_retried_is_waiting_as_soon_as_its_job_has_begun(tmp_path, say, retried):
    for job_id in ("88_0", "88_1"):
        manifest.note_attempt(tmp_path, job_id, "started", **STARTED)
    assert states(say) == {0: "WAITING", 1: "WAITING"}
    assert "WAITING\nbefore that: FAILED (code)" in say("why", "seed=0")[1]


@pytest.mark.parametrize(("in_slurm", "state"), [("PENDING", "QUEUED"), ("RUNNING", "WAITING")])
def test_slurm_says_the_same_of_what_was_retried(tmp_path, say, slurm, retried, in_slurm, state):
    array = queued(retried.job_name, _0=in_slurm, _1=in_slurm).replace("77|", "88|")
    slurm(squeue=array, sacct="")
    assert states(say) == {0: state, 1: state}


def test_what_ended_again_before_it_began_is_told_so_with_both_ends(tmp_path, say, slurm, retried):
    manifest.note_attempt(tmp_path, "88_0", "started", **STARTED)
    ended(tmp_path, "88_0", "given up", "code", reason="it would end the same way")
    slurm(
        squeue=queued(retried.job_name, _0="RUNNING").replace("77|", "88|"), sacct=""
    )  # its shell is about to end
    assert states(say, "seed=0") == {0: "FAILED"}
    said = say("why", "seed=0")[1]
    assert (
        "FAILED (code)\n  its job ended: it would end the same way\nbefore that: FAILED (code) at step"
        in said
    )


def test_what_was_retried_and_lost_is_as_it_was_before(tmp_path, say, slurm, retried):
    slurm(squeue="", sacct="")
    assert states(say) == {0: "FAILED", 1: "STALLED"}
    code, said = say("why", "seed=0")
    assert (code, "its job 88_0 is not in the queue" in said, "no such thing" in said) == (1, True, True)


def test_watching_goes_on_until_what_was_retried_is_done(tmp_path, say, retried, monkeypatch):
    naps = []

    def sleep(seconds):
        naps.append(seconds)
        if len(naps) == 2:
            for seed in (0, 1):
                write(tmp_path, seed=seed, end="DONE")

    monkeypatch.setattr(status.time, "sleep", sleep)
    assert say("status", "--watch", "--interval", "7")[0] == 0
    assert naps == [7, 7, 7]


def test_a_run_that_ran_here_since_its_launch_says_itself_how_it_is(tmp_path, say):
    path = directory(tmp_path).path
    launch(tmp_path, {"77_0": [path]}, ago=60)
    write(tmp_path, steps=[500], end="FAILED")
    assert states(say) == {0: "FAILED"}


def test_a_pool_that_was_just_told_to_retry_is_believed(tmp_path, say):
    paths = [write(tmp_path, seed=seed, end="FAILED", quiet=OLD) for seed in (0, 1)]
    jobs = {f"local-abc123-{seed}": [path] for seed, path in enumerate(paths)}
    submission = launch(tmp_path, jobs, launcher="local", ago=0)
    with Leases() as leases:
        leases.take(manifest.submission_directory(tmp_path, submission.sweep, submission.token))
        assert states(say) == {0: "QUEUED", 1: "QUEUED"}
    assert states(say) == {0: "FAILED", 1: "FAILED"}
    assert "the pool that was to run it has ended" in say("why")[1]


def test_what_its_job_tries_again_is_queued_and_what_it_does_not_is_failed(tmp_path, say, slurm):
    paths = [
        write(tmp_path, seed=0, steps=[500], end="FAILED", error="MemoryError: 1"),
        write(tmp_path, seed=1, steps=[500], end="FAILED", error="ValueError: a mistake"),
    ]
    name = launch(tmp_path, {"77_0": paths}).job_name
    manifest.note_attempt(tmp_path, "77_0", "started", **STARTED)
    failed = {f"{CELL}/seed-0": "memory", f"{CELL}/seed-1": "code"}
    ended(tmp_path, "77_0", "requeued", "memory", failed=failed)
    assert states(say) == {0: "QUEUED", 1: "FAILED"}
    slurm(squeue=queued(name, _0="PENDING"), sacct="")
    assert states(say) == {0: "QUEUED", 1: "FAILED"}


@pytest.fixture
def killed(tmp_path):
    """A job whose process was killed: its place."""
    path = write(tmp_path, steps=[500], quiet=OLD)
    submission = launch(tmp_path, {"77_0": [path]}, ago=3 * 3600)
    manifest.note_attempt(tmp_path, "77_0", "started", **STARTED)
    return Place(manifest.submission_directory(tmp_path, submission.sweep, submission.token), 0, "77_0")


@pytest.fixture
def end(killed, capsys):
    """Notes its end as SLURM's script does, with an exit code; gives what was said."""

    def call(exit_code):
        entry.end_in_slurm(killed, exit_code)
        return capsys.readouterr().err

    return call


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """Commands of a controller that says these things, one after the other; the last one again and again."""

    def answer(*said):
        calls = tmp_path / "calls"
        cases = "\n".join(f"{number}) {each};;" for number, each in enumerate(said[:-1], 1))
        (tmp_path / "scontrol").write_text(
            f'#!/bin/sh\necho "$*" >> {calls}\ncase $(wc -l < {calls}) in\n{cases}\n*) {said[-1]};;\nesac\n'
        )
        (tmp_path / "scontrol").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(slurm, "PAUSE_SECONDS", 0)
        return lambda: calls.read_text().splitlines()

    return answer


AWAY = "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1"
SHOWN = "echo JobId=77 JobState=RUNNING Restarts=0 PreemptTime=None"
TAKEN = "exit 0"
FORBIDDEN = "echo 'Requested operation is presently disabled for job 77_0' >&2; exit 1"
PENDING = "echo 'Job is pending execution for job 77_0' >&2; exit 1"


def events(root):
    return [row["event"] for row in manifest.read_attempts(root, "77_0")]


def test_a_killed_job_is_put_back_by_a_controller_that_was_away(tmp_path, killed, end, scontrol, say):
    called = scontrol(AWAY, AWAY, SHOWN, AWAY, AWAY, TAKEN)
    end(137)
    show, put_back = "--oneliner show job 77_0", "requeue 77_0"
    assert [line for line in called() if line != show] == [put_back] * 3
    assert events(tmp_path) == ["started", "unanswered", "ended", "unanswered", "requeued"]
    assert [row["decision"] for row in killed.endings] == ["requeued"]
    assert states(say) == {0: "QUEUED"}
    said = say("why")[1]
    assert "QUEUED\n  requeued: infrastructure\nbefore that: STALLED (infrastructure) at step 1.5k" in said
    assert "its process ended with exit code 137" in said


def test_a_job_that_is_done_waits_for_nobody(tmp_path, killed, end, scontrol):
    scontrol(AWAY)
    end(0)
    assert not (tmp_path / "calls").exists()
    assert events(tmp_path) == ["started", "ended"]


def test_a_requeue_whose_answer_was_lost_is_known_by_the_count_of_restarts(tmp_path, killed, end, scontrol):
    called = scontrol(SHOWN, AWAY, PENDING, "echo JobId=77 JobState=COMPLETING Restarts=1")
    end(137)
    assert len(called()) == 4
    assert events(tmp_path) == ["started", "ended", "unanswered", "requeued"]


@pytest.mark.parametrize(
    ("answers", "patience", "told"),
    [
        ((SHOWN, FORBIDDEN, SHOWN), 3600, "presently disabled"),
        ((AWAY,), 0, "Unable to contact"),
    ],
)
def test_a_job_that_cannot_be_put_back_is_told(
    tmp_path, killed, end, scontrol, say, slurm, monkeypatch, answers, patience, told
):
    scontrol(*answers)
    monkeypatch.setattr("o2o.sweep.ledger.slurm.PATIENCE_SECONDS", patience)
    assert "job 77_0 is not requeued: scontrol: " in end(137)
    assert events(tmp_path)[-1] == "not requeued"
    slurm(squeue="", sacct="77_0|small-abc123|FAILED")
    assert states(say) == {0: "FAILED"}
    code, said = say("why")
    assert code == 1
    assert "FAILED (infrastructure)" in said
    assert "not requeued: scontrol: " in said
    assert told in said
    assert "`retry` goes on from the last checkpoint" in said


def test_an_interrupted_job_that_cannot_be_put_back_is_told_too(tmp_path, killed, end, scontrol, say):
    write(tmp_path, steps=[500], end="INTERRUPTED", quiet=timedelta(minutes=1))
    scontrol(SHOWN, FORBIDDEN, SHOWN)
    end(140)
    assert states(say) == {0: "INTERRUPTED"}
    said = say("why")[1]
    assert "INTERRUPTED (time)" in said
    assert "stopped by SIGTERM\n  its job ended: not requeued: scontrol: Requested operation" in said


def test_meanwhile_it_is_said_that_slurm_is_waited_for(tmp_path, killed, say, slurm):
    told = {"exit_code": 137, "reason": "scontrol: Unable to contact slurm controller (connect failure)"}
    manifest.note_attempt(tmp_path, "77_0", "unanswered", **told)
    for answers in (
        {"squeue": None, "sacct": None},
        {"squeue": queued("small-abc123", _0="RUNNING"), "sacct": ""},
    ):
        slurm(**answers)
        assert states(say) == {0: "WAITING"}
        assert "seed 0 WAITING: its process has ended; its job waits for SLURM's answer" in say("status")[1]
        said = say("why")[1]
        assert "before that: STALLED" in said
        assert "its process ended with exit code 137" in said
    ended(tmp_path, "77_0", "requeued")
    manifest.note_attempt(tmp_path, "77_0", "unanswered", **told)
    assert states(say) == {0: "WAITING"}


def test_what_was_cancelled_is_not_put_back_though_the_controller_was_away(
    tmp_path, killed, end, scontrol, say
):
    manifest.note_attempt(tmp_path, "77_0", "cancelled", by="somebody")
    called = scontrol(AWAY, SHOWN)
    end(137)
    assert not [line for line in called() if line.startswith("requeue")]
    assert states(say) == {0: "CANCELLED"}
