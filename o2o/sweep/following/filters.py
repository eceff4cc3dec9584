"""Which runs a command is about: `algorithm=td3,td3_c seed=0-4 state=failed`, a sweep, or the directory of a run.

Words are joined by "and", the values of a word by "or"; `word!=value` leaves out. A value is a word, a number, a range
of whole numbers (`0-4`), a pattern (`hopper-*`) or a list (`[256,256]`); capitals do not matter. Besides the short
words, any key of a run's configuration is one (`algorithm.constraint_epsilon=1e-4`). What names no directory, key or
value is refused, with what is near it: a filter that misses by a letter must not look like an empty answer.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from o2o.errors import ConfigError
from o2o.sweep.surveying.survey import Seen, SeenRun

SHORT: dict[str, Callable[[SeenRun], Any]] = {
    "dataset": lambda run: run.cell.facts.get("dataset.name"),
    "task": lambda run: run.cell.facts.get("dataset.task"),
    "algorithm": lambda run: run.cell.facts.get("algorithm.name"),
    "replay": lambda run: run.cell.facts.get("replay_init.name"),
    "ratio": lambda run: run.cell.facts.get("offline_ratio.value"),
    "phase": lambda run: run.phase,
    "seed": lambda run: run.seed,
    "state": lambda run: run.state,
    "sweep": lambda run: run.sweeps,
    "class": lambda run: run.failure,
}
"""The values that short words stand for."""

_WORD = re.compile(r"([\w.]+)(!?=)(.*)", re.DOTALL)
_BARE = str.maketrans("", "", " \"'")
_RANGE = re.compile(r"(\d+)-(\d+)")
_CLOSED = {"state": [state.lower() for state in Seen], "phase": ["pretrain", "finetune"]}
"""Words whose values are known without looking at any run."""


@dataclass(frozen=True)
class _Test:
    word: str
    values: list[str]
    negated: bool

    def admits(self, run: SeenRun) -> bool:
        return (
            any(_equal(value, own) for value in self.values for own in _values(run, self.word))
            != self.negated
        )


def select(runs: Sequence[SeenRun], words: Iterable[str], root: Path) -> list[SeenRun]:
    """The runs that `words` ask for, all of them if there are none.

    Args:
        runs: what was found below `root`.
        words: as in the module's docstring.
        root: the directory of runs; the directory of a run may be given from here or from there.

    Raises:
        ConfigError: with every word that names nothing.
    """
    problems: list[str] = []
    tests = [test for word in words if (test := _parse(word, runs, root, problems)) is not None]
    if problems:
        raise ConfigError(problems)
    return [run for run in runs if all(test(run) for test in tests)]


def _parse(
    word: str, runs: Sequence[SeenRun], root: Path, problems: list[str]
) -> Callable[[SeenRun], bool] | None:
    match = _WORD.fullmatch(word)
    if match is None:
        return _below(word, runs, root, problems)
    key, sign, values = match[1], match[2], _listed(match[3])
    known = dict.fromkeys([*SHORT, *(fact for run in _one_per_cell(runs) for fact in run.cell.facts)])
    if runs and key not in known:
        problems.append(
            f"{word}: {key} is no word of a filter{_near(key, known)}; there are {', '.join(SHORT)}, "
            "and the keys of a configuration"
        )
        return None
    if not values:
        problems.append(f"{word}: say {key}=…")
        return None
    there = _CLOSED.get(key) or _there(runs, key)
    for value in values if runs else ():
        if not any(_equal(value, own) for own in there):
            listed = ", ".join(there[:12]) + (", …" if len(there) > 12 else "")
            problems.append(
                f"{word}: no run has {key}={value}{_near(value, there)}; there are {listed or 'none'}"
            )
    return _Test(key, values, negated=sign == "!=").admits


def _listed(text: str) -> list[str]:
    """The values between commas, but not between those in the brackets of a list."""
    values, depth = [""], 0
    for letter in text:
        depth += (letter == "[") - (letter == "]")
        if letter == "," and depth < 1:
            values.append("")
        else:
            values[-1] += letter
    return [value for value in values if value]


def _below(
    word: str, runs: Sequence[SeenRun], root: Path, problems: list[str]
) -> Callable[[SeenRun], bool] | None:
    """The runs of a sweep, or in or below a directory; the test whether a run is one of them."""
    if any(word in run.sweeps for run in runs):
        return lambda run: word in run.sweeps
    for place in (Path(word), root / word):
        if place.is_dir():
            start = place.resolve()
            return lambda run: start in (resolved := run.path.resolve()).parents or start == resolved
        below = [
            run for run in runs if place.absolute() in (run.path.absolute(), *run.path.absolute().parents)
        ]
        if (
            below and root.absolute() in place.absolute().parents
        ):  # runs that have not begun have no directory
            return below.__contains__
    meant = [f"{key}={word}" for key in SHORT if word.lower() in map(str.lower, _there(runs, key))]
    near = (
        f" (did you mean {meant[0]}?)" if meant else _near(word, {run.path.relative_to(root) for run in runs})
    )
    problems.append(
        f"{word} is no directory of runs, here or in {root}, and no filter such as state=failed{near}"
    )
    return None


def _there(runs: Sequence[SeenRun], word: str) -> list[str]:
    """The values that runs have."""
    found = {"null" if own is None else str(own) for run in runs for own in _values(run, word)}
    return sorted(found, key=lambda value: (_number(value) is None, _number(value), value))


def _values(run: SeenRun, word: str) -> Iterable[Any]:
    own = SHORT[word](run) if word in SHORT else run.cell.facts.get(word)
    return own if isinstance(own, list | tuple) else (own,)


def _equal(value: str, own: Any) -> bool:
    if own is None:
        return value.lower() in ("null", "none")
    text = str(own)
    if value.startswith("[") and value.endswith("]"):  # a list, and no class of letters as in a pattern
        return value.translate(_BARE).lower() == text.translate(_BARE).lower()
    if (span := _RANGE.fullmatch(value)) and text.isdecimal():
        return int(span[1]) <= int(text) <= int(span[2])
    return fnmatch.fnmatchcase(text.lower(), value.lower()) or _number(value) == _number(text) is not None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _one_per_cell(runs: Sequence[SeenRun]) -> Iterable[SeenRun]:
    return {run.path.parent: run for run in runs}.values()


def _near(word: str, options: Iterable[Any]) -> str:
    near = difflib.get_close_matches(word.lower(), [str(option) for option in options], n=1)
    return f" (did you mean {near[0]}?)" if near else ""
