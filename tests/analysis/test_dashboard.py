from __future__ import annotations

import json
import sys

import pytest

from analysis.__main__ import main
from analysis.dashboard import X_AXIS, build, definition
from o2o.algorithms import ALGORITHMS
from o2o.runs.directory.reader import EVAL_COLUMNS
from o2o.training import diagnostics

METRICS = {
    *diagnostics.METRICS,
    *(name for cls in ALGORITHMS.values() for name in getattr(cls, "METRICS", {})),
}


def test_every_metric_of_a_panel_is_one_that_runs_record():
    columns = {f"finetune/{name}" for name in (*EVAL_COLUMNS, *METRICS)}
    panels = [panel for section in definition("o2o")["sections"] for panel in section["panels"]]
    lines = [metric for panel in panels if panel["kind"] == "line" for metric in panel["metrics"]]
    assert set(lines) <= columns
    assert X_AXIS in columns


def test_without_the_package_the_definition_is_written_and_that_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    assert main(["dashboard", "--project", "mine", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "wandb-workspaces is not installed" in out
    assert str(tmp_path / "dashboard.json") in out
    assert json.loads((tmp_path / "dashboard.json").read_text()) == definition("mine")


def test_a_project_that_wandb_would_not_take_is_refused(tmp_path, capsys):
    assert main(["dashboard", "--project", "mine:here", "--out", str(tmp_path / "out")]) == 2
    assert "--project=mine:here holds ':'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_definition_makes_a_workspace():
    pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is not installed")
    workspace = build(definition("mine"), "somebody")
    assert workspace.sections[0].name.startswith("Curves")
    assert len(workspace.sections[2].panels) == 6
