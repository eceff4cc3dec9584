"""How far a phase is, how fast it goes and how long it will take, for whoever watches."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

QUIET_SECONDS = 15.0  # between lines where nobody watches live: a log file, CI


class Progress:
    """A bar on a terminal, a line every now and then elsewhere; both on standard error."""

    def __init__(self, label: str, total: int, unit: str):
        """Starts at zero of `total` `unit`s."""
        self._label, self._total, self._unit = label, total, unit
        self._start = self._last_line = time.monotonic()
        self._first = 0
        self._bar = tqdm(total=total, desc=label, unit=unit, unit_scale=True) if sys.stderr.isatty() else None

    def resume(self, step: int) -> None:
        """Starts at `step` instead."""
        self._first = step
        self._start = time.monotonic()
        if self._bar is not None:
            self._bar.n = self._bar.initial = step
            self._bar.refresh()

    def at(self, step: int, note: str) -> None:
        """Shows that `step` is reached."""
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(step - self._bar.n)
            return
        now = time.monotonic()
        if now - self._last_line >= QUIET_SECONDS or step == self._total:
            self._last_line = now
            rate = max(step - self._first, 1) / max(now - self._start, 1e-9)
            left = tqdm.format_interval((self._total - step) / rate)
            line = f"{self._label}: {step}/{self._total} {self._unit}, {rate:.0f}/s, {left} left, {note}"
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leaves the last state standing."""
        if self._bar is not None:
            self._bar.close()
