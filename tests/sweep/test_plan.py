from __future__ import annotations

import itertools
import json
import re
from functools import partial
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from hydra_plugins.o2o.composition import Composer, is_confined
from hydra_plugins.o2o.grammar import expand
from o2o.config.build import build, plain
from o2o.datasets import loading
from o2o.errors import ConfigError
from o2o.runs.directory import layout
from o2o.runs.identity import describe
from o2o.runs.lock import Leases
from o2o.runs.sources import code_hash
from o2o.sweep.planning import estimate, grid, plan, trial

CONF = Path(__file__).resolve().parents[2] / "conf"
BASE = ["dataset=hopper-medium-v2"]


def build_of(*words):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return build(plain(compose("config", list(words))))


def options(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Plans a command line and grids; `planned.composed` counts the compositions."""
    monkeypatch.setenv("O2O_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("O2O_DATA", str(tmp_path / "data"))

    def make(*arguments, grids=(), **choices):
        def counted(overrides):
            make.composed += 1
            return compose("config", overrides)

        make.composed = 0
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return plan.make(
                expand([*BASE, *arguments], list(grids), options, **choices),
                Composer(counted, options, partial(is_confined, [CONF])),
            )

    return make


def finish(run, code=None):
    (run.directory / layout.CHECKPOINTS).mkdir(parents=True)
    (run.directory / layout.FINAL_STATE).touch()
    (run.directory / "result.json").write_text("{}")
    described = {"identity": run.identity, "code_hash": code or code_hash(run.config)}
    (run.directory / "identity.json").write_text(json.dumps(described))


def test_a_directory_of_another_run_whose_hash_begins_alike_is_not_this_run(planned):
    run = planned().to_run[0]
    finish(run)
    (run.directory / "identity.json").write_text(json.dumps({"identity": "another"}))
    assert planned().done == []


@pytest.mark.parametrize("content", ["[]", "{", ""])
def test_a_damaged_identity_is_no_identity(planned, content):
    run = planned().to_run[0]
    finish(run)
    (run.directory / "identity.json").write_text(content)
    assert planned().done == []


def test_a_cell_is_composed_once_for_all_its_seeds(planned):
    made = planned("algorithm=td3,td3_bc", "seed=range(20)")
    assert len(made.to_run) == 40
    assert planned.composed == 2


def test_cells_that_differ_in_plain_values_are_composed_together(planned):
    made = planned(
        "algorithm=td3,td3_bc", "discount=0.9,0.95", "network.hidden_sizes=[8],[8,8]", "batch_size=8,16"
    )
    assert len(made.to_run) == 16
    assert planned.composed == 2


def test_a_key_that_others_refer_to_is_composed_with_them(planned):
    made = planned("conventions.delay_target_critic=true,false")
    assert [run.config.algorithm.delay_target_critic for run in made.to_run] == [True, False]


def test_planned_configurations_are_those_that_the_launcher_composes(planned):
    values = ["discount=0.9,1", "algorithm.action_gradient_clip=null,1e-5", "network.hidden_sizes=[8],[16,8]"]
    made = planned(
        "algorithm=td3,td3_c",
        "seed=3,1",
        *values,
        "dataset.rows=${batch_size}",
        "dataset.name=part",
        grids=[{"replay_init": "empty"}],
    )
    with initialize_config_dir(str(CONF), version_base="1.3"):
        launched = [build(plain(compose("config", run.overrides))) for run in made.to_run]
    assert launched == [run.config for run in made.to_run]
    assert [repr(config) for config in launched] == [repr(run.config) for run in made.to_run]


def test_groups_that_say_nothing_of_each_other_are_composed_one_by_one(planned):
    words = ["algorithm=td3,td3_bc,td3_c", "dataset=glob(hopper-*)"]
    replay = {"replay_init": ["empty", "offline"]}
    made = planned(*words, grids=[replay, {"replay_init": "offline", "offline_ratio": ["r25", "r50"]}])
    assert planned.composed == 3 + 1 + 5 + 2
    with initialize_config_dir(str(CONF), version_base="1.3"):
        launched = [build(plain(compose("config", run.overrides))) for run in made.to_run[::7]]
    assert launched == [run.config for run in made.to_run[::7]]


def test_groups_that_are_referred_to_are_composed_together(planned):
    made = planned(
        "algorithm=td3,td3_c", "dataset=hopper-medium-v2,ant-medium-v2", "+launch.name=${dataset.name}"
    )
    names = [(run.config.dataset.name, run.config.execution.launch.name) for run in made.to_run]
    assert len(names) == 4
    assert all(name == launch for name, launch in names)


def test_grids_are_joined_and_runs_asked_for_twice_are_planned_once(planned):
    grids = [{"algorithm": ["td3", "td3_bc"], "seed": "range(2)"}, {"algorithm": ["td3", "td3_c"]}]
    made = planned(grids=grids)
    assert len(made.to_run) == 5
    assert made.duplicates == 1
    assert "5 runs = 2 algorithm × 2 seed + 2 algorithm" in made.text()
    assert "1 duplicate left out" in made.text()


def test_what_is_done_is_left_out(planned):
    finish(planned("seed=1").to_run[0])
    made = planned("seed=range(3)")
    assert [run.config.seed for run in made.done] == [1]
    assert [run.config.seed for run in made.to_run] == [0, 2]
    assert "done 1 (launch.redo=true" in made.text()


def test_runs_whose_directories_differ_in_a_hash_are_listed_with_what_differs(planned):
    lines = planned("pretrain.updates=300,600", "algorithm=td3,td3_bc").text().splitlines()
    listed = [line for line in lines if line.endswith(("updates=300", "updates=600"))]
    assert len(listed) == 4
    assert all(line.split()[1:] in (["pretrain.updates=300"], ["pretrain.updates=600"]) for line in listed)
    assert "algorithm=" not in planned("algorithm=td3,td3_bc").text()


def test_results_of_other_code_are_left_out_and_named(planned):
    finish(planned("seed=1").to_run[0], code="other")
    assert "done 1, 1 of them under other code" in planned("seed=range(3)").text()


def test_redo_runs_again_what_is_done(planned):
    finish(planned("seed=1").to_run[0])
    assert [run.config.seed for run in planned("seed=range(2)", "launch.redo=true").to_run] == [0, 1]


def test_runs_that_share_a_pretraining_follow_each_other(planned):
    made = planned("algorithm=td3,td3_bc", "seed=0,1", "dataset=hopper-medium-v2,ant-medium-v2")
    shared = [run.pretrain_directory for run in made.to_run]
    assert len(set(shared)) == 4
    assert sum(a != b for a, b in itertools.pairwise(shared)) == 3
    assert "to run 8, after 4 pretrainings" in made.text()


def test_a_pretraining_that_is_done_is_not_counted(planned):
    run = planned().to_run[0]
    finish(run.pretraining)
    assert "to run 1\n" in planned().text()


def test_all_problems_of_all_cells_are_told_once_each_with_their_cells(planned):
    with pytest.raises(ConfigError) as error:
        planned(
            "evaluation.interval=0",
            "discount=0.9,2",
            "seed=range(3)",
            "offline_ratio=r50",
            "replay_init=offline,empty",
        )
    everywhere, *elsewhere = error.value.problems
    assert everywhere == "evaluation.interval=0 is out of range: it must be above 0"
    here, there = sorted(elsewhere)
    assert here.startswith("discount=2 is out of range")
    assert "discount=2 replay_init=offline; discount=2 replay_init=empty" in here
    assert there.startswith("offline_ratio.value=0.5 needs offline rows")


def test_data_that_will_be_downloaded_are_told_and_stop_nothing(planned):
    text = planned().text()
    assert "hopper-medium-v2 will be downloaded first, to " in text
    text = planned("dataset.mix={medium: 0.5, expert: 0.5}", "dataset.rows=1000").text()
    assert "hopper-expert-v2, hopper-medium-v2 will be downloaded first, to " in text
    assert "missing" not in text


@pytest.mark.parametrize("words", [("method=rlpd",), ("pretrain.updates=0", "replay_init=offline")])
def test_data_of_a_replay_alone_are_told_too(planned, words):
    assert "hopper-medium-v2 will be downloaded first, to " in planned(*words).text()


def test_a_pretraining_without_its_state_is_told_before_anything_begins(planned):
    (run,) = planned().to_run
    finish(run.pretraining)
    (run.pretrain_directory / layout.FINAL_STATE).unlink()
    with pytest.raises(ConfigError, match=r"final\.npz is not there, .*Remove .* to pretrain again"):
        planned()
    finish(run)
    assert "to run 0" in planned().text()
    (run.directory / layout.RESULT).unlink()
    (run.pretrain_directory / layout.FINAL_STATE).touch()
    assert "after 1 pretraining" not in planned().text()


@pytest.mark.parametrize("content", ["{", '{"state": "ODD"}'])
def test_a_damaged_state_of_a_run_is_no_traceback(planned, content):
    (run,) = planned().to_run
    run.directory.mkdir(parents=True)
    (run.directory / layout.STATUS).write_text(content)
    assert "to run 1" in planned().text()


def test_estimates_know_how_much_is_learned_in_a_step(planned):
    kinds = {
        estimate.kind_of(planned(*words).to_run[0])
        for words in ((), ("finetune.updates_per_step=20",), ("finetune.batch_size=32",))
    }
    assert len(kinds) == 3


def test_the_grids_of_the_help_are_grids(planned):
    texts = re.findall(r"'hydra\.sweeper\.grids=(.*)'", (CONF / "config.yaml").read_text())
    (text,) = texts
    grids = compose_grids(text)
    assert len(planned(grids=grids).to_run) == 4


def compose_grids(text):
    """A value of the command line, as Hydra gives it to the sweeper."""
    override = OverridesParser.create().parse_override(f"grids={text}")
    return OmegaConf.to_container(OmegaConf.create({"grids": override.value()}))["grids"]


def test_training_from_scratch_misses_no_data(planned):
    assert "missing" not in planned("pretrain.updates=0", "replay_init=empty").text()


def test_data_that_will_be_generated_are_not_missing(planned, monkeypatch):
    monkeypatch.setattr("o2o.runs.identity._recipe", lambda dataset: {})
    monkeypatch.setattr(loading, "locate", lambda dataset, directory: None)
    text = planned("dataset=regen-hopper-medium").text()
    assert "regen-hopper-medium will be generated first" in text
    assert "missing" not in text


def test_a_run_that_can_never_learn_is_refused_before_it_begins(planned, dataset):
    words = ["dataset=file", f"dataset.path={dataset}", "dataset.task=hopper"]
    transitions = len(loading.load(build_of(*words).dataset, Path()).reward)
    least = 1000 - transitions
    with pytest.raises(ConfigError) as error:
        planned(*words, f"finetune.env_steps={least},{least - 1},10", "seed=range(3)")
    assert len(error.value.problems) == 2
    for problem, env_steps in zip(error.value.problems, (least - 1, 10), strict=True):
        assert f"the set's {transitions} transitions and finetune.env_steps={env_steps}" in problem
        assert "replay_init.min_size=1000" in problem
    planned(*words, f"finetune.env_steps={least}")
    planned(*words, "finetune.env_steps=0")
    planned(*words, "finetune.env_steps=10", "offline_ratio.value=1")


def test_what_must_be_known_of_episodes_and_of_the_sets_name_is_said_before_they_begin(planned):
    assert "q_minus_return" not in planned().text()
    text = planned("discount=0.99,0.999", "dataset=regen-hopper-medium", "dataset.rows=1000").text()
    assert text.count("q_minus_return counts only episodes that terminate") == 1
    assert text.count("tables and figures call this set regen-hopper-medium-1k") == 1
    scratch = [
        "pretrain.updates=0",
        "replay_init=empty",
        "dataset.reference_min=0",
        "dataset.reference_max=1",
    ]
    text = planned(*scratch, "dataset.task=Pendulum-v1").text()
    assert (
        "Pendulum-v1 cuts the others after 200 steps, too few to earn 95% of a return at discount=0.99"
        in text
    )


def test_a_seed_that_other_keys_hang_on_is_refused(planned):
    with pytest.raises(Exception, match="seed"):
        planned("dataset.seed=${seed}", "seed=range(2)")


def test_a_sweep_goes_by_what_was_asked_for_or_by_its_preset_as_one_folder(planned):
    assert planned("launch.name=mine").name("demo") == "mine"
    assert planned().name("demo") == "demo"
    assert planned().name("mine/x") == "mine.x"
    assert planned().name(None).startswith("sweep-")
    with pytest.raises(ConfigError, match=r"experiment=a,b names the sweep.*launch\.name"):
        planned().name("a,b")


def test_failures_name_the_run_and_the_reason(planned):
    runs = planned("seed=range(2)").to_run
    packed = [[run] for run in runs]
    assert plan.failures(packed, [None, None]) == ""
    report = plan.failures(packed, [None, ValueError("no")])
    assert report == f"1 of 2 runs failed:\n  {runs[1].directory}\n    ValueError: no"


@pytest.mark.parametrize(
    ("experiment", "runs"),
    [
        ("figure1", 200),
        ("figure2", 320),
        ("figure3", 480),
        ("figure4", 480),
        ("table1", 240),
        ("paper", 1000),
    ],
)
def test_the_presets_are_the_papers_runs(experiment, runs):
    preset = yaml.safe_load((CONF / f"experiment/{experiment}.yaml").read_text())
    products = expand([], preset["hydra"]["sweeper"]["grids"], options)
    assert sum(map(grid.count, products)) == runs


def test_a_run_that_a_process_is_at_is_left_alone(planned):
    first, _ = planned("seed=0,1").to_run
    with Leases() as leases:
        leases.take(first.directory)
        made = planned("seed=0,1")
    assert [run.config.seed for run in made.busy["running"]] == [0]
    assert [run.config.seed for run in made.to_run] == [1]
    assert "running 1, left alone" in made.text()
    assert len(planned("seed=0,1").to_run) == 2


def test_runs_are_counted_by_how_far_they_came(planned):
    failed, cut_off, _ = planned("seed=range(3)").to_run
    for run, state in ((failed, "FAILED"), (cut_off, "RUNNING")):
        run.directory.mkdir(parents=True)
        (run.directory / "status.json").write_text(json.dumps({"state": state}))
    assert "to run 3 (1 failed before, 1 cut off), after 3 pretrainings" in planned("seed=range(3)").text()


def test_zipped_keys_go_together(planned):
    sweeps = ["algorithm=td3,td3_c", "replay_init=empty,offline", "seed=range(2)"]
    made = planned(*sweeps, zipped=["algorithm", "replay_init"])
    told = {(type(run.config.algorithm).__name__, run.config.replay_init.preload) for run in made.to_run}
    assert told == {("TD3", False), ("TD3C", True)}
    assert made.text().startswith("4 runs = 2 (algorithm, replay_init) × 2 seed\n")


def test_a_seed_may_be_zipped(planned):
    made = planned("dataset.seed=5,6", "seed=0,1", grids=[{"zip": ["dataset.seed", "seed"]}])
    assert sorted((run.config.dataset.seed, run.config.seed) for run in made.to_run) == [(5, 0), (6, 1)]


def test_a_zipped_key_that_the_command_line_fixes_is_the_same_everywhere(planned):
    grid = {
        "algorithm": ["td3", "td3_c"],
        "replay_init": ["empty", "offline"],
        "zip": ["algorithm", "replay_init"],
    }
    made = planned("replay_init=empty", grids=[grid])
    assert [run.config.replay_init.preload for run in made.to_run] == [False, False]


def test_excluded_combinations_are_left_out_and_counted(planned):
    sweeps = ["algorithm=td3,td3_bc,td3_c", "replay_init=empty,offline", "seed=range(2)"]
    exclude = [{"algorithm": ["td3", "td3_bc"], "replay_init": "empty"}, {"algorithm": "td3_c", "seed": 1}]
    made = planned(*sweeps, exclude=exclude)
    assert len(made.to_run) == 6
    assert "6 excluded" in made.text()
    assert {
        type(run.config.algorithm).__name__ for run in made.to_run if not run.config.replay_init.preload
    } == {"TD3C"}


@pytest.mark.parametrize(
    ("swept", "left_out"), [("0.90,0.95", 0.9), ("0.9,0.95", "0.90"), ("1e-1,2e-1", 0.1), ("1.0,0.9", 1)]
)
def test_exclusions_compare_values_and_not_their_spelling(planned, swept, left_out):
    assert len(planned(f"discount={swept}", exclude=[{"discount": left_out}]).to_run) == 1


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (
            {"zipped": ["algorithm", "replay_init"]},
            "equally many values, not 3 of algorithm, 2 of replay_init",
        ),
        ({"zipped": ["algorithm", "replay_int"]}, "zip: replay_int is not in the grid"),
        ({"exclude": [{"algorithm": "td3_d"}]}, "exclude: algorithm=td3_d is not in the grid"),
    ],
)
def test_zips_and_exclusions_that_fit_nothing_are_refused(planned, choices, said):
    with pytest.raises(ConfigError, match=said):
        planned("algorithm=td3,td3_bc,td3_c", "replay_init=empty,offline", **choices)


def test_seeds_are_packed_into_jobs_that_the_launcher_composes(planned):
    made = planned("algorithm=td3,td3_c", "seed=3,1,2", "launch.seeds_per_job=2")
    words = [plan.overrides(job) for job in made.jobs]
    assert [word[-2:] for word in words][:2] == [
        ["seed=3", "launch.seeds=[3,1]"],
        ["launch.seeds_per_job=2", "seed=2"],
    ]
    assert "in 4 jobs of up to 2 seeds side by side" in made.text()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        first = build(plain(compose("config", words[0])))
    assert first.execution.launch.seeds == (3, 1)


def test_costs_come_from_runs_of_the_same_kind(planned):
    run = planned("pretrain.updates=0", "replay_init=empty", "finetune.env_steps=1000").to_run[0]
    unknown = planned("pretrain.updates=0", "replay_init=empty", "launch.dry_run=true").text()
    assert "device-hours: unknown" in unknown
    finish(run)
    execution = {"seconds": 59.0, "members": 2, "device": "gpu: tested"}
    (run.directory / "result.json").write_text(json.dumps({"execution": execution}))
    (run.directory / "identity.json").write_text(json.dumps(describe(run.config)))
    (run.directory / "config.yaml").write_text("")
    asked = ["pretrain.updates=0", "replay_init=empty", "finetune.env_steps=20000"]
    assert "device-hours" not in planned(*asked).text()  # too short: it mostly compiled
    (run.directory / "result.json").write_text(json.dumps({"execution": execution | {"seconds": 7200.0}}))
    assert "device-hours: 20 on gpu: tested (measured on 1 run)" in planned(*asked).text()
    assert "device-hours" not in planned(*asked, "algorithm=td3_c").text()


def test_what_is_large_and_unknown_is_tried_for_a_few_seconds(planned, monkeypatch, capsys):
    tried = []

    def seconds_a_step(config, phase, members):
        tried.append((phase, members))
        return 0.01

    monkeypatch.setattr(trial, "seconds_a_step", seconds_a_step)
    made = planned("algorithm=td3,td3_c", "seed=0,1", "pretrain.updates=400000", "finetune.env_steps=40000")
    told = estimate.ahead(made.due, 10, {})
    assert tried == [("pretrain", 2), ("finetune", 2)]
    assert "about 2.7 hours on this machine" in told
    assert "measured now: td3_bc 100 updates/s on hopper, td3 100 env steps/s on hopper" in told
    assert max(map(len, told.splitlines())) <= 80
    known = {estimate.kind_of(run): 0.1 for run in made.due}
    assert "measured on earlier runs here" in estimate.ahead(made.due, 10, known)
    assert len(tried) == 2


def test_what_is_small_is_neither_tried_nor_told(planned, monkeypatch):
    monkeypatch.delattr(trial, "seconds_a_step")
    assert estimate.ahead(planned("pretrain.updates=30000", "finetune.env_steps=4000").due, 1, {}) == ""


def test_a_trial_measures_steps(configure, tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "SECONDS", 0.01)
    config = configure(tmp_path)
    assert 0 < trial.seconds_a_step(config, "pretrain", 1) < 1
    assert 0 < trial.seconds_a_step(config, "finetune", 2) < 1
    # One that needs columns of its rows.
    asking = configure(tmp_path, "method=cal_ql", "finetune.warmup_steps=0", exploring=False)
    assert 0 < trial.seconds_a_step(asking, "pretrain", 1) < 1


def test_the_agenda_has_every_pretraining_once(planned):
    made = planned("algorithm=td3,td3_c", "seed=0,1", "finetune.env_steps=1000", "pretrain.updates=500")
    parts = estimate.agenda(made.to_run, 2, {})._parts
    assert [(number, part.kind[0], part.steps) for number, part in parts] == [
        (1, "pretrain", 1000),
        (1, "finetune", 2000),
        (2, "finetune", 2000),
    ]


def test_pretrainings_by_other_code_are_named(planned):
    finish(planned().to_run[0].pretraining, code="other")
    assert "to run 1, from 1 pretraining made by other code" in planned().text()


def test_an_interval_that_others_hide_is_told(planned):
    assert (
        "evaluation.interval=100 holds online only after env step 20000"
        in planned("evaluation.interval=100").text()
    )
    for words in ([], ["evaluation.interval=100", "evaluation.online_intervals=[]"]):
        assert "evaluation.interval" not in planned(*words).text()
