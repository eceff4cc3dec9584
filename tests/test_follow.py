from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from datetime import timedelta
from pathlib import Path

import pytest
from following import directory, launch, silence, write

from o2o import layout
from o2o.run_directory import RunDirectory
from o2o.sweep import launched, logs, manifest
from o2o.sweep import slurm as real_slurm
from o2o.sweep import sync as syncing
from o2o.sweep.__main__ import main

CELL = "regen-hopper-medium/td3/offline-uniform-0000aaaa"
OLD = timedelta(hours=2)


@pytest.fixture
def say(tmp_path, capsys):
    """Runs a command on the runs in `tmp_path`: exit code and what it said."""

    def run(*words):
        code = main([words[0], "--runs", str(tmp_path), *words[1:]])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


@pytest.fixture(autouse=True)
def no_real_slurm(monkeypatch):
    monkeypatch.setattr(real_slurm, "present", lambda: False)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands that answer for SLURM: `slurm(squeue=…, sacct=…)` sets what they print, None that they fail.

    Returns a function that gives the commands that were called.
    """
    binaries, log = tmp_path / "bin", tmp_path / "called"
    binaries.mkdir()
    monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")
    monkeypatch.setattr(real_slurm, "present", lambda: True)

    def answer(**answers):
        launched._answers.cache_clear()
        for name, text in {"scancel": "", **answers}.items():
            script = binaries / name
            end = "echo slurm is out of order >&2; exit 1" if text is None else f"cat <<'EOF'\n{text}\nEOF"
            script.write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\n{end}\n')
            script.chmod(0o755)
        return lambda: log.read_text().splitlines() if log.exists() else []

    return answer


def queued(name, **states):
    """What squeue prints of the tasks of array 77, by their states as `_0="RUNNING"`."""
    return "\n".join(
        f"77|{task[1:]}|8{task[1:]}|{state}|Priority|batch-0|{name}|n1" for task, state in states.items()
    )


def states(root, say, *filters):
    content = json.loads(say("status", "--json", *filters)[1])
    return {run["seed"]: run["state"] for cell in content["cells"] for run in cell["runs"]}


def test_slurm_says_what_is_queued_and_what_ended_without_a_word(tmp_path, say, slurm):
    paths = [tmp_path / CELL / f"seed-{seed}" for seed in range(2)]
    paths += [write(tmp_path, seed=seed, steps=[500]) for seed in range(2, 6)]
    submission = launch(tmp_path, {f"77_{seed}": [path] for seed, path in enumerate(paths)})
    name = submission.job_name
    slurm(
        squeue=queued(name, _0="PENDING", _2="RUNNING"),
        sacct=f"77_1|{name}|CANCELLED by 0\n77_3|{name}|TIMEOUT\n77_4|{name}|OUT_OF_MEMORY\n77_5|{name}|SOMETHING_NEW",
    )
    assert states(tmp_path, say) == {
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
    assert states(tmp_path, say) == {0: "RUNNING"}


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
    from o2o.sweep.job import Place, end

    submission = launch(
        tmp_path, {"77_0": [write(tmp_path, steps=[500])], "77_1": [tmp_path / CELL / "seed-1"]}
    )
    place = manifest.submission_directory(tmp_path, submission.sweep, submission.token)
    for job in ("77_0", "77_1"):
        manifest.note_attempt(tmp_path, job, "cancelled", by="somebody")
    assert states(tmp_path, say) == {0: "RUNNING", 1: "CANCELLED"}
    assert not end(Place(place, 0, "77_0"), 137, {"JobState": "RUNNING"})
    assert states(tmp_path, say) == {0: "CANCELLED", 1: "CANCELLED"}


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


@pytest.fixture
def program(tmp_path):
    """A living process that owns a run, as `launch.py` does."""
    source = """
    import pathlib, sys, time
    from following import write
    from o2o.lease import Leases
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


