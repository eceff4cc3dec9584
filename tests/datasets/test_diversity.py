from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from regenerated import WALKER

from analysis.tables.coverage import read_diversity
from o2o.config.schema import Dataset, Paths
from o2o.datasets import comparison, d4rl, diversity
from o2o.datasets.files import hdf5
from o2o.datasets.files.hdf5 import StoredRows
from o2o.errors import ConfigError


@pytest.fixture(autouse=True)
def short_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diversity, "FIT_UPDATES", 30)


def rows_of(observations: np.ndarray, actions: np.ndarray, rewards: np.ndarray | None = None) -> StoredRows:
    """Episodes of ten rows."""
    count = len(observations)
    return StoredRows(
        observations.astype(np.float32),
        actions.astype(np.float32),
        np.ones(count, np.float32) if rewards is None else rewards.astype(np.float32),
        np.arange(1, count + 1) % 10 == 0,
        np.zeros(count, bool),
    )


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_the_entropy_of_a_gaussian_is_its_own(size: int, spread: float):
    points = np.random.default_rng(0).standard_normal((3000, size)) * spread
    expected = size / 2 * np.log(2 * np.pi * np.e * spread**2)
    assert diversity.entropy(points) == pytest.approx(expected, abs=0.1)


def test_the_entropy_of_a_cube_is_the_logarithm_of_its_volume():
    points = np.random.default_rng(0).uniform(0, 2, (3000, 3))
    assert diversity.entropy(points) == pytest.approx(3 * np.log(2), abs=0.15)


def test_repeated_rows_lower_the_entropy_and_do_not_make_it_infinite():
    points = np.random.default_rng(0).standard_normal((1000, 3))
    repeated = np.tile(points[:50], (20, 1))
    assert np.isfinite(diversity.entropy(repeated))
    assert diversity.entropy(repeated) < diversity.entropy(points) - 10


def test_two_narrow_modes_have_less_entropy_than_their_covariance_says():
    generator = np.random.default_rng(0)
    states = generator.standard_normal((2000, 2))
    wide = rows_of(states, generator.uniform(-1, 1, (2000, 1)))
    modes = rows_of(states, np.sign(wide.actions) * 0.577 + 0.01 * generator.standard_normal((2000, 1)))
    scale = np.ones(2)
    spread, two = (diversity.measure(rows, 2000, 100, scale) for rows in (wide, modes))
    assert two.log_determinant == pytest.approx(spread.log_determinant, abs=0.1)
    assert two.entropy < spread.entropy - 1


def test_the_log_determinant_is_that_of_the_covariance_in_the_fixed_units():
    generator = np.random.default_rng(0)
    rows = rows_of(generator.standard_normal((20_000, 2)) * [2, 3], generator.uniform(-1, 1, (20_000, 1)))
    found = diversity.measure(rows, 1000, 100, np.array([2.0, 1.0]))
    expected = np.log(1 * 9 * (1 / 3) / diversity.ACTION_SCALE**2)
    assert found.log_determinant == pytest.approx(expected, abs=0.2)


def test_an_entry_without_a_unit_is_left_out():
    generator = np.random.default_rng(0)
    states, actions = generator.standard_normal((1000, 2)), generator.uniform(-1, 1, (1000, 1))
    padded = np.concatenate([states, np.zeros((1000, 3))], axis=1)
    one = diversity.measure(rows_of(states, actions), 1000, 100, np.ones(2))
    other = diversity.measure(rows_of(padded, actions), 1000, 100, np.array([1, 1, 0, 0, 0.0]))
    assert (one.entropy, one.log_determinant) == (other.entropy, other.log_determinant)


@pytest.mark.slow
def test_the_residual_is_the_variance_that_states_do_not_explain(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(diversity, "FIT_UPDATES", 400)
    generator = np.random.default_rng(0)
    states = generator.standard_normal((4000, 2))
    explained = np.tanh(states)
    noise = 0.2 * generator.standard_normal(states.shape)
    assert diversity.residual_variance(states, explained) < 0.01
    assert diversity.residual_variance(states, 0.7 * explained + noise) == pytest.approx(0.04, rel=0.3)


def test_returns_are_of_complete_episodes():
    rows = rows_of(np.zeros((35, 1)), np.zeros((35, 1)), np.repeat([1.0, 2.0, 3.0, 100.0], [10, 10, 10, 5]))
    assert diversity.episode_returns(rows).tolist() == [10, 20, 30]


@pytest.mark.parametrize("task", ["hopper", "halfcheetah", "walker2d", "ant"])
def test_the_units_of_a_task_do_not_depend_on_the_set(task: str):
    from o2o.envs.tasks import TASKS, task_sizes

    size, _ = task_sizes(TASKS[task])
    zeros, other = (rows_of(np.full((20, size), value), np.zeros((20, 1))) for value in (0.0, 7.0))
    np.testing.assert_array_equal(diversity.scales(task, zeros), diversity.scales(task, other))
    assert np.count_nonzero(diversity.scales(task, zeros)) == size - TASKS[task].padding


@pytest.fixture
def two_tasks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Dataset]:
    """Three sets of two tasks, of which the last, an ant's, has no complete episode."""
    generator = np.random.default_rng(0)
    made = {}
    for name, size, actions, rows in (("one", 17, 6, 300), ("other", 17, 6, 200), ("ant", 111, 8, 200)):
        states = generator.standard_normal((rows, size)), generator.uniform(-1, 1, (rows, actions))
        made[name] = rows_of(*states, np.arange(rows))
    made["ant"] = made["ant"]._replace(terminals=np.zeros(200, bool))
    monkeypatch.setattr(diversity, "locate", lambda dataset, data: tmp_path)
    monkeypatch.setattr(diversity, "load_for_task", lambda dataset, data: made[dataset.name])
    monkeypatch.setattr(diversity, "known_policies", lambda dataset: "1")
    monkeypatch.setattr(diversity, "residual_variance", lambda states, actions: 0.25)
    tasks = {"one": "walker2d", "other": "walker2d", "ant": "ant"}
    return [replace(WALKER, name=name, task=task) for name, task in tasks.items()]


