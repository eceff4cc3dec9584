"""Runs as pandas data frames: what `o2o.load_runs` returns, and the `curves.csv` of a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.data.cells import display_name, into_cells, pretraining_names
from analysis.data.collect import matches
from analysis.data.places import Places, paths_of, runs_below
from analysis.data.runs import Finetuning
from o2o import collapse
from o2o.runs.directory import layout, science
from o2o.runs.directory.layout import read_object, read_state
from o2o.runs.directory.reader import read_columns, read_config

IDENTIFYING = ("run", "dataset", "setting", "algorithm", "replay", "seed")
"""The columns by which the rows of every frame can be grouped, without a look at `runs`."""


@dataclass(frozen=True, eq=False)
class Runs:
    """All runs below one directory or several as data frames, finished or not, finetunings and pretrainings.

    `runs` has one row a run, by its directory. `curves` has one row an evaluation, `episodes` one a training episode,
    `train` one a row of `train.jsonl`; each begins with `IDENTIFYING`, and `since_switch` counts env steps after the
    switch and, below 0, pretraining updates before it. Scores are D4RL-normalised, 0 to 100.
    """

    places: tuple[Path, ...]
    runs: pd.DataFrame = field(repr=False)
    curves: pd.DataFrame = field(repr=False)
    notes: tuple[str, ...]
    """One line for whatever could not be read."""

    @cached_property
    def episodes(self) -> pd.DataFrame:
        """The training episodes: env_step, return, length; read when first asked for."""
        return _together(self.runs, lambda path: read_columns(path / layout.EPISODES, []))

    @cached_property
    def train(self) -> pd.DataFrame:
        """The metrics and diagnostics of training; read when first asked for."""
        return _together(self.runs, lambda path: read_columns(path / layout.TRAIN, []))

    def only(self, chosen: pd.Series | pd.DataFrame) -> Runs:
        """Those runs that are chosen by a column of booleans, or by a part of the rows, of `runs`."""
        kept = self.runs.loc[chosen.index if isinstance(chosen, pd.DataFrame) else chosen]
        return replace(self, runs=kept, curves=self.curves[self.curves["run"].isin(kept.index)])


def load_runs(root: Places = "runs", where: Mapping[str, str] | None = None) -> Runs:
    """Reads all runs below one directory or several into data frames.

    Args:
        root: the directory of runs, or a part of it, or several.
        where: as `--where` of `python -m analysis`: for dotted keys of the configuration, the values to keep.

    Raises:
        FileNotFoundError: there is no such directory.
    """
    places = paths_of(root)
    for place in places:
        if not place.is_dir():
            raise FileNotFoundError(f"{place} is not a directory: name the directory that holds the runs")
    notes: list[str] = []
    found: list[tuple[Path, dict[str, Any], dict[str, Any]]] = []
    for path in runs_below(places, notes):
        try:
            config = read_config(path / layout.CONFIG)
            if matches(config, where):
                found.append((path, config, science.read(path, config)))
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            notes.append(f"{path} cannot be read: {error}")
    finetunings = {
        path: Finetuning(path, config, {}, identity, {}, None)
        for path, config, identity in found
        if config["finetune"]["env_steps"]
    }
    cells = into_cells(finetunings.values())
    settings = {run.path: cell.label for cell in cells for run in cell.runs}
    names = pretraining_names(cells)
    origins = {
        run.identity["pretraining"]: names.get(run.pretraining_key) for cell in cells for run in cell.runs
    }
    pretrainings = {identity["pretraining"]: path for path, _, identity in found if path not in finetunings}
    rows, evaluations = [], {}
    for path, config, identity in found:
        columns = evaluations[path] = read_columns(path / layout.EVAL, notes)
        origin = pretrainings.get(identity["pretraining"]) if path in finetunings else None
        try:
            told = _run(path, config, columns, origin, settings.get(path))
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            notes.append(f"{path} cannot be read: {error}")
            continue
        if path not in finetunings:
            told["setting"] = origins.get(identity["pretraining"]) or told["setting"]
        rows.append(told | {key: _plain(value) for key, value in science.flatten(config).items()})
    runs = pd.DataFrame(rows).set_index("run") if rows else pd.DataFrame(columns=["run"]).set_index("run")
    return Runs(places, runs, _together(runs, lambda path: evaluations[path]), tuple(notes))


def curves_of(finetunings: Iterable[Finetuning], settings: Mapping[Path, str]) -> pd.DataFrame:
    """The evaluations of finished finetunings as in `Runs.curves`; `settings` are the names of theirs."""
    runs = list(finetunings)
    rows = [_identifying(run.path, run.config, settings[run.path]) for run in runs]
    evaluations = {run.path: run.evaluations for run in runs}
    frame = pd.DataFrame(rows, columns=list(IDENTIFYING)).set_index("run")
    frame["pretrain.updates"] = [run.switch for run in runs]
    return _together(frame, lambda path: evaluations[path])


def _run(
    path: Path,
    config: dict[str, Any],
    columns: dict[str, np.ndarray],
    origin: Path | None,
    setting: str | None,
) -> dict[str, Any]:
    """The columns of a run that are not its configuration's."""
    result = read_object(path / layout.RESULT) or {}
    state = read_state(path)
    execution = result.get("execution") or {}
    told = _identifying(path, config, setting) | {
        "phase": layout.FINETUNE if setting else layout.PRETRAIN,
        "state": str(state),
        "pretraining": str(origin) if origin else None,
        **{key: result.get(key) for key in ("offline_score", "online_score", "delta")},
        "regret": None,
        "depth": None,
        "seconds": execution.get("seconds"),
        "device": execution.get("device"),
    }
    if setting and told["offline_score"] is not None and np.isfinite(columns.get("score", [np.nan])).all():
        curve = collapse.Curve.of(columns["env_steps"], columns["score"], told["offline_score"])
        told |= {"regret": float(collapse.regret(curve)), "depth": float(collapse.depth(curve))}
    return told


def _identifying(path: Path, config: dict[str, Any], setting: str | None) -> dict[str, Any]:
    run = Finetuning(path, config, {}, {}, {}, None)
    own, replay = (run.algorithm, run.replay) if setting else (run.pretraining_algorithm, None)
    values = (str(path), run.dataset, setting or f"{display_name(own)} pretraining", own, replay, run.seed)
    return dict(zip(IDENTIFYING, values, strict=True))


def _together(runs: pd.DataFrame, columns_of: Callable[[Path], dict[str, np.ndarray]]) -> pd.DataFrame:
    """The columns of one file of every run, below each other, behind what says whose they are."""
    frames = []
    for run, row in runs.iterrows():
        columns = {name: c for name, c in columns_of(Path(str(run))).items() if c.dtype != object}
        if not columns:
            continue
        frame = pd.DataFrame(columns)
        if "step" in frame:
            frame.insert(0, "since_switch", frame["step"] - row["pretrain.updates"])
        for place, name in enumerate(IDENTIFYING):
            frame.insert(place, name, str(run) if name == "run" else row[name])
        frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(IDENTIFYING))


def _plain(value: Any) -> Any:
    """A value that pandas can group by: lists as tuples."""
    return tuple(map(_plain, value)) if isinstance(value, list) else value