def test_a_living_owner_is_believed_and_a_dead_one_is_not(tmp_path, say, program):
    (path,) = tmp_path.glob("*/*/*/seed-0")
    silence(path, OLD)
    assert states(tmp_path, say) == {0: "RUNNING"}
    silence(path, timedelta())
    program.kill()
    program.wait()
    assert states(tmp_path, say) == {0: "STALLED"}


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
    assert states(tmp_path, say) == {0: "RUNNING"}
    os.utime(path / layout.STATUS)  # as if copied: every file is of today
    assert states(tmp_path, say) == {0: "STALLED"}
    os.utime(path / layout.STATUS, (before, before))
    os.utime(lease, (before, before))
    assert states(tmp_path, say) == {0: "STALLED"}


def test_cancel_spares_a_process_that_only_has_the_number(tmp_path, say):
    from o2o.lease import _machine

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


def test_what_a_dead_pool_left_is_not_said_to_be_queued(tmp_path, say):
    paths = [tmp_path / CELL / f"seed-{seed}" for seed in range(2)]
    launch(
        tmp_path,
        {"local-abc123-0": [write(tmp_path, steps=[500])], "local-abc123-1": paths[1:]},
        launcher="local",
    )
    assert states(tmp_path, say) == {0: "RUNNING", 1: "QUEUED"}
    silence(paths[0], OLD)
    assert states(tmp_path, say) == {0: "STALLED", 1: "PLANNED"}


def test_retry_refuses_what_is_under_way(tmp_path, say):
    write(tmp_path, steps=[500])
    code, said = say("retry")
    assert code == 2
    assert "under way" in said


def test_retry_finds_nothing_where_nothing_stopped(tmp_path, say):
    write(tmp_path, end="DONE")
    assert say("retry")[0] == 0


def test_retry_names_settings_that_are_none(tmp_path, say):
    write(tmp_path, end="FAILED")
    assert say("retry", "--set", "timeout_min")[0] == 2


def test_retry_says_which_configuration_is_unreadable(tmp_path, say):
    path = write(tmp_path, end="INTERRUPTED")
    (path / layout.CONFIG).write_text("seed: [")
    code, said = say("retry", "--dry-run")
    assert code == 2
    assert "is damaged" in said


def started(configure, runs, seed, *overrides):
    """A run of a real configuration that has begun."""
    from o2o.config import container
    from o2o.sweep.identity import describe, run_directory

    config = configure(runs, f"seed={seed}", *overrides)
    run = RunDirectory(run_directory(config))
    run.start(container(config), describe(config))
    return run


def test_retry_takes_frozen_configurations_and_leaves_out_what_is_hopeless(
    tmp_path, say, configure, monkeypatch
):
    from o2o import experiment

    ran = []
    monkeypatch.setattr(experiment, "run_members", lambda configs: ran.extend(configs))
    elsewhere = tmp_path / "was elsewhere"
    started(configure, elsewhere, 0).interrupt("SystemExit(143)")
    started(configure, elsewhere, 1).fail("", "FloatingPointError: q_mean not finite", "non-finite")
    started(configure, elsewhere, 2).fail("", "ValueError: a mistake", "code")
    started(configure, elsewhere, 3).fail("", "MemoryError: ", "memory")
    started(configure, elsewhere, 4).finish({})
    for seed in range(5):
        started(configure, elsewhere, seed, "finetune.env_steps=0").finish({})
    for path in list(elsewhere.iterdir()):
        path.rename(tmp_path / path.name)
    code, said = say("retry")
    assert code == 0
    assert "1 (non-finite)" in said
    assert "1 (code)" in said
    assert sorted(config.seed for config in ran) == [0, 3]
    assert {config.execution.paths.runs for config in ran} == {tmp_path}
    ran.clear()
    say("retry", "--anyway", "seed=1-2")
    assert sorted(config.seed for config in ran) == [1, 2]


