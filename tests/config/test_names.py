"""Names of folders, of SLURM's jobs and in wandb are refused at plan time; what is told to be typed can be typed."""

from __future__ import annotations

import codecs
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from torture.trial import Case, call, shortcomings

from o2o.machine.names import is_plain, pairing, project_problem, quoting, shortened, sweep_command

DATASET = "dataset=hopper-medium-v2"


@pytest.mark.parametrize("name", ["table1", "a", "mine.x", "lr_1e-3+more", "größe", "x" * 100])
def test_a_plain_name_is_taken(name):
    assert is_plain(name)


@pytest.mark.parametrize(
    "name",
    ["", "a,b", "../x", "a/b", ".hidden", "-x", "a b", "a=b", "a*", "[a]", "a\n", "~", "x" * 101, "ö" * 51],
)
def test_a_name_that_is_a_path_a_list_an_option_or_a_pattern_is_not(name):
    assert not is_plain(name)


@pytest.mark.parametrize("name", ["a/b", "a\\b", "a#b", "a?b", "a%b", "a:b", "x" * 129])
def test_what_wandb_does_not_take_as_a_project_is_refused_as_wandb_does(name):
    wandb = pytest.importorskip("wandb")
    assert "tracker.project=" in str(project_problem("tracker.project", name))
    with pytest.raises(wandb.errors.UsageError):
        wandb.Settings(project=name)


@pytest.mark.parametrize("name", ["o2o", "my project, again", "x" * 128])
def test_what_wandb_takes_as_a_project_is_taken(name):
    wandb = pytest.importorskip("wandb")
    assert project_problem("tracker.project", name) is None
    wandb.Settings(project=name)


def test_long_names_are_shortened_and_stay_apart():
    assert shortened("a" * 64, 64) == "a" * 64
    one, other = (shortened("a" * 70 + end, 64) for end in "bc")
    assert len(one) == len(other) == 64
    assert one != other


BAD_NAMES = [
    ('launch.name="a,b"', "launch.name=a,b names a folder"),
    ("launch.name=../../x", "launch.name=../../x names a folder"),
    ("launch.name=a/b", "launch.name=a/b names a folder"),
    ("launch.name=" + "x" * 300, "names a folder"),
    ("launch.name=a,b", "launch.name holds for all runs of a plan"),
    ("paths.runs=a,b", "paths.runs holds for all runs of a plan"),
    ("hydra.sweeper.grids=[{launch.name:a},{launch.name:b}]", "launch.name cannot be swept"),
    ("dataset.name=" + "x" * 300, "names a folder"),
    ("tracker.project=a/b", "tracker.project=a/b holds '/'"),
    ("tracker.project=a:b", "tracker.project=a:b holds ':'"),
    ("tracker.project=" + "x" * 129, "has 129 characters"),
    ("tracker.project=a=b", """type 'tracker.project="a=b"'"""),
    ("paths.runs=~/x", """type 'paths.runs="~/x"'"""),
]


@pytest.mark.parametrize(("word", "said"), BAD_NAMES)
def test_a_bad_name_is_refused_at_plan_time(word, said, tmp_path):
    assert shortcomings(Case(word, (DATASET, word), said), tmp_path) == []


@pytest.mark.parametrize("more", ["launch.dry_run=true", "hydra/launcher=local"])
def test_a_dry_run_and_a_launcher_refuse_it_too(more, tmp_path):
    case = Case("name", (DATASET, 'launch.name="a,b"', more), "launch.name=a,b names a folder")
    assert shortcomings(case, tmp_path) == []


def preset(directory: Path, name: str, content: bytes) -> str:
    path = directory / "presets" / "experiment" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return f"--config-dir={directory}/presets"


GOOD = b"# @package _global_\nseed: 41\n"


