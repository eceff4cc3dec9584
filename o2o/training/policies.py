"""A run's policies at a few of its env steps, `policy-<step>.npz`: of each state only the arrays that acting reads.

So they are small whatever the algorithm learns beside its policy, and `act` is all that what is loaded is good for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from o2o.training import checkpoint
from o2o.types import Algorithm, State

_NAME = re.compile(r"policy-(\d+)\.npz")


def steps_to_keep(wanted: Iterable[int], stops: Sequence[int]) -> set[int]:
    """Returns for each wanted env step the first stop at or after it, 0 being one; none behind the last stop."""
    reached = (0, *stops)
    return {next(stop for stop in reached if stop >= step) for step in wanted if step <= reached[-1]}


def arrays_read(algorithm: Algorithm, state: State, observation: Float[Array, " O"]) -> list[bool]:
    """Returns for each array of a state (or of its shapes) whether the evaluated policy's actions depend on it."""

    def act(state: State, observation: Float[Array, " O"]) -> Float[Array, " A"]:
        return algorithm.act(state, observation, jax.random.key(0), evaluate=True)

    jaxpr = jax.make_jaxpr(act)(state, observation).jaxpr
    needed = set(map(id, jaxpr.outvars))
    for equation in reversed(jaxpr.eqns):
        if needed & set(map(id, equation.outvars)):
            needed |= set(map(id, equation.invars))
    return [id(variable) in needed for variable in jaxpr.invars[: len(jax.tree.leaves(state))]]


def save(directory: Path, step: int, state: State, read: Sequence[bool]) -> None:
    """Writes the policy at an env step: those arrays of `state` that are `read`."""
    checkpoint.save(directory / f"policy-{step}.npz", _without(state, read))


def steps(directory: Path) -> list[int]:
    """Returns the env steps whose policies are there, in their order."""
    found = (_NAME.fullmatch(path.name) for path in directory.glob("policy-*.npz"))
    return sorted(int(match[1]) for match in found if match)


def load(directory: Path, step: int, like: State, read: Sequence[bool]) -> State:
    """Returns a state in the structure of `like` (shapes) that acts as the policy of that env step; the rest is zeros.

    Raises:
        CheckpointError: as `checkpoint.load` does.
    """
    found = iter(jax.tree.leaves(checkpoint.load(directory / f"policy-{step}.npz", _without(like, read))))
    leaves, structure = jax.tree.flatten(like)
    filled = [
        jnp.asarray(next(found)) if is_read else jnp.zeros(leaf.shape, leaf.dtype)
        for leaf, is_read in zip(leaves, read, strict=True)
    ]
    return jax.tree.unflatten(structure, filled)


def forget(directory: Path, after: int = -1) -> None:
    """Removes the policies of later env steps than `after`, by default all of them."""
    for step in steps(directory):
        if step > after:
            (directory / f"policy-{step}.npz").unlink(missing_ok=True)


def _without(state: State, read: Sequence[bool]) -> Any:
    """Returns the tree without the arrays that are not read."""
    leaves, structure = jax.tree.flatten(state)
    return jax.tree.unflatten(
        structure, [x if is_read else None for x, is_read in zip(leaves, read, strict=True)]
    )
