from __future__ import annotations

import json
import os
import runpy
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest

import o2o.runs
from o2o.config.build import container
from o2o.errors import ConfigError
from o2o.runs.directory.layout import IDENTITY, RESULT
from o2o.runs.identity import identity, run_directory
from o2o.sweep.__main__ import main as follow
from o2o.sweep.planning import trial

ROOT = Path(__file__).resolve().parent.parent
DATASET = "dataset=hopper-medium-v2"


@pytest.fixture
def launch(tmp_path, monkeypatch, capsys):
    """Runs the command line in this process with a stand-in for training; gives code, output and errors."""
    monkeypatch.setenv("O2O_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("O2O_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # launch.py sets it; so it is restored
    monkeypatch.setenv("SUBMITIT_LOG_LEVEL", "NOCONFIG")  # or submitit would close what pytest captures with
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["launch.py", *arguments])
        call.ran, call.jobs = [], []
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / "launch.py"), run_name="__main__")
        return end.value.code, *capsys.readouterr()

    def run_members(configs):
        call.jobs.append([config.seed for config in configs])
        for config in configs:
            run(config)

    def run(config):
        call.ran.append(config)
        if config.seed in call.raises:
            raise call.raises[config.seed]
        directory = run_directory(config)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / RESULT).write_text("{}")
        (directory / IDENTITY).write_text(json.dumps({"identity": identity(config)}))

    call.raises = {}
    monkeypatch.setattr(trial, "seconds_a_step", lambda config, phase, members: 0.01)
    stand_in = types.ModuleType("o2o.runs.job")
    monkeypatch.setattr(stand_in, "run_members", run_members, raising=False)
    monkeypatch.setitem(sys.modules, "o2o.runs.job", stand_in)
    monkeypatch.setattr(o2o.runs, "job", stand_in, raising=False)
    return call


def test_one_run_is_a_plan_too(launch, tmp_path):
    code, output, _ = launch(DATASET)
    assert code == 0
    assert output.startswith("1 run\n")
    assert len(launch.ran) == 1
    assert launch.ran[0].algorithm.target_step == 0.005


@pytest.mark.parametrize("multirun", [[], ["-m"]])
def test_a_sweep_runs_every_cell_and_a_second_time_nothing(launch, multirun):
    command = [*multirun, DATASET, "algorithm=td3,td3_c", "seed=range(2)"]
    assert launch(*command)[0] == 0
    assert len(launch.ran) == 4
    code, output, _ = launch(*command)
    assert (code, launch.ran) == (0, [])
    assert "done 4" in output


def test_a_dry_run_prints_the_plan_and_runs_nothing(launch, tmp_path):
    code, output, _ = launch(DATASET, "seed=range(2)", "launch.dry_run=true")
    assert (code, launch.ran) == (0, [])
    assert "2 runs" in output
    assert list(tmp_path.iterdir()) == []


def test_seeds_of_a_job_run_side_by_side(launch):
    assert launch(DATASET, "seed=range(5)", "launch.seeds_per_job=2")[0] == 0
    assert launch.jobs == [[0, 1], [2, 3], [4]]


def test_a_failed_job_names_its_runs_that_are_not_done(launch):
    launch.raises = {1: ValueError("diverged")}
    code, _, errors = launch(DATASET, "seed=range(2)", "launch.seeds_per_job=2")
    assert code == 1
    assert "1 of 2 runs failed" in errors
    assert "seed-1\n    ValueError: diverged" in errors


@pytest.mark.slow
def test_a_failed_job_of_hydras_submitit_launcher_ends_with_its_own_exit_code(launch, tmp_path):
    code, output, errors = launch(
        "dataset=file",
        f"dataset.path={tmp_path}/none.hdf5",
        "dataset.task=hopper",
        "hydra/launcher=submitit_local",
    )
    assert (code, "Traceback" in errors) == (2, False)


def test_the_runs_after_a_failed_one_go_on_and_the_exit_code_says_so(launch):
    launch.raises = {1: ValueError("diverged"), 2: ConfigError(["dataset: missing"])}
    code, _, errors = launch(DATASET, "seed=range(4)")
    assert code == 1
    assert [config.seed for config in launch.ran] == [0, 1, 2, 3]
    assert "2 of 4 runs failed" in errors
    assert "ValueError: diverged" in errors
    assert "dataset: missing" in errors
    launch.raises = {}
    assert launch(DATASET, "seed=range(4)")[0] == 0
    assert [config.seed for config in launch.ran] == [1, 2]


@pytest.mark.parametrize(("signal", "code"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)])
def test_an_interruption_ends_the_sweep_with_its_own_code(launch, signal, code):
    launch.raises = {1: signal}
    assert launch(DATASET, "seed=range(4)")[0] == code
    assert [config.seed for config in launch.ran] == [0, 1]


