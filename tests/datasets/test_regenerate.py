from __future__ import annotations

import fcntl
import io
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import pytest
from regenerated import (
    EPOCHS,
    WALKER,
    inline,
    random_policy,
    read_all,
    recipe_of,
    shorten_training,
    write_policies,
)

from o2o.config.schema import Dataset
from o2o.datasets import __main__ as command
from o2o.datasets import loading
from o2o.datasets.files import hdf5, locking
from o2o.datasets.regenerated import recipes, rollouts, tanh_gaussian
from o2o.errors import ConfigError

HOPPER = replace(WALKER, name="regen-hopper-medium", task="hopper")
ANT = replace(WALKER, name="regen-ant-medium", task="ant", rows=60)
REPLAY = replace(
    WALKER,
    name="regen-walker2d-medium-replay-snapshots",
    source="snapshots",
    quality="medium-replay",
    rows=3000,
)
RETRAIN = replace(
    HOPPER, name="regen-hopper-medium-replay-retrain", source="retrain", quality="medium-replay", rows=70
)


@pytest.fixture(autouse=True)
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "policies"
    directory.mkdir()
    write_policies(directory)
    monkeypatch.setattr(recipes, "POLICIES", directory)
    monkeypatch.setattr(recipes, "ENVIRONMENTS", 2)  # making them takes longer than stepping them here
    monkeypatch.setattr(recipes, "GROUP", 2)
    monkeypatch.setattr(recipes, "STREAMS", 2)
    monkeypatch.setattr(recipes, "streamed", inline)
    return directory


def test_a_generated_set_has_d4rls_layout(tmp_path: Path):
    recipes.generate(WALKER, tmp_path / "a.hdf5")
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
    assert metadata["metadata/policy/fc0/weight"].shape == (64, 17)
    assert metadata["metadata/policy/last_fc_log_std/bias"].shape == (6,)
    assert metadata["metadata/policy/nonlinearity"] == b"relu"
    assert metadata["metadata/policy/output_distribution"] == b"tanh_gaussian"


def test_more_rows_of_the_same_seed_begin_with_the_same_rows(tmp_path: Path):
    recipes.generate(replace(WALKER, rows=300), tmp_path / "short.hdf5")
    recipes.generate(WALKER, tmp_path / "long.hdf5")
    short, long = hdf5.read(tmp_path / "short.hdf5"), hdf5.read(tmp_path / "long.hdf5", rows=300)
    for one, other in zip(short, long, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("dataset", "gymnasium_id"), [(WALKER, "Walker2d-v4"), (HOPPER, "Hopper-v4")])
def test_gymnasium_confirms_every_episode_bit_for_bit(tmp_path: Path, dataset: Dataset, gymnasium_id: str):
    recipes.generate(dataset, tmp_path / "a.hdf5")
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
    monkeypatch.setattr(recipes, "ENVIRONMENTS", 1)  # which never falls
    cheetah = replace(WALKER, name="regen-halfcheetah-medium", task="halfcheetah", rows=1500)
    recipes.generate(cheetah, tmp_path / "a.hdf5")
    rows = hdf5.read(tmp_path / "a.hdf5")
    np.testing.assert_array_equal(np.flatnonzero(rows.timeouts), [999])
    assert not rows.terminals.any()


