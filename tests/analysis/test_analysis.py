"""The analysis as a command, and its figures."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tarfile

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from synthetic_runs import GRID, collapsing, steady, write_grid, write_pretraining, write_run

import o2o
from analysis.__main__ import main
from analysis.data.collect import collect
from analysis.figures import draw_all
from analysis.figures.budgets import budgets
from analysis.figures.causes import why
from analysis.figures.curves import figure1, figure2, figure3, figure4, learning_curves
from analysis.figures.depths import diversity, heat_map
from analysis.figures.style import COLORS, NothingToDrawError, palette

REGENERATED = "regen-hopper-medium"


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """Two datasets of one task, two seeds, all arms."""
    root = tmp_path_factory.mktemp("grid")
    write_grid(root, ("hopper-medium-v2", "hopper-medium-replay-v2"), range(2), ratios=(0.5,))
    return root


@pytest.fixture(scope="module")
def cells(grid):
    return collect(grid).cells


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The command on a few runs of regenerated data, one of them failed: what it said, and where it wrote."""
    root = tmp_path_factory.mktemp("command")
    steps = GRID[GRID <= 60_000]
    for seed in range(2):
        write_pretraining(root / "runs", REGENERATED, 50.0, seed, source="regenerated")
        for algorithm, shape in (("td3", collapsing(50.0, 10.0, 90.0)), ("td3_bc", steady(50.0, 60.0))):
            write_run(
                root / "runs", REGENERATED, algorithm, shape, seed=seed, steps=steps, source="regenerated"
            )
    write_run(
        root / "runs", REGENERATED, "td3", steady(50.0, 50.0), seed=7, state="FAILED", source="regenerated"
    )
    words = [sys.executable, "-m", "analysis", str(root / "runs"), "--out", str(root / "report")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done, root


def test_runs_under_way_can_be_compared_by_the_command(tmp_path, capsys):
    for algorithm in ("td3", "td3_bc"):
        shape = collapsing(50.0, 10.0, 90.0)
        write_run(tmp_path / "runs", REGENERATED, algorithm, shape, state="RUNNING", source="regenerated")
    words = [str(tmp_path / "runs"), "--out", str(tmp_path / "report")]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "no finished finetuning run" in said
    assert "what has not ended is compared with --env-steps N" in said
    assert main([*words, "--env-steps", "10000"]) == 0
    said = capsys.readouterr().out
    assert "left out" not in said
    assert "TD3 lost 39 of 50 points, half of it within 1 000 env steps" in said.replace("\u202f", " ")
    curves = pd.read_csv(tmp_path / "report" / "curves.csv")
    assert curves["env_steps"].max() == 10_000
    assert main([*words, "--env-steps", "0"]) == 2
    assert "--env-steps 0: write a number of env steps above 0" in capsys.readouterr().err


def line_of(axes, color):
    """The bold line of that colour: the mean over the seeds."""
    (line,) = [
        line
        for line in axes.get_lines()
        if line.get_linewidth() > 1 and to_hex(line.get_color()) == to_hex(color)
    ]
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def test_the_command_writes_everything_and_says_where(command):
    done, root = command
    assert done.returncode == 0, done.stderr
    out = root / "report"
    assert f"report: {out / 'index.html'}" in done.stdout
    assert (out / "index.html").stat().st_size > 10_000
    assert (
        (out / "curves.csv").read_text().startswith("run,dataset,setting,algorithm,replay,seed,since_switch,")
    )
    assert f"the learning curves: {out / 'figures' / 'learning_curves.png'}" in done.stdout
    for name in (
        "figure1",
        "figure2",
        "figure3",
        "learning_curves",
        "collapse_depth",
        "budgets",
        f"why_{REGENERATED}",
    ):
        assert (out / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG"), name
        assert (out / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF"), name
    assert {"collapse.md", "collapse.csv", "collapse.tex"} <= {
        path.name for path in (out / "tables").iterdir()
    }


def test_what_cannot_be_drawn_and_what_was_left_out_is_said(command):
    done, _ = command
    assert "figure4 was not drawn: no finished run of a fixed offline ratio" in done.stdout
    assert "seed-7: FAILED at step 700000" in done.stdout
    assert f"figure1: {REGENERATED}: no TD3 from scratch" in done.stdout


def test_regenerated_data_is_labelled_wherever_it_is_named(command, tmp_path):
    done, root = command
    assert f"{REGENERATED} (regenerated, not D4RL's)" in done.stdout
    cells = collect(root / "runs").cells
    for draw in (figure1, figure2, figure3, learning_curves, heat_map):
        for axes in draw(cells)[0].axes:
            assert REGENERATED not in axes.get_title() or "regenerated data, not D4RL's" in axes.get_title()
    assert "not D4RL's" in why(cells)[0].legends[0].get_title().get_text()
    assert "not D4RL's" in budgets(cells)[0].legends[0].get_title().get_text()


def test_an_empty_directory_gives_a_report_and_strict_makes_it_an_error(tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    words = [str(tmp_path / "runs"), "--out", str(tmp_path / "report")]
    assert main(words) == 0
    assert "no finished finetuning run below" in capsys.readouterr().out
    assert (tmp_path / "report" / "index.html").is_file()
    assert main([*words, "--strict"]) == 1


def test_a_tar_file_of_runs_is_read_as_their_directory(tmp_path, capsys):
    write_run(tmp_path / "runs", "hopper-medium-v2", "td3", steady(50.0, 60.0))
    with tarfile.open(tmp_path / "curves.tar.xz", "w:xz") as file:
        file.add(tmp_path / "runs", ".")
    assert main([str(tmp_path / "curves.tar.xz"), "--out", str(tmp_path / "report")]) == 0
    assert "TD3" in capsys.readouterr().out
    (unpacked,) = (tmp_path / "report" / "runs").iterdir()
    assert unpacked.name.startswith("curves-")
    assert list(unpacked.rglob("result.json"))
    (tmp_path / "none.tar.xz").write_text("none")
    assert main([str(tmp_path / "none.tar.xz"), "--out", str(tmp_path / "report")]) == 2
    assert "neither a directory nor a tar file" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["", "gz", "bz2", "xz"])
def test_a_damaged_tar_file_is_one_sentence(tmp_path, capsys, form):
    write_run(tmp_path / "runs", "hopper-medium-v2", "td3", steady(50.0, 60.0))
    archive = tmp_path / "curves.tar"
    with tarfile.open(archive, f"w:{form}") as file:
        file.add(tmp_path / "runs", ".")
    whole = archive.read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:middle], whole[:middle] + bytes(64) + whole[middle + 64 :] if form else b"\0"):
        archive.write_bytes(damaged)
        assert main([str(archive), "--out", str(tmp_path / "report")]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert said.startswith(str(archive))
        assert len(said) < 300


def test_a_report_has_nothing_of_the_one_that_was_there(tmp_path, capsys):
    for name, dataset in (("hopper", "hopper-medium-v2"), ("ant", "ant-medium-v2")):
        write_run(tmp_path / name, dataset, "td3", steady(50.0, 60.0))
        with tarfile.open(tmp_path / f"{name}.tar.xz", "w:xz") as file:
            file.add(tmp_path / name, ".")
        assert main([str(tmp_path / f"{name}.tar.xz"), "--out", str(tmp_path / "report")]) == 0
        said = capsys.readouterr().out
    assert "ant-medium-v2" in said
    assert "hopper" not in said
    assert {path.stem for path in (tmp_path / "report" / "figures").glob("why_*")} == {"why_ant-medium-v2"}
    assert "hopper" not in (tmp_path / "report" / "curves.csv").read_text()


def test_runs_of_several_places_are_compared_each_once(tmp_path, capsys):
    for name, algorithm in (("mine", "td3"), ("theirs", "td3_bc")):
        write_run(tmp_path / name, "hopper-medium-v2", algorithm, steady(50.0, 60.0))
    with tarfile.open(tmp_path / "theirs.tar", "w") as file:
        file.add(tmp_path / "theirs", ".")
    places = [tmp_path / "mine", tmp_path / "theirs.tar"]
    assert main([*map(str, places), "--out", str(tmp_path / "report")]) == 0
    assert "left out" not in capsys.readouterr().out
    assert set(pd.read_csv(tmp_path / "report" / "curves.csv")["algorithm"]) == {"td3", "td3_bc"}
    both = (tmp_path / "mine", tmp_path / "theirs", tmp_path / "mine" / "hopper-medium-v2")
    assert sorted(o2o.load_runs(both).runs["algorithm"]) == ["td3", "td3_bc"]
    assert len(o2o.plot(both).axes) == 1
    (copy,) = collect([tmp_path / "theirs", tmp_path / "report" / "runs"]).left_out
    assert copy.reason.startswith(f"the same run as {tmp_path / 'theirs'}")
    assert main([str(tmp_path / "nowhere"), str(tmp_path / "mine")]) == 2
    assert "nowhere is not a directory" in capsys.readouterr().err


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("o2o ")


def test_bad_input_is_two(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "nowhere is not a directory" in capsys.readouterr().err
    assert main([str(tmp_path), "--where", "dataset"]) == 2
    assert "write KEY=VALUE" in capsys.readouterr().err


def test_figure_1_puts_training_from_scratch_at_the_switch(cells):
    figure, notes = figure1(cells)
    assert notes == []
    panels = {axes.get_title(): axes for axes in figure.axes}
    steps, scores = line_of(panels["hopper-medium-v2"], "0.25")
    assert steps[0] == 500_000
    assert scores[0] < 10
    steps, scores = line_of(panels["hopper-medium-v2"], COLORS["td3"])
    expected = np.mean(
        [run.scores for run in cell_of(cells, "hopper-medium-v2", "td3", "offline").runs], axis=0
    )
    np.testing.assert_array_equal(steps, 500_000 + GRID)
    np.testing.assert_allclose(scores, expected)


def cell_of(cells, dataset, algorithm, replay):
    (found,) = [c for c in cells if (c.dataset, c.algorithm, c.replay) == (dataset, algorithm, replay)]
    return found


def test_figure_2_tells_the_replays_apart_by_dashes(cells):
    figure, _ = figure2(cells)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {
        "TD3, replay offline",
        "TD3, replay empty",
        "TD3-BC, replay offline",
        "TD3-BC, replay empty",
    } <= set(labels)
    styles = {
        line.get_linestyle()
        for line in figure.axes[0].get_lines()
        if to_hex(line.get_color()) == to_hex(COLORS["td3"])
    }
    assert len(styles) == 2


def test_figure_3_has_a_panel_for_each_replay(cells):
    titles = [axes.get_title() for axes in figure3(cells)[0].axes]
    assert len(titles) == 4
    assert sum("replay starts empty" in title for title in titles) == 2


def test_figure_4_shows_ratios_beside_what_the_buffer_gives(cells):
    figure, notes = figure4(cells)
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"50 % offline rows", "what the buffer gives"} <= labels
    assert notes == []


def test_the_switch_is_marked_in_every_panel_of_curves(cells):
    for axes in figure3(cells)[0].axes:
        assert 500_000 in [line.get_xdata()[0] for line in axes.get_lines() if line.get_linestyle() == ":"]


def test_settings_that_differ_in_something_unseen_are_two_lines_with_their_difference(tmp_path):
    for delay in (1, 2):
        write_run(
            tmp_path,
            "hopper-medium-v2",
            "td3",
            steady(50.0, 50.0 + delay),
            overrides={"algorithm.policy_delay": delay},
        )
    figure, _ = figure1(collect(tmp_path).cells)
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"TD3, policy_delay=1", "TD3, policy_delay=2"} <= labels


def test_seeds_with_different_grids_are_averaged_where_all_were_evaluated(tmp_path):
    thin = GRID[GRID % 10_000 == 0]
    write_run(tmp_path, "hopper-medium-v2", "td3", steady(40.0, 40.0), seed=0)
    write_run(tmp_path, "hopper-medium-v2", "td3", steady(60.0, 60.0), seed=1, steps=thin)
    steps, scores = line_of(learning_curves(collect(tmp_path).cells)[0].axes[0], COLORS["td3"])
    np.testing.assert_array_equal(steps, 500_000 + thin)
    np.testing.assert_allclose(scores, 50.0)


def test_the_heat_map_has_the_mean_depth_of_each_setting(cells):
    figure, _ = heat_map(cells)
    axes = next(axes for axes in figure.axes if axes.get_title() == "hopper-medium-v2")
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    columns = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    values = np.asarray(axes.images[0].get_array())
    assert values[rows.index("TD3"), columns.index("offline")] > 35
    assert values[rows.index("TD3-BC"), columns.index("offline")] < 5
    assert np.isnan(np.ma.filled(values, np.nan)[rows.index("TD3-C"), columns.index("50 % offline")])


def test_collapse_is_set_against_diversity_within_a_task(cells):
    figure, _ = diversity(cells)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["medium", "medium-\nreplay"]
    depths = [np.asarray(line.get_ydata()) for line in axes.get_lines() if line.get_color() == COLORS["td3"]]
    assert all(medium > replay for medium, replay in depths)


def test_who_overtakes_whom_is_said(cells):
    figure, notes = budgets(cells)
    assert any(note.startswith("replay offline: TD3 overtakes TD3-BC between") for note in notes)
    ranks = figure.axes[1].get_lines()
    assert [line.get_ydata()[0] for line in ranks if line.get_color() == COLORS["td3_bc"]] == [1.0]


def test_the_gains_are_drawn_as_far_as_all_runs_go(tmp_path):
    lasts = {"offline": 30_000, "empty": 40_000}
    for replay, last in lasts.items():
        for algorithm, more in (("td3", 0), ("td3_bc", 5_000)):
            steps = np.arange(0, last + more + 1, 500)
            write_run(tmp_path, REGENERATED, algorithm, steady(50.0, 60.0), steps=steps, replay=replay)
    figure, _ = budgets(collect(tmp_path).cells)
    for axes, last in zip(figure.axes, np.repeat(list(lasts.values()), 2), strict=True):
        for line in axes.get_lines():
            if line.get_marker() == "o":
                assert list(np.asarray(line.get_xdata())) == [1_000, 2_000, 5_000, 10_000, 20_000, last]
    figure.draw_without_rendering()
    assert [label.get_text() for label in figure.axes[-1].get_xticklabels()][-1] == "40k"


def test_runs_without_an_env_step_have_no_budget_to_be_drawn_over(tmp_path):
    for algorithm in ("td3", "td3_bc"):
        write_run(tmp_path, REGENERATED, algorithm, steady(50.0, 60.0), steps=np.array([0]))
    with pytest.raises(NothingToDrawError):
        budgets(collect(tmp_path).cells)


def test_why_shows_what_the_critic_believed(cells):
    figure, _ = why([cell for cell in cells if cell.dataset == "hopper-medium-v2"])
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert any("discounted" in title for title in titles)
    assert any("multiplier" in title for title in titles)
    steps, values = line_of_any(figure.axes[1], COLORS["td3"])
    assert (steps[0], steps[-1]) == (500_000, 550_000)
    assert values.max() > values[0]


@pytest.mark.parametrize("env_steps", [10_000, 20_000, 50_000])
def test_the_narrow_panels_of_why_have_room_for_their_labels(tmp_path, env_steps):
    write_run(
        tmp_path, "hopper-medium-v2", "td3_c", steady(50.0, 60.0), steps=np.arange(0, env_steps + 1, 500)
    )
    figure, _ = why(collect(tmp_path).cells)
    figure.draw_without_rendering()
    for axes in figure.axes:
        labels = [label for label in axes.get_xticklabels() if label.get_text()]
        extents = sorted((e.x0, e.x1) for e in (label.get_window_extent() for label in labels))
        assert len(labels) >= 2
        assert all(left[1] < right[0] for left, right in itertools.pairwise(extents))


def test_runs_of_two_pretraining_lengths_are_aligned_at_the_switch_with_an_offline_line_each(tmp_path):
    for updates, start in ((2_000, 30.0), (30_000, 60.0)):
        for algorithm in ("td3", "td3_bc"):
            own = {"pretrain.updates": updates}
            write_run(tmp_path, "hopper-medium-v2", algorithm, steady(start, 50.0), overrides=own)
    found = collect(tmp_path).cells
    figure, _ = learning_curves(found)
    (axes,) = figure.axes
    curves = [line for line in axes.get_lines() if line.get_linewidth() > 1]
    assert [line.get_xdata()[0] for line in curves] == [0] * 4
    assert len({to_hex(line.get_color()) for line in curves}) == 4
    levels = [line.get_ydata()[0] for line in axes.get_lines() if line.get_linewidth() == 0.8][:-1]
    assert sorted(levels) == [30.0, 60.0]
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"TD3, pretrain.updates=2000", "TD3-BC pretraining, updates=30000"} <= labels
    assert figure.get_supxlabel().startswith("env steps since the switch")
    figure.draw_without_rendering()
    below = figure._supxlabel.get_window_extent()
    assert below.x0 > 0
    assert below.x1 < figure.bbox.x1
    (alone,) = learning_curves([cell for cell in found if cell.first.switch == 2_000])[0].axes
    assert alone.get_lines()[-1].get_xdata()[0] == 2_000  # learner steps where all share one length
    why_lines = why(found)[0].axes[0].get_lines()
    assert [line.get_xdata()[0] for line in why_lines] == [0] * 5


