from __future__ import annotations

import fcntl
import json
import logging
import multiprocessing
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import pytest

from o2o import datasets
from o2o.config import ConfigError, Dataset
from o2o.datasets import __main__ as command
from o2o.datasets import hdf5, regenerate

WALKER = Dataset(
    name="regen-walker2d-medium",
    source="regenerated",
    task="walker2d",
    quality="medium",
    rows=600,
    seed=3,
    path=None,
    id=None,
    reference_min=None,
    reference_max=None,
)
HOPPER = replace(WALKER, name="regen-hopper-medium", task="hopper")
SIZES = {"walker2d": (17, 6), "hopper": (11, 3), "halfcheetah": (17, 6)}


def random_policy(path: Path, observation_size: int, action_size: int, **changes: Any) -> None:
    """Writes an untrained policy in the format of the shipped ones."""
    generator = np.random.default_rng(0)
    outputs = {"fc0": 256, "fc1": 256, "last_fc": action_size, "last_fc_log_std": action_size}
    arrays: dict[str, Any] = {"provenance": json.dumps({"command": "none"})}
    for layer, size in outputs.items():
        inputs = observation_size if layer == "fc0" else 256
        arrays[f"{layer}/weight"] = generator.normal(0, inputs**-0.5, (size, inputs)).astype(np.float32)
        arrays[f"{layer}/bias"] = generator.normal(0, 0.1, size).astype(np.float32)
    arrays |= changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})


@pytest.fixture(autouse=True)
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "policies"
    directory.mkdir()
    for task, sizes in SIZES.items():
        random_policy(directory / f"{task}-medium.npz", *sizes)
    monkeypatch.setattr(regenerate, "POLICIES", directory)
    monkeypatch.setattr(regenerate, "ENVIRONMENTS", 4)  # making them takes longer than stepping them here
    return directory


