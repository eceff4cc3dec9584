"""The parts of an online step's time: the waits in the loop, and what each part takes alone."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import jax

from benchmarks.workload import Workload
from o2o.envs.vector import Environments
from o2o.training.seeds import Members

CALLS = ("sample", "policy_half", "critic_half")
"""The compiled calls of an online step."""


class Clock:
    """Adds up the seconds of calls by name."""

    def __init__(self, alone: bool) -> None:
        """`alone` waits for every compiled call to be computed, so that nothing overlaps."""
        self.alone = alone
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with the time of its calls added under `name`."""

        def call(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments, **options)
            if self.alone:
                jax.block_until_ready(result)
            self.seconds[name] += time.perf_counter() - start
            return result

        return call

    def watch(self, piece: Any) -> Any:
        """Members or environments whose calls are timed."""
        return (
            ClockedEnvironments(piece, self)
            if isinstance(piece, Environments)
            else ClockedMembers(piece, self)
        )


class ClockedMembers:
    """Members whose compiled calls, and whose waiting for results, are timed."""

    def __init__(self, members: Members, clock: Clock) -> None:
        """Around `members`."""
        self._members, self._clock = members, clock
        self.to_host = clock.timed("wait", members.to_host)

    def map(self, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        """Maps like `Members.map`, timed by the function's name until it returns, which is before it is computed."""
        name = getattr(function, "func", function).__name__
        return self._clock.timed(name.strip("_"), self._members.map(function, **options))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._members, name)


class ClockedEnvironments:
    """Environments whose steps and resets are timed."""

    def __init__(self, environments: Environments, clock: Clock) -> None:
        """Around `environments`."""
        self._environments = environments
        self.step, self.reset = (clock.timed("env", f) for f in (environments.step, environments.reset))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._environments, name)


def split(workload: Workload, steps: int) -> dict[str, float]:
    """Milliseconds of an online step and of its parts.

    In the loop: `step_ms` is the sum of `wait` for the next action, `env` for its step and the resets, `dispatch` of
    the compiled calls, and `rest`, which is Python. Alone, with nothing to overlap with: `sample` (and insert),
    `policy_half` (policy step, act), `critic_half`, and `collect`, which is insert and act alone.
    """
    total, loop = _run(workload, steps, alone=False)
    dispatch = sum(loop[name] for name in CALLS)
    parts = {"wait": loop["wait"], "env": loop["env"], "dispatch": dispatch}
    parts["rest"] = total - sum(parts.values())
    _, alone = _run(workload, steps, alone=True)
    _, collecting = _run(workload.collecting(steps), steps, alone=True)
    apart = {name: alone[name] for name in CALLS} | {"collect": collecting["collect"]}
    return {
        "step_ms": total,
        **{f"step_{name}_ms": value for name, value in parts.items()},
        **{f"{name}_alone_ms": value for name, value in apart.items()},
    }


def _run(workload: Workload, steps: int, alone: bool) -> tuple[float, dict[str, float]]:
    """Milliseconds a step: all of it, and by what was called."""
    clock = Clock(alone)
    reports = workload.finetuning([steps, 2 * steps], clock.watch)
    next(reports)  # compiles
    clock.seconds.clear()
    start = time.perf_counter()
    next(reports)
    total = time.perf_counter() - start
    return 1e3 * total / steps, {name: 1e3 * seconds / steps for name, seconds in clock.seconds.items()}