def test_pretrainings_of_one_algorithm_are_named_by_the_methods_that_they_are_for(tmp_path):
    for method, layers in (("cql", [8, 8]), ("wsrl", [4, 4])):
        own = {"method": method, "pretrain.algorithm.name": "cql", "network.hidden_sizes": layers}
        write_run(tmp_path, "hopper-medium-v2", "sac", steady(50.0, 60.0), overrides=own)
    figure, _ = learning_curves(collect(tmp_path).cells)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert set(labels[:2]) == {"CQL", "WSRL"}  # the settings come first
    assert {"CQL pretraining for CQL", "CQL pretraining for WSRL"} <= set(labels)


def test_a_panel_of_what_is_from_scratch_begins_with_its_first_step(tmp_path):
    write_run(tmp_path, "hopper-medium-v2", "td3", steady(50.0, 60.0))
    write_run(tmp_path, "hopper-medium-v2", "td3", steady(2.0, 60.0), scratch=True, replay="empty")
    figure, _ = learning_curves(collect(tmp_path).cells)
    firsts = {axes.get_title(): axes.get_lines()[-1].get_xdata()[0] for axes in figure.axes}
    assert sorted(firsts.values()) == [0, 500_000]
    assert "scratch" in min(firsts, key=firsts.__getitem__)


