"""The measured workload: the paper's settings, composed from `conf/`, on as many rows of noise as a dataset has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from hydra import compose, initialize_config_dir

from o2o.config import build
from o2o.config.schema import Config
from o2o.envs.mujoco_tasks import make_environments
from o2o.envs.tasks import TASKS, Task, task_sizes
from o2o.envs.vector import Environments
from o2o.replay.buffer import Replay, Rows
from o2o.runs.phases import make_learner
from o2o.runs.preparation import make_replay
from o2o.training import loop
from o2o.training.reports import Report
from o2o.training.seeds import Bundle, Members
from o2o.training.steps import Learner
from o2o.types import Algorithm, Facts

CONF = Path(__file__).resolve().parents[1] / "conf"
ROWS = 200_000
FACTS = Facts(lowest_return=0.0, highest_return=1000.0)


def composed(*overrides: str) -> Config:
    """The configuration of a command line, without its sweeps."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return build.build(build.plain(compose("config", list(overrides))))


@dataclass(frozen=True)
class Workload:
    """A job's pieces without its records: what its two phases are handed."""

    config: Config
    members: Members

    @property
    def task(self) -> Task:
        """The task that is acted in."""
        return TASKS[self.config.dataset.task]

    @cached_property
    def environments(self) -> list[Environments]:
        """One a member, by program."""
        return [make_environments(self.task, own) for own in self.members.groups(range(self.members.count))]

    @cached_property
    def replay(self) -> Replay:
        """As a job makes it."""
        return make_replay(self.config, task_sizes(self.task))

    @cached_property
    def offline(self) -> Rows:
        """Noise, in which nothing terminates."""
        width = self.replay.row_width + self.replay.columns_width
        rows = np.random.default_rng(0).standard_normal((ROWS, width), np.float32)
        rows[:, self.replay.row_width - self.replay.observation_size - 1] = 0.0
        return jnp.asarray(rows)

    @cached_property
    def keys(self) -> Bundle:
        """One a member."""
        return self.members.bundle([jax.random.key(seed) for seed in range(self.members.count)])

    def state(self, algorithm: Algorithm) -> Bundle:
        """Fresh states."""
        example = self.replay.example()
        states = [algorithm.init(jax.random.key(seed), example, FACTS) for seed in range(self.members.count)]
        return self.members.bundle(states)

    def collecting(self, steps: int) -> Workload:
        """The same, but twice `steps` online steps are not enough to learn from."""
        replay_init = replace(self.config.replay_init, preload=False, min_size=2 * steps + 1)
        return Workload(replace(self.config, replay_init=replay_init), self.members)

    def pretraining(self, stops: Sequence[int]) -> Iterator[Report]:
        """The offline phase."""
        learner = Learner(self.config.pretrain.algorithm, self.replay)
        state = self.state(learner.algorithm)
        return loop.pretrain(learner, self.members, state, self.offline, self.keys, stops)

    def finetuning(self, stops: Sequence[int]) -> Iterator[Report]:
        """The online phase, with room for all the env steps of a run: it goes on behind the last stop."""
        learner = make_learner(self.config, self.replay)
        return loop.finetune(
            learner,
            self.members,
            self.environments,
            self.state(learner.algorithm),
            self.offline if self.config.replay_init.preload else self.offline[:0],
            self.keys,
            [*stops, self.config.finetune.env_steps],
        )
