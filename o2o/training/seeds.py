"""Many seeds in one job: how a function of one member is run for all of them.

Everywhere else code is written for one member. Here it is mapped over a *bundle*, which holds one value a
member: on an accelerator a tree whose arrays have a leading members axis, computed by vmap; on a CPU a
list, computed by one compiled function after the other, which gives bit for bit what each member gives
alone (vmap does not, and is slower there).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

Bundle = Any  # one value a member: see the module's docstring


class Members(Protocol):
    """The members of a job."""

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    def bundle(self, values: Sequence[Any]) -> Bundle:
        """The bundle of the members' values, trees of arrays."""
        ...

    def values(self, bundle: Bundle) -> list[Any]:
        """Each member's value of a bundle."""
        ...

    def rearrange(self, function: Callable[..., Any], *bundles: Bundle) -> Bundle:
        """`function` of each member's values, where it only takes trees apart and puts them together."""
        ...

    def to_host(self, bundle: Bundle) -> np.ndarray:
        """A bundle of single arrays as one numpy array with a leading members axis; waits for it."""
        ...

    def map(
        self,
        function: Callable[..., tuple[Any, ...]],
        shared: Sequence[int] = (),
        donated: Sequence[int] = (),
        static: Sequence[int] = (),
        beside: bool = False,
    ) -> Callable[..., tuple[Bundle, ...]]:
        """Compiles a function of one member, which returns a tuple, to one of bundles.

        The arguments at `shared` and `static` positions are the same for all members; those at `donated` positions are
        used up by the call. One that is to be computed `beside` the call before it uses nothing up where it is.
        """
        ...


@dataclass(frozen=True)
class LoopedMembers:
    """One compiled call a member, side by side on a machine's cores. A bundle is a list."""

    count: int

    def bundle(self, values: Sequence[Any]) -> list[Any]:
        """The list of the values."""
        return list(values)

    def values(self, bundle: list[Any]) -> list[Any]:
        """The values of the list."""
        return bundle

    def rearrange(self, function: Callable[..., Any], *bundles: list[Any]) -> list[Any]:
        """As in `Members`."""
        return [function(*values) for values in zip(*bundles, strict=True)]

    def to_host(self, bundle: list[Any]) -> np.ndarray:
        """As in `Members`."""
        return np.stack([np.asarray(value) for value in bundle])

    def map(
        self,
        function: Callable[..., tuple[Any, ...]],
        shared: Sequence[int] = (),
        donated: Sequence[int] = (),
        static: Sequence[int] = (),
        beside: bool = False,
    ) -> Callable[..., tuple[list[Any], ...]]:
        """As in `Members`."""
        same = {*shared, *static}
        threads = _threads()[: self.count - 1]
        lanes = 1 + len(threads)
        apart = _threads()[:1] if beside and self.count == 1 else []
        compiled = jax.jit(function, donate_argnums=() if apart else donated, static_argnums=static)

        def call(*arguments: Any) -> tuple[list[Any], ...]:
            def one(i: int) -> tuple[Any, ...]:
                return compiled(*(a if k in same else a[i] for k, a in enumerate(arguments)))

            def lane(first: int) -> list[tuple[Any, ...]]:
                return [one(i) for i in range(first, self.count, lanes)]

            if apart:
                return tuple([result] for result in apart[0].submit(one, 0).result())
            first = one(0)  # alone, since it may have to be compiled
            others = [thread.submit(lane, k) for k, thread in enumerate(threads, start=1)]
            own = [first, *(one(i) for i in range(lanes, self.count, lanes))]
            by_lane = [own, *(other.result() for other in others)]
            results = [by_lane[i % lanes][i // lanes] for i in range(self.count)]
            return tuple(map(list, zip(*results, strict=True)))

        return call


@dataclass(frozen=True)
class VmappedMembers:
    """One compiled call for all members. A bundle is a tree of arrays with a leading members axis."""

    count: int

    def bundle(self, values: Sequence[Any]) -> Any:
        """The values stacked leaf by leaf."""
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *values)

    def values(self, bundle: Any) -> list[Any]:
        """Each member's slice of every leaf."""
        return [jax.tree.map(lambda leaf, i=i: leaf[i], bundle) for i in range(self.count)]

    def rearrange(self, function: Callable[..., Any], *bundles: Any) -> Any:
        """As in `Members`."""
        return function(*bundles)

    def to_host(self, bundle: Any) -> np.ndarray:
        """As in `Members`."""
        return np.asarray(bundle)

    def map(
        self,
        function: Callable[..., tuple[Any, ...]],
        shared: Sequence[int] = (),
        donated: Sequence[int] = (),
        static: Sequence[int] = (),
        beside: bool = False,
    ) -> Callable[..., tuple[Any, ...]]:
        """As in `Members`."""

        def mapped(*arguments: Any) -> tuple[Any, ...]:
            fixed = {k: arguments[k] for k in static}
            axes = tuple(None if k in shared else 0 for k in range(len(arguments)) if k not in fixed)

            def of_the_rest(*rest: Any) -> tuple[Any, ...]:
                remaining = iter(rest)
                return function(*(fixed[k] if k in fixed else next(remaining) for k in range(len(arguments))))

            return jax.vmap(of_the_rest, in_axes=axes)(
                *(a for k, a in enumerate(arguments) if k not in fixed)
            )

        return jax.jit(mapped, donate_argnums=donated, static_argnums=static)


@functools.cache
def _threads() -> list[ThreadPoolExecutor]:
    """A thread for every core but the one that the caller is on; a member always meets the same one."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return [ThreadPoolExecutor(1, "member") for _ in range(cores - 1)]


def make_members(count: int) -> Members:
    """The members of a job of `count` seeds, in the way that suits JAX's default device."""
    return LoopedMembers(count) if count == 1 or jax.default_backend() == "cpu" else VmappedMembers(count)
