from __future__ import annotations

import os
import pickle

import numpy as np
import pytest

from analysis.__main__ import main
from analysis.collect import collect
from analysis.importing import Given, import_curves, read_pickle
from analysis.measures import measure

TABLE = """dataset,algorithm,seed,env_steps,score
hopper-medium-v2,TD3+BC,0,0,50.0
hopper-medium-v2,TD3+BC,0,5000,20.0
hopper-medium-v2,TD3+BC,0,10000,60.0
hopper-medium-v2,TD3+BC,1,0,52.0
hopper-medium-v2,TD3+BC,1,5000,30.0
hopper-medium-v2,TD3+BC,1,10000,61.0
"""


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return path


def curves(tmp_path, source, **given):
    import_curves(source, tmp_path / "out", Given(**given))
    return collect(tmp_path / "out").finetunings


def test_a_table_becomes_runs_with_collapse_numbers(tmp_path):
    first, second = curves(tmp_path, written(tmp_path, "curves.csv", TABLE))
    assert (first.dataset, first.algorithm, first.seed, first.source) == (
        "hopper-medium-v2",
        "TD3+BC",
        0,
        "imported",
    )
    np.testing.assert_array_equal(first.env_steps, [0, 5000, 10000])
    np.testing.assert_array_equal(second.scores, [52.0, 30.0, 61.0])
    (arm,) = measure(collect(tmp_path / "out").cells)
    # 50 falls to 20 by 5000 and is back at 8750: half of 30 points for 8750 of 10 000 steps
    assert arm.runs[0].regret == pytest.approx(15 * 8750 / 10_000)


def test_learner_steps_are_counted_from_the_switch(tmp_path):
    source = written(
        tmp_path, "run.csv", "_step,eval/score\n0,1\n400,45\n,\n500,48\n600,\n1000,20\n1500,70\n"
    )
    (run,) = curves(tmp_path, source, dataset="hopper-medium-v2", algorithm="iql", switch=500)
    np.testing.assert_array_equal(run.env_steps, [0, 500, 1000])
    np.testing.assert_array_equal(run.scores, [48.0, 20.0, 70.0])


def test_a_charts_export_is_one_run_a_column(tmp_path):
    iql = '"iql_seed_3 - eval/score","iql_seed_3 - eval/score__MIN","iql_seed_3 - eval/score__MAX"'
    header = f'"Step",{iql},"awac - eval/score"'
    source = written(
        tmp_path,
        "chart.csv",
        header + '\n0,"40","1","2","30"\n1000,"50","1","2",""\n2000,"60","1","2","35"\n',
    )
    runs = curves(tmp_path, source, dataset="hopper-medium-v2")
    assert {(run.algorithm, run.seed, tuple(run.scores)) for run in runs} == {
        ("iql", 3, (40.0, 50.0, 60.0)),
        ("awac", 1, (30.0, 35.0)),
    }


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


@pytest.mark.parametrize(
    ("name", "text", "given", "said"),
    [
        ("a.csv", TABLE.replace("env_steps", "when"), {"score_column": "nothing"}, "no column nothing"),
        ("a.csv", "env_steps,score\n0,1\n5,2\n", {"algorithm": "x"}, "give --dataset"),
        ("a.csv", "env_steps,score\n5,2\n", {"algorithm": "x", "dataset": "y"}, "give --offline-score"),
        ("a.csv", "env_steps,score\n0,1\n0,2\n5,1\n", {"algorithm": "x", "dataset": "y"}, "step 0 is there twice"),
        ("a.csv", "env_steps,score\n0,one\n", {"algorithm": "x", "dataset": "y"}, "could not convert"),
        ("a.csv", "env_steps,score\n0,1\n", {"algorithm": "x", "dataset": "y"}, "no evaluation after the switch"),
        ("a.csv", "env_steps,score\n", {"algorithm": "x", "dataset": "y"}, "holds no curve"),
        ("a.txt", "", {}, "only .csv, .pickle and .pkl"),
        ("a.pickle", "", {}, "is not read"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(tmp_path, name, text, given, said):
    with pytest.raises(ValueError, match=said):
        import_curves(written(tmp_path, name, text), tmp_path / "out", Given(**given))


def test_corls_interval_must_be_given(tmp_path):
    source = tmp_path / "scores.pickle"
    source.write_bytes(pickle.dumps({"IQL": {"d": [([1.0], [2.0], 0.0)]}}))
    with pytest.raises(ValueError, match="give --interval"):
        import_curves(source, tmp_path / "out", Given())


def test_the_command_says_what_comes_next(tmp_path, capsys):
    source = written(tmp_path, "curves.csv", TABLE)
    assert main(["import", str(source), "--out", str(tmp_path / "out")]) == 0
    assert "2 runs below" in capsys.readouterr().out
    assert main(["import", str(tmp_path / "nothing.csv")]) == 2
    assert "nothing.csv is not a file" in capsys.readouterr().err


def test_importing_again_changes_nothing(tmp_path):
    source = written(tmp_path, "curves.csv", TABLE)
    one = [len(run.scores) for run in curves(tmp_path, source)]
    assert [len(run.scores) for run in curves(tmp_path, source)] == one
