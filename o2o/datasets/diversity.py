"""The command `diversity`: how diverse a set is. The paper says that it matters, and measures nothing.

All measures of state-action pairs are taken on equally many rows of each set, in units that are fixed for a task, so
that sets of one task can be compared. Entropies and log-determinants are in nats and only their differences mean
something. None of them is the paper's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float
from scipy.spatial import KDTree
from scipy.special import digamma

from o2o.algorithms.networks import init_policy, policy_action
from o2o.config.schema import Dataset, Paths
from o2o.datasets.files.hdf5 import StoredRows
from o2o.datasets.loading import load_for_task, locate
from o2o.datasets.regenerated import recipes
from o2o.errors import ConfigError
from o2o.machine import device
from o2o.types import Network, Parameters

NEIGHBOUR = 5
FIT_ROWS = 50_000  # at most, to which the network is fitted that predicts actions
FIT_UPDATES = 3000
FIT_BATCH = 256
# Units of the observations' entries: the standard deviations in D4RL's medium-replay sets, rounded (those of the -v2
# files, as published in nikhilbarhate99/min-decision-transformer). Ant's are not published: 1 for positions and
# angles, 2 and 4 for linear and angular velocities.
SCALES = {
    "hopper": [0.18, 0.064, 0.34, 0.20, 0.55, 1.05, 1.16, 0.80, 1.48, 1.65, 5.1],
    "halfcheetah": [0.17, 1.28, 0.33, 0.37, 0.26, 0.48, 0.32, 0.34, 2.1, 0.80, 1.9, 6.6, 7.6, 5.1, 9.1, 6.1, 7.3],
    "walker2d": [0.12, 0.36, 0.26, 0.42, 0.52, 0.16, 0.37, 0.72, 1.38, 0.86, 2.6, 3.0, 3.7, 4.9, 2.7, 3.8, 5.5],
    "ant": [1.0] * 13 + [2.0] * 3 + [4.0] * 11,
}  # fmt: skip
ACTION_SCALE = 0.5
FIGURES = ("entropy", "log_determinant", "residual_action_variance", "return_std")  # higher is more diverse


@dataclass(frozen=True)
class Diversity:
    """Measures of a set's diversity; the first three from as many rows of every set."""

    entropy: float
    """Of the state-action distribution, by the distances to the fifth-nearest neighbours (Kozachenko-Leonenko)."""
    log_determinant: float
    """Of the covariance of state-action pairs: the same for a Gaussian, so it sees spread but no modes."""
    residual_action_variance: float
    """Variance of an action's entry that its state does not explain, as far as a network can tell."""
    return_std: float
    return_range: tuple[float, float]
    """Tenth and ninetieth percentile of the episodes' returns."""
    policies: str
    """The number of behaviour policies that it comes from, where that is known."""


def show_diversity(sets: Sequence[Dataset], paths: Paths, samples: int, json_file: Path | None) -> None:
    """Measures how diverse sets are: entropy, spread, how much of the actions the states explain, returns."""
    for dataset in sets:
        if locate(dataset, paths.data) is None:
            raise ConfigError(
                [
                    f"{dataset.name} is not there. Get it first: python -m o2o.datasets fetch (or generate) NAME"
                ]
            )
    device.configure()
    found: dict[str, Diversity] = {}
    for task in dict.fromkeys(dataset.task for dataset in sets):
        found |= _compared([dataset for dataset in sets if dataset.task == task], paths, samples)
    if json_file is not None:
        write(json_file, found)


def _compared(sets: Sequence[Dataset], paths: Paths, samples: int) -> dict[str, Diversity]:
    """The diversity of sets of one task, by their names; printed as a table."""
    loaded = [load_for_task(dataset, paths.data) for dataset in sets]
    scale = scales(sets[0].task, loaded[0])
    smallest = min(len(rows.rewards) for rows in loaded)
    samples, fit_rows = min(samples, smallest), min(FIT_ROWS, smallest)
    print(
        f"{sets[0].task}: {samples} rows of each set ({fit_rows} for the residual); entropy and log-determinant"
    )
    print("in nats, in units that are fixed for the task")
    print(
        f"{'set':44} {'rows':>8} {'entropy':>8} {'log det':>8} {'residual':>9} {'returns: std':>13} "
        f"{'10 %–90 %':>13}  policies"
    )
    found = {}
    for dataset, rows in zip(sets, loaded, strict=True):
        found[dataset.shown_name] = result = measure(rows, samples, fit_rows, scale, known_policies(dataset))
        low, high = result.return_range
        print(
            f"{dataset.shown_name:44} {len(rows.rewards):8} {result.entropy:8.2f} {result.log_determinant:8.2f} "
            f"{result.residual_action_variance:9.3f} {result.return_std:13.0f} {f'{low:.0f}–{high:.0f}':>13}  "
            f"{result.policies}",
            flush=True,
        )
    print()
    return found


