"""One process at a time."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)


@contextmanager
def exclusive(lock: Path, doing: str) -> Iterator[None]:
    """Holds the lock file's lock, which the operating system gives back even if the process is killed.

    Args:
        lock: a file, made if it is not there.
        doing: what the holder does to what, for whoever has to wait: "downloaded".

    Raises:
        OSError: if the lock file cannot be written.
    """
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("%s is being %s by another process; waiting for it", lock.stem, doing)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
