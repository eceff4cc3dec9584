from __future__ import annotations

import numpy as np
import pytest
from synthetic_runs import collapsing, steady, write_grid, write_run

from analysis import published
from analysis.claims import CLAIMS
from analysis.collect import collect
from analysis.guidelines import GUIDELINES, choices_table, guidelines_table
from analysis.measures import measure
from analysis.statistics import mean
from analysis.verdicts import claims_by_dataset, claims_table, findings

TABLES = "the paper's tables"
RUNS = "our runs, D4RL data"


def judged(root):
    cells = collect(root).cells
    return {(f.claim.name, f.evidence): f for f in findings(cells, measure(cells))}


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    root = tmp_path_factory.mktemp("grid")
    datasets = [
        f"{task}-{quality}-v2" for task in ("ant", "walker2d") for quality in ("medium", "medium-replay")
    ]
    write_grid(root, datasets, seeds=range(3), ratios=(0.25, 0.75), noise=1.0)
    return judged(root)


def test_every_claim_is_judged_by_runs_and_where_possible_by_the_papers_tables(grid):
    assert {name for name, evidence in grid if evidence == RUNS} == {claim.name for claim in CLAIMS}
    assert {name for name, evidence in grid if evidence == TABLES} == {c.name for c in CLAIMS if c.tables}


@pytest.mark.parametrize(
    ("claim", "verdict"),
    [
        ("td3-collapses", "holds"),
        ("td3-collapses-when-empty", "holds"),
        ("td3-bc-does-not-collapse", "holds"),
        ("collapse-is-no-fluctuation", "holds"),
        ("medium-is-worse", "holds"),
        ("td3-rivals-td3-bc", "holds"),
        ("td3-gains-from-empty", "fails"),  # made up so: 95 against 100
        ("ratios-speed-td3-bc-up", "holds"),
        ("ratios-do-not-rescue-td3", "holds"),
        ("td3-c-is-steadier", "holds"),
        ("td3-c-is-steadier-when-empty", "holds"),
        ("td3-c-can-collapse", "holds"),
        ("walker2d-medium-replay-is-the-exception", "holds"),
        ("scratch-is-worse", "holds"),
        ("the-budget-decides", "holds"),
    ],
)
def test_runs_made_as_the_paper_says_are_judged_so(grid, claim, verdict):
    assert grid[claim, RUNS].verdict == verdict


def test_a_policy_that_never_falls_contradicts_the_collapse(tmp_path):
    for seed in range(5):
        write_run(tmp_path, "hopper-medium-v2", "td3", steady(50.0, 90.0), seed=seed, noise=1.0)
        write_run(tmp_path, "hopper-medium-v2", "frozen", steady(50.0, 50.0), seed=seed, noise=1.0)
    assert judged(tmp_path)["td3-collapses", RUNS].verdict == "fails"


def test_a_contrast_is_the_mean_over_seeds_worked_out_by_hand(tmp_path):
    for seed, online in enumerate((90.0, 96.0)):
        write_run(tmp_path, "hopper-medium-v2", "td3", steady(50.0, online), seed=seed)
        write_run(tmp_path, "hopper-medium-v2", "td3_bc", steady(50.0, 60.0), seed=seed)
    found = judged(tmp_path)["td3-rivals-td3-bc", RUNS]
    (estimate,) = found.parts.values()
    assert estimate == mean(np.array([90.0 - 0.9 * 60.0, 96.0 - 0.9 * 60.0]))


def test_the_papers_tables_say_six_of_eight_but_cannot_prove_it(grid):
    found = grid["td3-bc-rivals-on-six-of-eight", TABLES]
    assert found.by_means == (6, 8)
    assert set(found.against) == {"halfcheetah-medium-replay-v2", "halfcheetah-medium-v2"}
    assert found.verdict == "undecided"
    assert found.more_seeds > 0


def test_hopper_medium_speaks_against_consistently_better_than_odt(grid):
    found = grid["td3-better-than-odt-and-iql", TABLES]
    assert found.against == ("hopper-medium-v2",)
    assert found.parts["hopper-medium-v2"].value == pytest.approx(88.59 - 97.54)
    assert found.verdict == "undecided"


def test_what_tables_of_final_scores_cannot_tell_is_not_told(grid):
    assert ("td3-collapses", TABLES) not in grid


def test_without_runs_there_is_no_verdict(tmp_path):
    table = claims_table(list(judged(tmp_path).values()))
    assert {row[4].text for row in table.rows} == {TABLES}


