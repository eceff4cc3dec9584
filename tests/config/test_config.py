from __future__ import annotations

import copy
import dataclasses
import re
import shlex

import pytest
import yaml
from composing import CONF, composed

from analysis.data import published
from o2o.algorithms import ALGORITHMS
from o2o.config import dataset_names
from o2o.config.build import build, container, load
from o2o.config.schema import algorithm_name
from o2o.datasets import d4rl
from o2o.errors import ConfigError
from o2o.runs.directory.science import flatten
from o2o.types import LearningRate

CONVENTIONS = (
    "dpg_reduce",
    "bc_normaliser",
    "target_noise_shared_in_batch",
    "delay_target_critic",
    "target_noise_shared_by_critics",
)


@pytest.fixture(scope="module")
def defaults():
    return composed("dataset=hopper-medium-v2")


@pytest.fixture
def tree(defaults):
    return copy.deepcopy(defaults)


def put(tree, key, value):
    *groups, last = key.split(".")
    for group in groups:
        tree = tree[group]
    tree[last] = value


def problems_of(tree, **changes):
    for key, value in changes.items():
        put(tree, key, value)
    with pytest.raises(ConfigError) as error:
        build(tree)
    return error.value.problems


def options(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize(
    "override",
    [
        *(f"dataset={name}" for name in options("dataset") if name not in ("file", "minari")),
        "dataset=file dataset.path=my.hdf5 dataset.task=hopper",
        "dataset=minari dataset.id=mujoco/hopper/medium-v0 dataset.task=hopper",
        *(f"conventions={name}" for name in options("conventions")),
        *(f"tracker={name}" for name in options("tracker")),
        *(f"offline_ratio={name}" for name in options("offline_ratio")),
        *(f"replay_init={name}" for name in options("replay_init")),
        *(f"algorithm={name} algorithm@pretrain.algorithm={name}" for name in options("algorithm")),
    ],
)
def test_every_option_of_every_group_builds(override):
    build(composed(*override.split()))


@pytest.mark.parametrize("name", options("method"))
def test_every_method_builds_and_names_itself(name):
    config = build(composed(f"method={name}", "dataset=hopper-medium-v2"))
    assert config.method == name
    assert build(container(config)) == config


def test_a_methods_values_win_over_its_groups_and_the_command_line_over_both():
    config = build(composed("method=wsrl"))
    assert (config.algorithm.critics, config.algorithm.temperature_learning_rate) == (10, 1e-4)
    assert not config.replay_init.preload
    words = ("algorithm.critics=3", "pretrain.algorithm.critics=3", "replay_init=offline")
    changed = build(composed("method=wsrl", *words, "finetune.updates_per_step=2"))
    assert (changed.algorithm.critics, changed.finetune.updates_per_step) == (3, 2)
    assert changed.replay_init.preload
    other = build(composed("method=iql", "algorithm=td3", "algorithm@pretrain.algorithm=td3_bc"))
    assert algorithm_name(other.algorithm) == "td3"


def test_the_online_phase_may_have_learning_rates_and_a_batch_of_its_own():
    config = build(
        composed("algorithm=td3_c", "finetune.learning_rate.policy=1e-5", "finetune.batch_size=64")
    )
    assert config.algorithm.learning_rate == LearningRate(policy=1e-5, critic=3e-4)
    assert config.pretrain.algorithm.learning_rate == config.learning_rate
    assert build(container(config)) == config
    with pytest.raises(ConfigError, match=r"finetune\.learning_rate\.policy=-1 is out of range"):
        build(composed("finetune.learning_rate.policy=-1"))


def test_every_registered_algorithm_has_a_file_and_the_other_way_round():
    assert options("algorithm") == sorted(ALGORITHMS)


def test_building_leaves_the_container_as_it_was(tree, defaults):
    build(tree)
    assert tree == defaults


def test_a_configuration_written_to_a_run_directory_is_read_back_equal(tree, tmp_path):
    config = build(tree)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(container(config)))
    assert load(path) == config


def test_a_file_of_another_version_is_refused_by_its_name(tree, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**tree, "batch_sise": 3}))
    with pytest.raises(ConfigError, match="batch_sise is not a key"):
        load(path)


