"""How a count is said."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """A number and its noun: 1 run, 2 runs, 0 processes."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{ending}"
