"""Standard output and standard error whose errors end nothing.

A reader that has seen enough (`… | head`), a terminal that was closed, a full disk behind a log: what is printed then
is lost, and the work goes on. Every program of the project starts with this, so that nothing that prints (progress
bars, tables, warnings, loggers, third parties) needs to know of it.
"""

from __future__ import annotations

import errno
import io
import os
import select
import shutil
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any


class _Device(io.FileIO):
    """An open file of the process that takes whatever is written to it, and keeps why it could not pass it on."""

    lost: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Writes all of `data`, or loses it."""
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left:
                if (written := super().write(left)) is None:  # another process made it non-blocking
                    select.select([], [self], [])
                left = left[written or 0 :]
        except OSError as error:
            self.lost = error
        return size


def forgive() -> None:
    """Makes the errors of standard output and standard error end nothing in this process from here on.

    Streams that somebody else put in their place (a notebook, a test) are left alone.
    """
    for number in range(3):
        _open(number)
    sys.stdout = _forgiving(sys.stdout, sys.__stdout__)
    sys.stderr = _forgiving(sys.stderr, sys.__stderr__)


def unread() -> bool:
    """Whether nobody reads standard output any more, so that there is nothing left to follow something for."""
    lost = _lost(sys.stdout)
    return lost is not None and lost.errno in (errno.EPIPE, errno.EIO)


def run(program: Callable[[], int]) -> int:
    """Runs a program whose work is what it prints; its exit code, or 1 where a full disk lost some of that."""
    forgive()
    code = program()
    sys.stdout.flush()
    lost = _lost(sys.stdout)
    if lost is None or unread():
        return code
    print(f"standard output could not be written: {lost.strerror}", file=sys.stderr)
    return code or 1


def fitted(text: str, stream: Any = None) -> str:
    """Returns a text with lines that end between words before the terminal does; as it is where none reads it.

    A word that is longer, such as a path, stays whole, for it is to be copied.

    Args:
        text: of one or more lines; what a line goes on with is indented below it.
        stream: where it will be written; standard output by default.
    """
    columns = width(stream)
    return "\n".join(_broken(line, columns) for line in text.split("\n")) if columns else text


def width(stream: Any = None) -> int | None:
    """The columns of the terminal that reads `stream`, standard output by default; None where no terminal does."""
    stream = sys.stdout if stream is None else stream
    return shutil.get_terminal_size().columns if stream.isatty() else None


def _broken(line: str, columns: int) -> str:
    words = line.lstrip()
    indent = line[: len(line) - len(words)]
    return textwrap.fill(
        words,
        columns,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
        expand_tabs=False,
    )


def _open(number: int) -> None:
    """Opens what was closed before the process began, or the next file to be opened would get what is printed."""
    try:
        os.fstat(number)
    except OSError:
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free


def _forgiving(stream: Any, original: Any) -> Any:
    if stream is not original:  # somebody else's, or forgiving already
        return stream
    if stream is None:  # it was closed, and its number may be another file's by now
        return Path(os.devnull).open("w", encoding="utf-8")
    device = _Device(stream.fileno(), "wb", closefd=False)
    try:
        stream.flush()
    except OSError as error:
        device.lost = error
    # Unbuffered (`python -u`), a stream writes to its device at once.
    buffer: Any = device if stream.write_through else io.BufferedWriter(device)
    return io.TextIOWrapper(
        buffer,
        stream.encoding,
        "backslashreplace",  # what a terminal's encoding lacks is no reason to stop either
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _device(stream: Any) -> Any:
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)


def _lost(stream: Any) -> OSError | None:
    return getattr(_device(stream), "lost", None)
