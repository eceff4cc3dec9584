"""States on disk."""

from __future__ import annotations

import io
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import assert_equal, fresh, make

from o2o.training import checkpoint
from o2o.training.checkpoint import CheckpointError

TREE = {
    "weights": jnp.arange(6, dtype=jnp.float32).reshape(2, 3),
    "nested": [jnp.array(3, jnp.int32), (jnp.array([True, False]), np.float64(0.1) * np.ones(2))],
}


@pytest.fixture
def path(tmp_path):
    checkpoint.save(tmp_path / "deep" / "final.npz", TREE)
    return tmp_path / "deep" / "final.npz"


def test_a_tree_is_read_back_with_its_structure_values_and_types(path):
    found = checkpoint.load(path, TREE)
    assert_equal(found, TREE)
    assert [x.dtype for x in jax.tree.leaves(found)] == [x.dtype for x in jax.tree.leaves(TREE)]


@pytest.mark.parametrize("name", ["td3", "td3_c", "sac"])
def test_an_algorithms_state_is_read_back(name, tmp_path):
    state = fresh(make(name))
    checkpoint.save(tmp_path / "state.npz", state)
    assert_equal(checkpoint.load(tmp_path / "state.npz", state), state)


def test_shapes_are_enough_to_read_by(path):
    like = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, TREE["weights"]))
    assert_equal(checkpoint.load(path, TREE | {"weights": like})["weights"], TREE["weights"])


