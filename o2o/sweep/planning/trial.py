"""How fast a run goes on this machine, found out by a few seconds of it on rows of noise."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from o2o.config.schema import Config
from o2o.envs.mujoco_tasks import make_environments
from o2o.envs.tasks import find_task, task_sizes
from o2o.runs import preparation
from o2o.runs.directory.layout import PRETRAIN
from o2o.training import loop
from o2o.training.reports import Report
from o2o.training.seeds import make_members
from o2o.training.steps import Learner
from o2o.types import Facts

SECONDS = 2.0
ROWS, STEPS = 10_000, 20_000
"""Of noise, and of the replay: a full one is sampled from as fast."""
FACTS = Facts(lowest_return=0.0, highest_return=1000.0)


def seconds_a_step(config: Config, phase: str, members: int) -> float:
    """The seconds that an update, or an env step with its updates, takes of one of `members` runs side by side.

    What compiling and evaluations take is not in it.

    Raises:
        ConfigError: JAX cannot be had as it must be.
    """
    preparation.configure(config)
    task = find_task(config.dataset.task)
    replay = preparation.make_replay(config, task_sizes(task))
    algorithm = config.pretrain.algorithm if phase == PRETRAIN else config.algorithm
    side_by_side = make_members(members)
    keys = side_by_side.bundle([jax.random.key(i) for i in range(members)])
    states = [algorithm.init(jax.random.key(i), replay.example(), FACTS) for i in range(members)]
    state = side_by_side.bundle(states)
    noise = np.random.default_rng(0).normal(
        size=(max(ROWS, replay.min_size), replay.row_width + replay.columns_width)
    )
    offline, watch = jnp.asarray(noise, jnp.float32), _Watch()
    with ExitStack() as stack:
        if phase == PRETRAIN:
            learner = Learner(algorithm, replace(replay, batch_size=config.batch_size))
            reports = loop.pretrain(learner, side_by_side, state, offline, keys, [10**9], pause_at=watch)
        else:
            seeds = side_by_side.groups(range(members))
            environments = [stack.enter_context(closing(make_environments(task, own))) for own in seeds]
            reports = loop.finetune(
                Learner(algorithm, replay, config.finetune.updates_per_step),
                side_by_side,
                environments,
                state,
                offline,
                keys,
                [STEPS],
                pause_at=watch,
            )
        return watch.seconds_a_step(reports) / members


class _Watch:
    """Pauses a loop when it has gone for long enough, counted from the end of its first block, which compiles."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, int]] = []

    def __call__(self, step: int) -> bool:
        self._marks.append((time.monotonic(), step))
        return self._marks[-1][0] - self._marks[0][0] > SECONDS

    def seconds_a_step(self, reports: Iterator[Report]) -> float:
        next(reports)
        (since, first), (now, last) = self._marks[0], self._marks[-1]
        return (now - since) / max(last - first, 1)
