from __future__ import annotations

from o2o.runs.identity import identity, pretrain_directory, run_directory
from o2o.sweep.launching import here
from o2o.sweep.launching.jobs import PlannedRun


def test_what_waits_in_a_plan_is_queued_for_as_long_as_that_is_under_way(configure, tmp_path, say):
    config = configure(tmp_path, "pretrain.updates=0", "replay_init=empty")
    run = PlannedRun(config, [], "", identity(config), run_directory(config), pretrain_directory(config))
    with here.under_way([run], [run], "mine", 1):
        assert "QUEUED 1" in say("status", "mine")[1]
        assert "under way: nothing to retry" in say("retry")[1]
    assert "PLANNED 1" in say("status", "mine")[1]
    assert "here, as mine: 1 run" in say("retry", "--dry-run")[1]
    assert "nothing to remove" in say("clean")[1]