def test_sets_are_compared_within_a_task_on_equally_many_rows(
    two_tasks: list[Dataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    diversity.show_diversity(two_tasks, Paths(tmp_path, tmp_path), 1000, None)
    out = capsys.readouterr().out
    assert "walker2d: 200 rows of each set" in out
    assert "ant: 200 rows of each set" in out
    assert [line.split()[0] for line in out.splitlines() if line.endswith(" 1")] == ["one", "other", "ant"]


def test_the_figures_of_a_file_are_those_that_the_analysis_reads(two_tasks: list[Dataset], tmp_path: Path):
    file = tmp_path / "figures.json"
    diversity.show_diversity(two_tasks, Paths(tmp_path, tmp_path), 1000, file)
    found = read_diversity(file)
    assert list(found) == ["one", "other", "ant"]
    assert set(found["one"]) == {"entropy", "log_determinant", "residual_action_variance", "return_std"}
    assert "return_std" not in found["ant"]  # nobody knows it
    rows = diversity.load_for_task(two_tasks[0], tmp_path)
    same = diversity.measure(rows, 200, 200, diversity.scales("walker2d", rows))
    assert found["one"]["entropy"] == same.entropy
    assert found["one"]["return_std"] == same.return_std
    with pytest.raises(ConfigError, match="cannot be written"):
        diversity.write(tmp_path / "none" / "figures.json", {})


def test_a_set_that_is_not_there_is_asked_for_before_anything_is_measured(tmp_path: Path):
    with pytest.raises(ConfigError, match="regen-hopper-medium is not there"):
        diversity.show_diversity(
            [replace(WALKER, name="regen-hopper-medium")], Paths(tmp_path, tmp_path), 9, None
        )


def test_policies_are_counted_where_they_are_known():
    medium = replace(WALKER, source="d4rl", name="walker2d-medium-v2")
    assert diversity.known_policies(medium) == "1"
    assert "inferred" in diversity.known_policies(replace(medium, quality="medium-replay"))
    assert diversity.known_policies(WALKER) == "1"
    assert diversity.known_policies(replace(WALKER, source="file")) == "?"


def test_the_table_puts_a_set_beside_its_original_and_points_at_what_is_far_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    rewards = np.full(20, 200.0)
    monkeypatch.setattr(comparison, "locate", lambda dataset, data: tmp_path)
    monkeypatch.setattr(
        comparison, "load_rows", lambda dataset, data: rows_of(np.zeros((20, 1)), np.zeros((20, 1)), rewards)
    )
    page = tmp_path / "page.md"
    page.write_text(f"before\n{comparison.BEGIN}\nold\n{comparison.END}\nafter\n")
    comparison.compare_sets([WALKER], Paths(tmp_path, tmp_path), page)
    off = 2000 / (d4rl.EXPECTED["walker2d-medium-v2"].return_mean or 0) - 1
    text = page.read_text()
    assert (
        f"| `regen-walker2d-medium-600-seed-3` | 1 | 20 | 2 | 2000 (**{off:+.0%}**) | 0 | 2000 | 2000 | 43.5 |"
        in text
    )
    assert "| D4RL's walker2d-medium-v2 | 1 | 1,000,000 | 1,190 | 2852 | 1095 | -7 | 4227 | 62.1 |" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    comparison.compare_sets([replace(WALKER, task="ant")], Paths(tmp_path, tmp_path), None)
    assert "not published" in capsys.readouterr().out
    page.write_text("no marks")
    with pytest.raises(ConfigError, match="lacks the lines"):
        comparison.compare_sets([WALKER], Paths(tmp_path, tmp_path), page)


def test_the_table_of_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(comparison, "locate", lambda dataset, data: None)
    with pytest.raises(ConfigError, match="no regenerated set is there"):
        comparison.compare_sets([WALKER], Paths(tmp_path, tmp_path), None)
    monkeypatch.setattr(comparison, "locate", lambda dataset, data: tmp_path)
    with pytest.raises(ConfigError, match="is a mixture, which has no original"):
        comparison.compare_sets([replace(WALKER, mix=(("medium", 1.0),))], Paths(tmp_path, tmp_path), None)


def test_statistics_and_diversity_agree_about_returns():
    rows = rows_of(np.zeros((30, 1)), np.zeros((30, 1)), np.arange(30.0))
    assert hdf5.statistics(rows).return_std == pytest.approx(diversity.episode_returns(rows).std())