def test_several_updates_a_step_are_drawn_over_env_steps(tmp_path):
    write_run(tmp_path, "hopper-medium-v2", "td3", steady(50.0, 60.0))
    write_run(
        tmp_path, "hopper-medium-v2", "td3", steady(50.0, 60.0), overrides={"finetune.updates_per_step": 4}
    )
    figure, _ = learning_curves(collect(tmp_path).cells)
    assert figure.axes[0].get_lines()[-1].get_xdata()[0] == 0


def test_no_two_labels_share_a_colour_and_known_algorithms_keep_theirs():
    wishes = {f"TD3, seed={i}": COLORS["td3"] for i in range(30)} | {"IQL": COLORS["iql"], "MINE": None}
    found = palette(wishes)
    assert len(set(found.values())) == len(wishes)
    assert (found["TD3, seed=0"], found["IQL"]) == (COLORS["td3"], COLORS["iql"])


def test_titles_and_legends_do_not_meet(tmp_path):
    for updates in (2_000, 30_000):
        for algorithm in ("td3", "td3_bc", "td3_c"):
            own = {"pretrain.updates": updates}
            write_run(tmp_path, "hopper-medium-v2", algorithm, steady(50.0, 50.0), overrides=own)
    figure, _ = why(collect(tmp_path).cells)
    figure.draw_without_rendering()
    boxes = [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
    assert all(left.x1 < right.x0 - 5 for left, right in itertools.pairwise(boxes))
    legend = figure.legends[0].get_window_extent()
    assert legend.x0 > 0
    assert legend.x1 < figure.bbox.x1
    assert max(box.y1 for box in boxes) <= legend.y0


def line_of_any(axes, color):
    (line,) = [line for line in axes.get_lines() if line.get_color() == color]
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def test_a_dataset_without_diagnostics_has_no_why(tmp_path):
    path = write_run(tmp_path, "hopper-medium-v2", "td3", steady(50.0, 60.0))
    (path / "train.jsonl").unlink()
    rows = (path / "eval.jsonl").read_text().replace("q_minus_return", "something_else")
    (path / "eval.jsonl").write_text(rows)
    with pytest.raises(NothingToDrawError, match="no run has diagnostics"):
        why(collect(tmp_path).cells)


def test_the_same_runs_draw_the_same_bytes(tmp_path):
    write_run(tmp_path / "runs", "hopper-medium-v2", "td3", steady(50.0, 60.0))
    found = collect(tmp_path / "runs").cells
    for name in ("one", "other"):
        list(draw_all(found, tmp_path / name))
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes(), path.name


def test_figures_are_the_same_whatever_the_users_matplotlibrc_says(tmp_path):
    write_run(tmp_path / "runs", "hopper-medium-v2", "td3", steady(50.0, 60.0))
    found = collect(tmp_path / "runs").cells
    list(draw_all(found, tmp_path / "one"))
    own = {
        "lines.linewidth": 9,
        "figure.facecolor": "yellow",
        "font.family": "monospace",
        "savefig.bbox": "tight",
        "axes.prop_cycle": mpl.cycler(color=["red"]),
    }
    with mpl.rc_context(own):
        list(draw_all(found, tmp_path / "other"))
        assert mpl.rcParams["lines.linewidth"] == 9  # theirs again
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes(), path.name


def test_the_analysis_never_imports_jax():
    code = "import sys, analysis.__main__, analysis.figures, analysis.report; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