def test_what_stands_once_at_the_top_reaches_both_algorithms(tree):
    put(tree, "discount", 0.95)
    put(tree, "network.hidden_sizes", [64, 32])
    config = build(tree)
    for algorithm in (config.algorithm, config.pretrain.algorithm):
        assert algorithm.discount == 0.95
        assert algorithm.network.hidden_sizes == (64, 32)
        assert algorithm.learning_rate == config.learning_rate


def test_one_choice_of_conventions_sets_both_phases():
    config = build(composed("dataset=hopper-medium-v2", "conventions=standard", "algorithm=td3_bc"))
    assert config.conventions == "standard"
    for algorithm in (config.algorithm, config.pretrain.algorithm):
        assert algorithm.delay_target_critic
        assert not algorithm.target_noise_shared_in_batch
        assert algorithm.target_noise_shared_by_critics


def test_one_key_of_the_conventions_can_be_overridden_in_one_phase():
    config = build(composed("dataset=hopper-medium-v2", "algorithm.dpg_reduce=mean"))
    assert (config.algorithm.dpg_reduce, config.pretrain.algorithm.dpg_reduce) == ("mean", "sum")


@pytest.mark.parametrize("algorithm", ["td3", "td3_c", "td3_bc"])
def test_the_defaults_are_what_published_numbers_may_stand_beside(algorithm):
    science = flatten(composed("dataset=hopper-medium-v2", f"algorithm={algorithm}"))
    assert published.other_settings(science) == {}
    of_one = ("behavior_cloning_alpha", "bc_normaliser", "constraint_epsilon")
    assert {key for key in published.SETTINGS if not key.endswith(of_one)} <= set(science)


def test_the_conventions_files_have_the_same_keys():
    for name in options("conventions"):
        assert sorted(yaml.safe_load((CONF / f"conventions/{name}.yaml").read_text())) == sorted(
            ("name", *CONVENTIONS)
        )