def test_hydra_leaves_nothing_of_its_own_behind(launch, tmp_path):
    launch(DATASET)
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    directory = run_directory(launch.ran[0]).relative_to(tmp_path).as_posix()
    assert {path for path in written if not path.startswith("runs/.sweeps/")} == {
        f"{directory}/{RESULT}",
        f"{directory}/{IDENTITY}",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


def test_a_plan_ends_with_what_to_type_next(launch):
    for _ in range(2):
        _, output, _ = launch(DATASET, "launch.name=mine")
        last = [line.strip().partition("  #")[0] for line in output.splitlines()[-2:]]
        assert last == ["python -m o2o.sweep status mine", "python -m analysis runs --out report"]
    launch.raises = {1: ValueError("no")}
    _, output, _ = launch(DATASET, "launch.name=mine", "seed=0,1")
    assert "0 of 1 run done" in output
    assert "python -m o2o.sweep why mine" in output


def test_what_takes_long_is_said_before_it_begins(launch):
    _, output, _ = launch(DATASET)
    assert "about 1.9 hours on this machine" in output


def test_a_grid_that_was_interrupted_is_remembered_whole(launch, capsys):
    launch.raises = {1: KeyboardInterrupt()}
    words = [DATASET, "pretrain.updates=0", "replay_init=empty", "seed=range(3)", "launch.name=mine"]
    assert launch(*words)[0] == 130
    assert follow(["status", "mine"]) == 0
    assert "DONE 1  PLANNED 2" in capsys.readouterr().out
    assert follow(["retry", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "here, as mine: 2 runs" in said
    assert "seeds 1-2" in said


def test_an_experiment_sets_values_and_the_command_line_wins(launch):
    words = ["experiment=demo", DATASET, "algorithm=td3,td3_bc", "finetune.env_steps=3000"]
    code, output, _ = launch(*words, "dataset.rows=null")
    assert code == 0
    assert "4 runs = 2 algorithm + 2 algorithm" in output
    first = launch.ran[0]
    assert (first.pretrain.updates, first.finetune.env_steps) == (30_000, 3000)
    assert {config.dataset.name for config in launch.ran} == {"hopper-medium-v2"}


def test_presets_of_the_users_own_lie_in_a_directory_of_their_own(launch, tmp_path):
    (tmp_path / "presets/experiment").mkdir(parents=True)
    (tmp_path / "presets/experiment/mine.yaml").write_text("# @package _global_\ndiscount: 0.9\n")
    assert launch("--config-dir=presets", DATASET, "experiment=mine")[0] == 0
    assert [config.discount for config in launch.ran] == [0.9]


def test_a_launcher_of_the_users_own_that_submits_is_planned_as_slurm_is(launch, tmp_path):
    (tmp_path / "presets/hydra/launcher").mkdir(parents=True)
    (tmp_path / "presets/hydra/launcher/mine.yaml").write_text("defaults: [slurm]\npartition: gpu\n")
    words = ["--config-dir=presets", "hydra/launcher=mine", DATASET, "seed=range(10)", "launch.dry_run=true"]
    code, output, _ = launch(*words)
    assert code == 0
    assert "in 1 job of up to 10 seeds side by side" in output


def test_runs_get_the_configuration_that_was_asked_for(launch):
    launch(DATASET, "network.hidden_sizes=[64,32],[16]", "algorithm.action_gradient_clip=null,0.5")
    asked = {(config.network.hidden_sizes, config.algorithm.action_gradient_clip) for config in launch.ran}
    assert asked == {((64, 32), None), ((64, 32), 0.5), ((16,), None), ((16,), 0.5)}
    assert container(launch.ran[0])["dataset"]["name"] == "hopper-medium-v2"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["algorithm=td3bc"], ["td3_c", "Did you mean td3_bc?"]),
        (["experiment=demoo"], ["figure1", "Did you mean demo?"]),
        (["algoritm=td3"], ["Did you mean algorithm?"]),
        (["algorithm.target_stp=1"], ["Did you mean target_step?"]),
        (["+batch_sise=3"], ["batch_sise is not a key (did you mean batch_size?)"]),
        (["discount=2", "batch_size=0"], ["discount=2 is out", "batch_size=0 is out"]),
        (["seed=abc"], ["seed=abc should be a whole number"]),
        (["seed=range(3"], ["range(3"]),
        (["experiment=demo,figure1"], ["an experiment is a grid of its own"]),
        (["dataset=file"], ["dataset.path is missing", "dataset.task is missing"]),
        (["dataset.name=a(b"], ["""dataset.name=a(b: a value with (""", """type 'dataset.name="a(b"'"""]),
        (["network.hidden_sizes=[8,8"], ["[ and ] do not pair", "network.hidden_sizes=[8,8]"]),
        (["seed=range(3"], ["seed=range(3: ( and ) do not pair", "'seed=range(10)'"]),
        (["discount=${oc.env:NOPE}"], ["discount=${oc.env:NOPE}: the environment has no NOPE", "export it"]),
        (["dataset.name=${nope}"], ["dataset.name=${nope}: there is no key nope", "${dataset.name}"]),
        (["discount=${sum:1}"], ["discount=${sum:1}: Unsupported", "oc.env:VARIABLE"]),
        (["foo.bar=1"], ["foo.bar=1: foo is not a key", "replay_init"]),
        (["algorithm.nope=1"], ["algorithm.nope=1: algorithm.nope is not a key", "policy_delay"]),
        (["foo/bar=x"], ["foo/bar=x: foo/bar is not a group", "offline_ratio"]),
        (["algoritm@pretrain=x"], ["algoritm is not a group", "Did you mean algorithm?"]),
    ],
)
def test_bad_input_is_told_in_one_screen_without_a_traceback(launch, arguments, said):
    code, output, errors = launch(DATASET, *arguments)
    assert (code, launch.ran) == (2, [])
    for words in said:
        assert words in errors
    assert "Traceback" not in output + errors
    assert len(errors.splitlines()) < 24


