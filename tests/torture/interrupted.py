"""Damaged checkpoints of a run that was interrupted: it goes on from the one before, or starts again, and says so.

Documented: the newest checkpoint that is whole is gone on from; every other is told ("a checkpoint is refused"). Where
none is whole the run starts from the beginning. What it writes is the same in every case. Where it can no longer be
known which run it is, that is bad input: exit code 2, and nothing is changed.
"""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from torture.files import Executes
from torture.harness import Arena, Job, contents
from torture.trial import snapshot

JOB = Job(("algorithm=td3_c", "replay_init=empty"))
DEAD_AT = ["replace", "finetune/seed-0/checkpoints/N.npz", "after"]
REFUSED = "a checkpoint is refused"
Damage = Callable[[Path], object]


def _newest(folder: Path) -> Path:
    return max(folder.glob("[0-9]*.npz"), key=lambda path: int(path.stem))


def _bytes(change: Callable[[bytes], bytes], everything: bool = False) -> Damage:
    def damage(folder: Path) -> None:
        for path in folder.glob("[0-9]*.npz") if everything else [_newest(folder)]:
            path.write_bytes(change(path.read_bytes()))

    return damage


def _flipped(content: bytes, share: float = 0.5) -> bytes:
    place = int(share * len(content))
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


def _arrays(change: Callable[[dict[str, np.ndarray]], object]) -> Damage:
    def damage(folder: Path) -> None:
        path = _newest(folder)
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        change(arrays)
        np.savez(path, **arrays)  # type: ignore[arg-type]

    return damage


def _rows(change: Callable[[bytes], bytes]) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "online.f32"
        path.write_bytes(change(path.read_bytes()))

    return damage


def _records(file: str, change: Callable[[bytes], bytes]) -> Damage:
    def damage(folder: Path) -> None:
        path = folder.parent / file
        path.write_bytes(change(path.read_bytes() if path.is_file() else b""))

    return damage


# What is damaged, and what is said of it.
DAMAGES: dict[str, tuple[Damage, str | None]] = {
    "the newest is empty": (_bytes(lambda c: b""), REFUSED),
    "the newest is text": (_bytes(lambda c: b"hello"), REFUSED),
    "the newest is cut": (_bytes(lambda c: c[: len(c) // 2]), REFUSED),
    "the newest lacks its end": (_bytes(lambda c: c[:-1]), REFUSED),
    "the newest has a flipped bit": (_bytes(_flipped), REFUSED),
    "the newest is a pickle": (_bytes(lambda c: pickle.dumps(Executes())), REFUSED),
    "the newest holds pickled objects": (
        _arrays(lambda a: a.update(code=np.array([Executes()], object))),
        REFUSED,
    ),
    "the newest is of another version": (_arrays(lambda a: a.update(version=np.array(99))), REFUSED),
    "the newest has an array more": (_arrays(lambda a: a.update(more=np.zeros(1))), REFUSED),
    "the newest has an array less": (_arrays(lambda a: a.pop("updates")), REFUSED),
    "the newest has another shape": (_arrays(lambda a: a.update(updates=np.zeros(3, np.int64))), REFUSED),
    "the newest has longer records": (
        _arrays(lambda a: a.update({"records/train.jsonl": np.array(10**9)})),
        REFUSED,
    ),
    "the newest is a directory": (lambda folder: (_newest(folder).unlink(), _newest_made(folder)), REFUSED),
    "all are cut": (_bytes(lambda c: c[:100], everything=True), REFUSED),
    "all have a flipped bit": (_bytes(_flipped, everything=True), REFUSED),
    "all are gone": (lambda folder: [path.unlink() for path in folder.glob("[0-9]*.npz")], None),
    "the folder is gone": (lambda folder: shutil.rmtree(folder), None),
    "no online rows": (lambda folder: (folder / "online.f32").unlink(), REFUSED),
    "fewer online rows": (_rows(lambda c: c[: len(c) // 2]), REFUSED),
    "half a row": (_rows(lambda c: c[:-2]), REFUSED),
    "a flipped bit in the online rows": (_rows(lambda c: _flipped(c, 0.1)), REFUSED),
    "more online rows": (_rows(lambda c: c + c), None),
    "rows of the records are missing": (_records("train.jsonl", lambda c: c[: len(c) // 3]), REFUSED),
    "the records are gone": (_records("eval.jsonl", lambda c: b""), REFUSED),
    "a torn row at the end": (_records("train.jsonl", lambda c: c + b'{"phase": "fine'), None),
    "status.json is damaged": (_records("status.json", lambda c: b"{"), None),
    "status.json is foreign": (_records("status.json", lambda c: b'{"state": "HAPPY"}'), None),
    "identity.json is damaged": (_records("identity.json", lambda c: b"[]"), "identity.json"),
    "config.yaml is damaged": (_records("config.yaml", lambda c: b"["), "config.yaml"),
    "identity.json is another run's": (
        _records(
            "identity.json", lambda c: c.replace(b'identity": "', b'identity": "0').replace(b"0.99", b"0.5")
        ),
        "another run",
    ),
    "events.jsonl is damaged": (_records("events.jsonl", lambda c: bytes(range(256))), None),
}


def _newest_made(folder: Path) -> None:
    (folder / "999.npz").mkdir()


def interrupt(ground: Arena) -> Path:
    """Kills the job when it has written its third online checkpoint; a copy of what it left."""
    ground.undisturbed(JOB)
    ground.clear()
    ended = ground.start(JOB, only=DEAD_AT, passes=2)
    assert ended["point"] == DEAD_AT, ground.said()
    kept = ground.directory / "interrupted"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(ground.runs, kept, symlinks=True)
    return kept


def shortcomings(ground: Arena, kept: Path, name: str) -> list[str]:
    """Damages what the interrupted run left, and starts it again: what was promised and not kept."""
    damage, said = DAMAGES[name]
    ground.clear()
    shutil.copytree(kept, ground.runs, dirs_exist_ok=True)
    (folder,) = ground.runs.glob("file/td3_c/*/seed-0/checkpoints")
    damage(folder)
    before = snapshot(folder.parent)
    ended = ground.start(JOB)
    problems = []
    if (ground.directory / "executed").exists():
        problems.append(f"{name}: it was executed")
    if said not in (None, REFUSED):  # what makes the run another one is bad input
        after = {file: content for file, content in snapshot(folder.parent).items() if "lease" not in file}
        if ended["code"] != 2 or said not in ground.said() or not after.items() <= before.items():
            problems.append(f"{name}: ended with {ended['code']}\n{ground.said()}")
        return problems
    if ended["code"] != 0:
        return [*problems, f"{name}: ended with {ended['code']}\n{ground.said()}"]
    found, expected = contents(ground.runs), ground.undisturbed(JOB)
    problems += [f"{name}: {file} differs" for file in expected if found.get(file) != expected[file]]
    if (REFUSED in ground.said()) != (said is not None):
        problems.append(f"{name}: {'something' if said is None else 'nothing'} is told\n{ground.said()}")
    return problems


def judge(ground: Arena, short: bool = False) -> tuple[int, list[str]]:
    """How many damages were done, and what was not kept."""
    names = list(DAMAGES)[:: 5 if short else 1]
    kept = interrupt(ground)
    return len(names), [problem for name in names for problem in shortcomings(ground, kept, name)[:1]]
