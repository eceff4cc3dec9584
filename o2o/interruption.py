"""Being asked to stop: a first signal is noted, and obeyed at the next safe point; a second one ends at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """A context that notes signals instead of obeying them. Outside the main thread it does nothing."""

    def __enter__(self) -> Self:
        """Takes the signals over."""
        self._noted: int | None = None
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if error is None:
            self.obey()  # it came after the last safe point

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return self._noted is not None

    def obey(self) -> None:
        """Ends the process, by an exception that says which signal came.

        Raises:
            KeyboardInterrupt: for Ctrl-C.
            SystemExit: for any other, with the exit code of a process that it ended.
        """
        if self._noted == signal.SIGINT:
            raise KeyboardInterrupt
        if self._noted is not None:
            raise SystemExit(128 + self._noted)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._noted is not None:
            self.obey()
        self._noted = number
