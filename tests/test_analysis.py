from __future__ import annotations

import subprocess
import sys

import numpy as np

from analysis.__main__ import main
from analysis.collect import collect
from analysis.figures import COLORS, learning_curves
from o2o import collapse, records
from o2o.records import RunDirectory

SWITCH = 1000
STEPS = np.array([500, 1000, 1500])


def base(seed, source):
    dataset = {
        "name": "regen-hopper" if source == "regenerated" else "hopper",
        "source": source,
        "task": "hopper",
    }
    pretrain = {"updates": SWITCH, "algorithm": {"name": "td3_bc"}}
    finetune = {"env_steps": int(STEPS[-1])}
    return {"seed": seed, "batch_size": 256, "dataset": dataset, "pretrain": pretrain, "finetune": finetune}


def pretrain(root, seed=0, source="d4rl"):
    config = base(seed, source)
    directory = RunDirectory(
        root / config["dataset"]["name"] / "pretrain" / "td3_bc-00000000" / f"seed-{seed}"
    )
    directory.start(config, {})
    for step in (500, 1000):
        directory.append(
            records.EVAL, {"phase": "pretrain", "step": step, "env_steps": 0, "score": step / 20}
        )
    directory.finish({})


def finetune(root, algorithm, scores, seed=0, source="d4rl", replay="offline", ratio=None, code="11111111"):
    name = "uniform" if ratio is None else f"r{ratio:.0%}"
    config = base(seed, source) | {
        "algorithm": {"name": algorithm},
        "replay_init": {"preload": replay == "offline"},
        "offline_ratio": {"name": name, "value": ratio},
    }
    directory = RunDirectory(
        root / config["dataset"]["name"] / algorithm / f"{replay}-{name}-{code}" / f"seed-{seed}"
    )
    directory.start(config, {})
    rows = zip([0, *STEPS], [50.0, *scores], strict=True)
    for env_steps, score in rows:
        row = {"phase": "finetune", "step": SWITCH + env_steps, "env_steps": env_steps, "score": score}
        directory.append(records.EVAL, row)
    online = float(scores[-1])
    directory.finish(
        {
            "offline_score": 50.0,
            "online_score": online,
            "delta": online - 50.0,
            "collapse": collapse.summarise(STEPS, np.array(scores), 50.0, window=500),
        }
    )
    return directory


def test_the_figure_draws_the_mean_of_the_seeds_from_the_switch_on(tmp_path):
    for seed, online in enumerate([60.0, 80.0]):
        pretrain(tmp_path, seed)
        finetune(tmp_path, "td3", [40.0, 45.0, online], seed=seed)
        finetune(tmp_path, "td3", [40.0, 45.0, online], seed=seed, replay="empty")
    axes = learning_curves(collect(tmp_path).cells).axes
    assert [a.get_title() for a in axes] == ["replay starts with the offline data", "replay starts empty"]
    lines = [line for line in axes[0].get_lines() if line.get_color() == COLORS["td3"]]
    (mean,) = [line for line in lines if line.get_alpha() is None]
    assert len(lines) == 3
    assert np.asarray(mean.get_xdata()).tolist() == [1000, 1500, 2000, 2500]
    assert np.asarray(mean.get_ydata()).tolist() == [50.0, 40.0, 45.0, 70.0]


def test_the_command_prints_tables_and_the_path_of_a_png(tmp_path, capsys):
    finetune(tmp_path / "runs", "td3", [10.0, 60.0, 70.0])
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "figures")]) == 0
    out = capsys.readouterr().out
    path = tmp_path / "figures" / "learning_curves.png"
    assert "TD3" in out
    assert f"learning curves: {path}" in out
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


def test_nothing_finished_and_no_directory_are_told_apart(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "is not a directory" in capsys.readouterr().err


def test_the_analysis_never_imports_jax():
    code = "import sys, analysis.__main__; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