def test_what_is_to_be_typed_instead_of_what_hydra_does_not_take_is_taken(launch):
    words = ["dataset=minari", "dataset.task=hopper"]
    code, _, errors = launch(*words, "dataset.id=a(b")
    assert code == 2
    (typed,) = shlex.split(errors.rpartition("type ")[2])
    assert launch(*words, typed)[0] == 0
    assert launch.ran[0].dataset.id == "a(b"


@pytest.mark.parametrize(
    ("launcher", "said"),
    [
        ("slurm", "SLURM would get 2 jobs (1 pretraining, 1 finetuning), with these of hydra.launcher:"),
        ("local", "this machine would get 2 jobs (1 pretraining, 1 finetuning)\n"),
    ],
)
def test_a_dry_run_says_what_a_launcher_would_get(launch, tmp_path, launcher, said):
    code, output, _ = launch(DATASET, f"hydra/launcher={launcher}", "launch.dry_run=true")
    assert code == 0
    assert said in output
    assert ("timeout_min=240" in output) == (launcher == "slurm")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_refuses_settings_that_a_launcher_does_not_know(launch, tmp_path):
    words = ["hydra/launcher=slurm", "+hydra.launcher.nope=3", "launch.dry_run=true"]
    code, _, errors = launch(DATASET, *words)
    assert code == 2
    assert "hydra.launcher: Unavailable parameter(s): ['nope']; there are account, " in errors
    assert len(errors.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_one_bad_cell_stops_the_sweep_before_anything_runs(launch):
    code, _, errors = launch(DATASET, "discount=0.9,2", "seed=range(3)")
    assert (code, launch.ran) == (2, [])
    assert "in discount=2" in errors


@pytest.fixture(scope="module")
def process():
    def call(*arguments):
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    return call


def test_help_names_every_group_its_options_and_the_common_commands(process):
    shown = process("launch.py", "--help")
    assert shown.returncode == 0
    for group in (
        "algorithm",
        "conventions",
        "dataset",
        "experiment",
        "offline_ratio",
        "replay_init",
        "tracker",
    ):
        options = sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))
        assert f"{group}: {', '.join(options)}" in shown.stdout
    assert "algorithm@pretrain.algorithm" in shown.stdout
    assert "launch.dry_run=true" in shown.stdout


def test_help_imports_nothing_heavy(process):
    listed = process("-X", "importtime", "launch.py", "--help").stderr
    modules = {line.rpartition("|")[2].strip() for line in listed.splitlines()}
    assert "hydra" in modules
    assert modules & {"jax", "flax", "optax", "mujoco", "gymnasium", "h5py", "wandb", "o2o.types"} == set()


def test_the_command_line_runs_from_another_directory(tmp_path):
    shown = subprocess.run(
        [sys.executable, str(ROOT / "launch.py"), DATASET, "launch.dry_run=true"],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if not key.startswith("O2O_")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    assert "to run 1, after 1 pretraining" in shown.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pretrain.algorithm=td3"], "algorithm@pretrain.algorithm=td3"),
        (["seed=0,1", "discont=0.9"], "Did you mean discount?"),
        (["seed=0,1", "hydra/launcher=local", "hydra.launcher.timeout_min=9"], "timeout_min"),
        (["algorithm=null"], "a group takes the name of one of its options"),
        (["seed=range(0)"], "a sweep is empty"),
        (["seed=range(0,3,0)"], "range() arg 3 must not be zero"),
        (["seed=99999999999999999999"], "seed=99999999999999999999 is too large"),
        (["hydra.mode=RUN"], "every invocation is a plan"),
        (["paths.runs="], "paths.runs is empty"),
        (["paths.runs=/dev/null/x"], "paths.runs=/dev/null/x cannot be written"),
        (
            ["dataset=file", "dataset.path=launch.py", "dataset.task=hopper"],
            "launch.py",
        ),
        (
            [
                "pretrain.updates=0",
                "replay_init=empty",
                "dataset.task=CartPole-v1",
                "dataset.reference_min=0",
                "dataset.reference_max=1",
            ],
            "one-dimensional boxes",
        ),
    ],
)
def test_what_was_once_a_traceback_is_one_line_that_names_it(arguments, said, launch):
    code, _, errors = launch(DATASET, *arguments)
    assert code == 2
    assert said in errors
    assert "Traceback" not in errors
    assert launch.ran == []
