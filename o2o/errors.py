"""Bad input, as it is told to the user."""

from __future__ import annotations

from collections.abc import Iterable

TOLD_PROBLEMS = 20


class ConfigError(Exception):
    """Bad input, told to the user without a traceback; each of `problems` is one line or paragraph."""

    def __init__(self, problems: Iterable[str]) -> None:
        """An error that lists `problems`, as many as a screen has room for."""
        told = list(problems)
        more = len(told) - TOLD_PROBLEMS
        self.problems = [*told[:TOLD_PROBLEMS], f"… and {more} more"] if more > 0 else told
        super().__init__("\n".join(self.problems))