def write(path: Path, found: Mapping[str, Diversity]) -> None:
    """Writes figures for `python -m analysis --diversity`; one that is not finite is left out."""
    figures = {
        name: {key: getattr(one, key) for key in FIGURES if math.isfinite(getattr(one, key))}
        for name, one in found.items()
    }
    try:
        path.write_text(json.dumps(figures, indent=2) + "\n")
    except OSError as error:
        raise ConfigError(
            [f"{path}: cannot be written ({error.strerror}). Name another file with --json."]
        ) from None


def measure(
    rows: StoredRows, samples: int, fit_rows: int, scale: Float[np.ndarray, " O"], policies: str = "?"
) -> Diversity:
    """The diversity of a set, by a random sample of its rows; actions are fitted on `fit_rows` of them."""
    chosen = np.random.default_rng(0).permutation(len(rows.rewards))[: max(samples, fit_rows)]
    kept = scale > 0
    states = (rows.observations[chosen] / np.where(kept, scale, 1))[:, kept].astype(np.float64)
    actions = rows.actions[chosen].astype(np.float64)
    pairs = np.concatenate([states, actions / ACTION_SCALE], axis=1)[:samples]
    returns = episode_returns(rows)
    return Diversity(
        entropy=entropy(pairs),
        log_determinant=float(np.linalg.slogdet(np.cov(pairs, rowvar=False))[1]),
        residual_action_variance=residual_variance(states[:fit_rows], actions[:fit_rows]),
        return_std=float(returns.std()),
        return_range=(float(np.quantile(returns, 0.1)), float(np.quantile(returns, 0.9))),
        policies=policies,
    )


def scales(task: str, rows: StoredRows) -> Float[np.ndarray, " O"]:
    """The units of a task's observations; 0 leaves an entry out. Of a task of one's own, those of the first set."""
    known = SCALES.get(task)
    if known is None:
        return rows.observations.std(axis=0)
    scale = np.zeros(rows.observations.shape[1])
    scale[: len(known)] = known
    return scale


def entropy(points: Float[np.ndarray, "S D"]) -> float:
    """The Kozachenko-Leonenko estimate of a density's entropy, in nats; equal points count as 1e-6 apart."""
    count, size = points.shape
    distances, _ = KDTree(points).query(points, NEIGHBOUR + 1, workers=-1)  # the nearest is the point itself
    distance = np.maximum(distances[:, NEIGHBOUR], 1e-6)
    log_ball = size / 2 * np.log(np.pi) - math.lgamma(size / 2 + 1)
    return float(digamma(count) - digamma(NEIGHBOUR) + log_ball + size * np.log(distance).mean())


def residual_variance(states: Float[np.ndarray, "S O"], actions: Float[np.ndarray, "S A"]) -> float:
    """The mean squared error, over held-out rows and entries, of a network that was fitted to predict the action.

    It is an upper bound of what no function of the state could predict. A fifth of the rows are held out; the network
    is the project's deterministic policy with two layers of 256, fitted with Adam.
    """
    held_out = len(states) // 5
    inputs, targets = (jnp.asarray(array, jnp.float32) for array in (states, actions))
    network = Network((256, 256))
    key, init_key = jax.random.split(jax.random.key(0))
    parameters = init_policy(init_key, network, inputs.shape[1], targets.shape[1])
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, FIT_UPDATES))

    def loss(parameters: Parameters, rows: Any) -> Any:
        return jnp.square(policy_action(parameters, inputs[rows]) - targets[rows]).mean()

    def update(carry: Any, key: Any) -> tuple[Any, None]:
        parameters, moments = carry
        rows = jax.random.randint(key, (FIT_BATCH,), held_out, len(inputs))
        updates, moments = optimizer.update(jax.grad(loss)(parameters, rows), moments)
        return (optax.apply_updates(parameters, updates), moments), None

    carry = parameters, optimizer.init(parameters)
    fitted = jax.jit(lambda carry: jax.lax.scan(update, carry, jax.random.split(key, FIT_UPDATES))[0][0])(
        carry
    )
    return float(loss(fitted, jnp.arange(held_out)))


def episode_returns(rows: StoredRows) -> Float[np.ndarray, " M"]:
    """Undiscounted returns of the complete episodes; NaN without any."""
    ends = np.flatnonzero(rows.terminals | rows.timeouts) + 1
    if not ends.size:
        return np.full(1, np.nan)
    starts = np.concatenate([[0], ends[:-1]])
    return np.add.reduceat(rows.rewards[: ends[-1]].astype(np.float64), starts)


def known_policies(dataset: Dataset) -> str:
    """Returns the number of behaviour policies that a set comes from, as far as is known."""
    if dataset.mix:
        return "mixed"
    if dataset.made_here:
        return str(recipes.count_policies(dataset))
    if dataset.source == "d4rl" and dataset.quality in ("medium", "random", "expert"):
        return "1"
    if dataset.source == "d4rl" and dataset.quality == "medium-replay":
        return "one every 1000 steps (inferred)"
    return "?"