def test_load_generates_once_and_reads_the_same_file_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert loading.locate(WALKER, tmp_path) is None
    batch = loading.load(WALKER, tmp_path, observation_size=17, action_size=6)
    path = loading.locate(WALKER, tmp_path)
    assert path is not None
    assert path.parent == tmp_path / "regen"
    assert path.name.startswith("regen-walker2d-medium-")
    monkeypatch.setattr(recipes, "generate", None)  # calling it would fail
    again = loading.load(WALKER, tmp_path, observation_size=17, action_size=6)
    for one, other in zip(batch[:5], again[:5], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("change", [{"rows": 599}, {"seed": 4}, {"task": "hopper"}, {"name": "regen-other"}])
def test_another_recipe_is_another_file(tmp_path: Path, change: dict[str, Any]):
    assert recipes.file_path(replace(WALKER, **change), tmp_path) != recipes.file_path(WALKER, tmp_path)


def test_a_second_process_waits_for_the_first_says_so_and_does_not_generate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = recipes.file_path(WALKER, tmp_path)
    path.parent.mkdir()
    context = multiprocessing.get_context("spawn")
    ready, waits = context.Event(), context.Event()
    other = context.Process(target=_generate_elsewhere, args=(path.with_suffix(".lock"), path, ready, waits))
    other.start()
    messages: list[str] = []
    monkeypatch.setattr(recipes, "generate", None)  # calling it would fail

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())
            waits.set()

    listener = Listener()
    locking.logger.addHandler(listener)
    try:
        assert ready.wait(120)
        assert recipes.obtain(WALKER, tmp_path).read_bytes() == b"made elsewhere"
    finally:
        locking.logger.removeHandler(listener)
        waits.set()
        other.join()
    assert "another process" in messages[0]


def _generate_elsewhere(lock: Path, path: Path, ready: Any, waits: Any) -> None:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ready.set()
        waits.wait(120)
        path.write_bytes(b"made elsewhere")


def test_a_data_directory_that_cannot_be_written_is_an_error_with_a_way_out(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="O2O_DATA"):
        recipes.obtain(WALKER, tmp_path / "file")


def test_the_command_line_generates_and_describes_a_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    settings = ["regen-hopper-medium", "dataset.rows=300", f"paths.data={tmp_path}"]
    assert command.main(["info", *settings]) == 2
    assert "The same command with 'generate' in place of 'info' makes it." in capsys.readouterr().err
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


