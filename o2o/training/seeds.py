"""Many seeds in one job: how a function of one member is run for all of them.

Everywhere else code is written for one member. Here it is run for a *bundle*, a list of one value a *program*. On an
accelerator there is one program for all members, computed by vmap: its value is a tree whose arrays have a leading
members axis. On a CPU every member has a program of its own, which gives bit for bit what it gives alone (vmap does
not, and is slower there); they run side by side on the cores.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Bundle = list[Any]  # one value a program: see the module's docstring


@dataclass(frozen=True)
class Members:
    """The members of a job, `together` in one program or each in a program of its own."""

    count: int
    together: bool = False

    @property
    def lanes(self) -> int:
        """The number of members that are computed at a time."""
        return self.count if self.together else min(self.count, 1 + len(_threads()))

    def groups(self, values: Iterable[Any]) -> list[list[Any]]:
        """Returns the members' values by program."""
        return [list(values)] if self.together else [[value] for value in values]

    def bundle(self, values: Sequence[Any]) -> Bundle:
        """Returns the bundle of the members' values, trees of arrays."""
        if not self.together:
            return list(values)
        return [jax.tree.map(lambda *leaves: jnp.stack(leaves), *values)]

    def values(self, bundle: Bundle) -> list[Any]:
        """Returns each member's value of a bundle."""
        if not self.together:
            return list(bundle)
        return [jax.tree.map(lambda leaf, i=i: leaf[i], bundle[0]) for i in range(self.count)]

    def split(self, array: np.ndarray) -> Bundle:
        """Returns an array with a leading members axis as a bundle."""
        return [array] if self.together else list(array)

    def to_host(self, bundle: Bundle) -> np.ndarray:
        """Returns a bundle of single arrays as one numpy array with a leading members axis; waits for it."""
        return np.asarray(bundle[0]) if self.together else np.stack([np.asarray(value) for value in bundle])

    def across(self, function: Callable[..., Any], shared: Sequence[int] = ()) -> Callable[..., Any]:
        """Returns a function of one member as one of a program's values; those at `shared` are the same for all."""
        if not self.together:
            return function

        def mapped(*arguments: Any) -> Any:
            axes = tuple(None if k in shared else 0 for k in range(len(arguments)))
            return jax.vmap(function, in_axes=axes)(*arguments)

        return mapped

    def map(
        self,
        function: Callable[..., tuple[Any, ...]],
        shared: Sequence[int] = (),
        donated: Sequence[int] = (),
        static: Sequence[int] = (),
    ) -> Callable[..., tuple[Bundle, ...]]:
        """Compiles a function of one member, which returns a tuple, to one of bundles.

        The arguments at `shared` and `static` positions are the same for all members; those at `donated` positions are
        used up by the call.
        """

        def of_a_program(*arguments: Any) -> tuple[Any, ...]:
            fixed = {k: arguments[k] for k in static}
            rest = [k for k in range(len(arguments)) if k not in fixed]

            def of_a_member(*values: Any) -> tuple[Any, ...]:
                known = fixed | dict(zip(rest, values, strict=True))
                return function(*(known[k] for k in range(len(arguments))))

            across = self.across(of_a_member, [i for i, k in enumerate(rest) if k in shared])
            return across(*(arguments[k] for k in rest))

        return self.programs(of_a_program, shared, donated, static)

    def programs(
        self,
        function: Callable[..., tuple[Any, ...]],
        shared: Sequence[int] = (),
        donated: Sequence[int] = (),
        static: Sequence[int] = (),
    ) -> Callable[..., tuple[Bundle, ...]]:
        """Compiles a function of a program's values, which returns a tuple, to one of bundles; see `map`."""
        same = {*shared, *static}
        compiled = jax.jit(function, donate_argnums=donated, static_argnums=static)
        programs, lanes = 1 if self.together else self.count, self.lanes

        def call(*arguments: Any) -> tuple[Bundle, ...]:
            def one(i: int) -> tuple[Any, ...]:
                return compiled(*(a if k in same else a[i] for k, a in enumerate(arguments)))

            def lane(first: int) -> list[tuple[Any, ...]]:
                return [one(i) for i in range(first, programs, lanes)]

            if programs == 1:
                return tuple([result] for result in one(0))
            first = one(0)  # alone, since it may have to be compiled
            others = [thread.submit(lane, k) for k, thread in enumerate(_threads()[: lanes - 1], start=1)]
            own = [first, *lane(lanes)]
            by_lane = [own, *(other.result() for other in others)]
            results = [by_lane[i % lanes][i // lanes] for i in range(programs)]
            return tuple(map(list, zip(*results, strict=True)))

        return call


@functools.cache
def _threads() -> list[ThreadPoolExecutor]:
    """Returns a thread for every core but the one that the caller is on; a member always meets the same one."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return [ThreadPoolExecutor(1, "member") for _ in range(cores - 1)]


def make_members(count: int) -> Members:
    """Returns the members of a job of `count` seeds, in the way that suits JAX's default device."""
    return Members(count, together=count > 1 and jax.default_backend() != "cpu")
