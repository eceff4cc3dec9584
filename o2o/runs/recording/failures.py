"""Six classes of failures of runs and jobs, and what is done about each without being asked.

| failure | what it is | then |
|---|---|---|
| infrastructure | killed from outside, a lost node, a full disk, another process at it | again, up to 3 times |
| time | the time limit, after a checkpoint | again, as long as steps are gained |
| preemption | another job took the place | again, always |
| memory | of the machine or of the device | again, with half the seeds side by side, down to one |
| non-finite | NaN or infinity where training cannot go on | not again: it would end the same way |
| code | any other exception, bad input among them | not again before somebody looked |

A lost node and a preemption without warning are SLURM's to requeue, and it does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any


class Failure(StrEnum):
    """The classes."""

    INFRASTRUCTURE = "infrastructure"
    TIME = "time"
    PREEMPTION = "preemption"
    MEMORY = "memory"
    NON_FINITE = "non-finite"
    CODE = "code"


INFRASTRUCTURE_RETRIES = 3
RETRYABLE = (Failure.MEMORY, Failure.INFRASTRUCTURE)
"""Failures of a run after which it is tried again in the same job."""

# 128 + SIGINT, SIGTERM, SIGHUP, SIGUSR2: ended after a checkpoint.
INTERRUPTED, STOPPED, HUNG_UP, WARNED = 130, 143, 129, 140
RUNS_FAILED, BAD_INPUT = 1, 2

_WORDS = {
    Failure.MEMORY: (
        r"MemoryError|RESOURCE_EXHAUSTED|[Oo]ut of memory|Out Of Memory|oom[_-]kill|exceeded memory limit"
        r"|Cannot allocate memory|std::bad_alloc"
    ),
    Failure.NON_FINITE: r"FloatingPointError|[Nn]on-?[Ff]inite|not finite",
    Failure.INFRASTRUCTURE: (
        r"Stale file handle|Input/output error|No space left on device|Disk quota exceeded|Read-only file system"
        r"|Transport endpoint|CUDA_ERROR_(?!OUT_OF_MEMORY)|uncorrectable ECC|NODE_FAIL|BOOT_FAIL|Bus error"
        r"|HeldError|LostError"
    ),
}


def classify(message: str) -> Failure:
    """The class of a failure by its message: an exception's line, or the end of a log."""
    for failure, words in _WORDS.items():
        if re.search(words, message):
            return failure
    return Failure.CODE


def of_job(exit_code: int, failed: Iterable[Failure], log: str, slurm: Mapping[str, str]) -> Failure | None:
    """The class of a job's failure; None if it did not fail, or was cancelled or requeued by hand.

    Args:
        exit_code: of its process, as a shell has it.
        failed: the classes of its runs that failed.
        log: the end of what the attempt wrote to stderr.
        slurm: what SLURM's controller says of the job; empty where there is none.
    """
    if exit_code == 0:
        return None
    if slurm.get("JobState", "RUNNING") != "RUNNING":  # SLURM ended it, for this or for another reason
        return Failure.TIME if slurm.get("Reason") == "TimeLimit" else None
    if exit_code in (INTERRUPTED, STOPPED, HUNG_UP, WARNED):
        if slurm.get("PreemptTime", "None") != "None":
            return Failure.PREEMPTION
        if exit_code == WARNED:
            return Failure.TIME
        return Failure.PREEMPTION if slurm else None  # without SLURM somebody stopped it by hand
    if exit_code == BAD_INPUT:
        return Failure.CODE
    if exit_code == RUNS_FAILED:
        classes = set(failed) or {classify(log)}
        return min(classes, key=[*RETRYABLE, *Failure].index)  # one that can be tried again, if there is one
    return Failure.MEMORY if classify(log) is Failure.MEMORY else Failure.INFRASTRUCTURE


def try_again(failure: Failure, endings: Sequence[Mapping[str, Any]], seeds: int, gained: bool) -> str | None:
    """Says why a job is not to be tried again; None if it is.

    Args:
        failure: how it ended now.
        endings: how its earlier attempts ended, as its history has it (`manifest.note_attempt`).
        seeds: how many the job has.
        gained: whether this attempt gained a step.
    """
    before = [ending.get("failure") for ending in endings]
    match failure:
        case Failure.PREEMPTION:
            return None
        case Failure.TIME:
            stuck = not gained and bool(endings) and not endings[-1].get("gained", True)
            return (
                "two attempts in a row gained no step within the time limit: raise timeout_min"
                if stuck
                else None
            )
        case Failure.INFRASTRUCTURE:
            tried = before.count(failure)
            return None if tried < INFRASTRUCTURE_RETRIES else f"{tried} attempts more did not help"
        case Failure.MEMORY:
            one = side_by_side(seeds, [*before, failure]) == side_by_side(seeds, before)
            return "not even one seed fits: ask for more memory" if one else None
        case _:
            return "it would end the same way"


def side_by_side(seeds: int, before: Sequence[str | None]) -> int:
    """Returns how many seeds to run side by side after such ends of attempts: half for each that ran out of memory."""
    return max(1, seeds >> before.count(Failure.MEMORY))