def read_all(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as opened:
        file: Any = opened
        keys: list[str] = []
        file.visititems(lambda key, item: keys.append(key) if isinstance(item, h5py.Dataset) else None)
        return {key: file[key][()] for key in keys}


def test_a_generated_set_has_d4rls_layout(tmp_path: Path):
    regenerate.generate(WALKER, tmp_path / "a.hdf5")
    found = {
        key: (value.shape, value.dtype.name)
        for key, value in read_all(tmp_path / "a.hdf5").items()
        if not key.startswith("metadata/")
    }
    assert found == {
        "observations": ((600, 17), "float32"),
        "next_observations": ((600, 17), "float32"),
        "actions": ((600, 6), "float32"),
        "rewards": ((600,), "float32"),
        "terminals": ((600,), "bool"),
        "timeouts": ((600,), "bool"),
        "infos/action_log_probs": ((600,), "float32"),
        "infos/qpos": ((600, 9), "float64"),
        "infos/qvel": ((600, 9), "float64"),
    }
    metadata = {
        key: value for key, value in read_all(tmp_path / "a.hdf5").items() if key.startswith("metadata/")
    }
    assert metadata["metadata/policy/fc0/weight"].shape == (256, 17)
    assert metadata["metadata/policy/last_fc_log_std/bias"].shape == (6,)
    assert metadata["metadata/policy/nonlinearity"] == b"relu"
    assert metadata["metadata/policy/output_distribution"] == b"tanh_gaussian"


def test_a_generated_set_says_that_it_is_not_d4rls(tmp_path: Path):
    regenerate.generate(WALKER, tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5") as file:
        assert "not a D4RL file" in str(file.attrs["notice"])
        assert json.loads(str(file.attrs["recipe"])) == regenerate.recipe(WALKER)


def test_the_same_recipe_gives_the_same_bytes_and_another_seed_other_rows(tmp_path: Path):
    one, two, other = (tmp_path / name for name in ("one.hdf5", "two.hdf5", "other.hdf5"))
    regenerate.generate(WALKER, one)
    regenerate.generate(WALKER, two)
    regenerate.generate(replace(WALKER, seed=4), other)
    assert one.read_bytes() == two.read_bytes()
    assert not np.array_equal(hdf5.read(one).rewards, hdf5.read(other).rewards)


def test_more_rows_of_the_same_seed_begin_with_the_same_rows(tmp_path: Path):
    regenerate.generate(replace(WALKER, rows=300), tmp_path / "short.hdf5")
    regenerate.generate(WALKER, tmp_path / "long.hdf5")
    short, long = hdf5.read(tmp_path / "short.hdf5"), hdf5.read(tmp_path / "long.hdf5", rows=300)
    for one, other in zip(short, long, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("dataset", "gymnasium_id"), [(WALKER, "Walker2d-v4"), (HOPPER, "Hopper-v4")])
def test_gymnasium_confirms_every_episode_bit_for_bit(tmp_path: Path, dataset: Dataset, gymnasium_id: str):
    regenerate.generate(dataset, tmp_path / "a.hdf5")
    arrays = read_all(tmp_path / "a.hdf5")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env: Any = gymnasium.make(gymnasium_id).unwrapped
    begins = True
    for i in range(600):
        if begins:
            env.reset()
            env.set_state(arrays["infos/qpos"][i], arrays["infos/qvel"][i])
        np.testing.assert_array_equal(arrays["observations"][i], env._get_obs().astype(np.float32))
        np.testing.assert_array_equal(arrays["infos/qpos"][i], env.data.qpos)
        observation, reward, terminated, _, _ = env.step(arrays["actions"][i])
        np.testing.assert_array_equal(arrays["next_observations"][i], observation.astype(np.float32))
        assert arrays["rewards"][i] == np.float32(reward)
        assert arrays["terminals"][i] == terminated
        begins = terminated
    assert arrays["terminals"].any()


def test_an_episode_is_cut_by_a_timeout_at_1000_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(regenerate, "ENVIRONMENTS", 2)  # none of which ever falls
    cheetah = replace(WALKER, name="regen-halfcheetah-medium", task="halfcheetah", rows=1500)
    regenerate.generate(cheetah, tmp_path / "a.hdf5")
    rows = hdf5.read(tmp_path / "a.hdf5")
    np.testing.assert_array_equal(np.flatnonzero(rows.timeouts), [999])
    assert not rows.terminals.any()


def test_log_probabilities_are_those_of_a_squashed_gaussian(policies: Path):
    policy = regenerate.load_policy(policies / "hopper-medium.npz")
    generator = np.random.default_rng(1)
    observation = generator.standard_normal((50, 11), np.float32)
    action, log_prob = policy.sample(observation, generator.standard_normal((50, 3), np.float32))
    weights = {key: value.astype(np.float64) for key, value in policy.weights.items()}
    hidden = observation.astype(np.float64)
    for layer in ("fc0", "fc1"):
        hidden = np.maximum(hidden @ weights[f"{layer}/weight"].T + weights[f"{layer}/bias"], 0)
    mean = hidden @ weights["last_fc/weight"].T + weights["last_fc/bias"]
    std = np.exp(hidden @ weights["last_fc_log_std/weight"].T + weights["last_fc_log_std/bias"])
    raw = np.arctanh(action.astype(np.float64))
    density = np.exp(-0.5 * ((raw - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi)) / (1 - np.tanh(raw) ** 2)
    # float32 actions near ±1 determine their arctanh only roughly
    np.testing.assert_allclose(log_prob, np.log(density).sum(axis=1), atol=2e-2)


def test_the_log_standard_deviation_is_clipped(policies: Path):
    random_policy(policies / "wide.npz", 11, 3, **{"last_fc_log_std/bias": np.full(3, 50, np.float32)})
    random_policy(policies / "narrow.npz", 11, 3, **{"last_fc_log_std/bias": np.full(3, -50, np.float32)})
    observation, noise = np.zeros((1, 11), np.float32), np.full((1, 3), 0.01, np.float32)
    wide, narrow, median = (
        np.arctanh(regenerate.load_policy(policies / f"{name}.npz").sample(observation, noise * scale)[0])
        for name, scale in (("wide", 1), ("narrow", 1), ("wide", 0))
    )
    np.testing.assert_allclose(wide - median, 0.01 * np.exp(2), rtol=1e-4)
    np.testing.assert_array_equal(narrow, median)


def test_load_generates_once_and_reads_the_same_file_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert datasets.locate(WALKER, tmp_path) is None
    batch = datasets.load(WALKER, tmp_path, observation_size=17, action_size=6)
    path = datasets.locate(WALKER, tmp_path)
    assert path is not None
    assert path.parent == tmp_path / "regen"
    assert path.name.startswith("regen-walker2d-medium-")
    monkeypatch.setattr(regenerate, "generate", None)  # calling it would fail
    again = datasets.load(WALKER, tmp_path, observation_size=17, action_size=6)
    for one, other in zip(batch, again, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("change", [{"rows": 599}, {"seed": 4}, {"task": "hopper"}, {"name": "regen-other"}])
def test_another_recipe_is_another_file(tmp_path: Path, change: dict[str, Any]):
    assert regenerate.file_path(replace(WALKER, **change), tmp_path) != regenerate.file_path(WALKER, tmp_path)


def test_another_policy_is_another_recipe(tmp_path: Path, policies: Path, monkeypatch: pytest.MonkeyPatch):
    other = tmp_path / "other"
    other.mkdir()
    random_policy(other / "walker2d-medium.npz", 17, 6, provenance=json.dumps({"command": "another"}))
    before = regenerate.recipe(WALKER)
    monkeypatch.setattr(regenerate, "POLICIES", other)
    assert regenerate.recipe(WALKER)["policy_sha256"] != before["policy_sha256"]


def test_an_altered_set_is_refused(tmp_path: Path):
    path = regenerate.obtain(WALKER, tmp_path)
    with h5py.File(path, "a") as opened:
        file: Any = opened
        file["rewards"][5] = 0.5
    with pytest.raises(ConfigError, match="Delete it to generate it anew"):
        datasets.load(WALKER, tmp_path)


def test_a_set_of_another_recipe_under_this_name_is_refused(tmp_path: Path):
    other = regenerate.obtain(replace(WALKER, seed=4), tmp_path)
    other.replace(regenerate.file_path(WALKER, tmp_path))
    with pytest.raises(ConfigError, match="Delete it to generate it anew"):
        datasets.load(WALKER, tmp_path)


def test_an_interrupted_generation_leaves_no_set_and_is_begun_again(tmp_path: Path):
    def interrupt(rows: int) -> None:
        raise KeyboardInterrupt

    path = regenerate.file_path(WALKER, tmp_path)
    path.parent.mkdir()
    path.with_suffix(".partial").write_bytes(b"half a file")
    with pytest.raises(KeyboardInterrupt):
        regenerate.generate(WALKER, path, interrupt)
    assert datasets.locate(WALKER, tmp_path) is None
    assert len(datasets.load_rows(WALKER, tmp_path).rewards) == 600


def test_progress_adds_up_to_the_rows(tmp_path: Path):
    reported: list[int] = []
    regenerate.generate(WALKER, tmp_path / "a.hdf5", reported.append)
    assert sum(reported) == 600


def test_a_second_process_waits_for_the_first_says_so_and_does_not_generate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = regenerate.file_path(WALKER, tmp_path)
    path.parent.mkdir()
    context = multiprocessing.get_context("spawn")
    ready, waits = context.Event(), context.Event()
    other = context.Process(target=_generate_elsewhere, args=(path.with_suffix(".lock"), path, ready, waits))
    other.start()
    messages: list[str] = []
    monkeypatch.setattr(regenerate, "generate", None)  # calling it would fail

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())
            waits.set()

    listener = Listener()
    regenerate.logger.addHandler(listener)
    try:
        assert ready.wait(30)
        assert regenerate.obtain(WALKER, tmp_path).read_bytes() == b"made elsewhere"
    finally:
        regenerate.logger.removeHandler(listener)
        waits.set()
        other.join()
    assert "another process" in messages[0]


def _generate_elsewhere(lock: Path, path: Path, ready: Any, waits: Any) -> None:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ready.set()
        waits.wait(30)
        path.write_bytes(b"made elsewhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quality": "expert"}, "no behaviour policy walker2d-expert is shipped"),
        ({"quality": None}, "dataset.quality=null"),
        ({"rows": None}, "dataset.rows=null"),
        ({"name": "walker2d-medium-v2"}, "generated data are called regen-"),
    ],
)
def test_an_impossible_recipe_is_refused(change: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        regenerate.recipe(replace(WALKER, **change))


@pytest.mark.parametrize(
    "change",
    [
        {"fc1/bias": None},
        {"provenance": None},
        {"provenance": "not JSON"},
        {"fc0/weight": np.zeros((256, 0, 1), np.float32)},
        {"fc1/weight": np.zeros((256, 255), np.float32)},
        {"last_fc/bias": np.full(3, np.nan, np.float32)},
        {"last_fc/weight": np.array(["text"])},
        {"last_fc/bias": np.array([{}], dtype=object)},
    ],
)
def test_a_broken_behaviour_policy_is_refused(policies: Path, change: dict[str, Any]):
    random_policy(policies / "bad.npz", 11, 3, **change)
    with pytest.raises(ConfigError, match="policy"):
        regenerate.load_policy(policies / "bad.npz")


def test_a_data_directory_that_cannot_be_written_is_an_error_with_a_way_out(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="O2O_DATA"):
        regenerate.obtain(WALKER, tmp_path / "file")


def test_the_command_line_generates_and_describes_a_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    settings = ["regen-hopper-medium", "dataset.rows=300", f"paths.data={tmp_path}"]
    assert command.main(["info", *settings]) == 2
    assert "python -m o2o.datasets generate regen-hopper-medium" in capsys.readouterr().err
    assert list(tmp_path.glob("regen/*")) == []
    assert command.main(["generate", *settings]) == 0
    assert command.main(["info", *settings]) == 0
    table = capsys.readouterr().out
    assert "rows" in table
    assert "300" in table


def test_the_command_line_refuses_to_generate_d4rls_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert command.main(["generate", "hopper-medium-v2", f"paths.data={tmp_path}"]) == 2
    assert "only regen-" in capsys.readouterr().err


def test_the_command_line_names_the_sets_there_are(capsys: pytest.CaptureFixture[str]):
    assert command.main(["info", "hopper-medium-v3"]) == 2
    assert "hopper-medium-v2" in capsys.readouterr().err
