from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from test_datasets import OWN

from o2o.datasets import __main__ as command
from o2o.datasets import loading, minari
from o2o.errors import ConfigError

ID = "mujoco/hopper/medium-v0"
SET = replace(OWN, name="minari", source="minari", id=ID)
Episode = dict[str, Any]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def episode(steps: int, terminated: bool = False, seed: int = 0, sizes: tuple[int, int] = (3, 2)) -> Episode:
    generator = np.random.default_rng(seed)
    return {
        "observations": generator.normal(
            size=(steps + 1, sizes[0])
        ),  # one more than steps: the last is a successor
        "actions": generator.uniform(-1, 1, (steps, sizes[1])).astype(np.float32),
        "rewards": generator.normal(size=steps),
        "terminations": np.arange(steps) == (steps - 1 if terminated else -1),
        "truncations": np.arange(steps) == (-1 if terminated else steps - 1),
    }


def box(size: int, low: float = -1.0, high: float = 1.0) -> str:
    return json.dumps(
        {"type": "Box", "dtype": "float32", "shape": [size], "low": [low] * size, "high": [high] * size}
    )


def store(episodes: list[Episode], **metadata: Any) -> Path:
    """As Minari stores a set."""
    path = minari.file_path(ID)
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "data_format": "hdf5",
        "total_steps": sum(len(e.get("rewards", ())) for e in episodes),
        "observation_space": box(3, -np.inf, np.inf),
        "action_space": box(2),
    }
    path.with_name("metadata.json").write_text(json.dumps(about | metadata))
    with h5py.File(path, "w") as file:
        for number, arrays in enumerate(episodes):
            for key, values in arrays.items():
                file[f"episode_{number}/{key}"] = values
            file[f"episode_{number}/infos"] = np.zeros(3)
    return path


def test_transitions_of_a_set_stay_within_their_episodes():
    one, other, last = episode(4, True, 0), episode(3, False, 1), episode(2, False, 2)
    last["truncations"][:] = False  # cut off in the middle of an episode
    store([one, other, last])
    batch = loading.load(SET, Path(), observation_size=3, action_size=2)
    np.testing.assert_array_equal(batch.terminated, [0, 0, 0, 1, 0, 0, 0])
    rewards = np.concatenate([one["rewards"], other["rewards"][:2], last["rewards"][:1]])
    np.testing.assert_array_equal(batch.reward, rewards.astype(np.float32))
    live = ~np.asarray(batch.terminated)
    following = [one["observations"][1:4], other["observations"][1:3], last["observations"][1:2]]
    np.testing.assert_array_equal(batch.next_observation[live], np.concatenate(following).astype(np.float32))
    np.testing.assert_array_equal(batch.action[:4], one["actions"])
    assert {x.dtype.name for x in batch[:5]} == {"float32", "bool"}


def test_episodes_are_taken_in_the_order_of_their_numbers():
    store([episode(2, seed=number) for number in range(12)])
    rewards = loading.load_rows(SET, Path()).rewards
    np.testing.assert_array_equal(rewards[20:22], episode(2, seed=10)["rewards"].astype(np.float32))


def test_rows_takes_the_first_steps_and_reads_no_more_than_it_needs():
    path = store([episode(4), episode(4), {"observations": np.zeros(1)}])
    assert len(loading.load_rows(replace(SET, rows=6), Path()).rewards) == 6
    store([episode(4), episode(4)])
    with pytest.raises(ConfigError, match=r"dataset\.rows=9, but it has 8 rows"):
        loading.load_rows(replace(SET, rows=9), Path())
    assert path.exists()


def test_actions_are_mapped_from_their_bounds_to_those_of_a_policy():
    arrays = episode(3) | {"actions": np.array([[0, 10], [2, 20], [4, 30]], np.float32)}
    space = json.loads(box(2)) | {"low": [0, 10], "high": [4, 30]}
    store([arrays], action_space=json.dumps(space))
    np.testing.assert_array_equal(loading.load_rows(SET, Path()).actions, [[-1, -1], [0, 0], [1, 1]])


def test_a_set_of_an_older_version_without_metadata_is_read():
    store([episode(3)]).with_name("metadata.json").unlink()
    assert len(loading.load_rows(SET, Path()).rewards) == 3