def test_a_generated_set_says_that_it_is_not_d4rls(tmp_path: Path):
    recipes.generate(WALKER, tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5") as file:
        assert "not a D4RL file" in str(file.attrs["notice"])
    assert recipe_of(tmp_path / "a.hdf5") == recipes.recipe(WALKER)


def test_ants_torso_is_stored_since_its_rewards_are_measured_on_it(tmp_path: Path):
    recipes.generate(ANT, tmp_path / "a.hdf5")
    arrays = read_all(tmp_path / "a.hdf5")
    assert arrays["infos/xpos"].shape == (60, 3)
    assert not arrays["observations"][:, 27:].any()
    moved = arrays["infos/xpos"][1:, 0] - arrays["infos/xpos"][:-1, 0]
    reward = moved / 0.05 + 1 - 0.5 * np.square(arrays["actions"][:-1]).sum(axis=1)
    going_on = ~(arrays["terminals"] | arrays["timeouts"])[:-1]
    np.testing.assert_allclose(arrays["rewards"][:-1][going_on], reward[going_on], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dataset", [WALKER, pytest.param(REPLAY, marks=pytest.mark.slow)])
def test_the_same_recipe_gives_the_same_bytes_and_another_seed_other_rows(tmp_path: Path, dataset: Dataset):
    one, two, other = (tmp_path / name for name in ("one.hdf5", "two.hdf5", "other.hdf5"))
    recipes.generate(dataset, one)
    recipes.generate(dataset, two)
    recipes.generate(replace(dataset, seed=4), other)
    assert one.read_bytes() == two.read_bytes()
    assert not np.array_equal(hdf5.read(one).rewards, hdf5.read(other).rewards)


@pytest.mark.parametrize("dataset", [WALKER, REPLAY])
def test_processes_make_the_same_bytes_as_this_one(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
):
    recipes.generate(dataset, tmp_path / "here.hdf5")
    monkeypatch.setattr(recipes, "streamed", rollouts.streamed)
    recipes.generate(dataset, tmp_path / "elsewhere.hdf5")
    assert (tmp_path / "here.hdf5").read_bytes() == (tmp_path / "elsewhere.hdf5").read_bytes()


def test_a_process_that_dies_is_an_error_and_not_the_end_of_the_rows(tmp_path: Path):
    request = rollouts.Request("hopper", str(tmp_path / "none.npz"), 0, 0, 1, None)
    with rollouts.streamed([request]) as (stream,), pytest.raises(RuntimeError, match="ended with 1"):
        next(stream)


def test_a_process_takes_no_module_from_the_working_directory(
    policies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "mujoco.py").write_text("raise SystemExit('a file of the user')")
    monkeypatch.chdir(tmp_path)
    request = rollouts.Request("hopper", str(policies / "hopper-snapshots.npz"), 0, 0, 2, [(0, [0, 1])])
    with rollouts.streamed([request]) as (stream,):
        assert next(stream)["rewards"].size


def test_what_the_simulator_prints_does_not_get_between_the_rows(policies: Path):
    """MuJoCo warns of an unstable simulation on standard output, from C."""
    noisy = (
        "import os; from o2o.datasets.regenerated import rollouts; made = rollouts.pieces\n"
        "def pieces(request):\n"
        "    for piece in made(request):\n"
        "        os.write(1, b'WARNING: Nan, Inf or huge value in QVEL at DOF 0.\\n'); print('here')\n"
        "        yield piece\n"
        "rollouts.pieces = pieces; rollouts.main()"
    )
    request = rollouts.Request("hopper", str(policies / "hopper-snapshots.npz"), 0, 0, 2, [(0, [0, 1])])
    with subprocess.Popen(
        [sys.executable, "-c", noisy],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(json.dumps(asdict(request)).encode() + b"\n")
        process.stdin.flush()
        received = list(rollouts.results(process))
        assert process.stderr.read().count(b"WARNING") == 2
    for one, other in zip(received, rollouts.pieces(request), strict=True):
        for key, values in other.items():
            np.testing.assert_array_equal(one[key], values)


def test_a_process_that_is_killed_while_it_sends_is_an_error():
    dying = (
        "import io, os; from o2o.datasets.regenerated import rollouts; piece = io.BytesIO()\n"
        "rollouts.send(piece, {'rewards': rollouts.np.arange(500)})\n"
        "with rollouts.standard_output() as pipe:\n"
        "    pipe.write(piece.getvalue() + piece.getvalue()[:2000]); pipe.flush()\n"
        "    os.kill(os.getpid(), 9)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", dying], stdout=subprocess.PIPE, env=environment) as process:
        found = rollouts.results(process)
        np.testing.assert_array_equal(next(found)["rewards"], np.arange(500))
        with pytest.raises(RuntimeError, match="ended with -9"):
            next(found)


def test_rows_that_are_garbled_on_their_way_are_an_error():
    pipe = io.BytesIO()
    rollouts.send(pipe, {"rewards": np.arange(5.0)})
    garbled = pipe.getvalue().replace(np.float64(3).tobytes(), np.float64(4).tobytes())
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        list(rollouts.received(io.BytesIO(garbled)))


def test_a_replay_is_blocks_that_begin_afresh_and_end_in_timeouts(tmp_path: Path):
    recipes.generate(REPLAY, tmp_path / "a.hdf5")
    arrays = read_all(tmp_path / "a.hdf5")
    ends = arrays["terminals"] | arrays["timeouts"]
    assert ends[[999, 1999, 2999]].all()
    assert np.flatnonzero(arrays["timeouts"]).tolist() == [
        i for i in (999, 1999, 2999) if not arrays["terminals"][i]
    ]
    for block in range(3):
        np.testing.assert_allclose(arrays["infos/qpos"][1000 * block], [0, 1.25, *[0] * 7], atol=6e-3)


def test_a_replay_is_collected_by_the_snapshots_in_their_order(tmp_path: Path, policies: Path):
    recipes.generate(REPLAY, tmp_path / "a.hdf5")
    arrays = read_all(tmp_path / "a.hdf5")
    assert arrays["metadata/snapshots/epochs"].tolist() == EPOCHS
    assert arrays["infos/policy"][::1000].tolist() == [0, 0, 2]
    several, _ = tanh_gaussian.load(policies / "walker2d-snapshots.npz")
    clear = np.flatnonzero(np.abs(arrays["actions"]).max(axis=1) < 0.95)  # of where tanh cannot be undone
    for i in clear[:: len(clear) // 5]:
        mean, log_std = several[arrays["infos/policy"][i]].distribution(arrays["observations"][i : i + 1])
        noise = (np.arctanh(arrays["actions"][i]) - mean) / np.exp(log_std)
        density = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi) - np.log(1 - arrays["actions"][i] ** 2)
        np.testing.assert_allclose(arrays["infos/action_log_probs"][i], density.sum(), atol=1e-2)


@pytest.mark.parametrize(
    ("blocks", "count", "expected"),
    [
        (6, None, [0, 0, 0, 1, 1, 2]),
        (6, 1, [2] * 6),
        (6, 2, [0, 0, 0, 0, 2, 2]),
        (1, None, [0]),
        (2, None, [0, 0]),
    ],
)
def test_each_block_is_collected_by_the_policy_nearest_in_training(
    blocks: int, count: int | None, expected: list[int]
):
    assert recipes.schedule([0, 4, 8], blocks, count) == expected


def test_fewer_snapshots_are_fewer_policies_and_another_set(tmp_path: Path):
    fewer = replace(REPLAY, snapshots=2)
    assert (recipes.count_policies(REPLAY), recipes.count_policies(fewer)) == (2, 2)  # of 3 blocks
    assert recipes.count_policies(replace(REPLAY, rows=20_000)) == 3
    assert recipes.count_policies(replace(fewer, rows=20_000)) == 2
    assert recipes.file_path(fewer, tmp_path) != recipes.file_path(REPLAY, tmp_path)


@pytest.fixture
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_training(monkeypatch)
    monkeypatch.setattr(recipes, "BLOCK", 20)


def test_a_retrained_replay_is_the_buffer_of_a_run_block_after_block(tmp_path: Path, short_blocks: None):
    notes: list[tuple[int, str]] = []
    recipes.generate(RETRAIN, tmp_path / "a.hdf5", lambda rows, note: notes.append((rows, note)))
    arrays = read_all(tmp_path / "a.hdf5")
    assert [rows for rows, _ in notes] == [20, 40, 60, 70]
    assert arrays["infos/policy"][::20].tolist() == [0, 0, 1, 2]
    assert arrays["infos/qpos"].shape == (70, 6)
    assert (arrays["terminals"] | arrays["timeouts"])[[19, 39, 59]].all()
    assert [path.name for path in tmp_path.iterdir()] in (["policies", "a.hdf5"], ["a.hdf5", "policies"])


@pytest.mark.slow
def test_a_retraining_that_was_stopped_goes_on_to_the_same_bytes(tmp_path: Path, short_blocks: None):
    def stop(rows: int, note: str) -> None:
        if rows == 40:
            raise KeyboardInterrupt

    whole, stopped = tmp_path / "whole.hdf5", tmp_path / "stopped.hdf5"
    recipes.generate(RETRAIN, whole)
    with pytest.raises(KeyboardInterrupt):
        recipes.generate(RETRAIN, stopped, stop)
    assert not stopped.exists()
    done: list[int] = []
    recipes.generate(RETRAIN, stopped, lambda rows, note: done.append(rows))
    assert done[0] == 40
    assert whole.read_bytes() == stopped.read_bytes()


def test_a_damaged_training_is_refused_with_a_way_out(tmp_path: Path, short_blocks: None):
    directory = tmp_path / "a.training"
    directory.mkdir()
    (directory / "state.npz").write_bytes(b"not a state")
    with pytest.raises(ConfigError, match=r"delete .*a.training to begin anew"):
        recipes.generate(RETRAIN, tmp_path / "a.hdf5")


@pytest.mark.parametrize("dataset", [WALKER, REPLAY])
def test_another_policy_is_another_recipe(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = tmp_path / "other"
    write_policies(other)
    before = recipes.recipe(dataset)
    for path in other.iterdir():
        policies, provenance = tanh_gaussian.load(path)
        tanh_gaussian.save(path, policies, provenance | {"command": "another"})
    monkeypatch.setattr(recipes, "POLICIES", other)
    assert recipes.recipe(dataset)["policies_sha256"] != before["policies_sha256"]


def test_only_retrained_sets_changed_with_the_last_change_of_the_training():
    versions = [recipes.recipe(dataset)["recipe_version"] for dataset in (WALKER, REPLAY, RETRAIN)]
    assert versions == [2, 2, 3]


def test_an_altered_set_is_refused(tmp_path: Path):
    path = recipes.obtain(WALKER, tmp_path)
    with h5py.File(path, "a") as opened:
        file: Any = opened
        file["infos/qpos"][5] = 0.5
    with pytest.raises(ConfigError, match="altered or damaged"):
        loading.load(WALKER, tmp_path)


def test_a_set_of_another_recipe_under_this_name_is_refused(tmp_path: Path):
    other = recipes.obtain(replace(WALKER, seed=4), tmp_path)
    other.replace(recipes.file_path(WALKER, tmp_path))
    with pytest.raises(ConfigError, match="Delete it to generate it anew"):
        loading.load(WALKER, tmp_path)


def test_an_interrupted_generation_leaves_nothing_and_is_begun_again(tmp_path: Path):
    def interrupt(rows: int, note: str) -> None:
        raise KeyboardInterrupt

    path = recipes.file_path(WALKER, tmp_path)
    path.parent.mkdir()
    with pytest.raises(KeyboardInterrupt):
        recipes.generate(WALKER, path, interrupt)
    assert list(path.parent.iterdir()) == []
    assert len(loading.load_rows(WALKER, tmp_path).rewards) == 600


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR2, 140)]
)
def test_a_signal_ends_a_generation_within_seconds_and_leaves_nothing(
    tmp_path: Path, number: signal.Signals, code: int
):
    words = ["generate", "regen-hopper-medium", f"paths.data={tmp_path}"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-m", "o2o.datasets", *words], env=environment, stderr=subprocess.DEVNULL
    )
    directory = tmp_path / "regen"
    while not list(directory.glob("*.partial")):
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(2)
    process.send_signal(number)
    assert process.wait(20) == code
    assert [path.suffix for path in directory.iterdir()] == [".lock"]


