"""The rows of an appended file, from its end: most questions are answered there."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class TailRows:
    """The end of an appended file, read once; the rest only if it is asked for."""

    def __init__(self, path: str, tail_bytes: int) -> None:
        """Reads the last `tail_bytes` of the file at `path`."""
        self._path = path
        descriptor = os.open(path, os.O_RDONLY)
        try:
            self._size = os.fstat(descriptor).st_size
            self._tail = os.pread(descriptor, tail_bytes, max(0, self._size - tail_bytes))
        finally:
            os.close(descriptor)
        self.last = next(iter(self._newest_first(self._tail)), None)

    @property
    def last_step(self) -> int:
        """The last row's step; -1 where there is none."""
        step = self.last.get("step") if self.last else None
        return step if isinstance(step, int) else -1

    def tail(self) -> list[dict[str, Any]]:
        """The last rows, newest first."""
        return list(self._newest_first(self._tail))

    def at_step(self, step: int) -> dict[str, Any] | None:
        """The newest row of that step; only its own line is parsed."""
        for content in (self._tail, self._whole()):
            for found in reversed(list(re.finditer(rb'"step": ?%d[,}]' % step, content))):
                start = content.rfind(b"\n", 0, found.start()) + 1
                row = next(self._newest_first(content[start:].partition(b"\n")[0]), None)
                if row is not None:
                    return row
        return None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """All rows, newest first."""
        yield from self._newest_first(self._whole())

    def _whole(self) -> bytes:
        return Path(self._path).read_bytes() if self._size > len(self._tail) else self._tail

    @staticmethod
    def _newest_first(content: bytes) -> Iterator[dict[str, Any]]:
        for line in reversed(content.split(b"\n")):
            try:
                row = json.loads(line)
            except ValueError:
                continue  # torn by a kill, or cut by where the reading began
            if isinstance(row, dict):
                yield row
