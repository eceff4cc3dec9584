"""Which keys of a configuration say what a run is, and how `identity.json` tells it: light, for all who read runs.

A configuration is here its plain container, as it stands in `config.yaml`. What can change a result is science, and is
named below, once. Everything else says where and how a run runs, or is a name whose values stand elsewhere.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from o2o.runs.directory.layout import CONFIG, IDENTITY, read_object

BOTH_PHASES = ("seed", "batch_size", "discount", "learning_rate", "network")
"""The keys that are hashed of every run, besides its dataset and its pretraining."""
ONLINE = ("algorithm", "finetune", "replay_init", "offline_ratio", "evaluation")
"""The keys that are hashed of a run that finetunes."""
LABELS = ("dataset.path", "replay_init.name", "offline_ratio.name")
"""The keys that are not hashed of all these: names of values that stand beside them, and the place of a file."""
OF_THE_TASK = ("task", "reference_min", "reference_max")
"""All that a run without data has of its dataset."""

HASH_DIGITS = 8
"""Of an identity, in the names of directories."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_BLOCK = re.compile(r"^(?=\w+:)", re.MULTILINE)


def science(config: Mapping[str, Any], data: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Everything that makes a run what it is; a run without finetuning is its pretraining.

    Args:
        config: the container of its configuration.
        data: what identifies the rows of its dataset besides the configuration: the digest of a file, a recipe.
    """
    if not _finetunes(config):
        return _pretraining_science(config, data)
    dataset = config["dataset"]
    return {
        **_picked(config, BOTH_PHASES),
        **_picked(config, ONLINE),
        "dataset": {key: dataset.get(key) for key in OF_THE_TASK}
        if without_data(config)
        else _dataset_science(config, data),
        "pretrain": pretraining(config, data),
    }


def pretraining(config: Mapping[str, Any], data: Mapping[str, Any] | None = None) -> str | None:
    """The identity of a run's pretraining, its own if it does not finetune; None from scratch."""
    return None if _from_scratch(config) else digest(_pretraining_science(config, data))


def digest(tree: Mapping[str, Any]) -> str:
    """The SHA-256 of plain values in hexadecimal, whatever the order of the keys."""
    canonical = json.dumps(tree, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def settings(config: Mapping[str, Any], data: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The science of a run and of its pretraining by dotted keys, such as `algorithm.name`, without the seed."""
    pretrain = {"updates": 0} if _from_scratch(config) else config["pretrain"]
    flat = flatten({**science(config, data), "pretrain": pretrain})
    del flat["seed"]
    return flat


def describe(config: Mapping[str, Any], data: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the content of a run's `identity.json`, but for the hash of the code."""
    tree = science(config, data)
    return {
        "identity": digest(tree),
        "science": tree,
        "pretraining": pretraining(config, data),
        "settings": settings(config, data),
    }


def read(path: Path, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the content of `identity.json` in a run's directory.

    What it does not say, since the run was made before it did or was imported, is derived from the `config`, which is
    read where it is not given.

    Raises:
        OSError, ValueError, KeyError, TypeError: the files cannot be read, or are those of no run.
    """
    stored = read_object(path / IDENTITY) or {}
    if "settings" in stored:
        return stored
    data = stored.get("science", {}).get("dataset")
    return describe(_read_config(path / CONFIG) if config is None else config, data) | stored


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested dictionaries by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def shortened(value: Any) -> Any:
    """The beginning of a digest, as paths have it; any other value as it is."""
    return value[:HASH_DIGITS] if isinstance(value, str) and _DIGEST.fullmatch(value) else value


def without_data(config: Mapping[str, Any]) -> bool:
    """Whether a run, given the container of its configuration, learns from online rows alone."""
    return _from_scratch(config) and not config["replay_init"]["preload"]


def _finetunes(config: Mapping[str, Any]) -> bool:
    return config["finetune"]["env_steps"] != 0


def _from_scratch(config: Mapping[str, Any]) -> bool:
    return config["pretrain"]["updates"] == 0


def _pretraining_science(config: Mapping[str, Any], data: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        **_picked(config, BOTH_PHASES),
        "dataset": _dataset_science(config, data),
        "pretrain": config["pretrain"],
    }


def _dataset_science(config: Mapping[str, Any], data: Mapping[str, Any] | None) -> dict[str, Any]:
    return _picked(config, ["dataset"])["dataset"] | dict(data or {})


def _picked(config: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Those of the keys that there are, without labels; a key that was added later may not be there."""
    return {
        key: {name: value for name, value in config[key].items() if f"{key}.{name}" not in LABELS}
        if isinstance(config[key], Mapping)
        else config[key]
        for key in keys
        if key in config
    }


def _read_config(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    return {key: value for block in _BLOCK.split(text) for key, value in _parsed(block)}


@functools.cache
def _parsed(block: str) -> list[tuple[str, Any]]:
    """The keys and values of a top-level part of a YAML file; runs share most of theirs, so each is parsed once.

    Raises:
        ValueError: it is not YAML, or holds no keys.
    """
    import yaml  # only where a run is read that was made before its identity.json said all

    try:
        tree = yaml.load(block, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    if not isinstance(tree, dict):
        raise ValueError("no keys")
    return list(tree.items())
