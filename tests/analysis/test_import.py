"""Curves of other programs: nothing is guessed, nothing is merged, and what was understood is said first."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from analysis.__main__ import main
from analysis.data.collect import collect
from analysis.data.measures import measure
from analysis.importing.conversion import read_curves, write_curves
from analysis.importing.corl import read_pickle
from analysis.importing.foreign import Given

TABLE = """dataset,algorithm,seed,env_steps,score
hopper-medium-v2,TD3+BC,0,0,50.0
hopper-medium-v2,TD3+BC,0,5000,20.0
hopper-medium-v2,TD3+BC,0,10000,60.0
hopper-medium-v2,TD3+BC,1,0,52.0
hopper-medium-v2,TD3+BC,1,5000,30.0
hopper-medium-v2,TD3+BC,1,10000,61.0
"""
HISTORY = "_step,eval/score\n0,1{seed}\n5000,2{seed}\n"
WHOSE = {"dataset": "hopper", "algorithm": "TD3"}


def written(tmp_path, name, text):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def chart(*columns):
    """A chart's export of two evaluations; column i begins at i."""
    names = ",".join(f'"{column}"' for column in columns)
    return "\n".join(
        [
            f'"Step",{names}',
            *(
                ",".join([step, *(f"{add}{i}" for i in range(len(columns)))])
                for step, add in (("0", ""), ("5000", "1"))
            ),
            "",
        ]
    )


def curves(tmp_path, *sources, **given):
    said = Given(**given)
    write_curves(read_curves(sources, said)[0], tmp_path / "out", said)
    return collect(tmp_path / "out").finetunings


def refused(tmp_path, *sources, **given):
    """What is said of them; nothing is written."""
    with pytest.raises(ValueError, match=r"\S") as error:
        curves(tmp_path, *sources, **given)
    assert not (tmp_path / "out").exists()
    return str(error.value)


def who(runs):
    return {(run.algorithm, run.dataset, run.replay_init, run.seed) for run in runs}


def test_a_table_becomes_runs_with_collapse_numbers(tmp_path):
    first, second = curves(tmp_path, written(tmp_path, "curves.csv", TABLE))
    assert who([first]) == {("TD3+BC", "hopper-medium-v2", "offline", 0)}
    assert first.source == "imported"
    np.testing.assert_array_equal(first.env_steps, [0, 5000, 10000])
    np.testing.assert_array_equal(second.scores, [52.0, 30.0, 61.0])
    (arm,) = measure(collect(tmp_path / "out").cells)
    # 50 falls to 20 by 5000 and is back at 8750: half of 30 points for 8750 of 10 000 steps
    assert arm.runs[0].regret == pytest.approx(15 * 8750 / 10_000)


def test_learner_steps_are_counted_from_the_switch(tmp_path):
    source = written(
        tmp_path, "run.csv", "_step,eval/score\n0,1\n400,45\n,\n500,48\n600,\n1000,20\n1500,70\n"
    )
    (run,) = curves(tmp_path, source, dataset="hopper-medium-v2", algorithm="iql", seed=0, switch=500)
    np.testing.assert_array_equal(run.env_steps, [0, 500, 1000])
    np.testing.assert_array_equal(run.scores, [48.0, 20.0, 70.0])


def test_no_name_of_a_chart_is_guessed_to_be_a_seed(tmp_path):
    source = written(tmp_path, "td3-td7.csv", chart("TD3 - eval/score", "TD7 - eval/score"))
    said = refused(tmp_path, source)
    assert "Nothing is guessed" in said
    assert "--name '{algorithm}' --dataset … --seed …" in said
    runs = curves(tmp_path, source, name="{algorithm}", dataset="hopper", seed=0)
    assert who(runs) == {("TD3", "hopper", "offline", 0), ("TD7", "hopper", "offline", 0)}


def test_a_template_reads_names_with_dashes_in_them(tmp_path):
    runs = ("TD3 - hopper - seed 0", "TD3 - hopper - seed 1", "TD3 - walker2d - seed 0")
    columns = [f"{run} - eval/score{end}" for run in runs for end in ("", "__MIN", "__MAX")]
    source = written(tmp_path, "dashes.csv", chart(*columns))
    template = "{algorithm} - {dataset} - seed {seed}"
    assert f"--name '{template}'" in refused(tmp_path, source)
    found = curves(tmp_path, source, name=template)
    assert {(run.dataset, run.seed, tuple(run.scores)) for run in found} == {
        ("hopper", 0, (0.0, 10.0)),
        ("hopper", 1, (3.0, 13.0)),
        ("walker2d", 0, (6.0, 16.0)),
    }