def test_the_defaults_are_the_papers(tree):
    config = build(tree)
    td3_c = build(composed("dataset=hopper-medium-v2", "algorithm=td3_c")).algorithm
    assert (config.batch_size, config.discount, config.network.hidden_sizes) == (256, 0.99, (256, 256))
    assert (config.pretrain.updates, config.finetune.env_steps) == (500_000, 200_000)
    assert (config.learning_rate.policy, config.learning_rate.critic) == (3e-4, 3e-4)
    assert (config.replay_init.capacity, config.replay_init.min_size) == (1_000_000, 1000)
    assert (config.algorithm.target_step, config.algorithm.policy_delay) == (0.005, 2)
    assert config.pretrain.algorithm.behavior_cloning_alpha == 2.5
    assert config.algorithm.action_gradient_clip is None
    assert (td3_c.action_gradient_clip, td3_c.constraint_epsilon) == (1.0, 1e-5)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("batch_sise", 3, r"batch_sise is not a key"),
        ("algorithm.target_stp", 0.1, r"algorithm\.target_stp is not a key.*target_step"),
        ("algorithm.discount", 0.9, r"algorithm\.discount is not a key.*set discount"),
        ("algorithm.name", "td3bc", r"algorithm\.name=td3bc is not one of .*did you mean td3_bc\?"),
        ("algorithm.dpg_reduce", "summ", r"algorithm\.dpg_reduce=summ .*did you mean sum\?"),
        ("algorithm.target_step", "abc", r"algorithm\.target_step=abc should be a finite number"),
        ("discount", True, r"discount=true should be a finite number"),
        ("discount", float("nan"), r"discount=nan should be a finite number"),
        ("batch_size", 2.5, r"batch_size=2\.5 should be a whole number"),
        ("batch_size", None, r"batch_size=null should be a whole number"),
        ("seed", False, r"seed=false should be a whole number"),
        ("launch.redo", 1, r"launch\.redo=1 should be true or false"),
        ("dataset.task", 3, r"dataset\.task=3 should be text"),
        ("dataset.task", "???", r"dataset\.task is missing"),
        ("network.hidden_sizes", 256, r"network\.hidden_sizes=256 should be a list"),
        ("network.hidden_sizes", [256, "x"], r"network\.hidden_sizes\[1\]=x should be a whole number"),
        ("evaluation.online_intervals", [[1, 2, 3]], r"online_intervals\[0\]=.* should have 2 items"),
        ("finetune", 3, r"finetune=3 should be a group of keys: env_steps"),
        ("pretrain.algorithm", "???", r"pretrain\.algorithm"),
        ("seed", -1, r"seed=-1 is out of range: it must be at least 0"),
        ("network.hidden_sizes", [256, 0], r"network\.hidden_sizes\[1\]=0 is out of range"),
        ("algorithm.target_step", 1.5, r"target_step=1\.5 is out of range: it must be above 0 and at most 1"),
        ("dataset.name", "../x", r"dataset\.name=\.\./x names a folder"),
        ("dataset.task", "hoper", r"dataset\.task=hoper .*did you mean hopper\?.*dataset\.reference_min"),
        ("dataset.quality", None, r"dataset\.quality is missing"),
        ("dataset.reference_min", 1.0, r"reference_min and dataset\.reference_max belong together"),
        ("offline_ratio.value", 0.001, r"rounds to 0 offline rows"),
        ("finetune.critic_only_steps", 200_000, r"critic_only_steps=200000 leaves no step .*policy learns"),
        ("finetune.random_steps", 200_000, r"random_steps=200000 leaves no step .*policy acts"),
        (
            "finetune.reset",
            ["actor"],
            r"finetune\.reset\[0\]=actor is not one of policy, critics, temperature",
        ),
        ("offline_ratio.last", 0.5, r"last=0\.5 needs the share to begin with"),
        ("offline_ratio.steps", 10, r"belong together"),
        ("replay_init.min_size", 2_000_000, r"replay_init\.min_size=2000000 is above replay_init\.capacity"),
        ("evaluation.online_intervals", [[10, 1], [10, 2]], r"\[10, 10\] should increase"),
    ],
)
def test_a_mistake_is_told_with_its_key_its_value_and_the_way_out(tree, key, value, problem):
    problems = problems_of(tree, **{key: value})
    assert len(problems) == 1
    assert re.search(problem, problems[0])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"replay_init.preload": False, "offline_ratio.value": 0.5}, "offline_ratio.value=0.5 needs"),
        ({"pretrain.updates": 0, "replay_init.preload": False, "finetune.env_steps": 0}, "nothing to do"),
        ({"replay_init.preload": False, "batch_size": 2000}, "batch_size=2000 is above replay_init.min_size"),
        ({"replay_init.preload": False, "finetune.env_steps": 500}, "updates would never begin"),
        ({"dataset.source": "file"}, "dataset.path is missing"),
        (
            {"dataset.rows": 50, "dataset.name": "part", "finetune.env_steps": 100},
            "the set's 49 transitions and finetune.env_steps=100 are together below replay_init.min_size=1000",
        ),
        ({"dataset.episode_length": 100}, "dataset.episode_length=100 is for dataset=file"),
        ({"dataset.reference_min": 2.0, "dataset.reference_max": 1.0}, "should be below"),
    ],
)
def test_a_contradiction_between_keys_is_told(tree, changes, problem):
    assert any(problem in told for told in problems_of(tree, **changes))


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            "dataset=file dataset.path=a dataset.task=hopper dataset.name=hopper-medium-v2",
            "give yours another name",
        ),
        ("dataset=file dataset.path=a dataset.task=hopper dataset.name=Hopper_Medium-v2", "D4RL's own set"),
        (
            "dataset=file dataset.path=a dataset.task=hopper dataset.name=hopper-medium-expert-v1",
            "another version",
        ),
        (
            "dataset=file dataset.path=a dataset.task=ant dataset.name=hopper-mix-medium-50-v2",
            "a mixture of D4RL's",
        ),
        ("dataset=file dataset.path=a dataset.task=hopper dataset.name=regen-hopper-medium", "another name"),
        (
            "dataset=file dataset.path=a dataset.task=hopper dataset.name=regen-mine",
            "that this project generates",
        ),
        ("dataset=minari dataset.id=a dataset.task=ant dataset.name=ant-expert-v2", "D4RL's own set"),
        ("dataset=hopper-medium-v2 dataset.rows=1000", "dataset.name=hopper-medium-v2-first-1000"),
        ("dataset=halfcheetah-medium-v2 dataset.task=walker2d", "choose dataset=walker2d-medium-v2"),
        ("dataset=hopper-medium-v2 dataset.quality=expert", "choose dataset=hopper-expert-v2"),
        ("dataset=hopper-medium-v2 dataset.quality=superb", "hopper-superb-v2, which does not exist"),
        (
            "dataset=hopper-medium-v2 dataset.source=regenerated dataset.rows=9",
            "choose dataset=regen-hopper-medium",
        ),
        ("dataset=regen-hopper-medium dataset.task=walker2d", "choose dataset=regen-walker2d-medium"),
        (
            "dataset=regen-hopper-medium dataset.name=regen-hopper-expert",
            "one of the sets that this project generates",
        ),
        (
            "dataset=regen-hopper-medium-replay dataset.source=retrain"
            " dataset.name=regen-hopper-medium-replay-snapshots",
            "is regen-hopper-medium-replay-retrain: choose dataset=regen-hopper-medium-replay",
        ),
        (
            "dataset=regen-hopper-medium dataset.task=Swimmer-v5 dataset.reference_min=0 dataset.reference_max=1",
            "dataset=file for your own",
        ),
        (
            "dataset=hopper-medium-v2 'dataset.mix={superb: 1.0}' dataset.rows=1000",
            "dataset.mix: D4RL has no superb",
        ),
    ],
)
def test_a_name_of_d4rl_or_of_a_regenerated_set_belongs_to_its_own_bytes_task_and_size(words, problem):
    (told,) = problems_of(composed(*shlex.split(words)))
    assert problem in told
    assert "dataset." in told


