"""Why a run or a job failed, in six classes, and what is done about each without being asked.

| failure | what it is | then |
|---|---|---|
| infrastructure | killed from outside, a lost node, a full disk, a broken device | again, up to 3 times |
| time | the time limit, after a checkpoint | again, as long as steps are gained |
| preemption | another job took the place | again, always |
| memory | of the machine or of the device | again, with half the seeds side by side, down to one |
| non-finite | NaN or infinity where training cannot go on | not again: it would end the same way |
| code | any other exception, bad input among them | not again before somebody looked |
"""

from __future__ import annotations

import re
from enum import StrEnum


class Failure(StrEnum):
    """The classes."""

    INFRASTRUCTURE = "infrastructure"
    TIME = "time"
    PREEMPTION = "preemption"
    MEMORY = "memory"
    NON_FINITE = "non-finite"
    CODE = "code"


INFRASTRUCTURE_RETRIES = 3

_WORDS = {
    Failure.MEMORY: (
        r"MemoryError|RESOURCE_EXHAUSTED|[Oo]ut of memory|Out Of Memory|oom[_-]kill|exceeded memory limit"
        r"|Cannot allocate memory|std::bad_alloc"
    ),
    Failure.NON_FINITE: r"FloatingPointError|[Nn]on-?[Ff]inite|not finite|NonFinite|\bNaN\b|\bnan\b",
    Failure.INFRASTRUCTURE: (
        r"Stale file handle|Input/output error|No space left on device|Disk quota exceeded|Read-only file system"
        r"|Connection (?:refused|reset|timed out)|Transport endpoint|CUDA_ERROR_(?!OUT_OF_MEMORY)"
        r"|uncorrectable ECC|XID|NODE_FAIL|BOOT_FAIL|Bus error"
    ),
}


def classify(message: str) -> Failure:
    """The class of a failure by its message: an exception's line, or the end of a log."""
    for failure, words in _WORDS.items():
        if re.search(words, message):
            return failure
    return Failure.CODE
