"""Damaged, foreign and hostile datasets, given to `launch` and to `python -m o2o.datasets`."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from torture.trial import Case

ROWS, OBSERVATION, ACTION = 20, 11, 3  # hopper's
NAME = "data.hdf5"
Maker = Callable[[Path], Any]


class Executes:
    """Unpickling it leaves a file behind."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def arrays(**changes: Any) -> dict[str, Any]:
    """What a good file holds, with changes; None leaves out."""
    good = {
        "observations": np.zeros((ROWS, OBSERVATION), np.float32),
        "actions": np.zeros((ROWS, ACTION), np.float32),
        "rewards": np.ones(ROWS, np.float32),
        "terminals": np.zeros(ROWS, bool),
        "timeouts": np.arange(ROWS) % 10 == 9,
    }
    return {key: value for key, value in (good | changes).items() if value is not None}


def write(path: Path, content: dict[str, Any]) -> Path:
    """An HDF5 file with those arrays."""
    with h5py.File(path, "w") as file:
        for key, value in content.items():
            file[key] = value
    return path


def _with(**changes: Any) -> Maker:
    return lambda path: write(path, arrays(**changes))


def _at(key: str, place: Any, value: Any, dtype: Any = None) -> Maker:
    def make(path: Path) -> None:
        content = arrays()
        content[key] = content[key].astype(dtype) if dtype else content[key]
        content[key][place] = value
        write(path, content)

    return make


def _declared(**how: Any) -> Maker:
    def make(path: Path) -> None:
        write(path, arrays(rewards=None))
        with h5py.File(path, "a") as file:
            file.create_dataset("rewards", **how)

    return make


def _linked(link: Any) -> Maker:
    def make(path: Path) -> None:
        write(path, arrays(rewards=None))
        with h5py.File(path, "a") as file:
            file["rewards"] = link

    return make


def _bytes(change: Callable[[bytes], bytes]) -> Maker:
    def make(path: Path) -> None:
        path.write_bytes(change(write(path, arrays()).read_bytes()))

    return make


def _sparse(size: int) -> Maker:
    def make(path: Path) -> None:
        with path.open("wb") as stream:
            stream.truncate(size)

    return make


