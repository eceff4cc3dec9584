from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

from following import launch, silence, write

from o2o.runs.directory import layout
from o2o.sweep.ledger import manifest


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
        aged(done / "checkpoints/policy-500.npz"),
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


def test_clean_keeps_the_code_of_a_redo_that_has_not_begun(tmp_path, say):
    path = write(tmp_path, end="DONE")
    silence(path, timedelta(hours=2))
    launch(tmp_path, {"77_0": [path]}, redo=True)
    code = aged(tmp_path / ".sweeps/small/code/0000/file").parent
    os.utime(code, (0, 0))
    say("clean", "--yes")
    assert code.exists()
    manifest.note_attempt(tmp_path, "77_0", "cancelled", by="somebody")
    say("clean", "--yes")
    assert code.exists()


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
