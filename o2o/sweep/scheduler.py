"""What SLURM says of jobs, where there is a SLURM and it answers soon; nothing here waits for long."""

from __future__ import annotations

import functools
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

ANSWER_SECONDS = 10.0
ASK_AGAIN_SECONDS = 30.0
IDS_A_CALL = 500


@dataclass(frozen=True)
class Answer:
    """The state of one job in SLURM's words, and why it is in it where that is said."""

    name: str
    state: str
    reason: str = ""
    queued: bool = True
    """Whether it is still in the queue, waiting or running."""


class SilentError(Exception):
    """SLURM is not there, or did not answer."""


def ask(jobs: Iterable[str], users: Iterable[str]) -> dict[str, Answer]:
    """What the queue, and for those that left it the accounting, say of jobs.

    Jobs of which neither knows are left out; where there is no accounting, so are all that left the queue. Who asks
    again soon gets the same answer.

    Raises:
        SilentError: the queue does not answer.
    """
    return _ask(tuple(sorted(jobs)), ",".join(sorted(set(users))), int(time.monotonic() / ASK_AGAIN_SECONDS))


@functools.lru_cache(maxsize=1)
def _ask(jobs: tuple[str, ...], users: str, period: int) -> dict[str, Answer]:
    queue = ["squeue", "--noheader", "--array", f"--user={users}", "--format=%i|%j|%T|%r"]
    answers = {job: Answer(name, state, reason) for job, name, state, reason in _rows(queue, 4)}
    gone = [job for job in jobs if job not in answers]
    for start in range(0, len(gone), IDS_A_CALL):
        listed = ",".join(gone[start : start + IDS_A_CALL])
        command = [
            "sacct",
            "-X",
            "--noheader",
            "--parsable2",
            f"--jobs={listed}",
            "--format=JobID,JobName,State",
        ]
        try:
            for job, name, state in _rows(command, 3):
                # "CANCELLED by 1000" is meant by the first word.
                answers[job] = Answer(name, state.partition(" ")[0], queued=False)
        except SilentError:
            break  # a cluster without accounting
    return {job: answers[job] for job in jobs if job in answers}


def cancel(jobs: Sequence[str]) -> None:
    """Cancels jobs.

    Raises:
        SilentError: scancel is not there, or refuses; the reason is SLURM's.
    """
    for start in range(0, len(jobs), IDS_A_CALL):
        _run(["scancel", *jobs[start : start + IDS_A_CALL]])


def present() -> bool:
    """Whether this machine can ask a SLURM."""
    return shutil.which("squeue") is not None


def _rows(command: list[str], columns: int) -> list[list[str]]:
    rows = (line.split("|", columns - 1) for line in _run(command).splitlines())
    return [row for row in rows if len(row) == columns]


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=True)
    except FileNotFoundError:
        raise SilentError(f"there is no {command[0]} here") from None
    except subprocess.TimeoutExpired:
        raise SilentError(f"{command[0]} did not answer within {ANSWER_SECONDS:.0f} s") from None
    except subprocess.CalledProcessError as error:
        raise SilentError(
            f"{command[0]}: {error.stderr.strip() or f'exit code {error.returncode}'}"
        ) from None
    return done.stdout
