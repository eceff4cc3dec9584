"""The command `protocol`, on runs whose settings stand in their directories."""

from __future__ import annotations

import json
from pathlib import Path

from composing import composed

from o2o.config.build import build
from o2o.runs.directory.layout import IDENTITY, STATUS
from o2o.runs.identity import describe, run_directory


def written(root: Path, *words: str) -> None:
    config = build(composed(*words, f"paths.runs={root}", "dataset=hopper-medium-v2"))
    directory = run_directory(config)
    directory.mkdir(parents=True)
    (directory / IDENTITY).write_text(json.dumps(describe(config)))
    (directory / STATUS).write_text(json.dumps({"state": "DONE", "phase": "finetune", "step": 1}))


def test_what_runs_share_is_said_once_and_what_differs_for_each_kind(say, tmp_path):
    for words in (("method=rlpd",), ("method=wsrl",), ("method=wsrl", "seed=1")):
        written(tmp_path, *words)
    code, said = say("protocol")
    assert code == 0
    assert max(map(len, said.splitlines())) <= 80
    shared, *own = said.split("\n\n")
    assert shared.startswith("all of these:")
    assert "a time limit is no termination" in shared
    assert len(own) == 2
    assert [block.count("updates per env step") for block in (shared, *own)] == [0, 1, 1]
    assert any("sac on hopper-medium-v2 (2 runs)" in block and "4, policy 1" in block for block in own)
    code, one = say("protocol", "seed=1")
    assert "all of these" not in one
    assert "updates per env step" in one


def test_where_nothing_finetunes_it_says_so(say, tmp_path):
    assert say("protocol") == (0, f"{tmp_path}: no runs that finetune yet\n")