def test_progress_ends_at_the_rows(tmp_path: Path):
    reported: list[int] = []
    recipes.generate(WALKER, tmp_path / "a.hdf5", lambda rows, note: reported.append(rows))
    assert reported[-1] == 600
    assert reported == sorted(reported)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (replace(WALKER, task="humanoid"), "no policies humanoid-medium are shipped"),
        (replace(REPLAY, task="humanoid"), "no policies humanoid-snapshots are shipped"),
        (replace(WALKER, quality="expert"), "dataset.source=regenerated makes medium sets only"),
        (replace(WALKER, source="retrain"), "dataset.source=retrain makes medium-replay sets only"),
        (replace(WALKER, rows=None), "dataset.rows=null"),
        (replace(WALKER, name="walker2d-medium-v2"), "generated data are called regen-"),
        (replace(REPLAY, snapshots=4), "dataset.snapshots=4: .* has 3, so at most 3"),
    ],
)
def test_an_impossible_recipe_is_refused(dataset: Dataset, message: str):
    with pytest.raises(ConfigError, match=message):
        recipes.recipe(dataset)


def test_log_probabilities_are_those_of_a_squashed_gaussian():
    policy = random_policy(11, 3)
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


def test_the_log_standard_deviation_is_clipped():
    wide = random_policy(11, 3, **{"last_fc_log_std/bias": np.full(3, 50, np.float32)})
    narrow = random_policy(11, 3, **{"last_fc_log_std/bias": np.full(3, -50, np.float32)})
    observation = np.zeros((1, 11), np.float32)
    assert wide.distribution(observation)[1].tolist() == [[2.0] * 3]
    assert narrow.distribution(observation)[1].tolist() == [[-20.0] * 3]