def test_a_template_that_can_be_read_in_two_ways_is_refused_until_the_names_are_said(tmp_path):
    runs = ("TD3-BC-hopper-medium-v2-0", "TD3-hopper-medium-v2-0")
    source = written(tmp_path, "chart.csv", chart(*(f"{run} - eval/score" for run in runs)))
    said = refused(tmp_path, source, name="{algorithm}-{dataset}-{seed}")
    assert "can be read in two ways" in said
    assert "algorithm 'TD3', dataset 'BC-hopper-medium-v2'" in said
    found = curves(tmp_path, source, name="{algorithm}-{dataset=hopper-medium-v2,ant-medium-v2}-{seed}")
    assert who(found) == {(name, "hopper-medium-v2", "offline", 0) for name in ("TD3", "TD3-BC")}


def test_what_a_template_does_not_want_and_what_does_not_fit_it(tmp_path):
    source = written(tmp_path, "chart.csv", chart("TD3 3 a1b2 - s", "TD3 4 c3 - s", "other - s"))
    said = refused(tmp_path, source, name="{algorithm} {seed} {}", dataset="hopper")
    assert "1 of 3 runs do not fit" in said
    assert "'other'" in said
    (run,) = curves(tmp_path, source, score_column="other - s", **WHOSE, seed=7)  # one column at a time
    assert (run.seed, tuple(run.scores)) == (7, (2.0, 12.0))
    with pytest.raises(
        ValueError, match="is there already"
    ):  # and the next one, with the seed left as it was
        curves(tmp_path, source, score_column="TD3 4 c3 - s", **WHOSE, seed=7)
    both = curves(
        tmp_path, source, score_column="TD3 4 c3 - s", dataset="hopper", name="{algorithm} {seed} {}"
    )
    assert who(both) == {("TD3", "hopper", "offline", 4), ("TD3", "hopper", "offline", 7)}


def test_a_chart_of_several_metrics_or_of_one_name_twice_is_refused(tmp_path):
    source = written(tmp_path, "chart.csv", chart("a - eval/score", "a - _step", "a - loss"))
    said = refused(tmp_path, source, name="{algorithm}", dataset="hopper", seed=0)
    assert "say --score eval/score or --score loss" in said
    source = written(tmp_path, "twice.csv", chart("a - s", "a - s"))
    assert "columns 2 and 3 are both called 'a - s'" in refused(
        tmp_path, source, name="{algorithm}", dataset="hopper", seed=0
    )


def test_a_column_that_is_a_mean_of_several_runs_is_said_to_be_one(tmp_path):
    columns = ("a - s", "a - s__MIN", "a - s__MAX")
    given = Given(name="{algorithm}", dataset="hopper", seed=0)
    assert "'a' is a mean" in read_curves([written(tmp_path, "chart.csv", chart(*columns))], given)[1]
    same = '"Step","a - s","a - s__MIN","a - s__MAX"\n0,1,1,1\n5,2,2,2\n'
    assert "is a mean" not in read_curves([written(tmp_path, "one.csv", same)], given)[1]


@pytest.mark.parametrize(
    ("names", "template"),
    [
        (("run0/history.csv", "run1/history.csv", "run2/history.csv"), "run{seed}/history.csv"),
        (("history-0.csv", "history-1.csv", "history-2.csv"), "history-{seed}.csv"),
    ],
)
def test_files_of_one_run_each_are_told_apart_by_a_template_of_their_names(tmp_path, names, template):
    sources = [written(tmp_path, name, HISTORY.format(seed=seed)) for seed, name in enumerate(names)]
    assert "does not say the seed: give --seed" in refused(tmp_path, *sources, **WHOSE)
    assert f"--name '{template}'" in refused(tmp_path, *sources, **WHOSE, seed=0)
    runs = curves(tmp_path, *sources, **WHOSE, name=template)
    assert [(run.seed, tuple(run.scores)) for run in runs] == [(i, (10.0 + i, 20.0 + i)) for i in range(3)]
    assert len(collect(tmp_path / "out").cells) == 1
    assert curves(tmp_path, *sources, **WHOSE, name=template.removesuffix(".csv"))[0].seed == 0


