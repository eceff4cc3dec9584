"""Where an online step's time goes: its parts alone, beside all of it, and how often the host calls in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from benchmarks.workload import Workload
from o2o.training.reports import Report
from o2o.training.seeds import Members


@dataclass(frozen=True)
class CountedMembers(Members):
    """Members whose compiled calls are counted."""

    calls: ClassVar[list[str]] = []

    def programs(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Callable[..., Any]:
        """Returns `Members.programs`' call, which notes itself."""
        call = super().programs(function, *arguments, **options)

        def counted(*values: Any) -> Any:
            self.calls.append(getattr(getattr(function, "func", function), "__name__", "call"))
            return call(*values)

        return counted


def split(workload: Workload, steps: int) -> dict[str, float]:
    """Returns milliseconds of an online step of all members and of its parts, each alone.

    `step_ms` is all of it; `step_update_ms` an update of pretraining, `step_collecting_ms` a step without learning
    (environments, add, act), `step_environments_ms` the environments called by the host. `calls_per_100_steps` counts
    compiled calls of the job's loop: those of members side by side on the cores, one a member, are one.
    """
    members = CountedMembers(workload.members.count, workload.members.together)
    counted = Workload(workload.config, members)
    reports = counted.finetuning([steps, 2 * steps])
    next(reports)  # compiles
    members.calls.clear()
    total = _milliseconds(reports, steps)
    return {
        "step_ms": total,
        "step_update_ms": _second(workload.pretraining([steps, 2 * steps]), steps),
        "step_collecting_ms": _second(workload.collecting(steps).finetuning([steps, 2 * steps]), steps),
        "step_environments_ms": _environments(workload, steps),
        "calls_per_100_steps": 100 * len(members.calls) / steps,
    }


def _second(reports: Iterator[Report], steps: int) -> float:
    next(reports)  # compiles
    return _milliseconds(reports, steps)


def _milliseconds(reports: Iterator[Report], steps: int) -> float:
    start = time.perf_counter()
    jax.block_until_ready(next(reports).state)
    return 1e3 * (time.perf_counter() - start) / steps


def _environments(workload: Workload, steps: int) -> float:
    generator, seconds = np.random.default_rng(0), 0.0
    for own in workload.environments:
        own.start()
        actions = generator.uniform(-1, 1, (steps, len(own), own.action_size)).astype(np.float32)
        start = time.perf_counter()
        for action in actions:
            own.advance(action)
        seconds += time.perf_counter() - start
    return 1e3 * seconds / steps