@pytest.mark.parametrize(
    "words",
    [
        "dataset=hopper-medium-v2 dataset.rows=1000 dataset.name=hopper-medium-v2-first-1000",
        "dataset=hopper-medium-v2 'dataset.mix={medium: 1.0}' dataset.rows=1000",
        "dataset=hopper-medium-v2 'dataset.mix={medium: 1.0}' dataset.rows=1000 dataset.task=walker2d",
        "dataset=regen-hopper-medium dataset.rows=1000",
        "dataset=regen-hopper-medium dataset.rows=1000 dataset.name=regen-mine",
        "dataset=regen-hopper-medium-replay dataset.source=retrain",
        "dataset=file dataset.path=a dataset.task=hopper dataset.name=hopper-medium-v2-first-1000",
        # No row of a set is used.
        "dataset=hopper-medium-v2 dataset.task=walker2d pretrain.updates=0 replay_init=empty",
    ],
)
def test_other_names_and_sizes_are_everybodys(words, tmp_path):
    config = build(composed(*shlex.split(words)))
    assert build(container(config)) == config


def test_a_regenerated_set_of_another_size_seed_or_number_of_policies_says_so_where_it_is_shown():
    replay = "dataset=regen-hopper-medium-replay"
    shown = {
        "dataset=regen-hopper-medium": "regen-hopper-medium",
        "dataset=regen-hopper-medium dataset.rows=200000": "regen-hopper-medium-200k",
        "dataset=regen-hopper-medium dataset.rows=300 dataset.seed=3": "regen-hopper-medium-300-seed-3",
        f"{replay} dataset.snapshots=5": "regen-hopper-medium-replay-snapshots-5-policies",
        "dataset=hopper-medium-v2": "hopper-medium-v2",
        "dataset=file dataset.path=a dataset.task=hopper dataset.rows=5": "file",
    }
    for words, name in shown.items():
        assert build(composed(*words.split())).dataset.shown_name == name


@pytest.mark.parametrize("name", [name for name in options("dataset") if name.startswith("regen-")])
def test_the_size_that_a_regenerated_name_stands_for_is_its_files(name):
    dataset = build(composed(f"dataset={name}")).dataset
    assert dataset.shown_name == dataset.name


def test_the_names_of_d4rl_are_those_of_its_files():
    assert sorted(dataset_names.D4RL_NAMES) == sorted(d4rl.SETS)


@pytest.mark.parametrize("enough", [{"finetune.env_steps": 951}, {"replay_init.min_size": 149}])
def test_a_run_that_can_learn_at_its_last_step_is_no_contradiction(tree, enough):
    settings = {"dataset.rows": 50, "dataset.name": "part", "finetune.env_steps": 100}
    for key, value in (settings | enough).items():
        put(tree, key, value)
    build(tree)


def test_an_algorithm_of_another_family_cannot_take_over_a_pretraining():
    tree = composed("dataset=hopper-medium-v2", "algorithm=sac")
    assert "algorithm=sac cannot take over what td3_bc pretrained" in problems_of(tree)[0]


