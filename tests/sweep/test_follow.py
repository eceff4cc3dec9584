"""What SLURM and pools know of runs, `why`, `logs`, and what all commands have in common."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import timedelta

import pytest
from following import directory, launch, queued, silence, states, write

from o2o.sweep.following import logs
from o2o.sweep.ledger import manifest

CELL = "regen-hopper-medium/td3/offline-uniform-0000aaaa"
OLD = timedelta(hours=2)


def test_slurm_says_what_is_queued_and_what_ended_without_a_word(tmp_path, say, slurm):
    paths = [tmp_path / CELL / f"seed-{seed}" for seed in range(2)]
    paths += [write(tmp_path, seed=seed, steps=[500]) for seed in range(2, 6)]
    submission = launch(tmp_path, {f"77_{seed}": [path] for seed, path in enumerate(paths)})
    name = submission.job_name
    slurm(
        squeue=queued(name, _0="PENDING", _2="RUNNING"),
        sacct=f"77_1|{name}|CANCELLED by 0\n77_3|{name}|TIMEOUT\n77_4|{name}|OUT_OF_MEMORY\n77_5|{name}|SOMETHING_NEW",
    )
    assert states(say) == {
        0: "QUEUED",
        1: "CANCELLED",
        2: "RUNNING",
        3: "INTERRUPTED",
        4: "FAILED",
        5: "RUNNING",  # a state that nobody knows changes nothing
    }


def test_jobs_of_another_cluster_with_the_same_numbers_say_nothing(tmp_path, say, slurm):
    path = write(tmp_path, steps=[500])
    launch(tmp_path, {"77_0": [path]})
    slurm(squeue="", sacct="77_0|somebody-else|CANCELLED by 7")
    assert states(say) == {0: "RUNNING"}


def test_a_slurm_that_does_not_answer_costs_a_line_and_no_more(tmp_path, say, slurm):
    launch(tmp_path, {"77_0": [write(tmp_path, steps=[500])]})
    slurm(squeue=None, sacct=None)
    code, said = say("status")
    assert code == 0
    assert "RUNNING 1" in said
    assert "out of order" in said


def test_runs_that_slurm_did_not_get_are_not_asked_for(tmp_path, say, slurm):
    write(tmp_path, steps=[500])
    called = slurm(squeue="", sacct="")
    say("status")
    assert called() == []


def test_why_tells_class_traceback_log_and_a_way_out(tmp_path, say):
    for seed in (1, 2, 3):
        path = write(
            tmp_path, seed=seed, steps=[500], end="FAILED", error=f"MemoryError: {seed}00 bytes are not there"
        )
    launch(tmp_path, {"77_0": [path]})
    (tmp_path / ".jobs/77_0/stderr").unlink()
    (tmp_path / ".jobs/77_0/stderr").write_text("first\n" * 50 + "the last word\n")
    code, said = say("why")
    assert code == 1
    assert said.count("Traceback") == 1  # three ends of a kind are told once
    for part in ("seeds 1-3", "(memory)", "MemoryError", "attempts/1.json", "--seeds-per-job"):
        assert part in said
    assert "the last word" in say("why", "seed=3")[1]


def test_why_shows_ones_own_frames_of_a_traceback(tmp_path, say):
    path = write(tmp_path, steps=[500], end="FAILED")
    packages = "/venv/lib/python3.11/site-packages/jax/_src"
    foreign = [
        f'  File "{packages}/api.py", line {i}, in scan\n    return {i}\n           ^\n' for i in range(30)
    ]
    text = [
        "Traceback (most recent call last):\n",
        '  File "o2o/training/loop.py", line 3, in pretrain\n    learn(state)\n',
        *foreign[:15],
        '  File "o2o/algorithms/mine.py", line 7, in update\n    return jnp.dot(batches, 3)\n',
        *foreign[15:],
        "TypeError: dot needs arrays\n",
    ]
    attempt = path / "attempts/1.json"
    attempt.write_text(json.dumps(json.loads(attempt.read_text()) | {"traceback": "".join(text)}))
    said = say("why")[1]
    assert "o2o/algorithms/mine.py" in said
    assert "return jnp.dot(batches, 3)" in said
    assert "site-packages" not in said
    assert "TypeError: dot needs arrays" in said
    attempt.write_text(json.dumps(json.loads(attempt.read_text()) | {"traceback": "".join(foreign)}))
    assert "site-packages" in say("why")[1]


def test_why_knows_what_is_stalled_and_what_is_well(tmp_path, say):
    write(tmp_path, seed=0, steps=[500], quiet=OLD)
    write(tmp_path, seed=1, end="DONE")
    assert say("why", "seed=1") == (0, "of 1 run none failed or stopped\n")
    code, said = say("why")
    assert code == 0
    assert "STALLED" in said
    assert "retry" in said


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_why_survives_damaged_attempts(tmp_path, say, content):
    path = write(tmp_path, steps=[500], end="FAILED")
    (path / "attempts/1.json").write_text(content)
    (path / "attempts/x.json").write_text(content)
    assert "ValueError: no such thing" in say("why")[1]


def test_logs_are_those_of_the_newest_job(tmp_path, say):
    path = write(tmp_path, steps=[500])
    launch(tmp_path, {"77_0": [path]}, sweep="one")
    launch(tmp_path, {"88_0": [path]}, sweep="two")
    for job in ("77_0", "88_0"):
        for stream in ("stdout", "stderr"):
            (tmp_path / ".jobs" / job / stream).unlink()
            (tmp_path / ".jobs" / job / stream).write_text(
                "\n".join(f"{stream} of {job} {i}" for i in range(90))
            )
    code, said = say("logs", "-n", "2")
    assert code == 0
    assert "stdout of 88_0 88\nstdout of 88_0 89\n" in said
    assert "stderr of 88_0 89" in said
    assert "77_0" not in said
    assert "stdout of 88_0 0\n" in say("logs", "-n", "0")[1]


def test_logs_say_where_to_look_if_no_job_has_the_run(tmp_path, say):
    write(tmp_path, steps=[500], end="FAILED")
    code, said = say("logs")
    assert code == 1
    assert "why" in said


# A shell's background process is started deaf to Ctrl-C.
LISTENING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from o2o.sweep.__main__ import main
sys.exit(main())
"""


