from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from regenerated import WALKER, inline, random_policy, write_policies

from o2o.config.schema import Dataset, Paths
from o2o.datasets.regenerated import fidelity, recipes
from o2o.errors import ConfigError

ANT = replace(WALKER, name="regen-ant-medium", task="ant", rows=300)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files of a walker2d and an ant set."""
    directory = tmp_path_factory.mktemp("generated")
    write_policies(directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "POLICIES", directory)
        patch.setattr(recipes, "ENVIRONMENTS", 2)
        patch.setattr(recipes, "STREAMS", 1)
        patch.setattr(recipes, "streamed", inline)
        for dataset in (WALKER, ANT):
            recipes.generate(dataset, directory / f"{dataset.task}.hdf5")
    return {task: directory / f"{task}.hdf5" for task in ("walker2d", "ant")}


@pytest.fixture(autouse=True)
def few_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fidelity, "ENVIRONMENTS", 4)


def altered(path: Path, to: Path, **changes: Any) -> Path:
    """A copy of a set with other arrays, or without those that are None."""
    with h5py.File(path) as source, h5py.File(to, "w") as file:
        for name in source:
            source.copy(name, file)
        for name, change in changes.items():
            key = name.replace("__", "/")
            values: Any = file[key]
            array = np.asarray(values[()]) if change else None
            del file[key]
            if change:
                file[key] = change(array)
    return to


@pytest.mark.parametrize("task", ["walker2d", "ant"])
def test_a_regenerated_set_is_simulated_again_exactly(generated: dict[str, Path], task: str):
    result = fidelity.resimulate(generated[task], task, 50)
    assert result.observation.shape[0] == 50
    assert result.state.max() < 1e-6
    assert result.observation.max() < 1e-5
    assert result.reward is not None
    assert result.reward.max() < 1e-5


def test_ants_rewards_are_not_compared_without_the_torsos_place(generated: dict[str, Path], tmp_path: Path):
    path = altered(generated["ant"], tmp_path / "a.hdf5", infos__xpos=None)
    result = fidelity.resimulate(path, "ant", 50)
    assert result.reward is None
    assert result.observation.max() < 1e-5


def test_the_torsos_place_matters_for_ants_reward(generated: dict[str, Path], tmp_path: Path):
    path = altered(generated["ant"], tmp_path / "a.hdf5", infos__xpos=lambda xpos: xpos + 0.01)
    reward = fidelity.resimulate(path, "ant", 50).reward
    assert reward is not None
    np.testing.assert_allclose(reward, 0.01 / 0.05, rtol=1e-3)


def test_other_physics_show_in_the_entries_that_they_change(generated: dict[str, Path], tmp_path: Path):
    def moved(observations: np.ndarray) -> np.ndarray:
        return observations + np.eye(17, dtype=np.float32)[3] * 0.1

    path = altered(generated["walker2d"], tmp_path / "a.hdf5", next_observations=moved)
    result = fidelity.resimulate(path, "walker2d", 50)
    np.testing.assert_allclose(result.observation.max(axis=0), np.eye(17)[3] * 0.1, atol=1e-5)


def test_without_next_observations_the_following_row_is_compared_within_episodes(
    generated: dict[str, Path], tmp_path: Path
):
    path = altered(generated["walker2d"], tmp_path / "a.hdf5", next_observations=None)
    result = fidelity.resimulate(path, "walker2d", 500)
    assert 100 < len(result.observation) < 600
    assert result.observation.max() < 1e-5


def test_infos_of_other_rows_are_told_from_other_physics(generated: dict[str, Path], tmp_path: Path):
    path = altered(
        generated["walker2d"], tmp_path / "a.hdf5", infos__qpos=lambda qpos: np.roll(qpos, 1, axis=0)
    )
    assert fidelity.resimulate(path, "walker2d", 50).state.max() > 1e-4


def test_the_stored_policy_earns_what_it_earned_in_the_file(generated: dict[str, Path]):
    path = generated["walker2d"]
    policy = fidelity.stored_policy(path)
    assert policy is not None
    for key, weights in random_policy(17, 6).weights.items():
        np.testing.assert_array_equal(policy.weights[key], weights)
    earned = fidelity.behaviour_returns(policy, path, "walker2d", 20)
    with h5py.File(path) as opened:
        file: Any = opened
        ends = np.flatnonzero(file["terminals"][()]) + 1
        returns = np.add.reduceat(file["rewards"][: ends[-1]], np.concatenate([[0], ends[:-1]]))
    error = np.hypot(earned.std() / 20**0.5, returns.std() / len(returns) ** 0.5)
    assert abs(earned.mean() - returns.mean()) < 4 * error


def test_a_policy_of_another_task_is_refused(generated: dict[str, Path]):
    with pytest.raises(ConfigError, match=r"has sizes \(17, 6\), but ant has \(111, 8\)"):
        fidelity.behaviour_returns(random_policy(17, 6), generated["walker2d"], "ant", 2)


def test_a_file_without_a_policy_has_none(generated: dict[str, Path], tmp_path: Path):
    assert (
        fidelity.stored_policy(altered(generated["ant"], tmp_path / "a.hdf5", metadata__policy=None)) is None
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"infos": None}, "no infos/qpos and infos/qvel"),
        ({"infos__qvel": None}, "no 'qvel'"),
        ({"infos__qpos": lambda qpos: qpos[:, :8]}, "'qpos' has 8 columns, but walker2d has 9"),
        ({"metadata__policy__nonlinearity": lambda _: np.bytes_("tanh")}, "tanh and tanh_gaussian instead"),
        ({"metadata__policy__fc0__bias": None}, "no 'bias'"),
    ],
)
def test_what_cannot_be_checked_is_refused_with_its_name(
    generated: dict[str, Path], tmp_path: Path, changes: dict[str, Any], message: str
):
    path = altered(generated["walker2d"], tmp_path / "a.hdf5", **changes)
    question = fidelity.stored_policy if "policy" in str(changes) else _resimulated
    with pytest.raises(ConfigError, match=message):
        question(path)


def _resimulated(path: Path) -> fidelity.Resimulation:
    return fidelity.resimulate(path, "walker2d", 10)


def test_the_command_says_zero_to_rounding_of_a_set_of_ours(
    generated: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def found(dataset: Dataset, data: Path) -> Path:
        return generated[dataset.task]

    monkeypatch.setattr(fidelity, "locate", found)
    fidelity.check_sets([WALKER, ANT], Paths(Path(), Path()), rows=20, episodes=4)
    said = capsys.readouterr().out
    assert said.count("next observations: zero to rounding") == 2
    assert said.count("rewards: zero to rounding") == 2
    assert "27–110: constant, and equal" in said
    assert said.count("standard errors") == 2


def test_the_command_refuses_a_set_that_is_not_there(tmp_path: Path):
    dataset = replace(WALKER, name="walker2d-medium-v2", source="d4rl", rows=None)
    with pytest.raises(ConfigError, match="not one file that is there"):
        fidelity.check_sets([dataset], Paths(tmp_path, tmp_path), rows=20, episodes=4)
