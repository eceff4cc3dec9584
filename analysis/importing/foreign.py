"""A learning curve of another program: whose it is, its points, and what its file does not say."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

FIELDS = ("dataset", "algorithm", "seed", "replay")
"""The fields that say whose a curve is: two curves that agree on all of it would be one run."""

REPLAYS = ("offline", "empty")
LONGEST_NAME = 100
LARGEST_STEP = 2.0**53  # up to here floats are exact


@dataclass(frozen=True)
class Given:
    """The options of the command line on curves; None where it has none."""

    dataset: str | None = None
    algorithm: str | None = None
    seed: int | None = None
    replay: str | None = None
    name: str | None = None
    """A template of the runs' names (`analysis.importing.naming`)."""
    interval: int | None = None
    """Env steps between two evaluations."""
    switch: int | None = None
    """The step in the file at which the online phase starts."""
    offline_score: float | None = None
    step_column: str | None = None
    score_column: str | None = None


@dataclass(frozen=True)
class CurveOwner:
    """Whose a curve is."""

    dataset: str
    algorithm: str
    seed: int
    replay: str
    replay_is_assumed: bool

    def __str__(self) -> str:
        """In words."""
        return f"{self.algorithm} on {self.dataset}, seed {self.seed}, replay {self.replay}"


@dataclass(frozen=True)
class ForeignCurve:
    """One seed's online learning curve, from the switch on: env steps are 0, then increasing."""

    owner: CurveOwner
    env_steps: Int[np.ndarray, " E"]
    scores: Float[np.ndarray, " E"]
    begins: str
    """The place that the first score is from."""
    source: Path
    run: str
    """The name that tells it from the other curves of its file; may be empty."""


def owner(where: str, given: Given, found: Mapping[str, tuple[str, str]]) -> CurveOwner:
    """Whose a curve is, by what was `found` in its file or name, else by what was given.

    Args:
        where: the file, for messages.
        given: what the command line says.
        found: field to its text and the place that it was found at.

    Raises:
        ValueError: something is missing, or is not what it should be; the text says what to give.
    """
    missing = [field for field in FIELDS[:3] if field not in found and getattr(given, field) is None]
    if missing:
        raise ValueError(
            f"{where} does not say the {' and the '.join(missing)}: give "
            f"{' '.join(f'--{field} …' for field in missing)}, or a template of names: "
            "--name 'run{seed}/history.csv' of those of files, --name '{algorithm} - seed {seed}' of those in a chart"
        )

    def text(field: str) -> tuple[str, str]:
        value = getattr(given, field)
        return found[field] if field in found else (str(value), f"--{field}")

    assumed = "replay" not in found and given.replay is None
    replay, place = (REPLAYS[0], "") if assumed else text("replay")
    if replay not in REPLAYS:
        raise ValueError(f"{place}: {replay!r} is not one of {', '.join(REPLAYS)}")
    seed, place = text("seed")
    if not re.fullmatch(r"[0-9]+(\.0*)?", seed):  # pandas writes 3.0 where other cells are empty
        raise ValueError(f"{place}: the seed {seed!r} is not a whole number from 0 on")
    dataset, algorithm = _name(*text("dataset")), _name(*text("algorithm"))
    return CurveOwner(dataset, algorithm, int(seed.partition(".")[0]), replay, assumed)


def make(
    owner: CurveOwner, points: Sequence[tuple[str, float, float]], given: Given, source: Path, run: str
) -> ForeignCurve:
    """The curve through `points`: where each was read, its step in the file and its score.

    Raises:
        ValueError: they do not make a curve; the text says why.
    """
    label = f"{source}{f' ({run})' if run else ''}"
    switch = given.switch or 0
    at: dict[int, str] = {}
    for place, step, _ in points:
        if at.setdefault(int(step), place) != place:
            raise ValueError(
                f"{at[int(step)]} and {place}: step {step:.0f} is there twice in one curve, {owner}; are there "
                "several runs without a column seed, algorithm or dataset that tells them apart?"
            )
    ordered = sorted((int(step) - switch, score) for _, step, score in points)
    before = [(step, score) for step, score in ordered if step <= 0]
    online = [(step, score) for step, score in ordered if step > 0]
    if given.offline_score is not None:
        begins, offline = "--offline-score", given.offline_score
    elif before:
        begins, offline = f"step {before[-1][0] + switch}", before[-1][1]
    else:
        raise ValueError(f"{label}: no score at the switch, step {switch}; give --offline-score")
    if not online:
        raise ValueError(f"{label}: no evaluation after the switch at step {switch}")
    return ForeignCurve(
        owner,
        np.array([0, *(step for step, _ in online)], np.int64),
        np.array([offline, *(score for _, score in online)], np.float64),
        begins,
        source,
        run,
    )


def number(text: str, place: str) -> float:
    """The finite number that a text is.

    Raises:
        ValueError: it is none; the text begins with `place`.
    """
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{place}: {text!r} is not a number") from None
    if not math.isfinite(value):
        raise ValueError(
            f"{place}: {text!r} is not a finite number; empty the cell if there was no evaluation"
        )
    return value


def step(text: str, place: str) -> float:
    """The whole number of steps that a text is.

    Raises:
        ValueError: it is none; the text begins with `place`.
    """
    value = number(text, place)
    if value != int(value) or abs(value) > LARGEST_STEP:
        raise ValueError(f"{place}: {text!r} is not a whole number of steps")
    return value


def _name(text: str, place: str) -> str:
    """A dataset's or an algorithm's name, as the tables will have it."""
    text = text.strip()
    if not text or not text.isprintable() or len(text) > LONGEST_NAME:
        raise ValueError(
            f"{place}: {text[:LONGEST_NAME]!a} is no name of 1 to {LONGEST_NAME} printable characters"
        )
    if text.strip(".") == "pretrain":  # by the name of its folder
        raise ValueError(f"{place}: an algorithm called {text} would be taken for a pretraining")
    return text