def test_shipped_snapshots_are_rounded_to_half_precision_and_keep_their_order(tmp_path: Path):
    policies = [random_policy(11, 3, seed) for seed in range(3)]
    tanh_gaussian.save(tmp_path / "a.npz", policies, {"epochs": EPOCHS})
    found, provenance = tanh_gaussian.load(tmp_path / "a.npz")
    assert provenance["epochs"] == EPOCHS
    for one, other in zip(policies, found, strict=True):
        for key, weights in one.weights.items():
            np.testing.assert_array_equal(other.weights[key], weights.astype(np.float16))


@pytest.mark.parametrize(
    "change",
    [
        {"fc1/bias": None},
        {"provenance": None},
        {"provenance": "not JSON"},
        {"fc0/weight": np.zeros((64, 0, 1, 1), np.float32)},
        {"fc1/weight": np.zeros((64, 63), np.float32)},
        {"last_fc/bias": np.full(3, np.nan, np.float32)},
        {"last_fc/weight": np.array(["text"])},
        {"last_fc/bias": np.array([{}], dtype=object)},
    ],
)
def test_a_broken_behaviour_policy_is_refused(tmp_path: Path, change: dict[str, Any]):
    arrays: dict[str, Any] = random_policy(11, 3).weights | {"provenance": json.dumps({})} | change
    np.savez(tmp_path / "bad.npz", **{key: value for key, value in arrays.items() if value is not None})
    with pytest.raises(ConfigError, match="Restore the shipped file"):
        tanh_gaussian.load(tmp_path / "bad.npz")


