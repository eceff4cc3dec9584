from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st

from o2o.config.build import build, container, plain
from o2o.config.schema import EXECUTION, Config
from o2o.datasets.files import hdf5
from o2o.errors import ConfigError
from o2o.runs import identity as identities
from o2o.runs import phases, sources
from o2o.runs.directory import science as directory_science
from o2o.runs.directory.science import BOTH_PHASES, ONLINE, flatten
from o2o.runs.identity import (
    cell_hash,
    describe,
    identity,
    pretrain_directory,
    pretrain_identity,
    run_directory,
    science,
)
from o2o.runs.sources import code_hash

CONF = Path(__file__).resolve().parents[2] / "conf"


def composed(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return plain(compose("config", ["dataset=hopper-medium-v2", *overrides]))


# A set whose name is its owner's to choose, so that every key can have another value.
TREE = composed(
    "algorithm=td3_c", "replay_init=empty", "dataset=minari", "dataset.id=a", "dataset.task=hopper"
)

# Another legal value of each key of the science; `pretrained` where the pretraining is another one too.
SCIENCE = {
    "seed": (1, True),
    "batch_size": (128, True),
    "discount": (0.95, True),
    "learning_rate.policy": (1e-3, True),
    "learning_rate.critic": (1e-3, True),
    "network.hidden_sizes": ([256], True),
    "dataset.name": ("mine", True),
    "dataset.task": ("ant", True),
    "dataset.rows": (7, True),
    "dataset.quality": ("expert", True),
    "pretrain.updates": (10, True),
    "pretrain.algorithm.behavior_cloning_alpha": (1.0, True),
    "pretrain.algorithm.bc_normaliser": ("mean_abs_dqda", True),
    "algorithm.constraint_epsilon": (1e-4, False),
    "algorithm.action_gradient_clip": (None, False),
    "algorithm.dual": ("exp", False),
    "algorithm.target_noise_shared_by_critics": (True, False),
    "pretrain.algorithm.target_noise_shared_by_critics": (True, True),
    "finetune.env_steps": (1000, False),
    "finetune.reset_optimizers": (True, False),
    "finetune.reset_targets": (True, False),
    "replay_init.preload": (True, False),
    "replay_init.capacity": (5000, False),
    "replay_init.min_size": (500, False),
    "evaluation.episodes": (5, False),
    "evaluation.online_intervals": ([], False),
}
EXECUTED = {
    "paths.data": "/elsewhere",
    "tracker.mode": "offline",
    "tracker.project": "other",
    "launch.redo": True,
    "launch.dry_run": True,
    "records.interval": 5,
    "records.policies": [0],
    "checkpoint.interval_seconds": 1,
    "device.platform": "cpu",
}
LABELS = {"conventions.name": "mine", "replay_init.name": "mine", "offline_ratio.name": "mine"}


def changed(**changes):
    tree = json.loads(json.dumps(TREE))
    for key, value in changes.items():
        *groups, last = key.split(".")
        node = tree
        for group in groups:
            node = node[group]
        node[last] = value
    return build(tree)


def shuffled(draw, tree):
    if not isinstance(tree, dict):
        return tree
    return {key: shuffled(draw, tree[key]) for key in draw(st.permutations(list(tree)))}


def as_floats(draw, value):
    """Whole numbers written as floats and the other way round, here and there."""
    if isinstance(value, dict):
        return {key: as_floats(draw, item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_floats(draw, item) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool) and value == int(value):
        return draw(st.sampled_from([int, float]))(value)
    return value


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_order_of_keys_and_form_of_numbers_change_nothing(data):
    written_otherwise = build(as_floats(data.draw, shuffled(data.draw, TREE)))
    assert identity(written_otherwise) == identity(build(TREE))
    assert run_directory(written_otherwise) == run_directory(build(TREE))


@settings(deadline=None, max_examples=25)
@given(st.dictionaries(st.sampled_from(sorted(EXECUTED)), st.none()))
def test_how_and_where_it_runs_changes_nothing(keys):
    config = changed(**{key: EXECUTED[key] for key in keys})
    assert (identity(config), run_directory(config)) == (identity(build(TREE)), run_directory(build(TREE)))


def test_the_execution_keys_tried_are_all_there_are():
    tried = {key.partition(".")[0] for key in EXECUTED}
    assert tried == set(EXECUTION)


# Of the code before any setting was added: identity of the run, and of its pretraining.
PINNED = {
    "": (
        "ee1ea9e861417cc0db89e73b329ea733821d266c7d279b6bc95820fd05e8c0ba",
        "b35ede6be95be27ad01ce5d2491b6b1acb750e949e33a8a088f4d3f760bf63b6",
    ),
    "algorithm=td3_c replay_init=empty": (
        "a4aab0e65beb8621ca99943a618b76ffe9e4575e6a57878967b8513fe0df3b4a",
        "b35ede6be95be27ad01ce5d2491b6b1acb750e949e33a8a088f4d3f760bf63b6",
    ),
    "algorithm=sac pretrain.updates=0 replay_init=empty": (
        "d05070ec2ecb32765025b65233a52cd7a38bafbf867dab9038dccc350dc44ade",
        None,
    ),
    "dataset=minari dataset.id=mujoco/hopper/medium-v0 dataset.task=hopper": (
        "89c2b98d83e4fe972bc80607cc3eee31e1d217461efbf8899c80d5d4ec4a8dc2",
        "96c441ce7bc4345903de2c3e9452e99d125302f79efc0c08a7afbb56a4cbfb1a",
    ),
}


@pytest.mark.parametrize("words", PINNED)
def test_a_setting_that_was_added_changes_no_finished_run(words):
    config = build(composed(*words.split()))
    assert (identity(config), pretrain_identity(config)) == PINNED[words]
    assert not {"target_noise_shared_by_critics"} & container(config)["algorithm"].keys()
    assert "episode_length" not in container(config)["dataset"]
    assert build(container(config)) == config


@pytest.mark.parametrize("key", LABELS)
def test_a_label_changes_nothing(key):
    config = changed(**{key: LABELS[key]})
    assert (identity(config), run_directory(config)) == (identity(build(TREE)), run_directory(build(TREE)))


@pytest.mark.parametrize("key", SCIENCE)
def test_any_key_of_the_science_makes_another_run(key):
    value, pretrained = SCIENCE[key]
    config, base = changed(**{key: value}), build(TREE)
    assert identity(config) != identity(base)
    assert run_directory(config) != run_directory(base)
    assert (pretrain_identity(config) != pretrain_identity(base)) == pretrained
    assert (pretrain_directory(config) != pretrain_directory(base)) == pretrained


@settings(deadline=None, max_examples=50)
@given(*[st.dictionaries(st.sampled_from(sorted(SCIENCE)), st.none(), max_size=3)] * 2)
def test_different_runs_have_different_directories(one, other):
    a, b = (changed(**{key: SCIENCE[key][0] for key in keys}) for keys in (one, other))
    assert (science(a) == science(b)) == (run_directory(a) == run_directory(b))
    assert (identity(a) == identity(b)) == (run_directory(a) == run_directory(b))


def test_the_ratio_is_science_whatever_its_name():
    r50, by_value = (
        build(composed("offline_ratio=r50")),
        build(composed("offline_ratio.value=0.5")),
    )
    assert identity(r50) == identity(by_value) != identity(build(composed()))
    assert "offline-r50-" in str(run_directory(by_value))


def test_runs_that_differ_in_their_seed_share_the_folder_above():
    one, other = build(TREE), changed(seed=7)
    assert cell_hash(one) == cell_hash(other)
    assert run_directory(one).parent == run_directory(other).parent
    assert (run_directory(one).name, run_directory(other).name) == ("seed-0", "seed-7")


def test_the_directory_is_the_designs():
    config = build(composed("algorithm=td3_bc", "paths.runs=here"))
    assert run_directory(config) == Path(
        f"here/hopper-medium-v2/td3_bc/offline-uniform-{cell_hash(config)[:8]}/seed-0"
    )
    pretrain = pretrain_directory(config)
    assert pretrain is not None
    assert pretrain.parts[:3] == ("here", "hopper-medium-v2", "pretrain")
    assert pretrain.parts[3].startswith("td3_bc-")
    assert pretrain.name == "seed-0"


def test_arms_share_one_pretraining():
    arms = [
        build(composed(*words))
        for words in (["algorithm=td3"], ["algorithm=td3_bc", "evaluation.episodes=3"], ["replay_init=empty"])
    ]
    assert len({pretrain_identity(arm) for arm in arms}) == 1
    assert len({identity(arm) for arm in arms}) == 3


def test_from_scratch_a_run_has_a_task_and_no_dataset_or_pretraining():
    scratch = ["pretrain.updates=0", "replay_init=empty"]
    one, other = (
        build(composed(*scratch)),
        build(composed(*scratch, "dataset=hopper-medium-replay-v2", "algorithm@pretrain.algorithm=sac")),
    )
    assert identity(one) == identity(other)
    assert identity(one) != identity(build(composed(*scratch, "dataset=ant-medium-v2")))
    assert pretrain_identity(one) is None
    assert pretrain_directory(one) is None
    assert "hopper" in run_directory(one).parts


def test_from_scratch_with_data_a_run_has_its_dataset_and_goes_by_its_name():
    words = ("pretrain.updates=0", "replay_init=offline")
    one, other = (
        build(composed(*words, f"dataset={name}-v2")) for name in ("hopper-medium", "hopper-expert")
    )
    assert identity(one) != identity(other)
    assert pretrain_identity(one) is None
    assert "hopper-medium-v2" in run_directory(one).parts
    assert describe(one)["settings"]["dataset.quality"] == "medium"


def test_the_name_of_a_method_changes_nothing():
    named, plain = build(composed("method=td3_c")), build(composed("algorithm=td3_c"))
    assert named.method == "td3_c"
    assert identity(named) == identity(plain)
    assert phases.pretraining(named) == phases.pretraining(plain)


def test_without_finetuning_a_run_is_its_pretraining():
    config = build(composed("finetune.env_steps=0", "algorithm=td3_c"))
    finetuned = build(composed())
    assert identity(config) == pretrain_identity(config) == pretrain_identity(finetuned)
    assert run_directory(config) == pretrain_directory(config) == pretrain_directory(finetuned)


def test_a_file_is_known_by_its_content_and_not_its_place(tmp_path):
    def of(name, content):
        (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n" + content)
        return build(composed("dataset=file", f"dataset.path={tmp_path / name}", "dataset.task=ant"))

    assert identity(of("a", b"rows")) == identity(of("b", b"rows"))
    assert identity(of("a", b"rows")) != identity(of("c", b"other rows"))


def test_a_file_that_this_project_made_can_be_a_file_of_ones_own(tmp_path):
    with hdf5.create(tmp_path / "sealed") as file:  # its seal stands in front of HDF5's signature
        file["rows"] = [1.0]
    config = build(composed("dataset=file", f"dataset.path={tmp_path / 'sealed'}", "dataset.task=ant"))
    assert identity(config)


def test_a_file_that_is_not_there_is_told():
    config = build(composed("dataset=file", "dataset.path=no.hdf5", "dataset.task=ant"))
    with pytest.raises(ConfigError, match=r"dataset\.path=no\.hdf5 cannot be read"):
        identity(config)


def test_a_file_is_looked_at_before_all_of_it_is_read(tmp_path):
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(2**40)  # a hole, which would take an hour to read
    os.mkfifo(tmp_path / "pipe")
    for name, told in (("large", "is not an HDF5 file"), ("pipe", "is not a file")):
        config = build(composed("dataset=file", f"dataset.path={tmp_path / name}", "dataset.task=ant"))
        with pytest.raises(ConfigError, match=told):
            identity(config)


def test_regenerated_data_are_known_by_their_recipe(monkeypatch):
    config = build(composed("dataset=regen-hopper-medium"))
    seen = set()
    for policy in ("one", "other"):
        monkeypatch.setattr(identities, "_recipe", lambda dataset, policy=policy: {"policy": policy})
        seen.add(identity(config))
    assert len(seen) == 2


def test_what_is_written_of_a_run_is_its_identity_its_code_and_its_science():
    config = build(TREE)
    written = json.loads(json.dumps(describe(config)))
    assert written.pop("settings").keys() == {key for key in leaves(config) if key in SETTINGS}
    assert written == {
        "identity": identity(config),
        "code_hash": code_hash(config),
        "science": science(config),
        "pretraining": pretrain_identity(config),
    }


def test_the_code_of_a_run_is_what_its_result_depends_on(tmp_path, monkeypatch):
    copy = tmp_path / "o2o"
    shutil.copytree(sources.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.npz"))
    monkeypatch.setattr(sources, "PACKAGE", copy)

    def hashed(change=None):
        sources.hash_of_sources.cache_clear()
        if change is not None:
            with (copy / change).open("a") as file:
                file.write("# changed\n")
        return sources.hash_of_sources(frozenset(["td3_bc"]))

    first = hashed()
    for change in (
        "algorithms/mine.py",
        "algorithms/__init__.py",
        "algorithms/td3_c.py",
        "sweep/__main__.py",
    ):
        assert hashed(change) == first, change
    for change in ("algorithms/td3.py", "algorithms/losses.py", "algorithms/td3_bc.py", "training/steps.py"):
        before, first = first, hashed(change)
        assert before != first, change
    sources.hash_of_sources.cache_clear()


def leaves(config):
    return flatten(container(config))


SETTINGS = describe(build(TREE))["settings"]


def test_every_key_of_a_configuration_is_either_science_or_not():
    """Whoever adds a key to the configuration decides: a name in `directory/science.py`, or a field of `Execution`."""
    groups = {field.name for field in dataclasses.fields(Config)} - {"execution"}
    assert groups == {*BOTH_PHASES, "dataset", "pretrain", *ONLINE, "conventions", "method"}
    for key, value in leaves(build(TREE)).items():
        execution = key.partition(".")[0] in EXECUTION
        said = [
            key == "seed" or key in SETTINGS,
            execution,
            key in directory_science.LABELS or key in ("conventions", "method"),
        ]
        assert said.count(True) == 1, key
        assert SETTINGS.get(key, value) == value
    assert SETTINGS.keys() <= leaves(build(TREE)).keys()


def test_keys_of_the_science_are_said_in_one_place():
    root = CONF.parent
    lists = [
        path.relative_to(root).as_posix()
        for folder in ("o2o", "analysis")
        for path in (root / folder).rglob("*.py")
        if all(
            f'"{key}"' in path.read_text() for key in ("learning_rate", "network", "discount", "batch_size")
        )
    ]
    assert lists == ["o2o/runs/directory/science.py"]


def test_settings_from_scratch_have_a_task_and_no_dataset():
    config = build(composed("pretrain.updates=0", "replay_init=empty"))
    settings = describe(config)["settings"]
    own = {key for key in settings if key.startswith(("dataset.", "pretrain."))}
    assert own == {"dataset.task", "dataset.reference_min", "dataset.reference_max", "pretrain.updates"}


def test_settings_of_a_pretraining_have_nothing_of_who_finetunes():
    settings = describe(build(composed("finetune.env_steps=0")))["settings"]
    assert not [key for key in settings if key.partition(".")[0] in ONLINE]


def test_a_group_that_is_not_there_yet_is_neutral():
    """A top-level key that is added later is left out of the container at its neutral value, as keys in groups are."""
    tree = container(build(TREE))
    without = {key: value for key, value in tree.items() if key != "discount"}
    assert "discount" in directory_science.science(tree)
    assert "discount" not in directory_science.science(without)
