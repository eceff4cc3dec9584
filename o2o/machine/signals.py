"""Being asked to stop: by Ctrl-C, SIGTERM, SIGHUP or SIGUSR2.

SIGHUP is sent when a terminal is closed or the connection to it lost, SIGUSR2 is what SLURM is told to send before a
job's time is up.

A signal ends the process at once, by an exception that lets every `finally` clean up, except while the
request is deferred: then it is noted, and obeyed at the next safe point. A second signal ends at once in
either case.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self


def signals() -> tuple[signal.Signals, ...]:
    """Those that ask this process to stop; not SIGHUP where it is ignored, as `nohup` has it."""
    asking = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return asking if ignored else (*asking, signal.SIGHUP)


class StopRequested(Exception):  # noqa: N818 (a request, not an error)
    """Work is given up because the process was asked to stop."""


class Interruption:
    """A context that takes the signals over. Outside the main thread it does nothing."""

    def __enter__(self) -> Self:
        """Takes the signals over."""
        self._noted: int | None = None
        self._deferred = False
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in signals()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Notes signals instead of obeying them; what came after the last safe point is obeyed at the end."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        self.obey()

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return self._noted is not None

    def check(self) -> None:
        """Gives up what can be done again.

        Raises:
            StopRequested: if a signal came.
        """
        if self.requested:
            raise StopRequested

    def obey(self) -> None:
        """Ends the process if a signal came, by an exception that says which.

        Raises:
            KeyboardInterrupt: for Ctrl-C.
            SystemExit: for any other, with the exit code of a process that it ended.
        """
        if self._noted == signal.SIGINT:
            raise KeyboardInterrupt
        if self._noted is not None:
            raise SystemExit(128 + self._noted)

    def _note(self, number: int, frame: FrameType | None) -> None:
        second = self._noted is not None
        self._noted = number
        if second or not self._deferred:
            self.obey()
