"""What checkpoints cost: the time that one takes, over the interval between two, at the default interval."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

ONLINE_ROWS = 200_000
STEPS_A_SECOND = 500  # of a fast member: so many rows are new at each checkpoint
REPEATS = 5


def share(directory: Path, task: str) -> float:
    """The share of a run's time that goes into saving one member of TD3-C at the end of 200 000 env steps."""
    import jax
    import numpy as np
    from composing import composed

    from o2o.config.build import build
    from o2o.envs.mujoco_tasks import make_environments
    from o2o.envs.tasks import TASKS
    from o2o.machine.signals import Interruption
    from o2o.replay.buffer import Replay
    from o2o.runs.lock import Leases
    from o2o.runs.recording.recorder import Recorder
    from o2o.runs.resume import Checkpointer
    from o2o.training.loop import empty_snapshots
    from o2o.training.reports import Report
    from o2o.training.seeds import make_members
    from o2o.training.steps import no_sums
    from o2o.types import NO_FACTS

    words = [f"dataset={task}-medium-v2", "algorithm=td3_c", "replay_init=empty", f"paths.runs={directory}"]
    config = build(composed(*words))
    interval = config.execution.checkpoint.interval_seconds
    environments = make_environments(TASKS[task], [0])
    sizes = environments.observation_size, environments.action_size
    replay, members = Replay(config.batch_size, config.replay_init.capacity, 1000, *sizes), make_members(1)
    rows = np.random.default_rng(0).normal(size=(ONLINE_ROWS, replay.row_width)).astype(np.float32)
    report = Report(
        step=ONLINE_ROWS,
        updates=ONLINE_ROWS,
        state=members.bundle([config.algorithm.init(jax.random.key(0), replay.example(), NO_FACTS)]),
        metrics=[{}],
        sums=[no_sums(config.algorithm)],
        is_stop=True,
        online=members.bundle([replay.restore(ONLINE_ROWS, rows)]),
        actions=[np.zeros(sizes[1], np.float32)],
        environments=empty_snapshots([environments]),
    )
    seconds = []
    with Interruption() as stop, Leases() as leases, Recorder([config]) as recorder:
        checkpointer = Checkpointer([config], members, replay, recorder, stop, leases)
        for _ in range(REPEATS):
            checkpointer._rows_saved = max(0, ONLINE_ROWS - round(STEPS_A_SECOND * interval))
            start = time.perf_counter()
            checkpointer.save(report)
            seconds.append(time.perf_counter() - start)
    environments.close()
    each = statistics.median(seconds)
    return each / (interval + each)


def largest_share(directory: Path) -> float:
    """Over a small task and Ant, whose rows are the widest (190 MB a member)."""
    return max(share(directory / task, task) for task in ("hopper", "ant"))