def test_retry_runs_what_failed_under_other_code(tmp_path, say, configure, monkeypatch):
    from o2o import experiment

    ran = []
    monkeypatch.setattr(experiment, "run_members", lambda configs: ran.extend(configs))
    started(configure, tmp_path, 2, "finetune.env_steps=0").finish({})
    run = started(configure, tmp_path, 2)
    run.fail("", "ValueError: a mistake", "code")
    identity = json.loads((run.path / layout.IDENTITY).read_text())
    (run.path / layout.IDENTITY).write_text(
        json.dumps(identity | {"code_hash": "before the mistake was mended"})
    )
    assert say("retry")[0] == 0
    assert len(ran) == 1


def test_what_could_not_begin_is_judged_by_its_pretraining(tmp_path, say, configure):
    for seed, failure in ((0, "infrastructure"), (1, "non-finite")):
        started(configure, tmp_path, seed, "finetune.env_steps=0").fail("", "what it was", failure)
        started(configure, tmp_path, seed).fail("", "its pretraining is FAILED, not DONE", "code")
    code, said = say("retry", "--dry-run")
    assert code == 0
    assert "here: 2 runs" in said
    assert said.count("seed 0") == 2
    assert "seed 1" not in said


def test_retry_gives_back_to_slurm_what_slurm_had(tmp_path, say, configure, monkeypatch):
    from o2o.sweep import submit

    sent = []

    def to_slurm(asked, due, name, seeds, settings):
        sent.append((sorted(run.config.seed for run in due), name, seeds, settings))
        return submit.Report(submission, 0, None)

    runs = [started(configure, tmp_path, seed) for seed in (0, 1)]
    for run in runs:
        run.interrupt("SystemExit(140)")
    submission = launch(tmp_path, {"77_0": [run.path for run in runs]}, partition="gpu", timeout_min=60)
    monkeypatch.setattr(submit, "to_slurm", to_slurm)
    assert say("retry", "--set", "timeout_min=480")[0] == 0
    assert sent == [([0, 1], "small", 2, {"partition": "gpu", "timeout_min": 480})]


def test_retry_of_a_run_that_is_another_one_now_is_refused(tmp_path, say, configure):
    run = started(configure, tmp_path, 0)
    run.interrupt("SystemExit(143)")
    run.path.parent.rename(run.path.parent.with_name("offline-uniform-ffffffff"))
    code, said = say("retry", "--dry-run")
    assert code == 2
    assert "is another run" in said


def tracked(path: Path, *names: str) -> list[Path]:
    found = []
    for name in names:
        part = path / "wandb" / "wandb" / f"offline-run-{name}-abc"
        part.mkdir(parents=True)
        (part / "run-abc.wandb").write_bytes(b"rows")
        found.append(part)
    return found


@pytest.fixture
def wandb(monkeypatch):
    """Somebody is logged in, and uploading succeeds; returns the calls."""
    from o2o import tracker

    calls = []

    def run(command, **options):
        calls.append([Path(word).name for word in command[5:]])
        for word in command[5:]:
            (Path(word) / "run-abc.wandb.synced").touch()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(tracker, "logged_in", lambda: True)
    monkeypatch.setattr(syncing.subprocess, "run", run)
    return calls


def test_sync_uploads_all_parts_of_runs_that_rest_once(tmp_path, say, wandb):
    tracked(write(tmp_path, seed=0, end="DONE"), "20260101_000000", "20260102_000000")
    tracked(write(tmp_path, seed=1, steps=[500]), "20260103_000000")
    code, said = say("sync")
    assert code == 0
    assert wandb == [["offline-run-20260101_000000-abc", "offline-run-20260102_000000-abc"]]
    assert "1 run under way" in said
    assert "nothing to upload" in say("sync")[1]
    assert len(wandb) == 1


def test_sync_without_a_login_is_bad_input(tmp_path, say, monkeypatch):
    from o2o import tracker

    monkeypatch.setattr(tracker, "logged_in", lambda: False)
    (part,) = tracked(write(tmp_path, end="DONE"), "20260101_000000")
    assert say("sync", "--dry-run")[0] == 0
    code, said = say("sync")
    assert code == 2
    assert "wandb login" in said
    assert not list(part.glob("*.synced"))