def test_writing_again_replaces_the_file_and_leaves_nothing_else(path):
    checkpoint.save(path, TREE | {"weights": jnp.ones((2, 3))})
    assert checkpoint.load(path, TREE)["weights"].sum() == 6
    assert [p.name for p in path.parent.iterdir()] == ["final.npz"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(path, monkeypatch):
    def fail(stream, **arrays):
        stream.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(path, {"weights": jnp.ones(3)})
    assert_equal(checkpoint.load(path, TREE), TREE)
    assert [p.name for p in path.parent.iterdir()] == ["final.npz"]


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.npz cannot be read"):
        checkpoint.load(tmp_path / "none.npz", TREE)


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_truncated_file_is_told(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(path, TREE)


def test_a_damaged_array_is_told(path):
    content = bytearray(path.read_bytes())
    place = content.index(np.arange(6, dtype=np.float32).tobytes())
    content[place] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(path, TREE)


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "bad.npz", weights=np.array([{}], dtype=object))
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(tmp_path / "bad.npz", {"weights": jnp.ones(1)})


@pytest.mark.parametrize(
    ("like", "named"),
    [
        (TREE | {"more": jnp.ones(1)}, "more"),
        ({"weights": TREE["weights"]}, "nested/0"),
        (TREE | {"weights": jnp.ones((3, 2))}, "weights"),
        (TREE | {"weights": jnp.ones((2, 3), jnp.int32)}, "weights"),
    ],
)
def test_another_structure_shape_or_type_is_told_by_the_arrays_name(path, like, named):
    with pytest.raises(CheckpointError, match=f"these arrays differ: .*{named}"):
        checkpoint.load(path, like)


def damaged(path, how: str) -> None:
    """Rewrites a file of arrays in a way that a reader must not fall for."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = "weights.npy"
    if how == "enormous":
        members[name] = members[name].replace(b"(2, 3)", b"(9**9,)"[:6])
    if how == "objects":
        stream = io.BytesIO()
        np.save(stream, np.array([print], dtype=object), allow_pickle=True)
        members[name] = stream.getvalue()
    compression = zipfile.ZIP_DEFLATED if how == "compressed" else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", compression) as archive:
        for member, content in members.items():
            archive.writestr(member, content)


@pytest.mark.parametrize("how", ["enormous", "objects", "compressed"])
def test_what_a_header_claims_is_not_believed(how, path):
    damaged(path, how)
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load(path, TREE)


@pytest.mark.parametrize("version", [None, 1, 4])
def test_another_format_is_refused_in_words(version, path, monkeypatch):
    with monkeypatch.context() as patched:
        if version is not None:
            patched.setattr(checkpoint, "VERSION", version)
            checkpoint.save(path, TREE)
    if version is None:
        np.savez(path, weights=np.ones(3))
    with pytest.raises(CheckpointError, match=f"has format {version}, and this version of o2o reads 3"):
        checkpoint.load(path, TREE)


OLD = {
    "actor/policy/w": np.zeros(2),
    "actor/optimizer/count": np.ones(1),
    "critics/critics/0/w": np.full(3, 0.0),
    "critics/critics/1/w": np.full(3, 1.0),
}
OLD_AS_NEW = {
    "policy": {"w": np.zeros(2)},
    "policy_optimizer": {"count": np.ones(1)},
    "critics": {"w": np.array([3 * [0.0], 3 * [1.0]])},
}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"critics/critics/0/w": None}, "is of the critics 1"),
        ({"critics/critics/0/w": np.zeros(2)}, "cannot be read"),
        ({"critics/critics/00/w": np.zeros(3)}, "is of the critics 0, 1, 00"),
        ({"critics/critics/7/w": np.zeros(3)}, "is of the critics 0, 1, 7"),
        ({"critics/critics/one/w": np.zeros(3)}, "is of the critics 0, 1, one"),
        ({"critics/critics": np.zeros(3)}, "these arrays differ: critics/$|is of the critics"),
        ({"critics/critics/2/w": np.zeros(3)}, "these arrays differ: critics/w"),
        ({"actor/policy/w": None}, "these arrays differ: policy/w"),
        ({"actor/policy/w": np.zeros(2, np.float32)}, "these arrays differ: policy/w"),
        ({"more": np.zeros(1)}, "these arrays differ: more"),
        ({"critics/critics/0/w": np.array([{}], object)}, "cannot be read"),
        ({"version": np.array([2, 2])}, r"has format \[2 2\]"),
    ],
)
def test_a_damaged_state_of_the_version_before_is_refused_in_words(changes, told, tmp_path):
    def write(arrays: dict[str, np.ndarray | None]) -> None:
        kept = {name: array for name, array in arrays.items() if array is not None}
        np.savez(tmp_path / "final.npz", **kept)  # type: ignore[arg-type]

    write(OLD | {"version": np.array(checkpoint.OLD_VERSION)})
    assert_equal(checkpoint.load(tmp_path / "final.npz", OLD_AS_NEW), OLD_AS_NEW)
    write(OLD | {"version": np.array(checkpoint.OLD_VERSION)} | changes)
    with pytest.raises(CheckpointError, match=told):
        checkpoint.load(tmp_path / "final.npz", OLD_AS_NEW)


def test_online_rows_are_read_back_by_their_checksum(tmp_path):
    store = checkpoint.Checkpoints(tmp_path)
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    first = store.append_rows(rows[:2], 0, 0)
    both = store.append_rows(rows[2:], 2, first)
    np.testing.assert_array_equal(store.rows(4, 3, both), rows)
    np.testing.assert_array_equal(store.rows(2, 3, first), rows[:2])
    content = bytearray((tmp_path / checkpoint.ROWS).read_bytes())
    content[-1] ^= 1
    (tmp_path / checkpoint.ROWS).write_bytes(content)
    with pytest.raises(CheckpointError, match="checksum"):
        store.rows(4, 3, both)
    np.testing.assert_array_equal(store.rows(2, 3, first), rows[:2])


def test_a_directory_under_a_checkpoints_name_is_dropped_like_a_checkpoint(tmp_path):
    store = checkpoint.Checkpoints(tmp_path)
    store.save(10, TREE)
    (tmp_path / "99.npz").mkdir()
    (tmp_path / "99.npz" / "file").touch()
    store.forget(after=10)
    assert store.steps() == [10]


def test_a_header_that_says_less_than_was_written_is_damage(path):
    content = path.read_bytes()
    (path.parent / "10.npz").write_bytes(content)
    (path.parent / "20.npz").write_bytes(content.replace(b"(2, 3)", b"(2, 2)"))
    assert checkpoint.Checkpoints(path.parent).readable() == {10}
