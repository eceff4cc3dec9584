"""Every algorithm's numbers after one and after three updates, against those of tests/algorithms/golden/.

A change of these numbers is a change of what the project computes: results from before and after it must not be mixed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from small import OWN, batch_of, fresh, make, update

GOLDEN = Path(__file__).parent / "golden"
ADVICE = (
    "{name} no longer computes what it did. If that is not what you meant, it is a bug. If it is, run `make golden`, "
    "commit the changed {name}.json with the change, and say in CHANGELOG.md that numbers changed."
)


# What the arrays of a state are called in the files, which are older than its present tree: the actor's part is 0, the
# critics' 1, where each critic had a tree of its own.
RENAMED = {
    "policy_optimizer": "0/optimizer",
    "critics": "1/critics",
    "target_critics": "1/target_critics",
    "critic_optimizers": "1/optimizers",
}


def magnitudes(state: Any) -> dict[str, float]:
    """The mean magnitude of every array, under its name in the files; one a critic where they are stacked."""
    found = {}
    for place, leaf in jax.tree_util.tree_leaves_with_path(state):
        part, _, rest = jax.tree_util.keystr(place, simple=True, separator="/").partition("/")
        old = RENAMED.get(part, f"0/{part}")
        if old.startswith("1/"):
            found |= {f"{old}/{i}/{rest}": float(np.abs(own).mean()) for i, own in enumerate(leaf)}
        else:
            found[f"{old}/{rest}".rstrip("/")] = float(np.abs(leaf).mean())
    return found


def measured(name: str) -> dict[str, dict[str, float]]:
    """Metrics, and the mean magnitude of every array of the state, after one and after three updates."""
    algorithm = make(name)
    state, found = fresh(algorithm, batch=batch_of()), {}
    for k in range(3):
        key = jax.random.fold_in(jax.random.key(1), k)
        state, metrics = update(algorithm, state, batch_of(seed=k), key, k % algorithm.period == 0)
        if k in (0, 2):
            metrics = {name: float(value) for name, value in metrics.items()}
            found[f"after {k + 1}"] = metrics | magnitudes(state)
    return found


# Cal-QL shares with CQL all but a bound.
@pytest.mark.parametrize(
    "name", [n if n != "cal_ql" else pytest.param(n, marks=pytest.mark.slow) for n in OWN]
)
def test_an_algorithm_computes_what_it_always_did(name, write_golden):
    path, found = GOLDEN / f"{name}.json", measured(name)
    if write_golden:
        path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        return
    expected = json.loads(path.read_text())
    for after, values in expected.items():
        # Adam's moments of zero gradients are noise of the size of 1e-9; the rest agrees across CPUs to about 1e-6.
        assert found[after] == pytest.approx(values, rel=2e-5, abs=1e-7), ADVICE.format(name=name)