def test_files_imported_one_after_the_other_do_not_overwrite_each_other(tmp_path):
    sources = [written(tmp_path, f"run{i}/history.csv", HISTORY.format(seed=i)) for i in range(2)]
    curves(tmp_path, sources[0], **WHOSE, seed=0)
    with pytest.raises(ValueError, match=r"is there already, from .*run0/history\.csv.*another --seed"):
        curves(tmp_path, sources[1], **WHOSE, seed=0)
    assert len(curves(tmp_path, sources[1], **WHOSE, seed=1)) == 2


def test_where_one_curve_has_no_place_none_is_written(tmp_path):
    first = written(tmp_path, "a.csv", HISTORY.format(seed=1))
    curves(tmp_path, first, **WHOSE, seed=1)
    several = written(tmp_path, "b.csv", "step,score,seed\n0,1,0\n5,2,0\n0,1,1\n5,2,1\n")
    with pytest.raises(ValueError, match="is there already"):
        curves(tmp_path, several, **WHOSE)
    assert [run.seed for run in collect(tmp_path / "out").finetunings] == [1]


def test_a_directory_that_no_import_made_is_left_alone(tmp_path):
    mine = tmp_path / "out" / "hopper" / "TD3" / "offline" / "seed-0"
    mine.mkdir(parents=True)
    with pytest.raises(ValueError, match="is there already"):
        curves(tmp_path, written(tmp_path, "a.csv", HISTORY.format(seed=1)), **WHOSE, seed=0)
    assert list(mine.iterdir()) == []


def test_names_that_would_share_a_folder_are_refused(tmp_path):
    text = "step,score,algorithm\n0,1,TD3 (a)\n5,2,TD3 (a)\n0,3,TD3/a/\n5,4,TD3/a/\n"
    said = refused(tmp_path, written(tmp_path, "a.csv", text), dataset="hopper", seed=0)
    assert "would share a folder" in said
    assert "TD3 (a) on hopper" in said
    assert "TD3/a/ on hopper" in said


def test_importing_again_replaces_what_is_there(tmp_path):
    source = written(tmp_path, "curves.csv", TABLE)
    assert [len(run.scores) for run in curves(tmp_path, source)] == [3, 3]
    source.write_text(TABLE + "hopper-medium-v2,TD3+BC,1,15000,70.0\n")
    assert [len(run.scores) for run in curves(tmp_path, source)] == [3, 4]


@pytest.mark.parametrize("protocol", [2, 5])
def test_corls_pickle_is_read(tmp_path, protocol):
    offline, online = [np.float64(10), np.float64(55)], [np.float64(30), np.float64(70)]
    content = {
        "IQL": {"hopper-medium-v2": [(offline, online, 0.5), (offline, np.array(online), 0.5)], "none": []}
    }
    source = tmp_path / "finetune_scores.pickle"
    source.write_bytes(pickle.dumps(content, protocol))
    first, second = curves(tmp_path, source, interval=5000)
    np.testing.assert_array_equal(first.env_steps, [0, 5000, 10000])
    np.testing.assert_array_equal(first.scores, [55.0, 30.0, 70.0])
    np.testing.assert_array_equal(second.scores, first.scores)


@pytest.mark.parametrize(
    ("content", "given", "said"),
    [
        ({"IQL": {"d": [([1.0], [2.0])]}}, {}, "give --interval"),
        ({"IQL": {"d": [([1.0], [2.0])]}}, {"interval": 5, "seed": 3}, "leave out --seed"),
        ({"IQL": {"d": [([], [2.0])]}}, {"interval": 5}, "IQL → d → 0: no offline score"),
        ({"IQL": {"d": [([1.0], [2.0, float("nan")])]}}, {"interval": 5}, "IQL → d → 0, evaluation 2: 'nan'"),
        ({"IQL": {"d": [([1.0], [[2.0]])]}}, {"interval": 5}, "is not algorithm → dataset"),
        ({"IQL": {}}, {"interval": 5}, "holds no curve"),
        ({"IQL": {"d": [([1.0], [2.0])]}}, {"interval": 0}, "--interval 0"),
    ],
)
def test_what_is_wrong_with_a_pickle_is_named(tmp_path, content, given, said):
    source = tmp_path / "scores.pickle"
    source.write_bytes(pickle.dumps(content))
    assert said in refused(tmp_path, source, **given)


