"""Runs beside each other that differ in something: evaluations, lengths, sources, offline shares, damage."""

from __future__ import annotations

import io
import itertools
import json

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.text import Text
from rich.console import Console
from synthetic_runs import GRID, collapsing, steady, write_pretraining, write_run

import o2o
from analysis.claims.evidence import bodies_of_evidence
from analysis.data.collect import collect
from analysis.data.measures import measure
from analysis.figures import draw_all
from analysis.figures.causes import why
from analysis.figures.curves import figure1, figure4, learning_curves
from analysis.figures.depths import diversity, heat_map
from analysis.figures.style import save
from analysis.importing.conversion import read_curves, write_curves
from analysis.importing.foreign import Given
from analysis.report import write_report
from analysis.tables.budget import budget_table, crossover_table
from analysis.tables.collapse_tables import collapse_table
from analysis.tables.comparisons import comparisons_table
from analysis.tables.every import every_table, finetuning_tables
from analysis.tables.forms import Entry, Table, to_terminal
from analysis.tables.method_costs import methods_table, protocols_table
from o2o.runs.directory import layout

DATASET = "hopper-medium-v2"
SHORT = GRID[GRID <= 20_000]


def arms_of(root):
    return measure(collect(root).cells)


def rows_of(table):
    return [dict(zip(table.columns, (entry.text for entry in row), strict=True)) for row in table.rows]


def imported(root, dataset=DATASET, algorithm="IQL", replays=("offline",), seeds=(0,)):
    """Curves of others, whose offline score is 60, or 20 with an empty replay."""
    lines = [
        f"{dataset},{algorithm},{seed},{replay},{step},{60 if replay == 'offline' else 20}"
        for replay in replays
        for seed in seeds
        for step in range(0, 60_001, 5_000)
    ]
    root.mkdir(exist_ok=True)
    file = root / "curves.csv"
    file.write_text("\n".join(["dataset,algorithm,seed,replay,env_steps,score", *lines]))
    curves, _ = read_curves([file], Given())
    write_curves(curves, root / "imported", Given())
    return root / "imported"


def shorter_evaluations(path, episodes):
    """Leaves so many episodes of each evaluation after the switch."""
    rows = [json.loads(line) for line in (path / "eval.jsonl").read_text().splitlines()]
    for row in rows[1:]:
        row["returns"] = row["returns"][:episodes]
    (path / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("updates_per_step", 20),
        ("batch_size", 32),
        ("learning_rate", {"policy": 1e-2, "critic": 1e-2}),
        ("random_steps", 5_000),
        ("warmup_steps", 5_000),
        ("critic_only_steps", 5_000),
    ],
)
def test_an_online_setting_that_is_not_the_papers_is_evidence_of_its_own(tmp_path, key, value):
    write_run(tmp_path, DATASET, "td3_bc", steady(50.0, 60.0))
    write_run(tmp_path, DATASET, "td3", steady(50.0, 60.0), overrides={f"finetune.{key}": value})
    cells = collect(tmp_path).cells
    bodies = bodies_of_evidence(cells, measure(cells))
    assert len(bodies) == 2
    assert sum("finetune" in body.source for body in bodies) == 1


def test_the_null_of_a_run_is_of_as_many_episodes_as_its_own_evaluations(tmp_path):
    def thresholds(root):
        return {arm.cell.algorithm: arm.runs[0].threshold for arm in arms_of(root)}

    for root in (tmp_path / "alone", tmp_path / "both"):
        path = write_run(root, DATASET, "td3_bc", steady(50.0, 50.0), noise=5.0)
        shorter_evaluations(path, 1)
    write_run(tmp_path / "both", DATASET, "td3", steady(50.0, 50.0), noise=5.0)
    both = thresholds(tmp_path / "both")
    assert both["td3_bc"] == thresholds(tmp_path / "alone")["td3_bc"]
    assert both["td3_bc"] > 1.5 * both["td3"]
    frozen = write_run(tmp_path / "both", DATASET, "frozen", steady(50.0, 50.0), replay="empty", noise=1.0)
    assert thresholds(tmp_path / "both")["td3"] < both["td3"]
    shorter_evaluations(frozen, 1)
    assert thresholds(tmp_path / "both")["td3"] == both["td3"]


@pytest.mark.parametrize(
    "steps", [np.append(0, np.arange(4_999, 200_000, 5_000)), np.arange(0, 200_001, 6_000)]
)
def test_the_late_grid_is_as_fine_early_wherever_evaluations_lie(tmp_path, steps):
    write_run(tmp_path, DATASET, "td3", collapsing(50.0, 10.0, 50.0, fall=3_000, back=100_000), steps=steps)
    ((run,),) = (arm.runs for arm in arms_of(tmp_path))
    assert run.early_as_late == pytest.approx(run.regret, rel=0.15)


