"""Runs as data frames, and the door to them: `import o2o`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import GRID, collapsing, steady, write_pretraining, write_run
from trained import finished

import o2o
from analysis.data.collect import collect
from analysis.data.frames import IDENTIFYING, curves_of, load_runs
from o2o.runs.directory import layout
from o2o.runs.directory.layout import find_runs

DATASET = "hopper-medium-v2"
NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "python.ipynb"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two settings of TD3 with two seeds, one that failed, and one pretraining."""
    root = tmp_path_factory.mktemp("runs")
    for seed in range(2):
        write_pretraining(root, DATASET, 50.0, seed)
        write_run(root, DATASET, "td3", collapsing(50.0, 10.0, 90.0), seed=seed)
    write_run(root, DATASET, "td3", steady(50.0, 60.0), overrides={"pretrain.updates": 2_000})
    write_run(root, DATASET, "td3_bc", steady(50.0, 60.0), state="FAILED", replay="empty")
    return root


def test_every_run_is_a_row_with_its_configuration(root):
    runs = load_runs(root).runs
    assert len(runs) == 6
    assert runs["phase"].value_counts().to_dict() == {"finetune": 4, "pretrain": 2}
    failed = runs[runs["state"] == "FAILED"].iloc[0]
    assert (failed["setting"], failed["replay"]) == ("TD3-BC, pretrain.updates=500000", "empty")
    collapsed = runs[(runs["algorithm"] == "td3") & (runs["pretrain.updates"] == 500_000)]
    collapsed = collapsed[collapsed["phase"] == "finetune"]
    assert collapsed["seed"].tolist() == [0, 1]
    assert (collapsed["regret"] > 20).all()
    assert [runs.loc[origin, "seed"] for origin in collapsed["pretraining"]] == [0, 1]
    assert runs["network.hidden_sizes"].unique().tolist() == [(256, 256)]
    assert {Path(name) for name in runs.index} == set(find_runs(root, []))


def test_pretrainings_of_two_lengths_are_told_apart(tmp_path):
    for updates in (500_000, 2_000):
        write_run(tmp_path, DATASET, "td3", steady(50.0, 60.0), overrides={"pretrain.updates": updates})
    write_pretraining(tmp_path, DATASET, 50.0, 0)
    (pretraining,) = load_runs(tmp_path).runs.query("phase == 'pretrain'")["setting"]
    assert pretraining == "TD3-BC pretraining, updates=500000"


def test_curves_are_tidy_and_aligned_at_the_switch(root):
    found = load_runs(root)
    assert tuple(found.curves.columns[: len(IDENTIFYING)]) == IDENTIFYING
    before = found.curves.query("phase == 'pretrain'")
    assert (before["since_switch"].min(), before["since_switch"].max()) == (-495_000, 0)
    after = found.curves.query("phase == 'finetune'")
    assert (after["since_switch"] == after["env_steps"]).all()
    means = after.groupby(["setting", "env_steps"])["score"].mean()
    assert means["TD3, pretrain.updates=500000", 2_000] == pytest.approx(10.0)
    assert len(found.episodes) == 4 * 400
    assert {"td_error_fresh", "policy_distance"} <= set(found.train.columns)


def test_parts_are_chosen_by_configuration_and_by_columns(root):
    found = load_runs(root, {"pretrain.updates": "2000,3000"})
    assert found.runs["setting"].tolist() == ["TD3"]
    every = load_runs(root)
    part = every.only(every.runs["state"] == "FAILED")
    assert set(part.curves["run"]) == set(part.runs.index)
    assert len(part.runs) == 1
    with pytest.raises(FileNotFoundError, match="nowhere is not a directory"):
        load_runs(root / "nowhere")
    (root / "empty").mkdir(exist_ok=True)
    assert load_runs(root / "empty").curves.empty


def test_figures_are_drawn_of_directories_and_of_parts(root):
    found = load_runs(root)
    assert len(o2o.plot(root).axes) == 1
    chosen = found.only(found.runs["pretrain.updates"] == 2_000)
    (axes,) = o2o.plot(chosen).axes
    assert [line.get_linewidth() for line in axes.get_lines()].count(1.3) == 1
    assert o2o.plot(chosen, "why")._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=f"there is no figure 'curves' of these runs, but .*why_{DATASET}"):
        o2o.plot(found, "curves")
    failed = found.only(found.runs["state"] == "FAILED")
    with pytest.raises(ValueError, match="no finished run"):
        o2o.plot(failed)
    (axes,) = o2o.plot(failed, env_steps=10_000).axes
    assert axes.get_xlim()[1] == 510_000


def test_tidy_curves_of_finished_runs_have_every_digit(root, tmp_path):
    cells = collect(root, {"pretrain.updates": "500000"}).cells
    runs = [run for cell in cells for run in cell.runs]
    curves_of(runs, {run.path: "TD3" for run in runs}).to_csv(tmp_path / "curves.csv", index=False)
    curves = pd.read_csv(tmp_path / "curves.csv")
    assert len(curves) == 2 * len(GRID)
    np.testing.assert_array_equal(curves["env_steps"][: len(GRID)], GRID)
    assert set(curves["setting"]) == {"TD3"}
    np.testing.assert_array_equal(curves["score"], np.concatenate([run.scores for run in runs]))


def test_importing_o2o_loads_nothing_and_names_what_it_has():
    code = (
        "import sys, o2o; heavy = {'jax', 'numpy', 'pandas', 'matplotlib', 'analysis'} & set(sys.modules); "
        "assert not heavy, heavy; assert {'load_runs', 'load_policy', 'plot'} <= set(dir(o2o)); "
        "o2o.load_runs; assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'load_run'"):
        o2o.load_run  # noqa: B018


@pytest.mark.filterwarnings("ignore:.*is out of date")
def test_the_notebook_runs_from_top_to_bottom(configure, tmp_path, monkeypatch):
    made = write_run(tmp_path / "made", DATASET, "td3", steady(50.0, 60.0), steps=np.arange(0, 151, 10))
    run, _ = finished(configure, tmp_path / "runs", "td3")
    for file in (layout.EVAL, layout.TRAIN, layout.EPISODES, layout.RESULT):
        (made / file).rename(run / file)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert names["total"] > 0
    assert len(names["curves"]) > 0
    assert all(not cell.get("outputs") for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"])