class Hostile:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_that_calls_anything_is_refused_before_it_does(tmp_path):
    source = tmp_path / "evil.pickle"
    source.write_bytes(pickle.dumps({"IQL": Hostile(tmp_path / "made")}))
    with pytest.raises(ValueError, match=r"evil\.pickle is not read: it names \w+\.mkdir"):
        read_pickle(source)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "program", [b"cbuiltins\neval\n(S'1'\ntR.", b"cnumpy\nload\n.", b"cnumpy.core.multiarray\nfrombuffer\n."]
)
def test_no_other_name_is_known(tmp_path, program):
    source = tmp_path / "evil.pkl"
    source.write_bytes(program)
    with pytest.raises(ValueError, match="only arrays and plain values"):
        read_pickle(source)


SEEDED = {**WHOSE, "seed": 0}


@pytest.mark.parametrize(
    ("text", "given", "said"),
    [
        (TABLE.replace("env_steps", "when"), {}, "no column env_steps"),
        (TABLE, {"score_column": "nothing"}, "no column nothing"),
        ("env_steps,score\n0,1\n5,2\n", {"algorithm": "x", "seed": 0}, "give --dataset"),
        ("env_steps,score\n0,1\n5,2\n", WHOSE, "give --seed"),
        ("env_steps,score\n5,2\n", SEEDED, "give --offline-score"),
        ("env_steps,score\n0,1\n", SEEDED, "no evaluation after the switch"),
        ("env_steps,score\n", SEEDED, "holds no curve"),
        ("", SEEDED, "is empty"),
        # what two columns or places say
        ("step,_step,score\n0,0,1\n", SEEDED, "say --step step or --step _step"),
        ("step,score,normalized_score\n0,1,1\n", SEEDED, "say --score score or --score normalized_score"),
        (TABLE, {"dataset": "x"}, "a column of the file and an option both say the dataset"),
        (TABLE, {"name": "{seed}"}, "does not fit --name"),
        ("score,step,score\n0,1,1\n", SEEDED, "columns 1 and 3 are both called 'score'"),
        # cells, by file, row and column
        ("env_steps,score\n0,1\n5,one\n", SEEDED, "a.csv, row 3, column score: 'one' is not a number"),
        ("env_steps,score\n0,1\n\n5,NaN\n", SEEDED, "a.csv, row 4, column score: 'NaN' is not a finite number"),
        ("env_steps,score\n0,1\nx,2\n", SEEDED, "a.csv, row 3, column env_steps: 'x' is not a number"),
        ("env_steps,score\n0,1\n,2\n", SEEDED, "a.csv, row 3, column env_steps: '' is not a number"),
        ("env_steps,score\n0,1\n0.5,2\n", SEEDED, "a.csv, row 3, column env_steps: '0.5' is not a whole number"),
        ("env_steps,score\n0,1\n0,2\n5,1\n", SEEDED, "row 3: step 0 is there twice in one curve"),
        ("env_steps,score,seed\n0,1,0.2\n5,2,0.7\n", WHOSE, "a.csv, row 2, column seed: the seed '0.2'"),
        ("env_steps,score,seed\n0,1,\n5,2,\n", WHOSE, "a.csv, row 2, column seed: the seed ''"),
        ("env_steps,score,replay\n0,1,Offline\n", SEEDED, "a.csv, row 2, column replay: 'Offline' is not one of"),
        ("env_steps,score,algorithm\n0,1,\n", {"dataset": "x", "seed": 0}, "row 2, column algorithm: '' is no name"),
        ("env_steps,score\n0,1\n5\n", SEEDED, "a.csv, row 3: 1 cells, but 2 columns"),
        ('env_steps,score\n0,1\n"5,2\n', SEEDED, "a.csv, row 3: "),
        ("env_steps;score\n0;1,5\n", SEEDED, "a.csv, row 1: no commas"),
        # options
        ("env_steps,score\n0,1\n5,2\n", {**WHOSE, "seed": -1}, "--seed: the seed '-1'"),
        ("env_steps,score\n0,1\n5,2\n", {**SEEDED, "replay": "Empty"}, "--replay: 'Empty' is not one of"),
        ("env_steps,score\n0,1\n5,2\n", {**SEEDED, "algorithm": "pretrain"}, "--algorithm: "),
        ("env_steps,score\n0,1\n5,2\n", {**SEEDED, "interval": 5}, "--interval is for pickles"),
        ("env_steps,score\n0,1\n5,2\n", {**SEEDED, "switch": -1}, "--switch -1"),
        ("env_steps,score\n0,1\n5,2\n", {**SEEDED, "offline_score": float("nan")}, "--offline-score nan"),
        ("env_steps,score\n0,1\n5,2\n", {**SEEDED, "name": "{sede}"}, "{sede} is none of {dataset}"),
        ("env_steps,score\n0,1\n5,2\n", {**SEEDED, "name": "a{"}, "is no template"),
        ("env_steps,score\n0,1\n5,2\n", {**SEEDED, "name": "{seed}{seed}"}, "names a field twice"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path, text, given, said):
    told = refused(tmp_path, written(tmp_path, "a.csv", text), **given)
    assert said in told


def test_a_file_in_another_encoding_is_refused_with_its_row(tmp_path):
    source = tmp_path / "a.csv"
    source.write_bytes(b"step,score\n0,1\n5,\xe9\n")
    assert "a.csv, row 3: it is not in UTF-8" in refused(tmp_path, source, **SEEDED)


def test_a_history_with_a_table_in_a_cell_is_read(tmp_path):
    text = 'step,score,blob\n0,1,"' + "x" * 200_000 + '"\n5000,2,\n'
    assert len(curves(tmp_path, written(tmp_path, "field.csv", text), **SEEDED)) == 1


@pytest.mark.parametrize(("name", "said"), [("a.txt", "only .csv"), ("a.pickle", "is not read")])
def test_what_is_no_table_and_no_pickle_is_refused(tmp_path, name, said):
    assert said in refused(tmp_path, written(tmp_path, name, ""), interval=5)


def test_seeds_that_pandas_wrote_with_a_point_are_whole(tmp_path):
    text = "step,score,seed\n0,1,3.0\n5,2,3.0\n"
    assert curves(tmp_path, written(tmp_path, "a.csv", text), **WHOSE)[0].seed == 3


def test_what_was_understood_is_said_before_anything_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "td3-td7.csv", chart("TD3 - s", "TD7 - s"))
    words = [
        "td3-td7.csv",
        "--name",
        "{algorithm}",
        "--dataset",
        "hopper",
        "--seed",
        "0",
        "--out",
        "my curves",
    ]
    assert main(["import", *words, "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert (
        "TD3 on hopper, seed 0, replay offline: 1 evaluation up to env step 5000, offline score 0 (step 0), last 10"
        in output
    )
    assert "assumed, for nothing says otherwise: the online phase begins at step 0 (--switch)" in output
    assert "nothing was written" in output
    assert not Path("my curves").exists()
    assert main(["import", *words]) == 0
    assert "now: python -m analysis 'my curves'" in capsys.readouterr().out


def test_what_is_said_is_not_assumed(tmp_path):
    source = written(tmp_path, "a.csv", "step,score,replay\n0,1,empty\n5,2,empty\n")
    found, understood = read_curves([source], Given(**SEEDED, switch=0))
    assert "assumed" not in understood
    assert write_curves(found, tmp_path / "out", Given())[0].parent.name == "empty"


def test_bad_input_is_one_message_and_the_exit_code_2(tmp_path, capsys):
    assert main(["import", str(tmp_path / "nothing.csv")]) == 2
    assert "nothing.csv is not a file" in capsys.readouterr().err
    taken = written(tmp_path, "file", "")
    source = written(tmp_path, "a.csv", TABLE)
    assert main(["import", str(source), "--out", str(taken)]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_folder_that_is_called_otherwise_than_what_it_holds_is_said(tmp_path, capsys):
    source = written(tmp_path, "history.csv", HISTORY.format(seed=0))
    words = ["import", str(source), "--score", "eval/score", "--seed", "0", "--dry-run"]
    assert main([*words, "--dataset", "../../x", "--algorithm", "TD3"]) == 0
    said = capsys.readouterr().out
    assert "the folder of dataset ../../x is called -..-x" in said
    assert "algorithm TD3 is called" not in said


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--seed", "0.5", "argument --seed: 0.5 is not a whole number; write one such as 3"),
        ("--interval", "1e3", "argument --interval: 1e3 is not a whole number"),
        ("--switch", "x", "argument --switch: x is not a whole number"),
        ("--offline-score", "x", "argument --offline-score: x is not a number; write one such as 2.5"),
    ],
)
def test_an_option_that_is_no_number_says_what_to_write(capsys, option, value, said):
    with pytest.raises(SystemExit) as ended:
        main(["import", "history.csv", option, value])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
