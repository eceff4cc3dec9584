"""How far a phase and its plan are, how fast it goes and how long it will take, for whoever watches."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tqdm import tqdm

REFRESH_SECONDS = 1.0
QUIET_SECONDS = 15.0
"""Between lines where nobody watches live: a log file, CI."""
WINDOW_SECONDS = 30.0
"""The rate is that of the last so many seconds, so that how it began is soon forgotten."""
SHORTEST_BAR = 6
"""Columns; what is said beside it is shortened before it is."""


@dataclass(frozen=True)
class Part:
    """A phase of a planned job."""

    place: str
    """The directory of the first of its runs."""
    kind: tuple[object, ...]
    """All that the cost of a step depends on; the phase first."""
    steps: int
    """Of all its runs."""


class Agenda:
    """The jobs that a process does one after the other, and how long those take that are still to be done."""

    def __init__(
        self, jobs: Sequence[Sequence[Part]], seconds: dict[tuple[object, ...], float], unit: str = "run"
    ):
        """An agenda of `jobs`, each a list of phases, with the `seconds` a step of the kinds that were measured."""
        self._parts = [(number, part) for number, job in enumerate(jobs, start=1) for part in job]
        self._seconds, self._unit, self._count = dict(seconds), unit, len(jobs)

    def title(self, place: str) -> str:
        """The number of the job that a phase belongs to, as in `run 3/12`; empty for a phase of none."""
        number = next((number for number, part in self._parts if part.place == place), None)
        return "" if number is None else f"{self._unit} {number}/{self._count}"

    def learn(self, place: str, seconds: float) -> None:
        """Takes note that a step of a phase and of its kind takes so many `seconds`."""
        self._seconds |= {part.kind: seconds for _, part in self._parts if part.place == place}

    def seconds_after(self, place: str) -> float | None:
        """The seconds that all takes which comes after a phase; None where nothing is known of it."""
        places = [part.place for _, part in self._parts]
        rest = [part for _, part in self._parts[places.index(place) + 1 :]] if place in places else []
        costs = [self._of(part) for part in rest]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None

    def _of(self, part: Part) -> float | None:
        """The seconds of a phase, by its kind, else by others of its phase, else by any."""
        alike = [seconds for kind, seconds in self._seconds.items() if kind[0] == part.kind[0]]
        known = (
            [self._seconds[part.kind]]
            if part.kind in self._seconds
            else alike or list(self._seconds.values())
        )
        return part.steps * sum(known) / len(known) if known else None


_agenda: Agenda | None = None


@contextmanager
def following(agenda: Agenda) -> Iterator[None]:
    """Shows what is done meanwhile in this process as a part of an agenda."""
    global _agenda
    _agenda = agenda
    try:
        yield
    finally:
        _agenda = None


class Progress:
    """A line on a terminal that is renewed every second, a line every now and then elsewhere; on standard error."""

    def __init__(
        self,
        labels: Sequence[str],
        total: int,
        unit: str,
        note: str = "",
        place: str = "",
        members: int = 1,
        begins: int = 0,
        window: float = WINDOW_SECONDS,
        stays: bool = True,
    ):
        """Starts at zero of `total` `unit`s.

        Args:
            labels: its name, and shorter ones for narrow terminals.
            total: the units at its end.
            unit: of what is counted.
            note: what it does first.
            place: the phase on the agenda that it is.
            members: how many runs it is the progress of.
            begins: where the units begin that take their time; those before say nothing of how long it takes.
            window: over how many of the last seconds the rate is taken.
            stays: whether its last state is left standing.
        """
        self._labels, self._total, self._unit, self._note = labels, total, unit, note
        self._place, self._members, self._begins = place, members, begins
        self._window, self._stays = window, stays
        self._step = 0
        self._marks: deque[tuple[float, int]] = deque()
        self._started = self._last_line = time.monotonic()
        self._bar = self._ticker = None
        self._end = threading.Event()
        if sys.stderr.isatty():
            self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
            self._ticker.start()

    def resume(self, step: int) -> None:
        """Starts at `step` instead."""
        self._step, self._note = step, ""
        self._marks.clear()

    def at(self, step: int, note: str | None = None) -> None:
        """Takes note that `step` is reached, and what there is to say of it."""
        now = time.monotonic()
        self._step = step
        self._note = self._note if note is None else note
        if (
            step > self._begins
        ):  # what came before the first of these, such as compiling, is not what the others take
            self._marks.append((now, step))
            while now - self._marks[0][0] > self._window and len(self._marks) > 2:
                self._marks.popleft()
        if self._ticker is None and now - self._last_line >= QUIET_SECONDS:
            self._print(now)

    def say(self, text: str, is_error: bool = False) -> None:
        """Prints a line on standard output, or on standard error, above the one that is renewed."""
        stream = sys.stderr if is_error else sys.stdout
        if self._ticker is None:
            print(text, file=stream, flush=True)
        else:
            tqdm.write(text, file=stream)
            stream.flush()

    def close(self) -> None:
        """Leaves the last state standing."""
        if self._end.is_set():
            return
        self._end.set()
        if (rate := self._rate()) and _agenda is not None:
            _agenda.learn(self._place, 1 / rate / self._members)
        if self._ticker is not None:
            self._ticker.join()
            if self._stays:
                self._draw()
            if self._bar is not None:
                self._bar.close()
        elif self._stays and self._step:
            self._print(time.monotonic())

    def line(self, width: int) -> tuple[str, str]:
        """The words before the bar and those behind it, both together with the bar no wider than `width` columns."""
        rate, left = self._rate(), self._left()
        count = f"{_short(self._step)}/{_short(self._total)}"
        speed = f"{_speed(rate)}/s" if rate else ""
        ending = f"{tqdm.format_interval(left)} left" if left is not None and self._step < self._total else ""
        total = self._total_left(left)
        everything = f"all {tqdm.format_interval(total)}" if total is not None else ""
        title = _agenda.title(self._place) if _agenda else ""
        waiting = f"{self._note or 'starting'} {tqdm.format_interval(time.monotonic() - self._started)}"
        note = self._note if rate or self._step == self._total else waiting
        room = width - SHORTEST_BAR - len(" || ")
        share = f"{100 * self._step // max(self._total, 1)}%"
        # From all there is to say to what must be said.
        for behind in (
            [count, speed, ending, note, everything],
            [share, speed, ending, note, everything],
            [share, ending, note, everything],
        ):
            for label in self._labels:
                before, after = " ".join(filter(None, [title, label])), " ".join(filter(None, behind))
                if len(before) + len(after) <= room:
                    return before, after
        after = " ".join(filter(None, [share, ending or note]))
        before = " ".join(filter(None, [title, self._labels[-1]]))
        return before[: max(0, room - len(after))], after[: max(0, room)]

    def _rate(self) -> float | None:
        """Units a second, as far as they are known."""
        if len(self._marks) < 2:
            return None
        (since, first), (now, last) = self._marks[0], self._marks[-1]
        return (last - first) / (now - since) if last > first and now > since else None

    def _left(self) -> float | None:
        """The seconds that it will take."""
        rate = self._rate()
        if rate is None:
            return None
        return max(0.0, (self._total - self._step) / rate - (time.monotonic() - self._marks[-1][0]))

    def _total_left(self, left: float | None) -> float | None:
        """The seconds that all of the agenda will take, where something comes after this."""
        rate = self._rate()
        if _agenda is None or left is None or not rate:
            return None
        _agenda.learn(self._place, 1 / rate / self._members)
        after = _agenda.seconds_after(self._place)
        return left + after if after else None

    def _print(self, now: float) -> None:
        self._last_line = now
        title = f"{_agenda.title(self._place)} " if _agenda and _agenda.title(self._place) else ""
        left, rate = self._left(), self._rate()
        total = self._total_left(left)
        said = [f"{title}{self._labels[0]}: {self._step}/{self._total} {self._unit}"]
        said += [f"{_speed(rate)}/s"] if rate else []
        said += [f"{tqdm.format_interval(left)} left"] if left and self._step < self._total else []
        said += [self._note] if self._note else []
        said += [f"all in {tqdm.format_interval(total)}"] if total is not None else []
        print(", ".join(said), file=sys.stderr, flush=True)

    def _tick(self) -> None:
        if self._stays:
            self._draw()
        while not self._end.wait(REFRESH_SECONDS):
            self._draw()

    def _draw(self) -> None:
        if self._bar is None:
            self._bar = tqdm(total=self._total, bar_format="{bar}", dynamic_ncols=True, leave=self._stays)
        self._bar.n = min(self._step, self._total)
        before, after = self.line(self._bar.format_dict["ncols"] or 80)
        self._bar.bar_format = f"{_plain(before)} |{{bar}}| {_plain(after)}"
        self._bar.refresh()


def _plain(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _speed(rate: float) -> str:
    return f"{rate:.3g}" if rate < 1000 else _short(round(rate))


def _short(count: int) -> str:
    return tqdm.format_sizeof(count) if count >= 10_000 else str(count)
