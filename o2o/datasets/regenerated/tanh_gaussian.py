"""Tanh-Gaussian policies of two ReLU layers, as D4RL's files hold its behaviour policies and ours are shipped.

A file `<task>-medium.npz` holds one, `<task>-snapshots.npz` those of a run in the order of its training, stacked along
a first axis and rounded to float16.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Float32

from o2o.errors import ConfigError

LAYERS = ("fc0", "fc1", "last_fc", "last_fc_log_std")
KEYS = tuple(f"{layer}/{part}" for layer in LAYERS for part in ("weight", "bias"))
LOG_STD_BOUNDS = (-20.0, 2.0)


@dataclass(frozen=True)
class TanhGaussian:
    """A tanh-Gaussian policy of two ReLU layers, in the layout of D4RL's `metadata/policy`."""

    weights: dict[str, np.ndarray]

    def sample(
        self, observation: Float32[np.ndarray, "E O"], noise: Float32[np.ndarray, "E A"]
    ) -> tuple[Float32[np.ndarray, "E A"], Float32[np.ndarray, " E"]]:
        """Actions for standard normal noise, and the logarithm of their densities."""
        mean, log_std = self.distribution(observation)
        raw = mean + np.exp(log_std) * noise
        gaussian = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi)
        # log(1 - tanh(x)²), written so that it stays finite for large |x|
        log_slope = 2 * (np.log(2) - raw - np.logaddexp(0, -2 * raw))
        return np.tanh(raw), (gaussian - log_slope).sum(axis=1, dtype=np.float32)

    def distribution(
        self, observation: Float32[np.ndarray, "E O"]
    ) -> tuple[Float32[np.ndarray, "E A"], Float32[np.ndarray, "E A"]]:
        """Mean and log standard deviation of the action before its tanh."""
        hidden = np.maximum(self._layer("fc0", observation), 0)
        hidden = np.maximum(self._layer("fc1", hidden), 0)
        return self._layer("last_fc", hidden), self._layer("last_fc_log_std", hidden).clip(*LOG_STD_BOUNDS)

    @property
    def sizes(self) -> tuple[int, int]:
        """Of an observation and of an action."""
        return self.weights["fc0/weight"].shape[1], len(self.weights["last_fc/bias"])

    def _layer(self, name: str, inputs: np.ndarray) -> np.ndarray:
        return inputs @ self.weights[f"{name}/weight"].T + self.weights[f"{name}/bias"]


def checked(weights: dict[str, np.ndarray]) -> TanhGaussian:
    """The policy of these weights, cast to float32.

    Raises:
        KeyError, TypeError, ValueError: if arrays are missing, are no numbers, or do not fit each other.
    """
    policy = TanhGaussian({key: weights[key].astype(np.float32, casting="same_kind") for key in KEYS})
    if not all(np.isfinite(array).all() for array in policy.weights.values()):
        raise ValueError("not all weights are finite")
    if any(policy.weights[f"{layer}/weight"].ndim != 2 for layer in LAYERS):
        raise ValueError("not all weights are matrices")
    observation_size, action_size = policy.sizes
    policy.sample(np.zeros((1, observation_size), np.float32), np.zeros((1, action_size), np.float32))
    return policy


def load(path: Path) -> tuple[list[TanhGaussian], dict[str, Any]]:
    """The policies in an `.npz` file, in the order of their training, and where they are from.

    Raises:
        ConfigError: if the file is damaged or arrays are missing or do not fit each other.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {key: file[key] for key in KEYS}
            provenance = json.loads(str(file["provenance"]))
        if arrays["fc0/weight"].ndim == 2:
            arrays = {key: array[None] for key, array in arrays.items()}
        count = len(arrays["fc0/weight"])
        if not isinstance(provenance, dict) or len(provenance.get("epochs", range(count))) != count:
            raise ValueError("its provenance does not belong to it")
        policies = [checked({key: array[i] for key, array in arrays.items()}) for i in range(count)]
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(
            [f"{path}: not a usable file of behaviour policies ({error}). Restore the shipped file."]
        ) from None
    return policies, provenance


def save(path: Path, policies: Sequence[TanhGaussian], provenance: dict[str, Any]) -> None:
    """Writes one policy as it is; of several, all in one file, rounded to float16, which halves it."""
    arrays = {key: np.stack([policy.weights[key] for policy in policies]) for key in KEYS}
    if len(policies) == 1:
        arrays = {key: array[0] for key, array in arrays.items()}
    else:
        arrays = {key: array.astype(np.float16) for key, array in arrays.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as stream:
        np.savez_compressed(stream, provenance=np.array(json.dumps(provenance)), **cast(Any, arrays))
    temporary.replace(path)