def test_a_set_that_is_not_there_says_how_to_get_it_and_that_there_is_no_medium_replay(root: Path):
    with pytest.raises(ConfigError) as caught:
        loading.load(SET, Path())
    told = str(caught.value)
    assert all(part in told for part in (ID, str(root), "minari download", "medium-replay does not exist"))


def test_info_describes_a_set(capsys: pytest.CaptureFixture[str]):
    episodes = [episode(3, sizes=(11, 3)), episode(5, True, sizes=(11, 3))]
    store(episodes, observation_space=box(11, -np.inf, np.inf), action_space=box(3))
    assert command.main(["info", "minari", f"dataset.id={ID}", "dataset.task=hopper"]) == 0
    lines = {line[2:18].strip(): line.split()[-1] for line in capsys.readouterr().out.splitlines()}
    assert (lines["rows"], lines["episodes"], lines["terminal share"]) == ("8", "2", "0.125")


def changed(**changes: Any) -> Callable[[], Any]:
    return lambda: store([episode(3), episode(3) | changes])


def linked() -> None:
    path = store([episode(3)])
    with h5py.File(path, "a") as file:
        del file["episode_0/rewards"]
        file["episode_0/rewards"] = h5py.ExternalLink("/etc/passwd", "/")


def linked_episode() -> None:
    path = store([episode(3), episode(3)])
    with h5py.File(path, "a") as file:
        del file["episode_1"]
        file["episode_1"] = h5py.ExternalLink("other.hdf5", "/episode_1")


def no_json() -> None:
    store([episode(3)]).with_name("metadata.json").write_text("{")


DICTIONARY = json.dumps({"type": "Dict", "subspaces": {}})
BROKEN: dict[str, tuple[Callable[[], Any], str]] = {
    "no rewards": (lambda: store([{k: v for k, v in episode(3).items() if k != "rewards"}]), "no 'rewards'"),
    "no episodes": (lambda: store([]), "no 'episode_0'"),
    "no steps": (lambda: store([episode(0)]), "no episode has a step"),
    "a dictionary": (
        lambda: store([episode(3)], observation_space=DICTIONARY),
        "observation_space is a Dict",
    ),
    "discrete": (
        lambda: store([episode(3)], action_space='{"type": "Discrete"}'),
        "action_space is a Discrete",
    ),
    "damaged space": (lambda: store([episode(3)], action_space="Box(2)"), "action_space is damaged"),
    "unbounded": (lambda: store([episode(3)], action_space=box(2, -np.inf, np.inf)), "without bounds"),
    "bounds of another size": (lambda: store([episode(3)], action_space=box(5)), "does not fit the actions"),
    "arrow": (lambda: store([episode(3)], data_format="arrow"), "the data format is arrow"),
    "metadata": (no_json, "metadata.json: damaged"),
    "fewer steps than announced": (lambda: store([episode(3)], total_steps=9), "but its metadata say 9"),
    "nan": (changed(rewards=np.full(3, np.nan)), "rewards[3] is nan"),
    "lengths": (
        changed(actions=np.zeros((2, 2), np.float32)),
        "episode_1: it should have one more observation",
    ),
    "no successor": (
        changed(observations=np.zeros((3, 3))),
        "episode_1: it should have one more observation",
    ),
    "ends early": (changed(terminations=np.array([True, False, False])), "it ends before its last step"),
    "discrete actions": (changed(actions=np.zeros(3, np.int64)), "episode_1: 'actions' has dtype int64"),
    "columns": (changed(observations=np.zeros((4, 5))), "episode_1: [5, 2] columns"),
    "flags": (changed(truncations=np.array([0, 0, 2])), "episode_1: 'truncations' is 2 in row 2"),
    "external link": (linked, "'rewards' is a link"),
    "episode elsewhere": (linked_episode, "'episode_1' is not a group"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_bad_set_is_refused_with_a_line_that_names_it(kind: str):
    make, expected = BROKEN[kind]
    make()
    with pytest.raises(ConfigError) as caught:
        loading.load(SET, Path(), observation_size=3, action_size=2)
    assert expected in str(caught.value)
    assert all("\n" not in problem for problem in caught.value.problems)
