"""What a job needs of memory."""

from __future__ import annotations

import jax
import pytest

from o2o.errors import ConfigError
from o2o.replay.buffer import Replay
from o2o.runs import job, memory
from o2o.runs.directory import layout
from o2o.runs.identity import run_directory
from o2o.runs.memory import GIB, MemoryPlan


def test_the_online_rows_and_the_states_are_counted(configure, tmp_path):
    replay = Replay(16, 10**6, 16, 11, 3)
    small = memory.plan(configure(tmp_path), replay, 1)
    long = memory.plan(configure(tmp_path, "finetune.env_steps=100150"), replay, 1)
    assert long.each - small.each == memory.RINGS_AT_ONCE * 100_000 * 4 * (2 * 11 + 3 + 2)
    wide = memory.plan(configure(tmp_path, "network.hidden_sizes=[8,1008]"), replay, 1)
    networks = 5  # two critics, their targets, a policy
    assert wide.each - small.each > memory.STATES_AT_ONCE * 4 * 8 * 1000 * networks


def test_what_does_not_fit_is_refused_with_what_would():
    memory.check(MemoryPlan(members=10, each=GIB, free=10 * GIB))
    with pytest.raises(ConfigError, match=r"10 × 1\.00 GiB of 7\.9 GiB free.*launch\.seeds_per_job=7$"):
        memory.check(MemoryPlan(members=10, each=GIB, free=7 * GIB + 950 * 2**20))
    with pytest.raises(ConfigError, match=r"lower finetune\.env_steps"):
        memory.check(MemoryPlan(members=1, each=GIB, free=GIB // 2))
    memory.check(MemoryPlan(members=10, each=GIB, free=None))


def test_a_job_that_does_not_fit_is_recorded_and_computes_nothing(configure, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_free", lambda: 1)
    config = configure(tmp_path)
    with pytest.raises(ConfigError, match="do not fit"):
        job.run(config)
    assert layout.read_state(run_directory(config)) == "FAILED"
    assert not [*tmp_path.rglob("*.jsonl"), *tmp_path.rglob("*.npz")]


def test_what_is_free_is_known_on_this_machine():
    assert jax.default_backend() != "cpu" or (memory._free() or 0) > 2**20
