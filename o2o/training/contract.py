"""Whether an algorithm keeps the protocol, told by shapes alone before anything is computed (o2o.types.Algorithm)."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from o2o.replay.buffer import COLUMN_SIZES, Replay
from o2o.training import diagnostics
from o2o.types import Algorithm, Batch, Facts

METHODS = ("init", "adopts", "adopt", "update", "act")
RESERVED = {"phase", "step", *diagnostics.METRICS}
"""Columns of train.jsonl that are not an algorithm's."""


@functools.cache
def problems(algorithm: Algorithm, replay: Replay) -> tuple[str, ...]:
    """Returns a line for each way in which the algorithm does not keep the protocol; its code's errors are raised."""
    name = type(algorithm).__name__
    missing = [part for part in (*METHODS, "period", "metrics") if not hasattr(algorithm, part)]
    if missing:
        return (f"{name} has no {', '.join(missing)}: o2o/types.py says what each is",)
    if unknown := sorted({*getattr(algorithm, "columns", ()), *replay.columns} - set(COLUMN_SIZES)):
        return (f"{name}: no dataset has the columns {', '.join(unknown)}, only {', '.join(COLUMN_SIZES)}",)
    found = _of_names(algorithm)
    key, example = jax.random.key(0), replay.example()
    facts = Facts(jnp.zeros(()), jnp.ones(()))
    state = jax.eval_shape(algorithm.init, key, example, facts)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((replay.batch_size, *x.shape), x.dtype), example)
    for due in {phase == 0 for phase in range(algorithm.period if not found else 1)}:
        found += _of_update(algorithm, state, batch, key, due)
    for label, observation in (("a batch of observations", batch.observation), ("one", example.observation)):
        for evaluate in (True, False):
            act = functools.partial(algorithm.act, evaluate=evaluate)
            action = jax.eval_shape(act, state, observation, key)
            expected = (*observation.shape[:-1], replay.action_size)
            found += _differs(f"act, given {label},", action, expected)
    if value := getattr(algorithm, "value", None):
        found += _differs(
            "value", jax.eval_shape(value, state, batch.observation, batch.action), (replay.batch_size,)
        )
    if diagnose := getattr(algorithm, "diagnose", None):
        told = jax.eval_shape(diagnose, state, batch, key)
        if set(told) != {"q_mean", "td_error"}:
            found.append(f"diagnose returns {', '.join(sorted(told)) or 'nothing'}, not q_mean and td_error")
    return tuple(f"{name}: {problem}" for problem in dict.fromkeys(found))


def adoption_problems(algorithm: Algorithm, source: Algorithm, replay: Replay) -> tuple[str, ...]:
    """Returns a line if what `algorithm` adopts of `source` is not a state of its own."""
    key, example, facts = jax.random.key(0), replay.example(), Facts(jnp.zeros(()), jnp.ones(()))
    pretrained = jax.eval_shape(source.init, key, example, facts)
    own = jax.eval_shape(algorithm.init, key, example, facts)
    adopt = functools.partial(
        algorithm.adopt, source=source, key=key, reset_optimizers=False, reset_targets=False
    )
    if _shapes(jax.eval_shape(adopt, pretrained)) == _shapes(own):
        return ()
    return (f"{type(algorithm).__name__}: adopt returns a state of another shape than init's",)


def _of_names(algorithm: Algorithm) -> list[str]:
    found = []
    if not isinstance(algorithm.period, int) or algorithm.period < 1:
        found.append(f"period is {algorithm.period!r}: it counts updates, at least 1")
    taken = sorted(RESERVED & set(algorithm.metrics))
    if taken:
        found.append(f"metrics are called {', '.join(taken)}, which train.jsonl has of its own: rename them")
    return found


def _of_update(algorithm: Algorithm, state: Any, batch: Any, key: Any, due: bool) -> list[str]:
    """The state must keep its shape, and what is reported must be declared and single numbers."""
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), batch)
    kinds: list[Any] = [
        jax.ShapeDtypeStruct(one.reward.shape, kind) for kind in (jnp.int32, bool, jnp.float32)
    ]
    batches = Batch(one, *kinds)
    result = jax.eval_shape(functools.partial(algorithm.update, due=(due,)), state, batches, key)
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
        return ["update returns something else than a state and a dictionary of metrics"]
    new, metrics = result
    found = []
    if _shapes(new) != _shapes(state):
        found.append("update returns a state of another shape than init's")
    if undeclared := sorted(set(metrics) - set(algorithm.metrics)):
        found.append(
            f"update reports {', '.join(undeclared)}, which metrics does not declare: add them there"
        )
    for metric, value in metrics.items():
        found += _differs(f"update's {metric}", value, ())
    return found


def _differs(what: str, found: Any, expected: tuple[int, ...]) -> list[str]:
    shape = getattr(found, "shape", None)
    return [] if shape == expected else [f"{what} has the shape {shape}, not {expected}"]


def _shapes(tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]
