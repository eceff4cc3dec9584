from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from synthetic_runs import GRID, VERSIONS, collapsing, steady, write_grid, write_pretraining, write_run

from analysis.data.cells import into_cells
from analysis.data.collect import collect, matches
from analysis.figures.style import colors_of
from o2o.runs.directory.layout import RunState, find_runs, read_state
from o2o.sweep.surveying.survey import survey

DATASET = "hopper-medium-v2"


def td3(root, seed=0, **options):
    return write_run(root, DATASET, "td3", collapsing(50.0, 10.0, 90.0), seed=seed, **options)


def test_seeds_of_one_setting_are_one_cell(tmp_path):
    for seed in (2, 0, 1):
        td3(tmp_path, seed)
    (cell,) = collect(tmp_path).cells
    assert cell.seeds == (0, 1, 2)
    assert cell.look == (DATASET, "td3", "offline", None)
    assert cell.label == "TD3"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("algorithm.policy_delay", 3, "algorithm.policy_delay (2, 3)"),
        ("discount", 0.95, "discount (0.99, 0.95)"),
        ("evaluation.switch_episodes", 30, "evaluation.switch_episodes (100, 30)"),
    ],
)
def test_settings_that_differ_in_something_unseen_are_never_averaged(tmp_path, key, value, said):
    td3(tmp_path)
    td3(tmp_path, seed=1, overrides={key: value})
    collection = collect(tmp_path)
    assert sorted(cell.seeds for cell in collection.cells) == [(0,), (1,)]
    assert {cell.variant for cell in collection.cells} == {
        f"{key.removeprefix('algorithm.')}={one}" for one in said.partition("(")[2].rstrip(")").split(", ")
    }
    (note,) = [note for note in collection.notes if "kept apart" in note]
    first, second = said.partition("(")[2].rstrip(")").split(", ")
    assert f"{key} ({first}, {second})" in note or f"{key} ({second}, {first})" in note


def test_false_goes_without_saying(tmp_path):
    td3(tmp_path)
    td3(tmp_path, overrides={"finetune.reset_optimizers": True})
    td3(tmp_path, overrides={"algorithm.policy_delay": 3})
    assert [cell.label for cell in collect(tmp_path).cells] == [
        "TD3, policy_delay=2",
        "TD3, policy_delay=2, finetune.reset_optimizers=true",
        "TD3, policy_delay=3",
    ]


def test_where_and_how_a_run_ran_makes_no_other_cell(tmp_path):
    td3(tmp_path)
    td3(tmp_path, seed=1, overrides={"paths.runs": "/elsewhere", "dataset.path": "/there"})
    (cell,) = collect(tmp_path).cells
    assert cell.seeds == (0, 1)


def test_settings_that_differ_in_much_are_named_by_enough_of_it_and_the_note_says_all(tmp_path):
    td3(tmp_path)
    changes = {"algorithm.policy_delay": 3, "discount": 0.9, "batch_size": 64, "evaluation.episodes": 5}
    td3(tmp_path, overrides=changes)
    collection = collect(tmp_path)
    assert [cell.label for cell in collection.cells] == ["TD3, batch_size=64, …", "TD3, batch_size=256, …"]
    (note,) = collection.notes
    assert all(key in note for key in changes)


def test_how_runs_were_evaluated_is_named_only_where_nothing_else_tells_them_apart(tmp_path):
    td3(tmp_path, overrides={"discount": 0.9, "evaluation.episodes": 5})
    td3(tmp_path)
    collection = collect(tmp_path)
    assert [cell.label for cell in collection.cells] == ["TD3, discount=0.9", "TD3, discount=0.99"]
    (note,) = collection.notes
    assert "evaluation.episodes (5, 10)" in note
    td3(tmp_path, overrides={"evaluation.episodes": 5})
    assert {cell.label for cell in collect(tmp_path).cells} == {
        "TD3, discount=0.9, evaluation.episodes=5",
        "TD3, discount=0.99, evaluation.episodes=5",
        "TD3, discount=0.99, evaluation.episodes=10",
    }


