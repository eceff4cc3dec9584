"""Runs that can be made to die: `python -m torture.victim` reads one order a line and forks a run for each.

The imports are made once, before JAX's backend starts (a process with its threads cannot be forked), so that a
restart costs what the run itself costs. Orders and answers are JSON.
"""

from __future__ import annotations

import errno
import functools
import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torture.watch import Point, Watch


@functools.cache
def configs(overrides: tuple[str, ...], seeds: tuple[int, ...]) -> list[Any]:
    """The configurations of a job's members."""
    from composing import composed

    from o2o.config.build import build

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
        from o2o.runs import job

        job.run_members(found)
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
    """Prepares what the order does to this process."""
    if "umask" in order:
        os.umask(order["umask"])
    if jumps := order.get("clock"):
        _jumping_clock(jumps)
    if order.get("share") or order.get("only"):
        watch = Watch(Path(order["root"]), _chosen(order), functools.partial(_strike, order, answer))
        watch.install()
        watch.evaluations()


def _chosen(order: dict[str, Any]) -> Callable[[Point], bool]:
    """Which points are fatal: `only` one, after it was passed so often, or any but those `spared`, by chance."""
    chance = random.Random(order.get("chance_seed", 0))
    share, spared = order.get("share", 0.0), {Point(*point) for point in order.get("spared", ())}
    passes = order.get("passes", 0)
    if only := order.get("only"):
        left = itertools.count(passes, -1)
        return lambda point: list(point) == only and next(left) == 0
    return lambda point: point not in spared and chance.random() < share


def _strike(order: dict[str, Any], answer: int, watch: Watch, point: Point) -> None:
    """What happens at a fatal point: `kill`, `power cut`, `remove` of the runs, `full` disk, or a signal's number."""
    os.write(answer, json.dumps([time.monotonic(), *point]).encode())
    match order.get("strike", "kill"):
        case "remove":
            shutil.rmtree(order["root"], ignore_errors=True)
        case "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), point.file)
        case int(number):
            for _ in range(order.get("times", 1)):
                os.kill(os.getpid(), number)
        case how:
            if how == "power cut":
                watch.cut_power()
            os.kill(os.getpid(), signal.SIGKILL)


def _jumping_clock(seconds: list[float]) -> None:
    """The wall clock is off by another of these at every look."""
    off, true = itertools.cycle(seconds), time.time
    time.time = lambda: true() + next(off)  # type: ignore[assignment]


def serve() -> None:
    """Answers orders until there are none."""
    _import_everything()
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(_one(order)), flush=True)


def _one(order: dict[str, Any]) -> dict[str, Any]:
    """Forks `count` children at once, sends them the ordered signals, and waits for all."""
    configs(tuple(order["overrides"]), tuple(order["seeds"]))  # composed here, once
    incoming, outgoing = os.pipe()
    start = time.monotonic()
    children = []
    for _ in range(order.get("count", 1)):
        if not (child := os.fork()):
            os.close(incoming)
            run(order, outgoing)
        children.append(child)
    os.close(outgoing)
    due = sorted([*order.get("signals", []), [order.get("limit", 600.0), signal.SIGKILL]])
    codes: dict[int, int] = {}
    processor_seconds = 0.0
    while len(codes) < len(children):
        for child in (child for child in children if child not in codes):
            ended, status, usage = os.wait4(child, os.WNOHANG)
            if ended:
                codes[child] = os.waitstatus_to_exitcode(status)
                processor_seconds += usage.ru_utime + usage.ru_stime
        while due and time.monotonic() - start >= due[0][0]:
            number = due.pop(0)[1]
            for child in (child for child in children if child not in codes):
                os.kill(child, number)
        time.sleep(0.002)
    end = time.monotonic()
    with os.fdopen(incoming) as stream:
        told = stream.read()
    struck_at, *point = json.loads(told) if told else [end]
    return {
        "code": codes[children[0]],
        "codes": sorted(codes.values()),
        "point": point or None,
        "seconds": end - start,
        "seconds_after": end - struck_at,
        "processor_seconds": processor_seconds,
    }


def _import_everything() -> None:
    import composing  # noqa: F401
    import jax

    from o2o.envs.mujoco_tasks import kernels
    from o2o.envs.tasks import TASKS, task_sizes
    from o2o.runs import job  # noqa: F401

    kernels()
    task_sizes(TASKS["hopper"])  # what gymnasium imports when it first makes one

    jax.config.update("jax_disable_most_optimizations", True)


if __name__ == "__main__":
    serve()