def test_arms_of_unequal_length_are_compared_as_far_as_both_were_run(tmp_path):
    for seed in range(3):
        write_run(tmp_path, DATASET, "td3", collapsing(50.0, 10.0, 100.0 + seed, back=100_000), seed=seed)
        write_run(tmp_path, DATASET, "td3_bc", steady(50.0, 100.0 + seed), seed=seed, steps=SHORT)
    arms = arms_of(tmp_path)
    table = comparisons_table(arms)
    (row,) = rows_of(table)
    assert row["A"].startswith("TD3,")
    assert row["online A − B"].startswith("−")  # 17 to 55 at 20 000 env steps, though 100 in the end
    assert any("compared as far as that" in note for note in table.notes)
    (row,) = rows_of(crossover_table(arms))
    assert row["ahead in the end"] == "TD3-BC"


def test_seeds_without_a_partner_are_counted_on_both_sides(tmp_path):
    for seed in range(3):
        write_run(tmp_path, DATASET, "td3", steady(50.0, 60.0), seed=seed)
        write_run(tmp_path, DATASET, "td3_bc", steady(50.0, 60.0), seed=seed + 2)
    (row,) = rows_of(comparisons_table(arms_of(tmp_path)))
    assert row["pairs"] == "1 (4 without a partner)"


def test_late_falls_vary_over_seeds_not_over_windows(tmp_path):
    write_run(tmp_path, DATASET, "td3", lambda steps: 50.0 - 10.0 * (steps > 160_000))
    (row,) = rows_of(collapse_table(arms_of(tmp_path)))
    assert "±" not in row["late regret"]


def test_curves_of_others_are_marked_and_ours_of_the_same_set_are_not(tmp_path):
    theirs = imported(tmp_path / "theirs")
    write_run(tmp_path / "mine", DATASET, "td3", steady(50.0, 60.0))
    collection = collect([tmp_path / "mine", theirs])
    arms = measure(collection.cells)
    page = write_report(collection, arms, tmp_path / "index.html").read_text()
    assert page.count('"name":"hopper-medium-v2"') == 1
    assert page.count('"name":"hopper-medium-v2\\u2021"') == 1
    assert '"headline":[["hopper-medium-v2",' in page
    (axes,) = learning_curves(collection.cells)[0].axes
    assert "in part imported curves" in axes.get_title()
    legend = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert "IQL (imported curves)" in legend
    assert "TD3" in legend
    by_algorithm = {row["algorithm"]: row["dataset"] for row in rows_of(budget_table(arms))}
    assert by_algorithm == {"TD3": DATASET, "IQL": f"{DATASET} (imported curves)"}
    assert "1 updates" not in str(every_table(collection.cells))
    assert all(row["finetuning"] != "IQL" for row in rows_of(protocols_table(collection.cells)))


def test_curves_of_others_share_no_pretraining(tmp_path):
    root = imported(tmp_path, replays=("offline", "empty"), seeds=range(3))
    collection = collect(root)
    arms = measure(collection.cells)
    assert rows_of(comparisons_table(arms)) == []
    page = write_report(collection, arms, tmp_path / "index.html").read_text()
    assert '"offline":60.0' in page
    assert '"offline":20.0' in page


def test_an_offline_share_that_moves_is_no_fixed_one(tmp_path):
    write_run(tmp_path, DATASET, "td3", steady(50.0, 60.0), ratio=0.5)
    moving = {"offline_ratio.last": 0.0, "offline_ratio.steps": 50_000}
    write_run(tmp_path, DATASET, "td3", steady(50.0, 60.0), ratio=0.5, seed=1, overrides=moving)
    cells = collect(tmp_path).cells
    figure, _ = figure4(cells)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"50 % offline rows", "50 to 0 % offline rows"} <= {label.partition(",")[0] for label in labels}
    titles = [axes.get_title() for axes in learning_curves(cells)[0].axes]
    assert sum("50 to 0 % of a batch offline" in title for title in titles) == 1
    (body,) = bodies_of_evidence(cells, measure(cells))
    assert body.ratios == (0.5,)
    assert body.arm(DATASET, ("td3", "offline"), 0.5).cell.seeds == (0,)


def test_several_kinds_of_training_from_scratch_are_all_drawn_and_none_is_chosen(tmp_path):
    write_run(tmp_path, DATASET, "td3", steady(50.0, 60.0))
    for updates in (1, 20):
        own = {"finetune.updates_per_step": updates}
        write_run(tmp_path, DATASET, "td3", steady(0.0, 30.0), scratch=True, replay="empty", overrides=own)
    labels = [text.get_text() for text in figure1(collect(tmp_path).cells)[0].legends[0].get_texts()]
    assert sum(label.startswith("TD3 from scratch") for label in labels) == 2
    assert len(set(labels)) == len(labels)


def test_d4rls_sets_and_regenerated_ones_are_not_two_qualities(tmp_path):
    write_run(tmp_path, DATASET, "td3", steady(50.0, 60.0))
    write_run(tmp_path, "regen-hopper-medium", "td3", steady(50.0, 60.0), source="regenerated")
    with pytest.raises(ValueError, match="no task has finished runs on two of its datasets"):
        diversity(collect(tmp_path).cells)


