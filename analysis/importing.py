"""Curves of other programs, written as run directories that the analysis reads: collapse numbers without moving here.

Three forms are read:

- a CSV table, one row an evaluation, with columns for the step and the score and, where there are several runs,
  `dataset`, `algorithm`, `seed` and `replay`. An export of one wandb run's history is such a table;
- the CSV that a wandb chart exports: one column a run, named `<run> - <metric>`;
- CORL's result pickles: algorithm → dataset → one (offline scores, online scores, …) for each seed.

A pickle is a program. CORL's is read by an interpreter that knows the few names of NumPy's by which arrays and scalars
are written, and refuses every other before anything of it is called.

What such files do not say (updates before the switch, the step between evaluations, data) has to be given. Imported
runs have `dataset.source: imported` in their configuration and are labelled wherever they are shown.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from o2o import layout
from o2o.run_directory import RunDirectory

ALLOWED = frozenset(
    {("numpy", "ndarray"), ("numpy", "dtype")}
    | {
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    }
    | {(f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")}
)
STEPS = ("env_steps", "env_step", "step", "Step", "_step", "global_step", "trainer/global_step")
SCORES = ("score", "normalized_score", "d4rl_normalized_score", "eval/score", "finetune/score")


@dataclass(frozen=True)
class Given:
    """What the file does not say, from the command line; None where it does."""

    dataset: str | None = None
    algorithm: str | None = None
    replay: str = "offline"
    interval: int | None = None
    """Env steps between two evaluations."""
    switch: int = 0
    """The step in the file at which the online phase starts."""
    offline_score: float | None = None
    step_column: str | None = None
    score_column: str | None = None


@dataclass(frozen=True)
class Curve:
    """One seed's online learning curve, from the switch on: env steps are 0, then increasing."""

    dataset: str
    algorithm: str
    replay: str
    seed: int
    env_steps: Int[np.ndarray, " E"]
    scores: Float[np.ndarray, " E"]


def import_curves(source: Path, out: Path, given: Given) -> list[Path]:
    """Writes a run directory below `out` for every curve in `source`, and returns them.

    Raises:
        ValueError: the file is not one of the three forms, or lacks what was not given; the text says what to give.
    """
    if source.suffix in (".pickle", ".pkl"):
        curves = _from_corl(read_pickle(source), source, given)
    elif source.suffix == ".csv":
        curves = _from_csv(source, given)
    else:
        raise ValueError(f"{source}: only .csv, .pickle and .pkl are read")
    if not curves:
        raise ValueError(f"{source} holds no curve")
    return [_write(curve, source, out, given) for curve in curves]


def read_pickle(source: Path) -> Any:
    """The plain values and NumPy arrays in a pickle; nothing of it can call anything else.

    Raises:
        ValueError: it names something else, or is damaged.
    """
    try:
        return _Unpickler(io.BytesIO(source.read_bytes())).load()
    except (pickle.UnpicklingError, EOFError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{source} is not read: {error}") from None


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):  # how protocol 2 writes bytes
            return _latin1
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}; only arrays and plain values are read")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to objects that are not in it")


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes as {encoding}")
    return text.encode(encoding)


def _from_corl(content: Any, source: Path, given: Given) -> list[Curve]:
    if given.interval is None:
        raise ValueError(f"{source}: CORL's pickles do not say at which steps; give --interval (CORL: 5000)")
    curves = []
    try:
        for algorithm, datasets in content.items():
            for dataset, seeds in datasets.items():
                for seed, (offline, online, *_) in enumerate(seeds):
                    online = np.asarray(online, dtype=np.float64)
                    scores = np.concatenate([np.asarray(offline, dtype=np.float64)[-1:], online])
                    steps = np.arange(len(scores)) * given.interval
                    if len(scores) > 1 and len(scores) == len(online) + 1:
                        curves.append(Curve(str(dataset), str(algorithm), given.replay, seed, steps, scores))
    except (AttributeError, TypeError, ValueError):
        raise ValueError(
            f"{source} is not algorithm → dataset → (offline scores, online scores, …) for each seed"
        ) from None
    return curves


def _from_csv(source: Path, given: Given) -> list[Curve]:
    with source.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)
        columns = list(reader.fieldnames or ())
    charted = [name for name in columns if " - " in name and not name.endswith(("__MIN", "__MAX"))]
    step = _column(source, "step", given.step_column, STEPS, columns)
    if charted and given.score_column is None:
        return [_charted(source, rows, step, name, number, given) for number, name in enumerate(charted)]
    score = _column(source, "score", given.score_column, SCORES, columns)
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        names = (row.get("dataset"), row.get("algorithm"), row.get("replay"), row.get("seed"))
        groups.setdefault(tuple(name or "" for name in names), []).append(row)
    return [
        _curve(source, own, step, score, given, dataset, algorithm, replay, _seed(source, seed))
        for (dataset, algorithm, replay, seed), own in groups.items()
    ]


