"""The identity of a run: a hash of its science, and the directory that follows from it.

Everything that can change a result is science (`o2o.runs.directory.science` names it); where and how a run runs
(`Config.execution`) is not, and neither is a name whose values already stand elsewhere. Equal science means one
identity and one directory, whatever the order of keys or the form of numbers. A run that finetunes contains the
identity of its pretraining, which is shared by all that finetune from it; a run without data, from scratch and an
empty replay, has a task but no dataset; a run without finetuning is its pretraining.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import stat
from pathlib import Path
from typing import Any

from o2o.config.build import container
from o2o.config.schema import Config, Dataset
from o2o.errors import ConfigError
from o2o.runs.directory import layout, reader
from o2o.runs.directory import science as told
from o2o.runs.directory.science import HASH_DIGITS
from o2o.runs.sources import code_hash

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def science(config: Config) -> dict[str, Any]:
    """Everything that makes the run what it is, as plain JSON values."""
    return told.science(_tree(config), _data(config))


def identity(config: Config) -> str:
    """The SHA-256 of the run's science, in hexadecimal."""
    return told.digest(science(config))


def pretrain_identity(config: Config) -> str | None:
    """The identity of the run's pretraining; None from scratch."""
    return told.pretraining(_tree(config), _data(config))


def cell_hash(config: Config) -> str:
    """The hash that runs share that differ in nothing but their seed."""
    return identity(dataclasses.replace(config, seed=0))


def run_directory(config: Config) -> Path:
    """The directory of the run; of its pretraining, if there is no finetuning."""
    if config.finetune.env_steps == 0:
        return _pretrain_directory(config)
    ratio = config.offline_ratio.value
    replay = "offline" if config.replay_init.preload else "empty"
    share = "uniform" if ratio is None else f"r{100 * ratio:g}"
    place = config.dataset.task.replace("/", "-") if _without_data(config) else config.dataset.name
    cell = f"{replay}-{share}-{cell_hash(config)[:HASH_DIGITS]}"
    algorithm = _tree(config)["algorithm"]["name"]
    return config.execution.paths.runs / place / algorithm / cell / f"seed-{config.seed}"


def pretrain_directory(config: Config) -> Path | None:
    """The directory of the pretraining that the run finetunes from; None from scratch."""
    return None if _from_scratch(config) else _pretrain_directory(config)


def refuse_other_run(config: Config, done: bool = False) -> None:
    """Makes sure that what lies in a run's directory is this run's.

    Args:
        config: the run's.
        done: whether it has a result; else it has been begun, and is to go on.

    Raises:
        ConfigError: if it is another run's, or, where it is to go on, its rows were written at another interval; it
            says what differs.
    """
    directory = run_directory(config)
    try:
        known = layout.read_object(directory / layout.IDENTITY)
        before = reader.read_config(directory / layout.CONFIG) if known and not done else {}
    except (ValueError, OSError) as error:
        raise ConfigError([f"{error}. Remove {directory} to run it from the start."]) from None
    differing: list[str] = []
    if known is None:
        if done:
            lost = f"{directory} has a result, but no {layout.IDENTITY}. Remove {directory} to run it from the start."
            raise ConfigError([lost])
    elif known.get("identity") != identity(config):
        differing = _differences(known.get("science"), science(config)) or [
            f"{layout.IDENTITY} names another"
        ]
    elif not done:
        records = before.get("records")
        interval = records.get("interval") if isinstance(records, dict) else None
        differing = _differences(interval, config.execution.records.interval, "records.interval")
    if differing:
        wanted = "asked for" if done else "to go on with"
        raise ConfigError([f"{directory} holds another run than the one {wanted}:", *differing])


def describe(config: Config) -> dict[str, Any]:
    """The content of a run's `identity.json`."""
    return {**told.describe(_tree(config), _data(config)), "code_hash": code_hash(config)}


@functools.lru_cache(maxsize=8)
def _tree(config: Config) -> dict[str, Any]:
    return container(config)  # asked for many times a run, and never changed here


def _differences(there: Any, here: Any, key: str = "") -> list[str]:
    """A line for every key whose values differ."""
    if isinstance(there, dict) and isinstance(here, dict):
        names = sorted({*there, *here})
        nested = [_differences(there.get(n), here.get(n), f"{key}.{n}" if key else n) for n in names]
        return [line for lines in nested for line in lines]
    return [] if there == here else [f"  {key}: {there} there, {here} here"]


def _from_scratch(config: Config) -> bool:
    return config.pretrain.updates == 0


def _without_data(config: Config) -> bool:
    return told.without_data(_tree(config))


def _pretrain_directory(config: Config) -> Path:
    algorithm = _tree(config)["pretrain"]["algorithm"]["name"]
    cell = str(pretrain_identity(dataclasses.replace(config, seed=0)))[:HASH_DIGITS]
    place = config.execution.paths.runs / config.dataset.name / "pretrain"
    return place / f"{algorithm}-{cell}" / f"seed-{config.seed}"


def _data(config: Config) -> dict[str, Any]:
    """Returns what identifies the rows of a run's dataset besides its configuration; nothing where none is used."""
    dataset = config.dataset
    if _without_data(config):
        return {}
    if dataset.made_here:
        return {"recipe": _recipe(dataset)}
    return {"sha256": _file_hash(Path(str(dataset.path)))} if dataset.source == "file" else {}


@functools.cache
def _recipe(dataset: Dataset) -> dict[str, Any]:
    from o2o.datasets.regenerated.recipes import recipe

    return recipe(dataset)


def _file_hash(path: Path) -> str:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError([f"dataset.path={path} is not a file; name an HDF5 file"])
        if not _is_hdf5(path, status.st_size):  # looked at before all of it is read
            raise ConfigError([f"dataset.path={path} is not an HDF5 file"])
        return _content_hash(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise ConfigError(
            [f"dataset.path={path} cannot be read: {error.strerror}; name an HDF5 file"]
        ) from None


def _is_hdf5(path: Path, size: int) -> bool:
    """Whether HDF5's signature stands at the start, or behind a user's block of 512 bytes times a power of two."""
    offset = 0
    with path.open("rb") as stream:
        while offset < size:
            stream.seek(offset)
            if stream.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE:
                return True
            offset = 2 * offset or 512
    return False


@functools.cache
def _content_hash(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