MIXED = replace(WALKER, mix=(("medium", 0.25), ("medium-replay", 0.75)), rows=2000, quality="mix")


def test_a_mixture_has_its_parts_shares_and_the_rows_asked_for(tmp_path: Path):
    rows = loading.load_rows(MIXED, tmp_path)
    medium = loading.load_rows(replace(WALKER, rows=500), tmp_path)
    replay = loading.load_rows(replace(REPLAY, rows=1500), tmp_path)
    assert len(rows.rewards) == 2000
    np.testing.assert_array_equal(
        np.sort(rows.rewards), np.sort(np.concatenate([medium.rewards, replay.rewards]))
    )
    # Shuffled: the replay forgets in file order.
    assert not np.array_equal(rows.rewards[:500], medium.rewards)


def test_no_transition_of_a_mixture_leads_from_one_episode_into_another(tmp_path: Path):
    rows = loading.load_rows(MIXED, tmp_path)
    batch = hdf5.transitions(rows)
    going_on = ~np.asarray(batch.terminated)
    jump = np.abs(np.asarray(batch.next_observation) - np.asarray(batch.observation))[going_on, 0]
    assert jump.max() < 0.1  # the torso's height moves by centimetres in a step


def test_a_mixture_of_d4rls_sets_draws_whole_episodes_of_the_size_asked_for(monkeypatch: pytest.MonkeyPatch):
    ends = np.arange(1, 101) % 10 == 0
    rows = hdf5.StoredRows(
        np.arange(100, dtype=np.float32)[:, None], np.zeros((100, 1), np.float32),
        np.arange(100, dtype=np.float32), ends, np.zeros(100, bool),
    )  # fmt: skip
    dataset = replace(WALKER, source="d4rl", rows=50, mix=(("medium", 0.5), ("medium-replay", 0.5)))
    assert [(part.name, size) for part, size in loading.mix.parts(dataset)] == [
        ("walker2d-medium-v2", 25),
        ("walker2d-medium-replay-v2", 25),
    ]
    found = loading.mix.mixed(dataset, [rows, rows])
    assert len(found.rewards) == 50
    assert found.timeouts.sum() == 2  # of either part, one episode is cut
    assert found.terminals.sum() == 4
    with pytest.raises(ConfigError, match=r"150 rows of walker2d-medium-v2 are wanted, but it has 100"):
        loading.mix.mixed(replace(dataset, rows=300), [rows, rows])


def test_a_set_that_is_there_with_other_rows_is_named(tmp_path, capsys):
    recipes.obtain(replace(WALKER, seed=0), tmp_path)
    named = ["regen-walker2d-medium", f"paths.data={tmp_path}"]
    assert command.main(["list", *named]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "regen-walker2d-medium" in line)
    assert line.endswith("there with dataset.rows=600")
    assert command.main(["info", *named]) == 2
    assert "not there yet (there with dataset.rows=600)" in capsys.readouterr().err
    assert command.main(["list", *named, "dataset.rows=600"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "regen-walker2d-medium" in line)
    assert " there, " in line
