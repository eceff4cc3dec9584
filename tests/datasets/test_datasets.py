from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from o2o.config.schema import Dataset
from o2o.datasets import __main__ as command
from o2o.datasets import loading, own_file
from o2o.datasets.files import hdf5
from o2o.errors import ConfigError

OWN = Dataset(
    name="file",
    source="file",
    task="hopper",
    quality=None,
    rows=None,
    seed=0,
    path=None,
    id=None,
    reference_min=None,
    reference_max=None,
)


def contents(rows: int = 20, observation_size: int = 3, action_size: int = 2) -> dict[str, np.ndarray]:
    """Arrays of a set whose episodes of five rows end in a terminal and a timeout by turns."""
    generator = np.random.default_rng(0)
    number = np.arange(1, rows + 1)
    return {
        "observations": generator.normal(size=(rows, observation_size)).astype(np.float32),
        "actions": generator.uniform(-1, 1, (rows, action_size)).astype(np.float32),
        "rewards": generator.normal(size=rows).astype(np.float32),
        "terminals": number % 10 == 5,
        "timeouts": number % 10 == 0,
    }


def write(path: Path, arrays: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for key, values in arrays.items():
            file[key] = values
    return path


def rows_of(**changes: Any) -> hdf5.StoredRows:
    return hdf5.StoredRows(**(contents() | changes))


def test_transitions_leave_out_timeouts_and_the_last_row_but_keep_terminals(tmp_path: Path):
    path = write(
        tmp_path / "tiny.hdf5",
        {
            "observations": np.array([[0.0], [1.0], [10.0], [11.0], [12.0], [20.0]], np.float32),
            "actions": np.array([[0.1], [0.2], [0.3], [0.4], [0.5], [0.6]], np.float32),
            "rewards": np.array([1, 2, 3, 4, 5, 6], np.float32),
            "terminals": np.array([False, True, False, False, False, False]),
            "timeouts": np.array([False, False, False, False, True, False]),
        },
    )
    batch = loading.load(replace(OWN, path=path), tmp_path, observation_size=1, action_size=1)
    np.testing.assert_array_equal(batch.observation, [[0], [1], [10], [11]])
    np.testing.assert_array_equal(batch.action, np.array([[0.1], [0.2], [0.3], [0.4]], np.float32))
    np.testing.assert_array_equal(batch.reward, [1, 2, 3, 4])
    np.testing.assert_array_equal(batch.terminated, [False, True, False, False])
    np.testing.assert_array_equal(batch.next_observation, [[1], [10], [11], [12]])
    assert [x.dtype.name for x in batch[:5]] == ["float32", "float32", "float32", "bool", "float32"]


def test_statistics_count_complete_episodes_only():
    rows = hdf5.StoredRows(
        observations=np.zeros((6, 1), np.float32),
        actions=np.zeros((6, 1), np.float32),
        rewards=np.array([1, 2, 3, 4, 5, 1000], np.float32),
        terminals=np.array([False, True, False, False, False, False]),
        timeouts=np.array([False, False, False, False, True, False]),
    )
    assert hdf5.statistics(rows) == hdf5.Statistics(
        rows=6,
        complete_rows=5,
        episodes=2,
        return_mean=7.5,
        return_std=4.5,
        return_min=3.0,
        return_max=12.0,
        terminal_share=1 / 6,
        timeout_share=1 / 6,
    )


def test_statistics_without_a_complete_episode_have_no_returns():
    none = np.zeros(20, bool)
    statistics = hdf5.statistics(rows_of(terminals=none, timeouts=none))
    assert (statistics.episodes, statistics.complete_rows) == (0, 0)
    assert np.isnan([statistics.return_mean, statistics.return_max]).all()


@pytest.mark.parametrize("cast", [np.float64, ">f4"])
def test_other_floats_and_columns_are_read_as_flat_float32(tmp_path: Path, cast: Any):
    arrays = contents()
    other = {
        key: array.reshape(len(array), -1) if key in ("rewards", "terminals", "timeouts") else array
        for key, array in arrays.items()
    }
    other = {key: array if array.dtype == bool else array.astype(cast) for key, array in other.items()}
    rows = hdf5.read(write(tmp_path / "other.hdf5", other))
    for key, array in rows._asdict().items():
        np.testing.assert_array_equal(array, arrays[key])
        assert array.dtype == arrays[key].dtype


def test_compressed_arrays_are_read(tmp_path: Path):
    arrays = contents(5000)
    with h5py.File(tmp_path / "gzip.hdf5", "w") as file:
        for key, array in arrays.items():
            file.create_dataset(key, data=array, compression="gzip", shuffle=True)
    np.testing.assert_array_equal(hdf5.read(tmp_path / "gzip.hdf5").observations, arrays["observations"])


def test_rows_takes_the_first_rows(tmp_path: Path):
    path = write(tmp_path / "a.hdf5", contents())
    rows = hdf5.read(path, rows=7)
    np.testing.assert_array_equal(rows.rewards, contents()["rewards"][:7])
    assert all(len(array) == 7 for array in rows)


def changed(**changes: Any) -> Callable[[Path], None]:
    return lambda path: void(write(path, contents() | changes))


def without(key: str) -> Callable[[Path], None]:
    return lambda path: void(write(path, {k: v for k, v in contents().items() if k != key}))


def void(_: Any) -> None:
    """Drops a value, for lambdas."""


def with_value(key: str, at: Any, value: float, dtype: Any = None) -> Callable[[Path], None]:
    array = contents()[key].astype(dtype) if dtype else contents()[key]
    array[at] = value
    return changed(**{key: array})


def cut_short(path: Path) -> None:
    write(path, contents())
    path.write_bytes(path.read_bytes()[:-500])


def scrambled(path: Path) -> None:
    write(path, contents())
    path.write_bytes(path.read_bytes()[:64] + b"\xa5" * 4000)


def replaced(key: str, put: Callable[[h5py.File], Any]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        write(path, {k: v for k, v in contents().items() if k != key})
        with h5py.File(path, "a") as file:
            put(file)

    return make


def external_link(file: h5py.File) -> None:
    other = write(Path(file.filename).with_name("other.hdf5"), contents())
    file["rewards"] = h5py.ExternalLink(other.name, "rewards")


def soft_link(file: h5py.File) -> None:
    file["rewards_elsewhere"] = contents()["rewards"]
    file["rewards"] = h5py.SoftLink("/rewards_elsewhere")


def virtual(file: h5py.File, key: str = "rewards") -> None:
    other = write(Path(file.filename).with_name("other.hdf5"), contents())
    layout = h5py.VirtualLayout((20,), np.float32)
    layout[:] = h5py.VirtualSource(other.name, "rewards", (20,))
    file.create_virtual_dataset(key, layout)


def half_written(file: h5py.File) -> None:
    rewards = file.create_dataset("rewards", (20,), np.float32, chunks=(10,), compression="gzip")
    rewards[:10] = 1


def bomb(path: Path) -> None:
    """A small file that declares, and stores in compressed chunks, twelve million rows of zeros."""
    count, chunk = 12 * 2**20, 2**20
    with h5py.File(path, "w") as file:
        for key, values in contents().items():
            chunks = (chunk, *values.shape[1:])
            packed = file.create_dataset(
                key, (count, *values.shape[1:]), values.dtype, chunks=chunks, compression="gzip"
            )
            zeros = zlib.compress(bytes(math.prod(chunks) * values.itemsize))
            for start in range(0, count, chunk):
                packed.id.write_direct_chunk((start,) + (0,) * (values.ndim - 1), zeros)


def external_storage(file: h5py.File) -> None:
    raw = Path(file.filename).with_name("raw")
    raw.write_bytes(contents()["rewards"].tobytes())
    file.create_dataset("rewards", (20,), np.float32, external=[(raw.name, 0, 80)])


def strings(file: h5py.File) -> None:
    file.create_dataset("rewards", data=["one"] * 20, dtype=h5py.string_dtype())


def own(path: Path, **arrays: Any) -> Path:
    """A file of ten episodes of two rows that count their steps, with other arrays; None leaves one out."""
    step = np.arange(20, dtype=np.float32)
    steps = {
        "observations": np.stack([step, step % 2], axis=1),
        "actions": np.zeros((20, 1), np.float32),
        "rewards": step,
        "terminals": step % 4 == 1,
        "timeouts": step % 4 == 3,
    }
    return write(path, {key: values for key, values in (steps | arrays).items() if values is not None})


def read_own(path: Path, **settings: Any) -> hdf5.StoredRows:
    return loading.load_rows(replace(OWN, path=path, **settings), path.parent)


def problem_of(path: Path, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read_own(path, **settings)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{path}: ")
    assert "\n" not in problem
    return problem


NONE = np.zeros(20, bool)
FOURTHS = np.arange(20) % 4 == 3


def test_a_file_whose_terminals_are_all_timeouts_as_well_is_refused(tmp_path: Path):
    told = problem_of(own(tmp_path / "a.hdf5", terminals=FOURTHS, timeouts=FOURTHS))
    assert "each of its 5 rows with 'terminals' has 'timeouts' as well" in told
    assert "clear 'timeouts'" in told
    assert "clear 'terminals'" in told
    ends = np.arange(20) % 2 == 1
    assert "each of its 5 rows" in problem_of(own(tmp_path / "b.hdf5", terminals=FOURTHS, timeouts=ends))


def test_a_file_whose_terminals_are_all_ends_and_whose_timeouts_say_which_were_cut_is_read(tmp_path: Path):
    ends = np.arange(20) % 2 == 1
    rows = read_own(own(tmp_path / "a.hdf5", terminals=ends))
    assert hdf5.transitions(rows).terminated.sum() == 5


def test_a_file_without_an_end_is_refused_and_read_with_the_length_of_its_episodes(tmp_path: Path):
    path = own(tmp_path / "a.hdf5", terminals=NONE, timeouts=NONE)
    told = problem_of(path)
    assert "'terminals' and 'timeouts' are false in all 20 rows" in told
    assert "dataset.episode_length=…" in told
    assert "all 20 rows" in problem_of(path, rows=10)
    rows = read_own(path, episode_length=4)
    np.testing.assert_array_equal(rows.timeouts, FOURTHS)
    assert not read_own(path, episode_length=100).timeouts.any()


def test_a_file_without_timeouts_whose_terminals_come_too_seldom_is_refused(tmp_path: Path):
    ends = {"terminals": np.arange(1500) == 100, "timeouts": np.zeros(1500, bool)}
    steps = np.arange(1500, dtype=np.float32)
    path = own(
        tmp_path / "a.hdf5",
        observations=np.stack([steps, steps], axis=1),
        actions=np.zeros((1500, 1), np.float32),
        rewards=steps,
        **ends,
    )
    told = problem_of(path)
    assert "'timeouts' is false in all 1500 rows, and rows 101 to 1499 have no 'terminals' either" in told
    assert "such as 1000" in told
    assert np.flatnonzero(read_own(path, episode_length=1000).timeouts).tolist() == [1100]
    assert own_file.read(path, time_limit=1399).terminals.sum() == 1
    assert own_file.read(path, time_limit=None).terminals.sum() == 1


def test_a_part_of_a_file_need_not_hold_an_end(tmp_path: Path):
    rows = read_own(own(tmp_path / "a.hdf5", terminals=NONE), rows=3)
    assert not (rows.terminals | rows.timeouts).any()


def test_missing_timeouts_are_derived_from_the_length_of_episodes_that_no_terminal_ended(tmp_path: Path):
    path = own(tmp_path / "a.hdf5", timeouts=None, terminals=np.isin(np.arange(20), (4, 7)))
    told = problem_of(path)
    assert "no 'timeouts' (there is:" in told
    assert "dataset.episode_length=…" in told
    assert "truncated and not terminated" in told
    rows = read_own(path, episode_length=3)
    assert np.flatnonzero(rows.timeouts).tolist() == [
        2,
        10,
        13,
        16,
        19,
    ]  # row 7 is a third row, and a terminal
    assert np.flatnonzero(rows.terminals).tolist() == [4, 7]
    assert len(read_own(path, episode_length=3, rows=5).timeouts) == 5


@pytest.mark.parametrize("settings", [{}, {"episode_length": 4}])
@pytest.mark.parametrize("rows", [0, 1])
def test_a_file_of_no_transition_is_told_to_be_that(tmp_path: Path, rows: int, settings: dict[str, int]):
    told = problem_of(write(tmp_path / "a.hdf5", {k: v[:rows] for k, v in contents().items()}), **settings)
    assert f"no transition is left of {rows} rows" in told


def test_the_length_of_episodes_is_refused_where_the_file_says_their_ends(tmp_path: Path):
    told = problem_of(own(tmp_path / "a.hdf5"), episode_length=4)
    assert "'timeouts' is true in 5 of 20 rows, so dataset.episode_length=4 says it twice" in told


def successors(**changes: Any) -> dict[str, np.ndarray]:
    step = np.arange(1, 21, dtype=np.float32)
    return {"next_observations": np.stack([step, step % 2], axis=1)} | changes


def test_rows_that_are_shuffled_are_refused_where_the_file_has_successors(tmp_path: Path):
    path = own(tmp_path / "a.hdf5", **successors())
    read_own(path)
    order = np.random.default_rng(0).permutation(20)
    with h5py.File(path) as opened:
        file: Any = opened
        arrays = {key: file[key][:][order] for key in (*hdf5.KINDS, "next_observations")}
    told = problem_of(write(tmp_path / "b.hdf5", arrays))
    assert "the next row is not what 'next_observations' says comes next (first: row " in told
    assert "Put the rows in the order of time" in told
    read_own(write(tmp_path / "c.hdf5", {("old" if key[0] == "n" else key): arrays[key] for key in arrays}))


def test_ends_that_no_flag_marks_are_refused_where_the_file_has_successors(tmp_path: Path):
    following = successors()["next_observations"]
    following[3::4] = 77  # what came before a reset
    path = own(tmp_path / "a.hdf5", next_observations=following)
    read_own(path)
    late = FOURTHS & (np.arange(20) > 10)
    told = problem_of(own(tmp_path / "b.hdf5", next_observations=following, timeouts=late))
    assert "after 2 of 12 rows that go on" in told
    assert "(first: row 3)" in told
    assert "Set 'timeouts'" in told


@pytest.mark.parametrize(
    "other",
    [
        np.zeros(20, np.float32),
        np.zeros((20, 3), np.float32),
        np.zeros((5, 2), np.float32),
        np.full((20, 2), b"text"),
    ],
)
def test_successors_that_are_none_are_left_alone(tmp_path: Path, other: np.ndarray):
    read_own(own(tmp_path / "a.hdf5", next_observations=other))


def test_successors_in_another_precision_or_of_rounding_are_the_same(tmp_path: Path):
    following = successors()["next_observations"].astype(np.float64) + 1e-4
    read_own(own(tmp_path / "a.hdf5", next_observations=following))


def test_the_flags_and_the_order_of_d4rls_own_rows_are_not_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = own(tmp_path / "a.hdf5", timeouts=NONE, terminals=NONE)
    monkeypatch.setattr(loading.d4rl, "obtain", lambda dataset, data_directory, mirrors: path)
    d4rls = replace(OWN, name="hopper-medium-v2", source="d4rl", quality="medium")
    assert len(loading.load_rows(d4rls, tmp_path).rewards) == 20


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing file": (lambda path: None, "no such file"),
    "directory": (lambda path: path.mkdir(), "not a file"),
    "empty": (lambda path: path.touch(), "not an HDF5 file"),
    "text": (lambda path: path.write_text("observations,actions\n"), "not an HDF5 file"),
    "cut short": (cut_short, "truncated or damaged"),
    "scrambled": (scrambled, "truncated or damaged"),
    "empty HDF5": (lambda path: write(path, {}), "no 'observations'"),
    "no actions": (without("actions"), "no 'actions' (there is: 'observations'"),
    "no timeouts": (without("timeouts"), "no 'timeouts'"),
    "a group": (replaced("rewards", lambda file: file.create_group("rewards")), "is a group, not an array"),
    "external link": (replaced("rewards", external_link), "'rewards' is a link"),
    "soft link": (replaced("rewards", soft_link), "'rewards' is a link"),
    "virtual": (replaced("rewards", virtual), "keeps its values in other files"),
    "external storage": (replaced("rewards", external_storage), "keeps its values in other files"),
    "variable strings": (replaced("rewards", strings), "'rewards' has dtype object"),
    "fixed strings": (changed(rewards=np.full(20, b"1.0")), "'rewards' has dtype |S3"),
    "integers": (changed(rewards=np.ones(20, np.int64)), "'rewards' has dtype int64; it must be float32"),
    "half precision": (changed(actions=np.zeros((20, 2), np.float16)), "'actions' has dtype float16"),
    "complex": (changed(rewards=np.ones(20, complex)), "'rewards' has dtype complex128"),
    "compound": (changed(rewards=np.zeros(20, [("a", "f4")])), "'rewards' has dtype"),
    "a chunk that was never written": (
        replaced("rewards", lambda file: half_written(file)),
        "some of its values were never written",
    ),
    "a bomb": (
        lambda path: bomb(path),
        "its arrays declare 327155712 bytes, more than 32 times the file's",
    ),
    "external link elsewhere": (
        replaced("metadata", lambda file: file.update({"infos/x": h5py.ExternalLink("/etc/passwd", "/")})),
        "'x' is a link to another file",
    ),
    "virtual elsewhere": (
        replaced("metadata", lambda file: virtual(file, "infos/y")),
        "'y' keeps its values",
    ),
    "scalar": (changed(rewards=np.float32(1)), "'rewards' has shape ()"),
    "flat observations": (changed(observations=np.zeros(20, np.float32)), "'observations' has shape (20,)"),
    "images": (changed(observations=np.zeros((20, 3, 1), np.float32)), "'observations' has shape (20, 3, 1)"),
    "wide rewards": (changed(rewards=np.zeros((20, 2), np.float32)), "'rewards' has shape (20, 2)"),
    "no rows": (lambda path: write(path, contents(0)), "no transition is left of 0 rows"),
    "one row": (lambda path: write(path, contents(1)), "no transition is left of 1 rows"),
    "all timeouts": (changed(timeouts=np.ones(20, bool)), "no transition is left"),
    "lengths": (changed(rewards=np.zeros(19, np.float32)), "observations 20, actions 20, rewards 19"),
    "observation size": (
        lambda path: write(path, contents(20, 4)),
        "'observations' has 4 columns instead of 3",
    ),
    "action size": (lambda path: write(path, contents(20, 3, 5)), "'actions' has 5 columns instead of 2"),
    "no columns": (lambda path: write(path, contents(20, 3, 0)), "'actions' has 0 columns"),
    "nan": (with_value("observations", (7, 2), np.nan), "observations[7, 2] is nan"),
    "infinite": (with_value("rewards", 3, np.inf), "rewards[3] is inf"),
    "beyond float32": (with_value("rewards", 4, 1e300, np.float64), "rewards[4] is inf as float32"),
    "large action": (with_value("actions", (0, 0), -1.001), "'actions' reach 1.001"),
    "odd terminal": (with_value("terminals", 6, 2, np.int64), "'terminals' is 2 in row 6"),
    "nan timeout": (with_value("timeouts", 6, np.nan, np.float32), "'timeouts' is nan in row 6"),
    "never written": (
        replaced("rewards", lambda file: file.create_dataset("rewards", (20,), np.float32)),
        "'rewards' declares shape (20,), 80 bytes, but 0 bytes are stored",
    ),
    "absurd shape": (
        replaced(
            "rewards",
            lambda file: file.create_dataset("rewards", (10**13,), np.float32, compression="gzip"),
        ),
        "40000000000000 bytes, but 0 bytes are stored",
    ),
    "unknown filter": (
        replaced(
            "rewards",
            lambda file: file.create_dataset(
                "rewards", data=np.zeros(20, np.float32), scaleoffset=3, chunks=True
            ),
        ),
        "is packed with HDF5 filter",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_bad_file_is_refused_with_a_line_that_names_it(tmp_path: Path, kind: str):
    make, expected = BROKEN[kind]
    path = tmp_path / "bad.hdf5"
    make(path)
    with pytest.raises(ConfigError) as caught:
        hdf5.read(path, observation_size=3, action_size=2)
    assert any(expected in problem for problem in caught.value.problems)
    for problem in caught.value.problems:
        assert problem.startswith(f"{path}: ")
        assert "\n" not in problem


@pytest.mark.parametrize("position", range(0, 2048, 64))
def test_flipped_bytes_are_refused_or_harmless_but_never_crash(tmp_path: Path, position: int):
    path = write(tmp_path / "flipped.hdf5", contents())
    damaged = bytearray(path.read_bytes())
    damaged[position : position + 8] = bytes(byte ^ 0xFF for byte in damaged[position : position + 8])
    path.write_bytes(damaged)
    try:
        rows = hdf5.read(path, observation_size=3, action_size=2)
    except ConfigError:
        return
    assert rows.observations.shape == (20, 3)
    assert np.isfinite(rows.observations).all()


def sealed(path: Path) -> Path:
    with hdf5.create(path) as file:
        for key, values in contents().items():
            file[key] = values
        file["infos/qpos"] = np.arange(20.0)
    return path


def test_a_sealed_file_is_an_ordinary_hdf5_file_and_reads_as_any_other(tmp_path: Path):
    path = sealed(tmp_path / "a.hdf5")
    assert hdf5.is_sealed(path)
    np.testing.assert_array_equal(hdf5.read(path).rewards, contents()["rewards"])
    with h5py.File(path) as opened:
        file: Any = opened
        np.testing.assert_array_equal(file["infos/qpos"][:], np.arange(20.0))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.hdf5", "a.hdf5.sha256.json"]


def test_the_same_contents_are_sealed_as_the_same_bytes(tmp_path: Path):
    assert sealed(tmp_path / "a.hdf5").read_bytes() == sealed(tmp_path / "b.hdf5").read_bytes()


@pytest.mark.parametrize("place", [100, 512, 600, -1])
def test_one_changed_bit_anywhere_in_a_sealed_file_is_refused(tmp_path: Path, place: int):
    path = sealed(tmp_path / "a.hdf5")
    hdf5.read(path)  # which remembers the checksum of the intact file
    damaged = bytearray(path.read_bytes())
    damaged[place] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(ConfigError, match="damaged"):
        hdf5.read(path)


def test_a_sealed_file_to_which_something_was_appended_is_refused(tmp_path: Path):
    path = sealed(tmp_path / "a.hdf5")
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ConfigError, match="altered or damaged"):
        hdf5.read(path)


def test_a_file_that_could_not_be_finished_leaves_nothing(tmp_path: Path):
    def interrupted() -> None:
        with hdf5.create(tmp_path / "a.hdf5") as file:
            file["observations"] = contents()["observations"]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_all_problems_of_a_kind_are_reported_together(tmp_path: Path):
    path = write(tmp_path / "bad.hdf5", {"observations": contents()["observations"]})
    with pytest.raises(ConfigError) as caught:
        hdf5.read(path)
    assert len(caught.value.problems) == 4


def test_more_rows_than_there_are_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"dataset.rows=21, but it has 20 rows"):
        hdf5.read(write(tmp_path / "a.hdf5", contents()), rows=21)


def test_actions_within_tolerance_are_accepted(tmp_path: Path):
    arrays = contents()
    arrays["actions"][0, 0] = 1.00005
    assert hdf5.read(write(tmp_path / "a.hdf5", arrays)).actions.max() > 1


def test_medium_replays_row_count_follows_from_its_episodes():
    ends = np.arange(1, 202_001) % 1000 == 0
    rows = hdf5.StoredRows(
        observations=np.zeros((202_000, 1), np.float32),
        actions=np.zeros((202_000, 1), np.float32),
        rewards=np.zeros(202_000, np.float32),
        terminals=np.zeros(202_000, bool),
        timeouts=ends,
    )
    assert hdf5.transitions(rows).reward.shape == (201_798,)


def test_terminals_survive_the_conversion_and_no_row_with_a_timeout_does():
    rows = rows_of(rewards=np.arange(20, dtype=np.float32))
    batch = hdf5.transitions(rows)
    assert batch.terminated.sum() == rows.terminals.sum()
    kept = np.asarray(batch.reward, int)  # the reward is the row's number
    assert not rows.timeouts[kept].any()


def test_info_tells_what_a_share_of_the_best_trajectories_is(
    dataset: Path, capsys: pytest.CaptureFixture[str]
):
    own = ("file", f"dataset.path={dataset}", "dataset.task=hopper", "dataset.name=own")
    assert command.main(["info", *own, "dataset.top_fraction=0.9"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.fullmatch(
        r"  dataset\.top_fraction=0\.9 keeps [\d,]+ rows of the best \d+ trajectories, mean return [\d.]+",
        last,
    )
    assert command.main(["info", *own]) == 0
    assert "top_fraction" not in capsys.readouterr().out


@pytest.mark.parametrize("words", [("check", "--rows"), ("check", "--episodes"), ("diversity", "--samples")])
def test_options_that_count_are_positive(words: tuple[str, str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        command.main([words[0], "regen-hopper-medium", words[1], "0"])
    assert ended.value.code == 2
    assert "0 is not positive" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "said"),
    [("hopper", "'observations' has 3 columns instead of 11"), ("Hoper-v5", "task=Hoper-v5")],
)
def test_the_commands_read_ones_own_file_as_the_set_of_its_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: str, said: str
):
    path = write(tmp_path / "own.hdf5", contents())
    returns = ("dataset.reference_min=0", "dataset.reference_max=1")
    for name in ("info", "diversity"):
        assert command.main([name, "file", f"dataset.path={path}", f"dataset.task={task}", *returns]) == 2
        assert said in capsys.readouterr().err
