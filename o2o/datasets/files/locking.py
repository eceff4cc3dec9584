"""One process at a time, which stops when it is told to."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from o2o.machine.signals import Interruption

logger = logging.getLogger(__name__)


@contextmanager
def exclusive(lock: Path, doing: str) -> Iterator[None]:
    """Holds the lock file's lock, which the operating system gives back even if the process is killed.

    While it waits and while it holds the lock, a signal to stop ends it at once, by an exception: what is downloaded or
    generated has no safe point that could be waited for.

    Args:
        lock: a file, made if it is not there.
        doing: what the holder does to what, for whoever has to wait: "downloaded".

    Raises:
        OSError: if the lock file cannot be written.
        KeyboardInterrupt, SystemExit: if it was asked to stop.
    """
    with Interruption(), lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("%s is being %s by another process; waiting for it", lock.stem, doing)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
