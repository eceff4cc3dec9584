"""Counts and seeds in words."""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, noun: str) -> str:
    """A number and its noun: 1 run, 2 runs, 0 processes, 3 trajectories."""
    if number == 1:
        return f"{number} {noun}"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{number} {noun[:-1]}ies"
    return f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def named_seeds(numbers: Sequence[int]) -> str:
    """Seeds in a few letters: seed 3, seeds 0-4,7."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and spans[-1][-1] == number - 1:
            spans[-1][1:] = [number]
        else:
            spans.append([number])
    return f"seed{'s' if len(numbers) > 1 else ''} " + ",".join("-".join(map(str, span)) for span in spans)
