"""Processes that play a task with the policies of a training, one job after the other.

A job is a policy, a seed and a number. What it gives depends on these alone and not on the process, so that a training
that is stopped and goes on collects what it would have collected.
"""

from __future__ import annotations

import queue
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import numpy as np

from o2o.datasets.regenerated import rollouts
from o2o.datasets.regenerated.rollouts import RolloutRows
from o2o.datasets.regenerated.tanh_gaussian import TanhGaussian

EPISODES = 10  # of an evaluation


def collect(environments: Any, policy: TanhGaussian, seed: int, number: int) -> RolloutRows:
    """A block of steps in the one environment there is."""
    return next(rollouts.blocks(environments, policy, seed, [number]))


def evaluate(environments: Any, policy: TanhGaussian, seed: int, number: int) -> RolloutRows:
    """The undiscounted returns of stochastic episodes, in the one environment there is."""
    # A longer key than a block's: its streams are others.
    starts, noise = np.random.SeedSequence([seed], spawn_key=(number, EPISODES)).generate_state(2)
    environments.reseed([int(starts)])
    generator = np.random.default_rng(noise)
    episodes = [rollouts.returns(environments, policy, generator) for _ in range(EPISODES)]
    return {"returns": np.concatenate(episodes)}


JOBS = {"collect": collect, "evaluate": evaluate}


class Workers:
    """A context of `count` processes that do one kind of job for one task."""

    def __init__(self, task: str, kind: str, count: int):
        """Names them; they are started where the context is entered."""
        self._words = (task, kind)
        self._count = count

    def __enter__(self) -> Workers:
        """Starts the processes."""
        self._idle: queue.SimpleQueue[tuple[Any, Iterator[RolloutRows]]] = queue.SimpleQueue()
        with ExitStack() as stack:
            # One thread a process: it hands the job over and waits for what comes back.
            self._threads = ThreadPoolExecutor(self._count, "worker")
            stack.callback(self._threads.shutdown, cancel_futures=True)
            for _ in range(self._count):
                process = stack.enter_context(rollouts.process_of(__name__, *self._words))
                self._idle.put((process.stdin, rollouts.results(process)))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the processes, whatever they are doing."""
        self._stack.close()

    def submit(self, policy: TanhGaussian, seed: int, number: int) -> Future[RolloutRows]:
        """Has a job done by the next process that is free; jobs are begun in the order of their submission."""
        return self._threads.submit(self._done, policy, seed, number)

    def _done(self, policy: TanhGaussian, seed: int, number: int) -> RolloutRows:
        pipe, answers = worker = self._idle.get()
        try:
            rollouts.send(pipe, policy.weights | {"job": np.array([seed, number])})
            return next(answers)
        finally:
            self._idle.put(worker)


def main(task: str, kind: str) -> None:
    """Jobs from standard input, what they give to standard output."""
    from o2o.envs.mujoco_tasks import MujocoEnvironments
    from o2o.envs.tasks import TASKS

    environments = MujocoEnvironments(TASKS[task], [0])
    with rollouts.standard_output() as pipe:
        for job in rollouts.received(sys.stdin.buffer):
            seed, number = job.pop("job").tolist()
            rollouts.send(pipe, JOBS[kind](environments, TanhGaussian(job), seed, number))
