from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_datasets import OWN, contents, write

from o2o.datasets import __main__ as command
from o2o.datasets import d4rl, loading
from o2o.datasets.files import hdf5
from o2o.errors import ConfigError

HALFCHEETAH = replace(OWN, name="halfcheetah-medium-v2", source="d4rl", task="halfcheetah", quality="medium")
FILE = "halfcheetah_medium-v2.hdf5"


@pytest.fixture(autouse=True)
def nobody_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sources are a port at which nobody listens."""
    monkeypatch.setattr(d4rl, "SOURCES", ("http://127.0.0.1:9/sets/", "http://127.0.0.1:9/copy/"))
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a file of halfcheetah-medium's length: 1000 episodes of 1000 steps."""
    directory = tmp_path_factory.mktemp("data")
    count = 1_000_000
    generator = np.random.default_rng(0)
    arrays = {
        "observations": generator.standard_normal((count, 2), np.float32),
        "actions": generator.random((count, 1), np.float32),
        "rewards": generator.random(count, np.float32),
        "terminals": np.zeros(count, bool),
        "timeouts": np.arange(1, count + 1) % 1000 == 0,
    }
    (directory / "d4rl").mkdir()
    write(directory / "d4rl" / FILE, arrays)
    return directory


@pytest.fixture
def halfcheetah(data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, which passes for D4RL's own."""
    path = data / "d4rl" / FILE
    published = d4rl.PublishedFile(path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setitem(d4rl.SETS, "halfcheetah-medium-v2", published)
    return path


def test_a_set_of_halfcheetah_mediums_shape_gives_999_000_transitions(data: Path, halfcheetah: Path):
    rows = loading.load_rows(HALFCHEETAH, data)
    batch = loading.load(HALFCHEETAH, data, observation_size=2, action_size=1)
    assert batch.reward.shape == (999_000,)
    np.testing.assert_array_equal(batch.next_observation[:999], rows.observations[1:1000])
    np.testing.assert_array_equal(batch.observation[999], rows.observations[1000])
    assert hdf5.statistics(rows).episodes == 1000


def test_the_command_line_puts_published_statistics_beside_a_sets_own_and_says_what_differs(
    data: Path, halfcheetah: Path, capsys: pytest.CaptureFixture[str]
):
    assert command.main(["info", "halfcheetah-medium-v2", f"paths.data={data}"]) == 0
    lines = {line[2:18].strip(): line.split() for line in capsys.readouterr().out.splitlines()}
    assert lines["episodes"][-3:] == ["1000", "published:", "1000"]
    assert lines["complete rows"][-3:] == ["1000000", "published:", "1000000"]
    assert lines["return mean"][-4:] == ["published:", "4770.334961,", "which", "DIFFERS"]
    assert "published:" not in lines["terminal share"]


def test_the_command_line_compares_part_of_a_set_with_nothing(
    data: Path, halfcheetah: Path, capsys: pytest.CaptureFixture[str]
):
    part = ["dataset.rows=5000", "dataset.name=halfcheetah-part"]
    assert command.main(["info", "halfcheetah-medium-v2", f"paths.data={data}", *part]) == 0
    out = capsys.readouterr().out
    assert "published for the whole set" in out
    assert "DIFFERS" not in out


def test_info_of_a_set_that_is_not_there_says_how_to_get_it_and_downloads_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert command.main(["info", "hopper-medium-v2", f"paths.data={tmp_path}"]) == 2
    assert "The same command with 'fetch' in place of 'info' downloads it." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_list_names_the_sixteen_sets_and_the_other_qualities_and_tells_which_are_there(
    tmp_path: Path, data: Path, halfcheetah: Path, capsys: pytest.CaptureFixture[str]
):
    assert command.main(["list", f"paths.data={data}"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    for task in ("hopper", "halfcheetah", "walker2d", "ant"):
        for quality in ("medium", "medium-replay", "random", "expert", "medium-expert", "full-replay"):
            assert f"{task}-{quality}-v2" in lines
        for quality in ("medium", "medium-replay"):
            assert any(name.startswith(f"regen-{task}-{quality}") for name in lines)
    assert "there, 18 MB" in lines["halfcheetah-medium-v2"]
    assert "not there, 153 MB to download" in lines["hopper-medium-v2"]


def test_the_sha256_is_computed_once_and_again_when_the_file_changed(
    data: Path, halfcheetah: Path, monkeypatch: pytest.MonkeyPatch
):
    d4rl.obtain(HALFCHEETAH, data)
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", None)  # calling it would fail
        assert d4rl.obtain(HALFCHEETAH, data) == halfcheetah
    memory = json.loads(halfcheetah.with_name(halfcheetah.name + ".sha256.json").read_text())
    assert memory["sha256"] == d4rl.SETS["halfcheetah-medium-v2"].sha256
    with halfcheetah.open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(ConfigError, match="SHA-256"):
        d4rl.obtain(HALFCHEETAH, data)
    with halfcheetah.open("r+b") as file:
        file.seek(-1, 2)
        file.write(last)


def test_another_file_under_d4rls_name_is_refused(tmp_path: Path):
    (tmp_path / "d4rl").mkdir()
    write(tmp_path / "d4rl" / FILE, contents())
    with pytest.raises(ConfigError, match="237727262"):
        loading.load(HALFCHEETAH, tmp_path)


def test_a_set_that_cannot_be_downloaded_is_an_error_with_the_ways_out_and_nothing_is_generated(
    tmp_path: Path,
):
    with pytest.raises(ConfigError) as caught:
        loading.load(HALFCHEETAH, tmp_path)
    (problem,) = caught.value.problems
    path = tmp_path / "d4rl" / FILE
    places = [f"http://127.0.0.1:9/{place}/{FILE}: " for place in ("sets", "copy")]
    for part in (*places, "refused", "O2O_MIRRORS", str(path), "dataset=regen-"):
        assert part in problem
    assert [p for p in tmp_path.rglob("*") if p.is_file() and p.stat().st_size] == []


@pytest.mark.parametrize("name", d4rl.SETS)
def test_what_is_known_of_each_set_is_plausible(name: str):
    published, expected = d4rl.SETS[name], d4rl.EXPECTED.get(name)
    assert name.replace("-v2", "").replace("-", "_") + "-v2.hdf5" == d4rl.file_name(name)
    assert len(published.sha256) == 64
    assert published.bytes > 50_000_000
    if expected and expected.return_mean is not None:
        assert expected.return_min < expected.return_mean < expected.return_max  # pyright: ignore[reportOperatorIssue]


def test_each_file_has_its_own_name_at_both_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.undo()
    asked = []
    monkeypatch.setattr(d4rl, "download", lambda urls, path, size, sha256: asked.extend(urls) or path.touch())
    (tmp_path / "d4rl").mkdir()
    with pytest.raises(ConfigError):
        d4rl.obtain(
            replace(HALFCHEETAH, task="hopper", quality="medium-replay"), tmp_path, "https://mirror.example"
        )
    assert asked == [
        "https://mirror.example/hopper_medium_replay-v2.hdf5",
        "http://rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2/hopper_medium_replay-v2.hdf5",
        "https://huggingface.co/datasets/imone/D4RL/resolve/main/hopper_medium_replay-v2.hdf5",
    ]


def test_no_two_sets_share_a_checksum():
    assert len({published.sha256 for published in d4rl.SETS.values()}) == len(d4rl.SETS) == 24


def test_locate_finds_what_is_there_and_gives_none_for_what_is_not(tmp_path: Path, data: Path):
    assert loading.locate(HALFCHEETAH, data) == data / "d4rl" / FILE
    assert loading.locate(HALFCHEETAH, tmp_path) is None
    assert loading.locate(replace(OWN, path=tmp_path / "none.hdf5"), tmp_path) is None


def test_unknown_names_and_sources_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="not a D4RL set"):
        loading.load(replace(HALFCHEETAH, quality="simple"), tmp_path)
    with pytest.raises(ConfigError, match=r"dataset\.path"):
        loading.load(OWN, tmp_path)


def test_a_name_that_is_none_is_answered_with_the_nearest_one(capsys: pytest.CaptureFixture[str]):
    assert command.main(["info", "hopper-medium-v3"]) == 2
    assert capsys.readouterr().err == "hopper-medium-v3 is no set (did you mean hopper-medium-v2?).\n"


def test_of_mixtures_the_parts_are_fetched_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    monkeypatch.setattr(d4rl, "obtain", lambda dataset, *_: asked.append(dataset.name))
    words = ["hopper-medium-v2", "hopper-medium-replay-v2", "dataset.mix={medium: 0.5, medium-replay: 0.5}"]
    assert command.main(["fetch", *words, "dataset.rows=1000", f"paths.data={tmp_path}"]) == 0
    assert asked == ["hopper-medium-v2", "hopper-medium-replay-v2"]


def test_only_d4rls_sets_are_fetched(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert command.main(["fetch", "regen-hopper-medium", f"paths.data={tmp_path}"]) == 2
    assert "only D4RL's own sets" in capsys.readouterr().err


def test_contact_forces_in_a_d4rl_ant_set_are_refused_but_a_file_of_ones_own_may_have_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    arrays = contents(20, 111, 8)
    (tmp_path / "d4rl").mkdir()
    path = write(tmp_path / "d4rl" / "ant_medium-v2.hdf5", arrays)
    monkeypatch.setattr(d4rl, "obtain", lambda dataset, data_directory, mirrors: path)
    ant = replace(OWN, name="ant-medium-v2", source="d4rl", task="ant", quality="medium")
    with pytest.raises(ConfigError, match="contact forces"):
        loading.load(ant, tmp_path)
    assert len(loading.load(replace(ant, source="file", path=path), tmp_path).reward) == 18
    arrays["observations"][:, 27:] = 0
    write(path, arrays)
    assert len(loading.load(ant, tmp_path).reward) == 18