def test_pretrainings_of_two_lengths_are_named_by_them_in_every_setting_of_the_dataset(tmp_path):
    td3(tmp_path, overrides={"pretrain.updates": 2_000})
    td3(tmp_path, overrides={"pretrain.updates": 30_000})
    write_run(tmp_path, DATASET, "td3_bc", steady(50.0, 60.0))
    write_run(tmp_path, "ant-medium-v2", "td3", steady(50.0, 60.0))
    assert [cell.label for cell in collect(tmp_path).cells] == [
        "TD3",  # of the ant's there is one
        "TD3, pretrain.updates=2000",
        "TD3, pretrain.updates=30000",
        "TD3-BC, pretrain.updates=500000",
    ]


def test_a_method_has_its_name_and_what_learns_from_data_without_pretraining_its_dataset(tmp_path):
    for seed in range(2):
        own = {"method": "rlpd", "pretrain.updates": 0, "offline_ratio.value": 0.5}
        write_run(tmp_path, DATASET, "sac", steady(1.0, 60.0), seed=seed, overrides=own)
    write_run(tmp_path, DATASET, "sac", steady(50.0, 60.0), overrides={"method": "wsrl", "discount": 0.9})
    td3(tmp_path)
    moving = {"offline_ratio.value": 0.5, "offline_ratio.last": 0.0}
    td3(tmp_path, overrides=moving)
    cells = collect(tmp_path).cells
    assert [(cell.label, cell.replay, len(cell.runs)) for cell in cells] == [
        ("TD3", "offline", 1),
        ("WSRL", "offline", 1),
        ("TD3, offline_ratio.last=0.0", "50 to 0 % offline", 1),
        ("RLPD", "50 % offline", 2),
    ]
    assert {cell.dataset for cell in cells} == {DATASET}
    assert len(set(colors_of(cells).values())) == 4


def test_what_comes_with_an_algorithms_name_is_not_named_beside_it(tmp_path):
    for name, alpha in (("td3_bc", 2.5), ("td3_bc", 1.0), ("iql", None)):
        own = {"name": name} | ({"temperature": 3.0} if alpha is None else {"alpha": alpha, "bc": name})
        td3(tmp_path, overrides={"pretrain.algorithm": own})
    assert [cell.variant for cell in collect(tmp_path).cells] == [
        "pretrain.algorithm=iql",
        "pretrain.algorithm=td3_bc, pretrain.algorithm.alpha=1.0",
        "pretrain.algorithm=td3_bc, pretrain.algorithm.alpha=2.5",
    ]


def test_where_keeps_what_reads_as_given(tmp_path):
    td3(tmp_path)
    td3(tmp_path, overrides={"algorithm.policy_delay": 3})
    (cell,) = collect(tmp_path, where={"algorithm.policy_delay": "3"}).cells
    assert (cell.variant, cell.first.config["algorithm"]["policy_delay"]) == ("", 3)


def test_what_is_not_asked_for_is_not_said_to_be_left_out(tmp_path):
    td3(tmp_path, seed=0, state="FAILED")
    td3(tmp_path, seed=1, state="FAILED", overrides={"algorithm.policy_delay": 3})
    found = collect(tmp_path, where={"algorithm.policy_delay": "3"})
    assert [run.path.name for run in found.left_out] == ["seed-1"]


@pytest.mark.parametrize(
    ("where", "seeds"),
    [
        ({"seed": "0,2"}, [0, 2]),
        ({"dataset.name": "hopper-*", "seed": "1"}, [1]),
        ({"network.hidden_sizes": "[256, 256]"}, [0, 1, 2]),
        ({"seed": "0,2", "discount": "0.9"}, []),
    ],
)
def test_where_takes_several_values_and_patterns(tmp_path, where, seeds):
    for seed in range(3):
        td3(tmp_path, seed)
    assert [run.seed for run in collect(tmp_path, where).finetunings] == seeds


def test_make_demo_shows_the_runs_of_its_preset():
    root = Path(__file__).resolve().parents[2]
    (line,) = [line for line in (root / "Makefile").read_text().splitlines() if line.startswith("DEMO :=")]
    preset = yaml.safe_load((root / "conf" / "experiment" / "demo.yaml").read_text())
    preset["dataset"]["name"] = preset["defaults"][0]["override /dataset"]
    where = dict(pair.split("=") for pair in line.split()[2:])
    assert len(where) == 4
    assert matches(preset, where)


def test_the_same_run_twice_counts_once(tmp_path):
    td3(tmp_path / "a")
    td3(tmp_path / "b")
    collection = collect(tmp_path)
    assert [cell.seeds for cell in collection.cells] == [(0,)]
    assert "the same run as" in str(collection.left_out[0])


