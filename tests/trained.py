"""Run directories whose final state is a fresh one: of finished runs that took no training."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from o2o.algorithms import ALGORITHMS
from o2o.config.build import container
from o2o.envs.tasks import find_task, task_sizes
from o2o.replay.buffer import Replay
from o2o.runs.directory.layout import FINAL_STATE
from o2o.runs.directory.writer import RunDirectory
from o2o.training import checkpoint
from o2o.types import Facts

FAMILIES = {"td3": "td3_bc", "td3_bc": "td3_bc", "td3_c": "td3_bc", "frozen": "td3_bc"}


def finished(configure, root, name):
    """A run directory whose final state is a fresh one, and what the policy in it answers."""
    words = [f"algorithm={name}", f"algorithm@pretrain.algorithm={FAMILIES.get(name, name)}"]
    config = configure(root, *words, exploring=hasattr(ALGORITHMS[name], "exploration_noise"))
    directory = RunDirectory(root / "seed-0")
    directory.start(container(config), {})
    example = Replay(1, 1, 1, *task_sizes(find_task("hopper"))).example()
    state = config.algorithm.init(jax.random.key(3), example, Facts(0.0, 1.0))
    checkpoint.save(directory.path / FINAL_STATE, state)

    def act(observation):
        return config.algorithm.act(state, jnp.asarray(observation), jax.random.key(9), evaluate=True)

    return directory.path, act