def test_sync_ends_when_the_network_does_not_answer(tmp_path, say, wandb, monkeypatch):
    def hang(command, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(syncing.subprocess, "run", hang)
    tracked(write(tmp_path, end="DONE"), "20260101_000000")
    code, said = say("sync", "--timeout", "3")
    assert code == 1
    assert "within 3 s" in said
    assert "not uploaded" in said


def aged(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 1000)
    before = time.time() - 7200
    os.utime(path, (before, before))
    return path


def test_clean_removes_only_what_nothing_needs_and_only_if_told(tmp_path, say):
    done, alive = write(tmp_path, seed=0, end="DONE"), write(tmp_path, seed=1, steps=[500])
    gone = [
        aged(done / "checkpoints/4000.npz"),
        aged(done / "checkpoints/online.f32"),
        aged(done / ".status.json.123.tmp"),
    ]
    kept = [
        aged(done / "checkpoints/final.npz"),
        aged(alive / "checkpoints/4000.npz"),
        aged(alive / "checkpoints/.4000.npz.9.tmp"),
        done / layout.EVAL if (done / layout.EVAL).exists() else done / layout.RESULT,
    ]
    code, said = say("clean")
    assert code == 0
    assert "--yes" in said
    assert all(path.exists() for path in (*gone, *kept))
    code, said = say("clean", "--yes")
    assert code == 0
    assert "3 kB removed" in said
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in kept)


def test_clean_keeps_the_code_of_unfinished_runs_and_the_jobs_of_known_launches(tmp_path, say):
    launch(tmp_path, {"77_0": [write(tmp_path, seed=0, end="DONE")]}, sweep="over")
    launch(tmp_path, {"88_0": [write(tmp_path, seed=1, end="INTERRUPTED")]}, sweep="unfinished")
    codes = {name: tmp_path / f".sweeps/{name}/code/0000" for name in ("over", "unfinished")}
    orphan, known = tmp_path / ".jobs/11_0", tmp_path / ".jobs/77_0"
    for path in (*codes.values(), orphan, known):
        aged(path / "file")
        os.utime(path, (0, 0))
    say("clean", "--yes")
    assert not codes["over"].exists()
    assert codes["unfinished"].exists()
    assert not orphan.exists()
    assert known.exists()


def test_a_damaged_launch_keeps_all_code(tmp_path, say):
    launch(tmp_path, {"77_0": [write(tmp_path, seed=0, end="DONE")]}, sweep="over")
    code = aged(tmp_path / ".sweeps/over/code/0000/file").parent
    os.utime(code, (0, 0))
    (tmp_path / ".sweeps/over/submissions/abc123/submission.json").write_text("{")
    for command in ("clean --yes", "status", "why", "logs", "cancel --yes", "retry"):
        exit_code, said = say(*command.split())
        assert exit_code in (0, 1), command
        assert "Traceback" not in said
    assert code.exists()
    assert "is damaged" in say("status")[1]


@pytest.mark.parametrize("command", ["status", "why", "logs", "retry", "cancel", "sync", "clean"])
def test_every_command_answers_an_empty_directory_and_a_wrong_filter(tmp_path, say, command):
    assert say(command)[0] in (0, 1)
    write(tmp_path, end="DONE")
    code, said = say(command, "algoritm=td3")
    assert code == 2
    assert "did you mean algorithm?" in said


def test_writers_and_readers_agree_on_where_jobs_are(tmp_path):
    from o2o.sweep.logs import job_directory
    from o2o.sweep.status import look

    launch(tmp_path, {"77_0": [directory(tmp_path).path]})
    (run,) = look(tmp_path, [])[0]
    assert job_directory(tmp_path, run) == manifest.job_directory(tmp_path, "77_0")
