"""One owner a run directory: a lease, whose heartbeat shows that the owner is still there.

A lease is a file `lease-<n>.json` that says who owns the directory. It comes into being complete or not at
all, and only where no file of that name is; of several the highest number counts, so of two processes that
take over at once one gets the next number and the other sees that it did. A beat is a new modification
time, which needs no room on a full disk. A released lease is renamed to `lease-<n>.released`; numbers never
go down.

A lease is stale where its owner is known to be dead (same machine, no such process) or where no beat came
for `STALE_SECONDS` *of the watcher's own clock*: clocks of machines are never compared, and a clock that
jumps misleads nobody.

Assumed of the file system: hard links and renames are atomic, and an opened file shows its newest
modification time (true of local disks, and of NFS by its close-to-open rule). Where hard links are missing,
exclusive creation takes their place.

Why not filelock's `SoftFileLease` (4.3): an owner that is killed between making and writing its file holds the
directory for good; one that beats on another machine of this one's host name is taken for dead where its process
number is free here; and who was replaced learns it two beats later, not before it writes.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import platform
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
POLL_SECONDS = 1.0
NEVER = float("-inf")
NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


class HeldError(Exception):
    """Someone else owns the directory."""


class LostError(Exception):
    """A directory is no longer ours: it was taken over while we did not beat, or it is gone."""

    def __init__(self, directory: Path, reason: str) -> None:
        """An error about `directory`."""
        self.directory = directory
        super().__init__(reason)


@dataclass(frozen=True)
class Owner:
    """Who owns a run directory."""

    number: int
    host: str
    machine: str
    """Names the space in which `pid` means something; empty where that is unknown."""
    pid: int
    process_started: str
    """Tells the process from a later one with its number."""
    job: str | None
    """The SLURM job, if it is one."""
    since: str
    """UTC."""

    def __str__(self) -> str:
        job = f", SLURM job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}, since {self.since}"

    @property
    def alive(self) -> bool | None:
        """Whether the process lives; None where it cannot be known from here."""
        here = _machine()
        if not here or self.machine != here:
            return None
        return _process_started(self.pid) == self.process_started


def read(directory: Path) -> Owner | None:
    """The owner of a run directory, dead or alive; None if there is none."""
    number = max(_numbers(directory), default=0)
    return _read(directory, number) if number else None


def beat_at(directory: Path, owner: Owner) -> float:
    """When the owner's last heartbeat was, in the file system's time; `NEVER` if the lease is gone."""
    return _beat(_path(directory, owner.number))


def is_held(directory: Path) -> bool:
    """Whether a process is at it. Of another machine's it is enough that it was there lately, by this one's clock."""
    owner = read(directory)
    if owner is None or owner.alive is not None:
        return owner is not None and bool(owner.alive)
    return time.time() - beat_at(directory, owner) < 2 * STALE_SECONDS


class Leases:
    """The leases that a process holds at once: a context that releases them at its end."""

    def __init__(self) -> None:
        """Holds nothing yet."""
        self._held: dict[Path, int] = {}
        self._lost: dict[Path, str] = {}
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Begins to beat."""
        self._thread = threading.Thread(target=self._beat_on, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Releases what is still ours."""
        self._end.set()
        for directory in list(self._held):
            self.release(directory)

    def take(self, directory: Path, while_waiting: Callable[[Owner], None] | None = None) -> None:
        """Becomes the directory's owner.

        A dead owner's place is taken at once; of one that cannot be seen from here we learn by watching for a beat.

        Args:
            directory: the run directory, which is made where it is not there yet.
            while_waiting: called every second while another owns it, with that owner; None gives up instead, as soon
                as that owner is known to be there.

        Raises:
            HeldError: another process owns it, and we do not wait.
        """
        directory.mkdir(parents=True, exist_ok=True)
        watched: tuple[int, float] | None = None
        since = 0.0
        while True:
            # One listing decides: a number taken from a later one would pass by an owner that came in between.
            numbers, last = _listing(directory)
            owner = _read(directory, max(numbers)) if numbers else None
            if numbers and owner is None:
                continue  # it was given up just now
            if owner is None or owner.alive is False:
                if self._create(directory, last + 1):
                    return
                continue
            seen = owner.number, beat_at(directory, owner)
            if watched is not None and watched[0] == seen[0] and watched[1] != seen[1] and not while_waiting:
                raise HeldError(f"{directory} is being run by {owner}")
            if watched != seen:
                watched, since = seen, time.monotonic()
            if owner.alive and while_waiting is None:
                raise HeldError(f"{directory} is being run by {owner}")
            if owner.alive is None and time.monotonic() - since > STALE_SECONDS:
                if self._create(directory, owner.number + 1):
                    return
                continue
            if while_waiting is not None:
                while_waiting(owner)
            time.sleep(POLL_SECONDS)

    def release(self, directory: Path) -> None:
        """Gives the directory up, if it is still ours."""
        with self._lock:
            number = self._held.pop(directory, None)
            self._lost.pop(directory, None)
        if number is not None:
            path = _path(directory, number)
            try:
                path.rename(path.with_suffix(".released"))
            except OSError:  # it was taken over, or is gone: nothing of ours is left to give up
                return

    def check(self) -> None:
        """Makes sure that all are still ours.

        Raises:
            LostError: if one is not.
        """
        for directory, number in list(self._held.items()):
            if number not in (numbers := _numbers(directory)) or number < max(numbers):
                self._note_loss(directory)
        for directory, reason in self._lost.items():
            raise LostError(directory, reason)

    @property
    def lost(self) -> bool:
        """Whether the last beat found that one is no longer ours."""
        return bool(self._lost)

    def _create(self, directory: Path, number: int) -> bool:
        """Whether we own the directory under that number."""
        path = _path(directory, number)
        content = json.dumps(asdict(_ourselves(number)))
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
        try:
            temporary.write_text(content, encoding="utf-8")
            _link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        others = [other for other in directory.glob("lease-*") if other != path]
        if any(_number_of(other) >= number for other in others):  # we were slow, and others went on
            path.unlink(missing_ok=True)
            return False
        for old in others:
            old.unlink(missing_ok=True)
        with self._lock:
            self._held[directory] = number
        return True

    def _beat_on(self) -> None:
        while not self._end.wait(BEAT_SECONDS):
            for directory, number in list(self._held.items()):
                try:
                    os.utime(_path(directory, number))
                except FileNotFoundError:
                    if directory in self._held:
                        self._note_loss(directory)
                except OSError:
                    continue  # a beat is missed; if it stays so, others will see it

    def _note_loss(self, directory: Path) -> None:
        owner = read(directory)
        self._lost[directory] = (
            f"{directory} was taken over by {owner}"
            if owner
            else f"{directory} was removed while it was being run"
        )
        with self._lock:
            self._held.pop(directory, None)


def _link(source: Path, target: Path) -> None:
    """Makes `target`, which must not exist, with the content of `source`."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        with target.open("xb") as stream:
            stream.write(source.read_bytes())


def clear_leftovers(directory: Path) -> None:
    """Removes the temporary files that a killed owner left in a directory that is ours now."""
    for temporary in directory.rglob(".*.tmp"):
        temporary.unlink(missing_ok=True)


def _ourselves(number: int) -> Owner:
    return Owner(
        number=number,
        host=os.environ.get("SLURMD_NODENAME") or platform.node(),
        machine=_machine(),
        pid=os.getpid(),
        process_started=_process_started(os.getpid()) or "",
        job=os.environ.get("SLURM_JOB_ID"),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _path(directory: Path, number: int) -> Path:
    return directory / f"lease-{number}.json"


def _number_of(path: Path) -> int:
    text = path.stem.removeprefix("lease-")
    return int(text) if text.isdecimal() else 0


def _listing(directory: Path) -> tuple[list[int], int]:
    """The numbers of the leases that were not released, and the highest number of all."""
    paths = list(directory.glob("lease-*"))
    numbers = [_number_of(path) for path in paths if path.suffix == ".json"]
    return numbers, max(map(_number_of, paths), default=0)


def _numbers(directory: Path) -> list[int]:
    return _listing(directory)[0]


def _read(directory: Path, number: int) -> Owner | None:
    try:
        content: Any = json.loads(_path(directory, number).read_text(encoding="utf-8"))
        return Owner(**content)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):  # not ours to judge: someone is there until no beat comes
        return Owner(number, "an unknown host", "", 0, "", None, "an unknown time")


def _beat(path: Path) -> float:
    try:
        with path.open("rb") as stream:
            return os.fstat(stream.fileno()).st_mtime
    except OSError:
        return NEVER


@functools.cache
def _machine() -> str:
    """The boot and the process namespace that this process lives in; empty where neither can be read."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _process_started(pid: int) -> str | None:
    """When a process of this machine started, in its kernel's ticks; None if there is none such, or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