def test_a_run_finds_its_own_pretraining(tmp_path):
    for seed in (0, 1):
        write_pretraining(tmp_path, DATASET, 50.0 + seed, seed)
    td3(tmp_path, seed=1)
    (run,) = collect(tmp_path).finetunings
    assert run.pretraining is not None
    assert run.pretraining.name == "seed-1"
    assert (run.pretraining_curve[0][-1], run.pretraining_curve[1][-1]) == (0, 51.0)


def test_unfinished_and_failed_runs_are_left_out_with_the_reason(tmp_path):
    td3(tmp_path)
    td3(tmp_path, seed=1, state="RUNNING")
    failed = td3(tmp_path, seed=2, state="FAILED")
    status = {"state": "FAILED", "step": 501_000, "error": "FloatingPointError: critic_loss"}
    (failed / "status.json").write_text(json.dumps(status))
    collection = collect(tmp_path)
    assert [run.seed for run in collection.finetunings] == [0]
    assert collection.unfinished == {RunState.RUNNING: 1, RunState.FAILED: 1}
    assert str(collection.left_out[1]) == f"{failed}: FAILED at step 501000: FloatingPointError: critic_loss"


def test_missing_seeds_are_said(tmp_path):
    for seed in range(3):
        td3(tmp_path, seed)
    write_run(tmp_path, DATASET, "td3_bc", steady(50.0, 60.0), seed=1)
    (note,) = collect(tmp_path).notes
    assert "the seeds 0, 1, 2" in note
    assert note.endswith("TD3-BC, replay offline, lacks 0, 2")


def test_mixed_versions_are_said(tmp_path):
    td3(tmp_path)
    path = td3(tmp_path, seed=1)
    result = json.loads((path / "result.json").read_text())
    result["execution"]["versions"] = VERSIONS | {"mujoco": "3.5.0"}
    (path / "result.json").write_text(json.dumps(result))
    collection = collect(tmp_path)
    assert len(collection.cells) == 1
    assert collection.notes == ("runs of different versions of mujoco: 3.4.0 (1), 3.5.0 (1)",)


def test_code_is_compared_within_an_algorithm(tmp_path):
    """A run's hash is that of the code it depends on, its own algorithm's."""
    td3(tmp_path)
    paths = [td3(tmp_path, seed=1), write_run(tmp_path, DATASET, "td3_c", steady(50.0, 60.0))]
    for path, code in zip(paths, ("b" * 64, "c" * 64), strict=True):
        identity = json.loads((path / "identity.json").read_text())
        (path / "identity.json").write_text(json.dumps(identity | {"code_hash": code}))
    notes = [note for note in collect(tmp_path).notes if "versions" in note]
    assert len(notes) == 1
    assert notes[0].startswith("runs of different versions of the code of TD3 after TD3-BC: bbbbbbbb (1), ")


def test_a_row_cut_in_the_middle_is_left_out_and_said(tmp_path):
    path = td3(tmp_path)
    lines = (path / "eval.jsonl").read_text().splitlines()
    lines[5] = lines[5][:40]
    (path / "eval.jsonl").write_text("\n".join(lines) + "\n")
    collection = collect(tmp_path)
    assert len(collection.finetunings[0].scores) == len(GRID) - 1
    assert "row 6 is cut or damaged" in collection.notes[0]


def damage(path, file, change):
    content = (path / file).read_text()
    (path / file).write_text(change(content))


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("result.json", lambda text: text[:20], "is damaged"),
        ("result.json", lambda text: "[]", "holds no object"),
        ("config.yaml", lambda text: "a: [", "is damaged"),
        ("config.yaml", lambda text: "seed: 1\n", "another version"),
        ("eval.jsonl", lambda text: "", "no online evaluation"),
        ("eval.jsonl", lambda text: text.rpartition('{"phase"')[0], "end at env step 195000 of 200000"),
        ("eval.jsonl", lambda text: text + text, "do not increase"),
        (
            "eval.jsonl",
            lambda text: text.replace('"score": ', '"score": "NaN", "was": ', 1),
            "is not a number",
        ),
    ],
)
def test_a_damaged_run_is_left_out_and_said_and_the_others_stay(tmp_path, file, change, reason):
    td3(tmp_path)
    path = td3(tmp_path, seed=1)
    damage(path, file, change)
    collection = collect(tmp_path)
    assert [run.seed for run in collection.finetunings] == [0]
    (left_out,) = collection.left_out
    assert left_out.path == path
    assert reason in str(left_out)


