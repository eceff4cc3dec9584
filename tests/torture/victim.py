"""Runs that can be made to die: `python -m torture.victim` reads one order a line and forks a run for each.

The imports are made once, before JAX's backend starts (a process with its threads cannot be forked), so that a
restart costs what the run itself costs. Orders and answers are JSON.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from torture.watch import Point, Watch


@functools.cache
def configs(overrides: tuple[str, ...], seeds: tuple[int, ...]) -> list[Any]:
    """The configurations of a job's members."""
    from test_config import composed

    from o2o.config import build

    return [build(composed(*overrides, f"seed={seed}")) for seed in seeds]


def run(order: dict[str, Any], answer: int) -> None:
    """The child's life: the job, with what the order does to it; it ends the process."""
    code = 1
    with Path(order["log"]).open("ab", buffering=0) as log:
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)
    try:
        found = configs(tuple(order["overrides"]), tuple(order["seeds"]))
        _afflict(order, answer)
        from o2o import experiment

        experiment.run_members(found)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        code = 130
    except BaseException as error:
        code = 2 if hasattr(error, "problems") else 1
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)


def _afflict(order: dict[str, Any], answer: int) -> None:
    chance = random.Random(order.get("chance_seed", 0))
    share, spared = order.get("share", 0.0), {Point(*point) for point in order.get("spared", ())}
    only, before_that = order.get("only"), order.get("before_that", 0)

    def fatal(point: Point) -> bool:
        nonlocal before_that
        if only is not None:
            before_that -= list(point) == only
            return before_that < 0
        return point not in spared and chance.random() < share

    def report(point: Point) -> None:
        os.write(answer, json.dumps(point).encode())

    if share or only is not None:
        watch = Watch(Path(order["root"]), fatal, report, order.get("power_cut", False))
        watch.install()
        watch.evaluations()
    if jumps := order.get("clock"):
        _jumping_clock(jumps)
    if (room := order.get("disk_bytes")) is not None:
        _full_disk(Path(order["root"]), room)


def _jumping_clock(seconds: list[float]) -> None:
    """The wall clock is off by another of these at every look."""
    looks, true = iter(range(10**9)), time.time
    time.time = lambda: true() + seconds[next(looks) % len(seconds)]  # type: ignore[assignment]


def _full_disk(root: Path, room: int) -> None:
    """After so many written bytes there is no space left."""
    left = room

    class Full(Watch):
        def at(self, operation: str, file: str, moment: str) -> None:
            nonlocal left
            if operation == "write":
                left -= 1
            if left < 0 and operation in ("write", "open", "mkdir"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file)

    Full(root, lambda point: False, lambda point: None, False).install()


def serve() -> None:
    """Answers orders until there are none."""
    _import_everything()
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(_one(order)), flush=True)


def _one(order: dict[str, Any]) -> dict[str, Any]:
    configs(tuple(order["overrides"]), tuple(order["seeds"]))  # composed here, once
    incoming, outgoing = os.pipe()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(incoming)
        run(order, outgoing)
    os.close(outgoing)
    due = sorted([*order.get("signals", []), [order.get("limit", 120.0), signal.SIGKILL]])
    while not (ended := os.wait4(child, os.WNOHANG))[0]:
        while due and time.monotonic() - start >= due[0][0]:
            os.kill(child, due.pop(0)[1])
        time.sleep(0.002)
    with os.fdopen(incoming) as stream:
        told = stream.read()
    return {
        "code": os.waitstatus_to_exitcode(ended[1]),
        "point": json.loads(told) if told else None,
        "seconds": time.monotonic() - start,
        "processor_seconds": ended[2].ru_utime + ended[2].ru_stime,
    }


def _import_everything() -> None:
    import jax
    import test_config  # noqa: F401  # composes

    from o2o import experiment  # noqa: F401

    jax.config.update("jax_disable_most_optimizations", True)


if __name__ == "__main__":
    serve()
