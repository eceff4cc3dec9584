"""The arithmetic that an update needs, and this process's rate of the simplest arithmetic there is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from o2o.replay.buffer import Replay
from o2o.types import NO_FACTS, Algorithm, Batch

PEAK_SIZE = 2048


def update_flops(algorithm: Algorithm, replay: Replay, updates: int = 1) -> float:
    """Floating-point operations of the matrix products in a step of so many updates, averaged over its phases.

    They are those that automatic differentiation asks for, but what is computed twice to the same values (the target
    policy, once for each critic) counts once.
    """
    example, key = replay.example(), jax.random.key(0)
    state = jax.eval_shape(algorithm.init, key, example, NO_FACTS)

    def stacked(leaf: Any) -> Any:
        return jax.ShapeDtypeStruct((updates, replay.batch_size, *leaf.shape), leaf.dtype)

    data = jax.tree.map(stacked, example)
    kinds: list[Any] = [
        jax.ShapeDtypeStruct(data.reward.shape, kind) for kind in (jnp.int32, bool, jnp.float32)
    ]
    batches, totals = Batch(data, *kinds), []
    for phase in range(algorithm.period):
        due = tuple((phase + i) % algorithm.period == 0 for i in range(updates))

        def update(state: Any, batches: Batch, due: Sequence[bool] = due) -> Any:
            return algorithm.update(state, batches, jax.random.key(0), due)[0]

        totals.append(_products(jax.make_jaxpr(update)(state, batches)))
    return sum(totals) / len(totals)


def _products(traced: Any) -> float:
    """Returns the operations of all matrix products of a traced function, those of a loop once each time."""
    known: dict[Any, int] = {}
    found: dict[Any, float] = {}

    def walk(jaxpr: Any, inputs: Sequence[Any], times: int) -> list[Any]:
        values = dict(zip(jaxpr.invars, inputs, strict=True))
        values |= {variable: ("constant", id(variable)) for variable in jaxpr.constvars}

        def value(variable: Any) -> Any:
            return ("literal", str(variable.val)) if hasattr(variable, "val") else values[variable]

        for equation in jaxpr.eqns:
            arguments = tuple(value(variable) for variable in equation.invars)
            inner = next((p for k, p in equation.params.items() if k in ("jaxpr", "call_jaxpr")), None)
            if inner is not None:
                repeats = equation.params.get("length", 1)
                outputs = walk(getattr(inner, "jaxpr", inner), arguments, times * repeats)
            else:
                what = (str(equation.primitive), str(equation.params), arguments)
                number = known.setdefault(what, len(known))
                outputs = [(number, i) for i in range(len(equation.outvars))]
                if equation.primitive.name == "dot_general":
                    (contracted, _), _ = equation.params["dimension_numbers"]
                    shared = equation.invars[0].aval.shape[contracted[0]]
                    found[number] = 2.0 * times * equation.outvars[0].aval.size * shared
            values |= dict(zip(equation.outvars, outputs, strict=True))
        return [value(variable) for variable in jaxpr.outvars]

    walk(traced.jaxpr, [("argument", i) for i in range(len(traced.jaxpr.invars))], 1)
    return sum(found.values())


def matmul_peak() -> float:
    """The rate of float32 matrix products of this process, in floating-point operations a second."""
    a = jnp.ones((PEAK_SIZE, PEAK_SIZE))
    product = jax.jit(jnp.matmul)
    b = product(a, a).block_until_ready()
    repeats = 10 if jax.default_backend() == "cpu" else 200
    start = time.perf_counter()
    for _ in range(repeats):
        b = product(a, a)
    b.block_until_ready()
    return repeats * 2 * PEAK_SIZE**3 / (time.perf_counter() - start)