def test_linked_directories_are_collected_as_status_lists_them(tmp_path):
    root = tmp_path / "runs"
    td3(root)
    elsewhere = td3(tmp_path / "elsewhere", seed=1)
    write_pretraining(tmp_path / "elsewhere", DATASET, 50.0, seed=1)
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    collection = collect(root)
    (cell,) = collection.cells
    assert cell.seeds == (0, 1)
    assert cell.runs[1].path == root / "linked" / elsewhere.relative_to(tmp_path / "elsewhere")
    assert cell.runs[1].pretraining is not None
    listed = [run.path for cell in survey(root, []) for run in cell.runs]
    assert sorted(listed) == find_runs(root, [])


@pytest.mark.parametrize(
    "file", ["config.yaml", "identity.json", "result.json", "eval.jsonl", "train.jsonl", "episodes.jsonl"]
)
def test_a_run_with_a_file_that_cannot_be_read_is_left_out_and_the_others_stay(tmp_path, file):
    td3(tmp_path)
    path = td3(tmp_path, seed=1)
    (path / file).unlink(missing_ok=True)
    (path / file).mkdir()  # which not even root can read as a file
    collection = collect(tmp_path)
    assert [cell.seeds for cell in collection.cells] == [(0,)]
    assert [str(run) for run in collection.left_out] == [
        f"{path}: {path / file} cannot be read: Is a directory"
    ]


def test_a_run_whose_directory_cannot_be_read_is_left_out(tmp_path, monkeypatch):
    td3(tmp_path)
    path = td3(tmp_path, seed=1)

    def refused(asked):
        if asked == path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(asked))
        return read_state(asked)

    monkeypatch.setattr("analysis.data.collect.read_state", refused)
    collection = collect(tmp_path)
    assert [cell.seeds for cell in collection.cells] == [(0,)]
    assert [str(run) for run in collection.left_out] == [f"{path}: {path} cannot be read: Permission denied"]