@pytest.mark.parametrize("more", [(), ("offline_ratio.value=0.5", "replay_init=offline")])
@pytest.mark.parametrize("algorithm", ["sac", "iql"])
def test_the_way_out_of_a_pretraining_of_another_family_is_one(algorithm, more):
    words = ["dataset=hopper-medium-v2", f"algorithm={algorithm}", *more]
    (problem,) = problems_of(composed(*words))
    for way in problem.partition("set ")[2].split(", or "):
        build(composed(*words, *way.split()))


def test_ranges_and_contradictions_are_told_all_together(tree):
    changes = {
        "batch_size": 0,
        "discount": 2,
        "offline_ratio.steps": 9,
        "evaluation.online_intervals": [[5, 0]],
    }
    assert len(problems_of(tree, **changes)) == 4


def test_names_and_types_are_told_all_together(tree):
    assert len(problems_of(tree, batch_sise=1, discount="x", **{"algorithm.policy_delay": "y"})) == 3


def test_a_missing_key_is_told(tree):
    del tree["finetune"]["env_steps"]
    assert problems_of(tree) == ["finetune.env_steps is missing: set finetune.env_steps=…"]


def test_whole_numbers_do_for_floats_and_whole_floats_for_integers(tree):
    put(tree, "discount", 1)
    put(tree, "finetune.env_steps", 2e5)
    config = build(tree)
    assert type(config.discount) is float
    assert type(config.finetune.env_steps) is int


def test_a_task_of_ones_own_needs_its_reference_returns_only():
    tree = composed("dataset=file", "dataset.path=my.hdf5", "dataset.task=hopper")
    for key, value in {"task": "Swimmer-v4", "reference_min": 0.0, "reference_max": 100.0}.items():
        put(tree, f"dataset.{key}", value)
    assert build(tree).dataset.task == "Swimmer-v4"


def test_a_configuration_can_be_hashed_and_not_changed(tree):
    config = build(tree)
    hash(config)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1


def test_a_method_that_needs_the_datas_returns_is_refused_without_data():
    words = ("algorithm=iql", "pretrain.updates=0", "replay_init=empty", "dataset=hopper-medium-v2")
    (problem,) = problems_of(composed(*words))
    assert "algorithm.reward_scale=return_range needs the returns of a dataset" in problem
    assert build(composed(*words, "algorithm.reward_scale=none")).algorithm.reward_scale == "none"


def test_warmup_leaves_steps_to_learn_in():
    words = ("dataset=hopper-medium-v2", "finetune.env_steps=3000", "finetune.warmup_steps=3000")
    (problem,) = problems_of(composed(*words))
    assert "finetune.warmup_steps=3000 leaves no step" in problem


@dataclasses.dataclass(frozen=True)
class Mine(ALGORITHMS["bc"]):
    """An algorithm as somebody else writes it."""

    temperature: float


class NoDataclass:
    pass


class BasedOnOne(ALGORITHMS["td3"]):
    temperature: float


@dataclasses.dataclass
class NotFrozen:
    temperature: float


@dataclasses.dataclass(frozen=True)
class LacksAdopts:
    period = 1
    metrics: dict
    init = adopt = update = act = None


@dataclasses.dataclass(frozen=True)
class OddlyDeclared(Mine):
    temperature: list[float]


@pytest.mark.parametrize(
    ("cls", "values", "told"),
    [
        (NoDataclass, {}, "NoDataclass is not a dataclass: write @dataclass(frozen=True) above its class"),
        (BasedOnOne, {}, "BasedOnOne is not a dataclass"),
        ("bc", {}, "is not a dataclass"),
        (NotFrozen, {}, "NotFrozen can be changed: write @dataclass(frozen=True) above it"),
        (LacksAdopts, {}, "LacksAdopts has no adopts: o2o/types.py says what each is"),
        (Mine, {}, "algorithm.temperature is missing: give it a value in conf/algorithm/mine.yaml, or set"),
        (OddlyDeclared, {"temperature": [1.0]}, "algorithm.temperature is declared as list[float]"),
    ],
)
def test_what_is_wrong_with_an_algorithm_of_ones_own_is_one_sentence(tree, monkeypatch, cls, values, told):
    monkeypatch.setitem(ALGORITHMS, "mine", cls)
    tree["algorithm"] = {"name": "mine", "exploration_noise": 0.1, **values}
    (problem,) = problems_of(tree)
    assert told in problem
