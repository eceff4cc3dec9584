"""Curves of other programs, written as run directories that the analysis reads: collapse numbers without moving here.

CSV files (`analysis.importing.csv_curves`) and CORL's result pickles (`analysis.importing.corl`) are read. Whose a
curve is (dataset, algorithm, seed and what the replay held) is said by its file or by the user, never guessed, and
what was understood is shown before anything is written. A curve has one place,
`<out>/<dataset>/<algorithm>/<replay>/seed-<n>`; a second one for it is refused, but for the same one, imported again.

Imported runs have `dataset.source: imported` in their configuration and are labelled wherever they are shown.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.importing import corl, csv_curves, naming
from analysis.importing.foreign import ForeignCurve, Given
from o2o.machine.counting import counted
from o2o.runs.directory import layout
from o2o.runs.directory.layout import read_object
from o2o.runs.directory.writer import RunDirectory

LISTED = 30
FROM = "imported_from"


def read_curves(sources: Sequence[Path], given: Given) -> tuple[list[ForeignCurve], str]:
    """The curves in all files, and in words how they were understood.

    Raises:
        ValueError: a file is not read, does not say enough, or two curves are the same run; the text says what to do.
    """
    if given.switch is not None and given.switch < 0:
        raise ValueError(f"--switch {given.switch} is below 0")
    if given.interval is not None and given.interval < 1:
        raise ValueError(f"--interval {given.interval} is not above 0")
    if given.offline_score is not None and not math.isfinite(given.offline_score):
        raise ValueError(f"--offline-score {given.offline_score} is not a finite number")
    curves, lines = [], []
    for source in sources:
        reader = {".csv": csv_curves, ".pickle": corl, ".pkl": corl}.get(source.suffix)
        if not source.is_file():
            raise ValueError(f"{source} is not a file")
        if reader is None:
            raise ValueError(f"{source}: only .csv, .pickle and .pkl are read")
        try:
            found, how = reader.read_curves(source, given)
        except OSError as error:
            raise ValueError(f"{source} cannot be read: {error.strerror}") from None
        if not found:
            raise ValueError(f"{source} holds no curve")
        curves += found
        lines.append(f"{source}: {how}")
    _refuse_twins(curves, given)
    return curves, "\n".join(
        [*_shortened(lines), *_shortened([_described(curve) for curve in curves]), *_assumed(curves, given)]
    )


def write_curves(curves: Sequence[ForeignCurve], out: Path, given: Given) -> list[Path]:
    """Writes a run directory below `out` for every curve, and returns them.

    Raises:
        ValueError: one has its place taken, in which case none is written; or they cannot be written.
    """
    try:
        for curve in curves:
            _refuse_taken(out / _place(curve), curve)
        return [_write(curve, out / _place(curve), given) for curve in curves]
    except OSError as error:
        raise ValueError(f"{error.filename or out} cannot be written: {error.strerror}") from None


def _refuse_twins(curves: Sequence[ForeignCurve], given: Given) -> None:
    places: dict[str, ForeignCurve] = {}
    for curve in curves:
        first = places.setdefault(_place(curve).as_posix().lower(), curve)  # some systems know no capitals
        if first is curve:
            continue
        one, other = (
            f"{each.source} ({each.run})" if each.run else f"{each.source}" for each in (first, curve)
        )
        same_run = str(first.owner) == str(curve.owner)
        same = (
            f"are both {curve.owner}"
            if same_run
            else f"would share a folder, {first.owner} and {curve.owner}"
        )
        way = "rename one of them"
        if first.source != curve.source and given.name is None:
            template = naming.for_files([curve.source for curve in curves])
            way = f"tell them apart by their files' names, as in --name {shlex.quote(template)}"
        elif same_run:
            way = "tell them apart by the template (--name), or take one of them out"
        raise ValueError(f"{one} and {other} {same}: {way}")


def _refuse_taken(place: Path, curve: ForeignCurve) -> None:
    there = read_object(place / layout.IDENTITY) or {}
    origin = there.get(FROM)
    if not place.exists() or origin == _origin(curve):
        return
    named = f", from {origin['file']} {origin['run']}".rstrip() if origin else ""
    raise ValueError(
        f"{place} is there already{named}: {curve.source} is another curve of the same run, {curve.owner}. Give one "
        "of them another --seed or --algorithm, import it elsewhere (--out), or remove what is there"
    )


def _described(curve: ForeignCurve) -> str:
    origin = f"{curve.source}{f', {curve.run}' if curve.run else ''}"
    steps, scores = curve.env_steps, curve.scores
    names = {"dataset": curve.owner.dataset, "algorithm": curve.owner.algorithm}
    folders = [
        f"; the folder of {kind} {name} is called {_folder(name)}"
        for kind, name in names.items()
        if _folder(name) != name
    ]
    return (
        f"  {curve.owner}: {counted(len(steps) - 1, 'evaluation')} up to env step {steps[-1]}, "
        f"offline score {scores[0]:g} ({curve.begins}), last {scores[-1]:g}; from {origin}{''.join(folders)}"
    )


def _assumed(curves: Sequence[ForeignCurve], given: Given) -> list[str]:
    said = []
    if given.switch is None and given.interval is None:
        said.append("the online phase begins at step 0 (--switch)")
    if any(curve.owner.replay_is_assumed for curve in curves):
        said.append("the replay started with offline data (--replay)")
    return [f"assumed, for nothing says otherwise: {'; '.join(said)}"] if said else []


def _shortened(lines: Sequence[str]) -> list[str]:
    return [*lines[:LISTED], *([f"  … and {len(lines) - LISTED} more"] if len(lines) > LISTED else [])]


def _place(curve: ForeignCurve) -> Path:
    owner = curve.owner
    return Path(_folder(owner.dataset), _folder(owner.algorithm), owner.replay, f"seed-{owner.seed}")


def _folder(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", name).strip(".") or "unnamed"


def _origin(curve: ForeignCurve) -> dict[str, str]:
    return {"file": str(curve.source.resolve()), "run": curve.run}


def _write(curve: ForeignCurve, place: Path, given: Given) -> Path:
    owner = curve.owner
    budget, preload = int(curve.env_steps[-1]), owner.replay == "offline"
    updates = max(given.switch or 0, 1)  # 0 would mean from scratch
    config: dict[str, Any] = {
        "seed": owner.seed,
        "dataset": {"name": owner.dataset, "source": "imported", "task": owner.dataset.partition("-")[0]},
        "algorithm": {"name": owner.algorithm},
        "pretrain": {"updates": updates, "algorithm": {"name": owner.algorithm}},
        "finetune": {"env_steps": budget},
        "replay_init": {"name": owner.replay, "preload": preload},
        "offline_ratio": {"name": "uniform", "value": None},
    }
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:16]
    directory = RunDirectory(place)
    # Nothing says that two curves share a pretraining, so each has one of its own.
    directory.start(config, {"identity": digest, "pretraining": digest, FROM: _origin(curve)})
    directory.rewind({})
    for step, score in zip(curve.env_steps.tolist(), curve.scores.tolist(), strict=True):
        row = {"phase": layout.FINETUNE, "step": updates + step, "env_steps": step, "score": score}
        directory.append(layout.EVAL, row)
    offline, online = float(curve.scores[0]), float(curve.scores[-1])
    directory.finish({"offline_score": offline, "online_score": online, "delta": online - offline})
    return directory.path