@pytest.mark.parametrize("name", ["a,b", "a/b c"])
def test_the_name_of_a_preset_that_cannot_name_a_sweep_is_refused(name, tmp_path):
    words = (preset(tmp_path, name, GOOD), DATASET, f'experiment="{name}"', "hydra/launcher=local")
    assert shortcomings(Case("bad", words, f"experiment={name} names the sweep"), tmp_path) == []
    outcome = call("launch", [*words, "launch.name=mine", "launch.dry_run=true"], tmp_path, {})
    assert (outcome.code, outcome.errors) == (0, "")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (codecs.BOM_UTF8 + GOOD, "mine.yaml begins with a byte-order mark"),
        (GOOD.decode().encode("utf-16"), "mine.yaml is not in UTF-8"),
        (GOOD + b"# \xe9\n", "mine.yaml is not in UTF-8"),
        (b"seed: 41\n", "must be: # @package _global_"),
    ],
)
def test_a_preset_whose_first_line_is_not_seen_is_refused_in_a_sentence(content, said, tmp_path):
    words = (preset(tmp_path, "mine", content), DATASET, "experiment=mine")
    assert shortcomings(Case("preset", words, said), tmp_path) == []
    outcome = call("launch", [*words], tmp_path, {})
    assert len(outcome.errors.splitlines()) == 1


@pytest.mark.parametrize(("task", "said"), [("Pendulum", "say Pendulum-v1"), ("Hopper", "hopper, D4RL's")])
def test_a_task_without_a_version_is_refused_with_it(task, said, tmp_path):
    words = [f"dataset.task={task}", "dataset.reference_min=0", "dataset.reference_max=1"]
    words += ["pretrain.updates=0", "replay_init=empty"]  # without data, whose name would be wrong first
    assert shortcomings(Case(task, (DATASET, *words), said), tmp_path) == []


def test_the_datasets_command_says_how_to_quote_too(tmp_path):
    outcome = call("o2o.datasets", ["info", "hopper-medium-v2", "paths.data=~/x"], tmp_path, {})
    assert outcome.code == 2
    assert """type 'paths.data="~/x"'""" in outcome.errors


@pytest.mark.parametrize(
    "word",
    [
        "a.b=c=d",
        "paths.runs=~/x",
        "+a=x&y",
        "tracker.project=a!b",
        "a=ü",
        "launch.name=a~b,c",
        "a=b;c",
        "a=x#y",
    ],
)
def test_what_is_told_to_be_typed_is_taken(word):
    (typed,) = shlex.split(str(quoting(word)).partition("; type ")[2])
    override = OverridesParser.create().parse_override(typed)
    value = word.partition("=")[2]
    told = (
        [getattr(item, "text", item) for item in override.value().list]
        if "," in value
        else [str(override.value())]
    )
    assert ",".join(told) == value


@pytest.mark.parametrize(
    "word", ["seed=range(3", "seed=[1", "seed", "=3", 'a="b~', "a=${", "a=b\\~", "~a=b~", "a=b"]
)
def test_what_lacks_more_than_quotes_is_not_told_to_be_quoted(word):
    assert quoting(word) is None


def test_a_command_finds_runs_that_lie_elsewhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("O2O_RUNS", raising=False)
    assert sweep_command(tmp_path / "runs", "status", "x") == "python -m o2o.sweep status x"
    assert sweep_command(Path("runs"), "status", "x") == "python -m o2o.sweep status x"
    elsewhere = tmp_path / "my runs"
    told = shlex.split(sweep_command(elsewhere, "why", "it's"))
    assert told == ["python", "-m", "o2o.sweep", "why", "it's", "--runs", str(elsewhere)]
    monkeypatch.setenv("O2O_RUNS", str(elsewhere))
    assert sweep_command(elsewhere, "why") == "python -m o2o.sweep why"


@pytest.mark.parametrize(
    ("word", "said"), [("seed=range(3", "( and )"), ("a=[1,2", "[ and ]"), ("a={b:1", "{ and }")]
)
def test_brackets_that_do_not_pair_are_told(word, said):
    assert f"{word}: {said} do not pair" in str(pairing(word))
    assert pairing(f"{word}{said[-1]}") is None


def test_a_bracket_in_a_name_needs_quotes_and_no_other_bracket():
    assert pairing("dataset.path=a(b") is None
    assert """'dataset.path="a(b"'""" in str(quoting("dataset.path=a(b"))