def test_the_frozen_policy_makes_no_updates_and_means_keep_their_words(tmp_path):
    for dataset in (DATASET, "ant-medium-v2"):
        write_run(tmp_path, dataset, "frozen", steady(-7.0, -7.0), replay="empty")
        write_run(tmp_path, dataset, "td3", steady(-7.0, 20.0))
        write_run(tmp_path, dataset, "iql", steady(7.0, 20.0), overrides={"finetune.updates_per_step": 4})
    cells = collect(tmp_path).cells
    rows = rows_of(methods_table(cells, measure(cells)))
    means = {row["finetuning"]: row for row in rows if row["dataset"].startswith("mean")}
    assert means["frozen policy"]["updates per env step"] == "0"
    assert means["TD3"]["updates per env step"] == "1, policy 0.5"
    assert means["TD3"]["offline"].startswith("−7.0")
    assert means["IQL"]["offline"].startswith("7.0")
    collapse = {row["algorithm"]: row for row in rows_of(collapse_table(measure(cells)))}
    assert collapse["frozen policy"]["updates per env step"] == "0"


@pytest.mark.parametrize("damaged", [layout.RESULT, layout.STATUS])
def test_a_damaged_run_is_told_and_the_others_are_loaded(tmp_path, damaged):
    write_run(tmp_path, DATASET, "td3", steady(50.0, 60.0))
    state = "FAILED" if damaged == layout.STATUS else "DONE"
    broken = write_run(tmp_path, DATASET, "td3", steady(50.0, 60.0), seed=1, state=state)
    (broken / damaged).write_text('{"state"')
    found = o2o.load_runs(tmp_path)
    assert found.runs["seed"].tolist() == [0]
    assert any(str(broken) in note for note in found.notes)


@pytest.mark.parametrize("name", ["hopper [/x]", "hopper [red]x", "a$_$b"])
def test_names_are_written_as_they_are(tmp_path, name):
    root = imported(tmp_path, dataset=name)
    cells = collect(root).cells
    assert all(
        figure.png for figure in draw_all(cells, tmp_path / "figures") if figure.name == "learning_curves"
    )
    console = Console(file=io.StringIO(), width=200)
    for table in (*finetuning_tables(cells), to_terminal(Table("", "", ("",), ((Entry(name, bold=True),),)))):
        console.print(table)
    assert console.file.getvalue().count(name) == 2


def test_a_pretraining_with_a_score_that_is_no_number_has_a_page(tmp_path):
    path = write_pretraining(tmp_path, DATASET, 50.0)
    write_run(tmp_path, DATASET, "td3", steady(50.0, 60.0))
    lines = (path / "eval.jsonl").read_text().splitlines()
    lines[3] = json.dumps(json.loads(lines[3]) | {"score": float("nan")})
    (path / "eval.jsonl").write_text("\n".join(lines) + "\n")
    collection = collect(tmp_path)
    assert write_report(collection, measure(collection.cells), tmp_path / "index.html").is_file()


def test_why_has_what_any_seed_recorded(tmp_path):
    for seed in range(2):
        write_run(tmp_path, DATASET, "td3_c", steady(50.0, 60.0), seed=seed)
    first = next(path for path in tmp_path.rglob("train.jsonl") if "seed-0" in str(path))
    first.write_text("")
    cells = collect(tmp_path).cells
    figure, _ = why(cells)
    assert len(figure.axes) == 6


@pytest.mark.parametrize("draw", [learning_curves, heat_map])
def test_titles_of_many_panels_do_not_reach_their_neighbours(tmp_path, draw):
    sets = (
        "hopper-medium",
        "hopper-medium-replay-snapshots",
        "halfcheetah-medium",
        "halfcheetah-medium-replay",
    )
    for name in sets:
        for replay in ("offline", "empty"):
            write_run(tmp_path, f"regen-{name}", "td3", steady(50.0, 60.0), replay=replay, source="snapshots")
    figure, _ = draw(collect(tmp_path).cells)
    FigureCanvasAgg(figure).draw()
    boxes = [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
    assert len(boxes) == (8 if draw is learning_curves else 4)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_logarithmic_axes_have_labels_that_are_read(tmp_path):
    path = write_run(tmp_path, DATASET, "td3_c", steady(50.0, 60.0))
    rows = [json.loads(line) for line in (path / "train.jsonl").read_text().splitlines()]
    for place, row in enumerate(rows):
        row["constraint"] = 10.0 ** -(1 + place % 4)
    (path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    figure, _ = why(collect(tmp_path).cells)
    save(figure, tmp_path / "why")  # ticks have their texts once they are drawn
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert {"10⁻¹", "10⁻²", "10⁻³"} <= set(texts)
    assert not any("$" in text for text in texts)


def test_why_keeps_the_colours_that_it_is_given(tmp_path):
    write_run(tmp_path, DATASET, "td3_c", steady(50.0, 60.0))
    figure, _ = why(collect(tmp_path).cells, {"TD3-C": "#123456"})
    assert to_hex(figure.axes[1].get_lines()[0].get_color()) == "#123456"