def test_logs_are_followed(tmp_path):
    path = write(tmp_path, steps=[500])
    launch(tmp_path, {"77_0": [path]})
    log = tmp_path / ".jobs/77_0/stdout"
    log.unlink()
    log.write_text("before\n")
    following = subprocess.Popen(
        [sys.executable, "-u", "-c", LISTENING, "logs", "-f", "--runs", str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert following.stdout is not None
    try:
        for line in following.stdout:
            if line == "before\n":
                log.write_text("before\nafter\n")
            if line == "after\n":
                break
    finally:
        following.send_signal(signal.SIGINT)
        assert following.wait(timeout=30) == 130
        following.stdout.close()


def test_what_is_written_while_following_begins_is_not_lost(tmp_path, say, monkeypatch):
    launch(tmp_path, {"77_0": [write(tmp_path, steps=[500])]})
    log = tmp_path / ".jobs/77_0/stdout"
    log.unlink()
    log.write_text("before\n")
    begin, naps = logs._follow, iter(["before\nmeanwhile\nlater\n", "anew\n"])

    def late(*arguments):
        log.write_text("before\nmeanwhile\n")
        begin(*arguments)

    def sleep(_seconds):
        if (content := next(naps, None)) is None:
            raise KeyboardInterrupt
        log.write_text(content)

    monkeypatch.setattr(logs, "_follow", late)
    monkeypatch.setattr(logs.time, "sleep", sleep)
    code, said = say("logs", "-f")
    assert code == 130
    assert [line for line in said.splitlines() if line and "==>" not in line][-4:] == [
        "before", "meanwhile", "later", "anew",
    ]  # fmt: skip


def test_what_a_dead_pool_left_is_not_said_to_be_queued(tmp_path, say):
    paths = [tmp_path / CELL / f"seed-{seed}" for seed in range(2)]
    launch(
        tmp_path,
        {"local-abc123-0": [write(tmp_path, steps=[500])], "local-abc123-1": paths[1:]},
        launcher="local",
    )
    assert states(say) == {0: "RUNNING", 1: "QUEUED"}
    silence(paths[0], OLD)
    assert states(say) == {0: "STALLED", 1: "PLANNED"}


@pytest.mark.parametrize("command", ["status", "why", "logs", "retry", "cancel", "sync", "clean"])
def test_every_command_answers_an_empty_directory_and_a_wrong_filter(tmp_path, say, command):
    assert say(command)[0] in (0, 1)
    write(tmp_path, end="DONE")
    code, said = say(command, "algoritm=td3")
    assert code == 2
    assert "did you mean algorithm?" in said


@pytest.mark.usefixtures("say")
def test_writers_and_readers_agree_on_where_jobs_are(tmp_path):
    from o2o.sweep.following.logs import job_directory
    from o2o.sweep.following.status import look

    launch(tmp_path, {"77_0": [directory(tmp_path).path]})
    (run,) = look(tmp_path, [])[0]
    assert job_directory(tmp_path, run) == manifest.job_directory(tmp_path, "77_0")
