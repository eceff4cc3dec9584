"""What checkpoints cost: the time that one takes, over the interval between two, at the default interval."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

ONLINE_ROWS = 200_000
REPEATS = 5
# Env steps a second of a fast job, so that many rows are new at each checkpoint.
STEPS_A_SECOND = 500


def share(directory: Path, task: str, dataset: Path | None = None) -> float:
    """The share of the run's time that goes into saving one member of TD3-C on that task, 200 000 rows online."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from test_config import composed

    from o2o import training
    from o2o.config import build
    from o2o.envs import TASKS, make_environments, task_sizes
    from o2o.interruption import Interruption
    from o2o.journal import Journal
    from o2o.keeper import Keeper
    from o2o.lease import Leases
    from o2o.members import make_members
    from o2o.replay import Replay
    from o2o.sweep.identity import run_directory
    from o2o.tally import no_sums

    config = build(
        composed(
            f"dataset={task}-medium-v2",
            "algorithm=td3_c",
            "replay_init=empty",
            f"paths.runs={directory / 'runs'}",
        )
    )
    sizes = task_sizes(TASKS[task])
    replay = Replay(config.batch_size, config.replay_init.capacity, 1000, *sizes)
    members = make_members(1)
    environments = make_environments(TASKS[task], [0])
    environments.reset()
    interval = config.execution.checkpoint.interval_seconds
    state = config.algorithm.init(jax.random.key(0), replay.example())
    rows = replay.init(ONLINE_ROWS)
    online = (
        rows.replace(added=jnp.asarray(ONLINE_ROWS, rows.added.dtype)) if hasattr(rows, "replace") else rows
    )
    new_rows = min(ONLINE_ROWS, round(STEPS_A_SECOND * interval))
    seconds = []
    with Interruption() as stop, Leases() as leases, Journal([config]) as journal:
        keeper = Keeper([config], members, replay, journal, stop, leases)
        for _repeat in range(REPEATS):
            keeper._rows_saved = ONLINE_ROWS - new_rows
            report: Any = training.Report(
                step=ONLINE_ROWS,
                updates=ONLINE_ROWS,
                state=members.bundle([state]),
                metrics=[{}],
                online=members.bundle([online]),
                sums=[no_sums(config.algorithm, replay)],
                loops=training.empty_loops(environments),
            )
            start = time.perf_counter()
            keeper.save(report)
            seconds.append(time.perf_counter() - start)
    assert (run_directory(config) / "checkpoints" / "online.f32").stat().st_size == online.rows.nbytes, np.nan
    each = statistics.median(seconds)
    return each / (interval + each)


def largest_share(directory: Path) -> float:
    """Over the four tasks; Ant, whose rows are the widest, has it."""
    return max(share(directory, task) for task in ("hopper", "ant"))