# What is wrong with the file, how it is made, what the message names besides the file.
FILES: list[tuple[str, Maker, str]] = [
    ("no file", lambda path: None, "No such file"),
    ("a directory", lambda path: path.mkdir(), "is not a file"),
    ("empty", lambda path: path.touch(), "not an HDF5 file"),
    ("text", lambda path: path.write_text("observations,actions\n"), "not an HDF5 file"),
    ("a pickle", lambda path: path.write_bytes(pickle.dumps(Executes())), "not an HDF5 file"),
    ("zeros", _sparse(2**20), "not an HDF5 file"),
    ("a loop of links", lambda path: path.symlink_to(path.name), NAME),
    ("a device", lambda path: path.symlink_to("/dev/null"), NAME),
    ("cut short", _bytes(lambda content: content[: len(content) // 2]), "truncated or damaged"),
    ("only a head", _bytes(lambda content: content[:512]), "truncated or damaged"),
    ("no arrays", lambda path: write(path, {}), "no 'observations'"),
    ("no actions", _with(actions=None), "no 'actions'"),
    ("no timeouts", _with(timeouts=None), "no 'timeouts'"),
    ("names in capitals", lambda path: write(path, {k.upper(): v for k, v in arrays().items()}), "observations"),
    ("a group for an array", _with(rewards=None, **{"rewards/inner": np.ones(ROWS)}), "is a group"),
    ("an external link", _linked(h5py.ExternalLink("/etc/hostname", "rewards")), "is a link"),
    ("a soft link", _linked(h5py.SoftLink("/timeouts")), "is a link"),
    ("values outside", _declared(shape=(ROWS,), dtype="f4", external=[("/etc/hostname", 0, 80)]), "other files"),
    ("text for numbers", _with(rewards=np.full(ROWS, b"1.0")), "dtype"),
    ("pickled objects", _with(rewards=np.void(pickle.dumps(Executes()))), "'rewards'"),
    ("whole numbers", _with(rewards=np.ones(ROWS, np.int64)), "dtype int64"),
    ("halves", _with(actions=np.zeros((ROWS, ACTION), np.float16)), "dtype float16"),
    ("complex numbers", _with(rewards=np.ones(ROWS, complex)), "dtype complex128"),
    ("pixels", _with(observations=np.zeros((ROWS, 4, 4), np.float32)), "shape (20, 4, 4)"),
    ("wide rewards", _with(rewards=np.zeros((ROWS, 2), np.float32)), "shape (20, 2)"),
    ("a scalar", _with(rewards=np.float32(1)), "shape ()"),
    ("no rows", lambda path: write(path, {k: v[:0] for k, v in arrays().items()}), "no transition"),
    ("one row", lambda path: write(path, {k: v[:1] for k, v in arrays().items()}), "no transition"),
    ("timeouts alone", _with(timeouts=np.ones(ROWS, bool)), "no transition"),
    ("no end", _with(timeouts=np.zeros(ROWS, bool)), "dataset.episode_length="),
    ("terminals that are timeouts", _with(terminals=arrays()["timeouts"]), "clear 'timeouts'"),
    ("other successors", _with(next_observations=np.ones((ROWS, OBSERVATION), np.float32)), "'next_observations'"),
    ("lengths that differ", _with(rewards=np.ones(ROWS - 1, np.float32)), "rewards 19"),
    ("another task's observations", _with(observations=np.zeros((ROWS, 17), np.float32)), "17 columns"),
    ("another task's actions", _with(actions=np.zeros((ROWS, 6), np.float32)), "6 columns"),
    ("a NaN", _at("observations", (7, 2), np.nan), "observations[7, 2] is nan"),
    ("an infinity", _at("rewards", 3, -np.inf), "rewards[3] is -inf"),
    ("too large for float32", _at("rewards", 4, 1e300, np.float64), "rewards[4] is inf"),
    ("actions out of range", _at("actions", (0, 0), 1.5), "'actions' reach 1.5"),
    ("a terminal of 2", _at("terminals", 6, 2, np.int64), "'terminals' is 2 in row 6"),
    ("a timeout of NaN", _at("timeouts", 6, np.nan, np.float32), "'timeouts' is nan in row 6"),
    ("never written", _declared(shape=(ROWS,), dtype="f4"), "0 bytes are stored"),
    ("a bomb", _declared(shape=(10**13,), dtype="f4", chunks=(2**20,), compression="gzip"), "bytes are stored"),
    ("an unknown filter", _declared(data=np.ones(ROWS, np.float32), scaleoffset=2), "HDF5 filter"),
]  # fmt: skip


def cases() -> list[Case]:
    """All of them."""
    own = ("dataset=file", f"dataset.path={{}}/{NAME}", "dataset.task=hopper", "dataset.reference_min=null")
    files = [
        Case(f"a dataset: {name}", own, said, lambda directory, make=make: make(directory / NAME))
        for name, make, said in FILES
    ]
    cheetah = "halfcheetah-medium-replay-v2"
    at = Path("data/d4rl/halfcheetah_medium_replay-v2.hdf5")

    def foreign(size: int) -> Maker:
        def make(directory: Path) -> None:
            (directory / at).parent.mkdir(parents=True)
            _sparse(size)(directory / at)

        return make

    looked_at = ("info", cheetah)
    return [
        *files,
        Case(
            "more rows than there are",
            (*own, "dataset.rows=21"),
            "dataset.rows=21",
            lambda d: write(d / NAME, arrays()),
        ),
        Case("D4RL's file is missing", looked_at, "not there yet", command="o2o.datasets"),
        Case("D4RL's file is cut", looked_at, "59448533", foreign(1000), "o2o.datasets"),
        Case(
            "D4RL's name on another file",
            looked_at,
            "SHA-256",
            foreign(59_448_533),
            "o2o.datasets",
            aside=(f"{at}.sha256.json",),  # what was computed is remembered
        ),
        Case("an unknown set", ("info", "hopper-medum-v2"), "hopper-medum-v2", command="o2o.datasets"),
        Case("not made yet", ("info", "regen-hopper-medium"), "not there yet", command="o2o.datasets"),
        Case("not ours to make", ("generate", "hopper-medium-v2"), "regen-", command="o2o.datasets"),
        Case(
            "nothing to make",
            ("generate", "regen-hopper-medium", "dataset.rows=0"),
            "rows=0",
            command="o2o.datasets",
        ),
        Case("no such command", ("maek", "hopper-medium-v2"), "maek", command="o2o.datasets"),
        Case("no arguments", (), "usage", command="o2o.datasets"),
    ]