def _charted(
    source: Path, rows: Sequence[Mapping[str, str]], step: str, name: str, number: int, given: Given
) -> Curve:
    """A column of a chart's export; a number at the end of the run's name is its seed, what precedes it the arm."""
    run = name.split(" - ")[0]
    found = re.fullmatch(r"(.*?)[\s_/-]*(?:seed)?[\s_=-]*(\d+)", run)
    arm, seed = (found[1], int(found[2])) if found and found[1] else (run, number)
    return _curve(source, rows, step, name, given, "", arm if given.algorithm is None else "", "", seed)


def _curve(
    source: Path,
    rows: Iterable[Mapping[str, str]],
    step: str,
    score: str,
    given: Given,
    dataset: str,
    algorithm: str,
    replay: str,
    seed: int,
) -> Curve:
    for name, value in (("dataset", dataset or given.dataset), ("algorithm", algorithm or given.algorithm)):
        if not value:
            raise ValueError(f"{source} has no column {name}: give --{name}")
    filled = [row for row in rows if row[step] and row[score]]  # wandb leaves cells empty between evaluations
    try:
        steps = np.array([float(row[step]) for row in filled]) - given.switch
        scores = np.array([float(row[score]) for row in filled])
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    order = np.argsort(steps, kind="stable")
    steps, scores = steps[order].astype(np.int64), scores[order]
    if len(np.unique(steps)) < len(steps):
        twice = steps[1:][np.diff(steps) == 0][0]
        raise ValueError(
            f"{source}: step {twice + given.switch} is there twice in one curve; "
            "are there several runs without a column that tells them apart?"
        )
    before, online = scores[steps <= 0], steps > 0
    offline = given.offline_score if given.offline_score is not None else before[-1] if len(before) else None
    if offline is None:
        raise ValueError(f"{source}: no score at the switch, step {given.switch}; give --offline-score")
    if not online.any():
        raise ValueError(f"{source}: no evaluation after the switch at step {given.switch}")
    return Curve(
        dataset or str(given.dataset),
        algorithm or str(given.algorithm),
        replay or given.replay,
        seed,
        np.append(0, steps[online]),
        np.append(offline, scores[online]),
    )


def _column(source: Path, what: str, given: str | None, known: Sequence[str], columns: Sequence[str]) -> str:
    found = [name for name in ([given] if given else known) if name in columns]
    if not found and what == "step" and columns and not given:
        found = columns[:1]  # a chart's first column, whatever its axis is called
    if not found:
        raise ValueError(
            f"{source} has no column {given or ' or '.join(known)}: name it with --{what}; "
            f"there are {', '.join(columns)}"
        )
    return found[0]


def _seed(source: Path, text: str) -> int:
    try:
        return int(float(text or "0"))
    except ValueError:
        raise ValueError(f"{source}: the seed {text!r} is not a number") from None


def _write(curve: Curve, source: Path, out: Path, given: Given) -> Path:
    budget, preload = int(curve.env_steps[-1]), curve.replay == "offline"
    updates = max(given.switch, 1)  # 0 would mean from scratch
    config = {
        "seed": curve.seed,
        "dataset": {"name": curve.dataset, "source": "imported", "task": curve.dataset.partition("-")[0]},
        "algorithm": {"name": curve.algorithm},
        "pretrain": {"updates": updates, "algorithm": {"name": curve.algorithm}},
        "finetune": {"env_steps": budget},
        "replay_init": {"name": curve.replay, "preload": preload},
        "offline_ratio": {"name": "uniform", "value": None},
        "imported_from": source.name,
    }
    digest = hashlib.sha256(json.dumps(config | {"seed": 0}, sort_keys=True).encode()).hexdigest()[:8]
    cell = f"{curve.replay}-uniform-{digest}"
    directory = RunDirectory(
        out / _safe(curve.dataset) / _safe(curve.algorithm) / cell / f"seed-{curve.seed}"
    )
    directory.start(config, {"identity": f"{digest}-{curve.seed}"})
    directory.rewind({})
    for step, score in zip(curve.env_steps.tolist(), curve.scores.tolist(), strict=True):
        row = {"phase": layout.FINETUNE, "step": updates + step, "env_steps": step, "score": score}
        directory.append(layout.EVAL, row)
    offline, online = float(curve.scores[0]), float(curve.scores[-1])
    directory.finish({"offline_score": offline, "online_score": online, "delta": online - offline})
    return directory.path


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", name).strip(".") or "unnamed"