def test_what_cannot_be_searched_is_said(tmp_path, monkeypatch):
    td3(tmp_path)
    (tmp_path / "locked").mkdir()
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("/locked"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    collection = collect(tmp_path)
    assert [cell.seeds for cell in collection.cells] == [(0,)]
    assert f"{tmp_path / 'locked'} cannot be searched: Permission denied" in collection.notes
    survey(tmp_path, notes := [])
    assert notes == [f"{tmp_path / 'locked'} cannot be searched: Permission denied"]


def test_a_pretraining_that_cannot_be_read_is_said_and_its_run_stays(tmp_path):
    td3(tmp_path)
    pretraining = write_pretraining(tmp_path, DATASET, 50.0)
    (pretraining / "eval.jsonl").unlink()
    (pretraining / "eval.jsonl").mkdir()
    collection = collect(tmp_path)
    (cell,) = collection.cells
    assert cell.first.pretraining is None
    assert f"{pretraining / 'eval.jsonl'} cannot be read: Is a directory" in collection.notes


def test_an_empty_directory_holds_nothing(tmp_path):
    collection = collect(tmp_path)
    assert (collection.cells, collection.left_out, collection.notes) == ((), (), ())


def test_from_scratch_has_no_offline_score(tmp_path):
    td3(tmp_path, scratch=True, replay="empty")
    (cell,) = collect(tmp_path).cells
    assert (cell.dataset, cell.first.offline_score, cell.first.from_scratch) == (
        "hopper from scratch",
        None,
        True,
    )


def test_cells_come_in_the_papers_order(tmp_path):
    write_grid(tmp_path, (DATASET,), seeds=(0,), ratios=(0.25,))
    cells = [(cell.label, cell.replay) for cell in collect(tmp_path).cells if cell.dataset == DATASET]
    assert cells[:5] == [
        ("TD3", "offline"), ("TD3-C", "offline"), ("TD3-BC", "offline"), ("TD3", "25 % offline"),
        ("TD3-BC", "25 % offline"),
    ]  # fmt: skip
    assert cells[-1] == ("frozen policy", "empty")


def test_cells_are_made_from_any_runs(tmp_path):
    td3(tmp_path)
    runs = collect(tmp_path).finetunings
    assert into_cells(runs)[0].runs == runs


def test_configs_that_are_read_back_are_those_written(tmp_path):
    path = td3(tmp_path)
    assert collect(tmp_path).finetunings[0].config == yaml.safe_load((path / "config.yaml").read_text())


def test_files_of_one_name_and_other_rows_are_not_averaged(tmp_path):
    for i, rows in enumerate(("0" * 63 + "1", "f" * 64)):
        path = write_run(tmp_path / str(i), "file", "td3", steady(50.0, 60.0), source="file")
        identity = path / "identity.json"
        science = {"dataset": {"sha256": rows}}
        identity.write_text(json.dumps(json.loads(identity.read_text()) | {"science": science}))
    collection = collect(tmp_path)
    assert [cell.variant for cell in collection.cells] == [
        "dataset.sha256=00000000",
        "dataset.sha256=ffffffff",
    ]
    assert collection.left_out == ()


def test_settings_are_those_that_identity_json_tells(tmp_path):
    path = write_run(tmp_path, "hopper-medium-v2", "td3", steady(50.0, 60.0))
    identity = path / "identity.json"
    told = {"settings": {"batch_size": 7}, "pretraining": "a"}
    identity.write_text(json.dumps(json.loads(identity.read_text()) | told))
    (run,) = collect(tmp_path).finetunings
    assert (run.settings, run.pretraining_identity) == ({"batch_size": 7}, "a")


@pytest.mark.parametrize(
    "told", [{"settings": 3}, {"settings": {}}, {"science": 3}, {"science": {"dataset": 3}}]
)
def test_a_damaged_identity_leaves_its_run_out(tmp_path, told):
    path = write_run(tmp_path, "hopper-medium-v2", "td3", steady(50.0, 60.0))
    (path / "identity.json").write_text(json.dumps(told))
    (left_out,) = collect(tmp_path).left_out
    assert str(path) in str(left_out)


def test_runs_are_compared_after_so_many_env_steps_as_all_of_them_have_taken(tmp_path):
    short, long = np.arange(0, 20_001, 500), np.arange(0, 40_001, 500)
    td3(tmp_path, seed=0, steps=long, state="INTERRUPTED", overrides={"finetune.env_steps": 200_000})
    td3(tmp_path, seed=1, steps=long, overrides={"finetune.env_steps": 200_000})
    td3(tmp_path, seed=2, steps=short)
    td3(tmp_path, seed=3, steps=np.arange(0, 10_001, 500), state="RUNNING")
    write_run(tmp_path, DATASET, "td3_bc", steady(50.0, 60.0), steps=short, state="INTERRUPTED")
    assert collect(tmp_path, env_steps=None).cells[0].seeds == (2,)
    collection = collect(tmp_path, env_steps=20_000)
    first, second = collection.cells
    assert (first.seeds, second.seeds) == ((0, 1, 2), (0,))
    for run in collection.finetunings:
        assert run.budget == run.env_steps[-1] == 20_000
        assert run.offline_score == run.scores[0] == 50.0
        assert run.online_score == run.scores[-1]
        assert run.train["step"].max() - run.switch == 20_000
        assert run.episodes["env_step"].max() == 20_000
    assert [run.cut_at for run in first.runs] == [20_000] * 3
    (left,) = collection.left_out
    assert str(left).endswith("it was not evaluated at env step 20000, but last at 10000 of 10000")
    (note,) = [note for note in collection.notes if "longer" in note]
    assert note == "the first 20000 env steps of longer runs (2 of 200000), of which 2 had not ended"


def test_where_a_run_was_not_evaluated_it_is_not_cut(tmp_path):
    td3(tmp_path)
    collection = collect(tmp_path, env_steps=20_250)
    assert collection.cells == ()
    assert "not evaluated at env step 20250, but last at 20000" in str(collection.left_out[0])


def test_a_cut_run_keeps_the_offline_score_that_no_evaluation_of_it_has(tmp_path):
    path = td3(tmp_path, steps=np.arange(500, 20_001, 500))
    result = json.loads((path / "result.json").read_text())
    (path / "result.json").write_text(json.dumps(result | {"offline_score": 47.0}))
    ((run,),) = (cell.runs for cell in collect(tmp_path, env_steps=10_000).cells)
    assert run.offline_score == 47.0
    (path / "result.json").unlink()
    (left,) = collect(tmp_path, env_steps=10_000).left_out
    assert "no offline score" in left.reason
