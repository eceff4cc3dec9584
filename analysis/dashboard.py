"""`python -m analysis dashboard`: the collapse workspace on wandb, or its definition in a file.

The workspace shows the runs that a tracker mirrored (docs/wandb.md): curves grouped by cell and aligned at the switch,
the collapse table, and the plots that say why. It is defined here as plain data, of which wandb-workspaces (an
optional dependency: `pip install -e '.[dashboard]'`) makes a workspace where somebody is logged in.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from o2o.machine.names import project_problem

NAME = "policy collapse"
X_AXIS = "finetune/env_steps"
"""Zero at the switch in every run, however long its pretraining was."""

TABLE_COLUMNS = (
    "summary:offline_score",
    "summary:online_score",
    "summary:delta",
    "summary:collapse.regret",
    "summary:collapse.depth",
    "summary:collapse.recovery_env_steps",
)


def definition(project: str) -> dict[str, Any]:
    """The workspace: sections of panels, each a line plot over env steps or a bar plot of final numbers."""

    def line(title: str, *metrics: str, log: bool = False) -> dict[str, Any]:
        return {"kind": "line", "title": title, "metrics": [f"finetune/{m}" for m in metrics], "log": log}

    def bar(title: str, metric: str) -> dict[str, Any]:
        return {"kind": "bar", "title": title, "metrics": [metric]}

    return {
        "name": NAME,
        "project": project,
        "x_axis": X_AXIS,
        "group_by": "Group",
        "filter": {"JobType": "finetune"},
        "order_by": "collapse.regret",
        "table_columns": list(TABLE_COLUMNS),
        "sections": [
            {
                "name": "Curves, aligned at the switch",
                "panels": [
                    line("score", "score"),
                    line("return", "return_mean"),
                    line("episode length", "length_mean"),
                ],
            },
            {
                "name": "Collapse (the columns of the table)",
                "panels": [
                    bar("regret (points)", "collapse.regret"),
                    bar("depth (points)", "collapse.depth"),
                    bar("recovery (env steps)", "collapse.recovery_env_steps"),
                    bar("δ (points)", "delta"),
                ],
            },
            {
                "name": "Why",
                "panels": [
                    line("overestimation: Q − discounted return", "q_minus_return"),
                    line(
                        "TD error on fresh and on offline batches",
                        "td_error_fresh",
                        "td_error_offline",
                        log=True,
                    ),
                    line("distance from the pretrained policy", "policy_distance"),
                    line("TD3-C: multiplier λ", "lambda", log=True),
                    line("TD3-C: constraint", "constraint", log=True),
                    line("critic loss", "critic_loss", log=True),
                ],
            },
        ],
    }


def dashboard(project: str, entity: str | None, out: Path) -> str:
    """Makes the workspace and returns what to tell the user: its address, or the file with its definition and why.

    Raises:
        ValueError: there can be no such project.
    """
    if problem := project_problem("--project", project):
        raise ValueError(problem)
    found = definition(project)
    try:
        return f"workspace: {_save(found, entity)}"
    except ImportError:
        why = "wandb-workspaces is not installed (pip install -e '.[dashboard]')"
    except Exception as error:  # whatever the server or its client says, the definition is not lost
        why = f"wandb did not take it: {' '.join(str(error).split())[:200]}"
    out.mkdir(parents=True, exist_ok=True)
    path = out / "dashboard.json"
    path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return f"{why}; its definition is in {path}"


def build(found: dict[str, Any], entity: str) -> Any:
    """The workspace object of a definition; nothing is sent yet."""
    import wandb_workspaces.reports.v2 as reports  # pyright: ignore[reportMissingImports]
    import wandb_workspaces.workspaces as workspaces  # pyright: ignore[reportMissingImports]

    def panel(of: dict[str, Any]) -> Any:
        if of["kind"] == "bar":
            return reports.BarPlot(title=of["title"], metrics=[reports.SummaryMetric(of["metrics"][0])])
        return reports.LinePlot(
            title=of["title"],
            x=found["x_axis"],
            y=list(of["metrics"]),
            log_y=of["log"],
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
        )

    (field, value), *_ = found["filter"].items()
    return workspaces.Workspace(
        name=found["name"],
        entity=entity,
        project=found["project"],
        sections=[
            workspaces.Section(name=of["name"], panels=[panel(p) for p in of["panels"]], is_open=True)
            for of in found["sections"]
        ],
        settings=workspaces.WorkspaceSettings(x_axis=found["x_axis"], smoothing_type="none"),
        runset_settings=workspaces.RunsetSettings(
            filters=[workspaces.Metric(field) == value],
            groupby=[workspaces.Metric(found["group_by"])],
            order=[workspaces.Ordering(workspaces.Summary(found["order_by"]), ascending=False)],
            pinned_columns=found["table_columns"],
        ),
    )


def _save(found: dict[str, Any], entity: str | None) -> str:
    import wandb

    workspace = build(found, entity or "")  # without wandb-workspaces there is nothing to ask the server for
    if not wandb.login(prompt=False):
        raise RuntimeError("nobody is logged in (wandb login)")
    workspace.entity = entity or wandb.Api(timeout=20).default_entity
    return workspace.save().url
