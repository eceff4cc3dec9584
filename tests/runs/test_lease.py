"""One owner a run directory."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from o2o.runs import lock
from o2o.runs.lock import HeldError, Leases, LostError, Owner


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(lock, "STALE_SECONDS", 0.3)


def elsewhere(directory: Path, number: int = 1) -> Path:
    """A lease of a process of another machine, whose life cannot be seen from here."""
    owner = Owner(number, "node7", "another machine", 4711, "1", "99", "2026-01-01T00:00:00+00:00")
    directory.mkdir(exist_ok=True)
    path = directory / f"lease-{number}.json"
    path.write_text(json.dumps(asdict(owner)))
    return path


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_an_owner_is_read_while_it_owns_and_not_after(tmp_path):
    directory = tmp_path / "run"
    with Leases() as leases:
        leases.take(directory)
        owner = lock.read(directory)
        assert owner is not None
        assert (owner.pid, owner.alive) == (os.getpid(), True)
        assert str(os.getpid()) in str(owner)
    assert lock.read(directory) is None


def test_a_living_owner_of_this_machine_is_named(tmp_path):
    with Leases() as leases, Leases() as others:
        leases.take(tmp_path)
        with pytest.raises(HeldError, match=f"process {os.getpid()} on "):
            others.take(tmp_path)
        leases.check()


def test_a_dead_owner_of_this_machine_is_replaced_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "STALE_SECONDS", 1e6)
    with Leases() as leases:
        leases.take(tmp_path)
        ours = lock.read(tmp_path)
        assert ours is not None
    dead = replace(ours, number=5, pid=dead_process())
    (tmp_path / "lease-5.json").write_text(json.dumps(asdict(dead)))
    with Leases() as leases:
        leases.take(tmp_path)
        found = lock.read(tmp_path)
        assert found is not None
        assert (found.number, found.pid) == (6, os.getpid())


def test_a_later_process_of_the_same_number_is_not_the_owner(tmp_path):
    with Leases() as leases:
        leases.take(tmp_path)
        ours = lock.read(tmp_path)
        assert ours is not None
    impostor = replace(ours, process_started="1")
    assert impostor.alive is False


def test_without_a_beat_an_owner_elsewhere_is_replaced(tmp_path):
    elsewhere(tmp_path)
    start = time.monotonic()
    with Leases() as leases:
        leases.take(tmp_path)
        assert time.monotonic() - start >= lock.STALE_SECONDS
        found = lock.read(tmp_path)
        assert found is not None
        assert found.number == 2


@contextmanager
def beating(path: Path, clock: float = 0.0) -> Iterator[None]:
    end = threading.Event()

    def beat():
        now = clock + time.time()
        while not end.wait(0.02):
            now += 1
            os.utime(path, (now, now))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


@pytest.mark.parametrize("clock", [-1e6, 1e6])
def test_an_owner_elsewhere_that_beats_is_there_whatever_its_clock_says(tmp_path, clock):
    path = elsewhere(tmp_path)
    with beating(path, clock), Leases() as leases, pytest.raises(HeldError, match="node7, SLURM job 99"):
        leases.take(tmp_path)


def test_an_owner_on_another_machine_of_this_ones_name_is_not_judged_by_processes_here(tmp_path):
    """As machines cloned from one image are, and containers."""
    path = elsewhere(tmp_path)
    owner = json.loads(path.read_text()) | {"host": lock._ourselves(1).host, "pid": dead_process()}
    path.write_text(json.dumps(owner))
    with beating(path), Leases() as leases, pytest.raises(HeldError):
        leases.take(tmp_path)


@pytest.mark.parametrize("point", ["link", "rename", "utime"])
def test_who_is_killed_while_it_takes_beats_or_releases_is_in_nobodys_way(tmp_path, monkeypatch, point):
    monkeypatch.setattr(lock, "STALE_SECONDS", 1e6)
    killed = (
        "import os, sys, time; from pathlib import Path; from o2o.runs import lock; lock.BEAT_SECONDS = 0.01\n"
        f"os.{point} = lambda *_, **__: os.kill(os.getpid(), 9)\n"
        "with lock.Leases() as leases: leases.take(Path(sys.argv[1])); time.sleep(float(sys.argv[2]))"
    )
    seconds = "60" if point == "utime" else "0"
    assert subprocess.run([sys.executable, "-c", killed, str(tmp_path), seconds]).returncode == -9
    with Leases() as leases:
        leases.take(tmp_path)


def test_who_waits_sees_the_owner_and_gets_its_place_when_it_is_given_up(tmp_path):
    seen = []
    with Leases() as first, Leases() as second:
        first.take(tmp_path)

        def while_waiting(owner):
            seen.append(owner.pid)
            if len(seen) == 3:
                first.release(tmp_path)

        second.take(tmp_path, while_waiting)
        second.check()
    assert seen == [os.getpid()] * 3


def test_who_was_replaced_notices(tmp_path):
    with Leases() as leases:
        leases.take(tmp_path)
        elsewhere(tmp_path, number=2)
        with pytest.raises(LostError, match="taken over by process 4711 on node7"):
            leases.check()


def test_whose_directory_was_removed_notices_without_asking(tmp_path):
    directory = tmp_path / "run"
    with Leases() as leases:
        leases.take(directory)
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()
        deadline = time.monotonic() + 5
        while not leases.lost and time.monotonic() < deadline:
            time.sleep(0.01)
        assert leases.lost
        with pytest.raises(LostError, match="removed"):
            leases.check()
    assert not directory.exists()


def test_a_lease_that_cannot_be_read_is_respected_until_no_beat_comes(tmp_path):
    (tmp_path / "lease-3.json").write_text("{")
    start = time.monotonic()
    with Leases() as leases:
        leases.take(tmp_path)
    assert time.monotonic() - start >= lock.STALE_SECONDS


def test_without_hard_links_exclusive_creation_does(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    with Leases() as leases, Leases() as others:
        leases.take(tmp_path)
        with pytest.raises(HeldError):
            others.take(tmp_path)


def test_a_lease_leaves_nothing_behind_but_its_own_file(tmp_path):
    for _ in range(3):
        with Leases() as leases:
            leases.take(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["lease-3.released"]


def contend(root: str, barrier, results) -> None:
    for i in range(50):
        barrier.wait()
        with Leases() as leases:
            try:
                leases.take(Path(root) / str(i))
                results.put((i, True))
            except HeldError:
                results.put((i, False))
            barrier.wait()  # who owns goes on owning until both know


def test_of_two_that_start_at_once_one_owns(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2, timeout=60), context.Queue()
    processes = [context.Process(target=contend, args=(str(tmp_path), barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in range(100)]
    for process in processes:
        process.join()
    assert sorted(found) == [(i, owns) for i in range(50) for owns in (False, True)]
