"""CORL's result pickles: algorithm → dataset → one (offline scores, online scores, …) for each seed.

A pickle is a program. CORL's is read by an interpreter that knows the few names of NumPy's by which arrays and scalars
are written, and refuses every other before anything of it is called.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from analysis.importing import foreign
from analysis.importing.foreign import ForeignCurve, Given

ALLOWED = frozenset(
    {("numpy", "ndarray"), ("numpy", "dtype")}
    | {
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    }
    | {(f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")}
)
SAID = ("dataset", "algorithm", "seed", "name", "switch", "offline_score", "step_column", "score_column")
"""The fields that such a file has itself."""


def read_curves(source: Path, given: Given) -> tuple[list[ForeignCurve], str]:
    """The curves of a pickle, and how it was read; a seed is the place in its list.

    Raises:
        ValueError: it is none of CORL's, or something does not go with it.
    """
    vain = [field for field in SAID if getattr(given, field) is not None]
    if vain:
        options = ", ".join(f"--{field.removesuffix('_column').replace('_', '-')}" for field in vain)
        raise ValueError(f"{source}: CORL's pickles say that themselves: leave out {options}")
    if given.interval is None:
        raise ValueError(f"{source}: CORL's pickles do not say at which steps; give --interval (CORL: 5000)")
    found = []
    for algorithm, dataset, seed, offline, online in _seeds(read_pickle(source), source):
        run = f"{algorithm} → {dataset} → {seed}"
        place = f"{source}, {run}"
        if not offline:
            raise ValueError(f"{place}: no offline score, with which the curve would begin")
        said = {"dataset": dataset, "algorithm": algorithm, "seed": str(seed)}
        whose = foreign.owner(place, given, {field: (text, place) for field, text in said.items()})
        points = []
        for i, score in enumerate([offline[-1], *online]):
            at = f"{place}, evaluation {i}"
            points.append((at, float(i * given.interval), foreign.number(str(score), at)))
        found.append(foreign.make(whose, points, given, source, run))
    return found, f"CORL's results, an evaluation every {given.interval} env steps, seeds by their order"


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


def _seeds(content: Any, source: Path) -> list[tuple[str, str, int, list[float], list[float]]]:
    """Algorithm, dataset, seed, offline and online scores of each curve.

    Raises:
        ValueError: the pickle holds something else.
    """

    def scores(values: Any) -> list[float]:
        array = np.asarray(values, np.float64)
        if array.ndim != 1:
            raise TypeError("not a list of scores")
        return array.tolist()

    try:
        return [
            (str(algorithm), str(dataset), seed, scores(offline), scores(online))
            for algorithm, datasets in content.items()
            for dataset, seeds in datasets.items()
            for seed, (offline, online, *_) in enumerate(seeds)
        ]
    except (AttributeError, TypeError, ValueError):
        raise ValueError(
            f"{source} is not algorithm → dataset → (offline scores, online scores, …) for each seed"
        ) from None
