"""Bad input, as it is told to the user."""

from __future__ import annotations

from collections.abc import Iterable


class ConfigError(Exception):
    """Bad input, told to the user without a traceback; each of `problems` is one line or paragraph."""

    def __init__(self, problems: Iterable[str]) -> None:
        """An error that lists `problems`."""
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))