def test_regenerated_and_d4rl_data_are_never_one_body_of_evidence(tmp_path):
    write_run(tmp_path, "hopper-medium-v2", "td3", collapsing(50.0, 10.0, 90.0))
    write_run(tmp_path, "regen-hopper-medium", "td3", collapsing(50.0, 10.0, 90.0), source="regenerated")
    write_run(tmp_path, "hopper-medium-v2", "td3", steady(50.0, 60.0), steps=np.arange(0, 5_001, 500))
    evidence = {evidence for _, evidence in judged(tmp_path)}
    assert evidence == {
        RUNS,
        "our runs, regenerated data",
        "our runs, D4RL data, 5\u202f000 env steps after 500\u202f000 updates",
        TABLES,
    }


def test_runs_that_end_early_judge_the_fall_and_not_the_final_scores(tmp_path):
    early = np.arange(0, 10_001, 500)
    for seed in range(3):
        for algorithm, shape in (("td3", collapsing(50.0, 5.0, 90.0)), ("td3_bc", steady(50.0, 60.0))):
            write_run(tmp_path, "hopper-medium-v2", algorithm, shape, seed=seed, steps=early)
    found = {
        name: finding for (name, evidence), finding in judged(tmp_path).items() if "10\u202f000" in evidence
    }
    assert found["td3-collapses"].verdict == "holds"
    for name in ("td3-rivals-td3-bc", "td3-bc-improves-slowly", "the-budget-decides"):
        assert found[name].verdict == "too short"
        assert found[name].overall.value < 0 or name == "the-budget-decides"
        assert set(found[name].verdicts.values()) == {"too short"}
    table = guidelines_table(list(found.values()))
    assert table.rows[0][-1].text == "no evidence"


def test_settings_that_look_the_same_are_not_chosen_between(tmp_path):
    for delay in (2, 3):
        overrides = {"algorithm.policy_delay": delay}
        write_run(tmp_path, "hopper-medium-v2", "td3", collapsing(50.0, 10.0, 90.0), overrides=overrides)
    found = judged(tmp_path)
    assert found["td3-collapses", RUNS].verdict == "no runs"
    table = claims_table(list(found.values()))
    assert "TD3 on hopper-medium-v2, replay offline: policy_delay=2, policy_delay=3" in table.notes[-1]


def test_guidelines_are_as_good_as_their_claims(grid):
    names = {claim.name for claim in CLAIMS}
    assert all(set(guideline.claims) <= names for guideline in GUIDELINES)
    table = guidelines_table(list(grid.values()))
    verdicts = {row[0].text: row[table.columns.index(RUNS)].text for row in table.rows}
    assert verdicts["the pretraining data can be chosen"] == "supported"
    paper = {row[0].text: row[table.columns.index(TABLES)].text for row in table.rows}
    assert paper["the pretraining data can be chosen"] == "no evidence"


def test_a_failed_claim_contradicts_its_guideline(tmp_path):
    for seed in range(5):
        for quality, lowest in (("medium", 40.0), ("medium-replay", 10.0)):
            shape = collapsing(50.0 + seed, lowest, 90.0)
            write_run(tmp_path, f"hopper-{quality}-v2", "td3", shape, seed=seed)
    table = guidelines_table(list(judged(tmp_path).values()))
    row = next(row for row in table.rows if row[0].text == "the pretraining data can be chosen")
    assert row[table.columns.index(RUNS)].text == "contradicted (1 fails)"


def test_choices_are_the_best_at_each_budget(tmp_path):
    write_run(tmp_path, "hopper-medium-v2", "td3", collapsing(50.0, 10.0, 90.0))
    write_run(tmp_path, "hopper-medium-v2", "td3_bc", steady(50.0, 60.0))
    table = choices_table(measure(collect(tmp_path).cells))
    assert [entry.text for entry in table.rows[0][1:]] == [
        "TD3-BC, offline (50.5)", "TD3-BC, offline (52.5)", "TD3, offline (90.0)", "TD3-BC, offline (0.0)",
    ]  # fmt: skip


def test_every_contrast_is_listed_by_dataset(grid):
    table = claims_by_dataset(list(grid.values()))
    listed = [(row[0].text, row[1].text) for row in table.rows]
    assert listed.count(("td3-rivals-td3-bc", TABLES)) == len(published.DATASETS)
    assert listed.count(("medium-is-worse", RUNS)) == 2
