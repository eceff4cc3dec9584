"""`python -m o2o.runs.evaluate` and `python -m o2o.sweep evaluate`, on runs that were never trained."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import pytest
import yaml
from PIL import Image

from o2o.config.build import container
from o2o.envs.tasks import TASKS
from o2o.envs.vector import Environments
from o2o.errors import ConfigError
from o2o.replay.buffer import Replay
from o2o.runs.directory.layout import CHECKPOINTS, CONFIG, FINAL_STATE, IDENTITY, RESULT
from o2o.runs.evaluate import main
from o2o.runs.identity import describe, run_directory
from o2o.runs.trained import video
from o2o.training import checkpoint, policies
from o2o.types import NO_FACTS


@pytest.fixture
def made(configure, tmp_path):
    """Makes what a finished run leaves, with the policies of two env steps, and returns its directory."""

    def of(seed: int) -> Path:
        config = configure(tmp_path, f"seed={seed}")
        directory, algorithm = run_directory(config), config.algorithm
        directory.mkdir(parents=True)
        (directory / CONFIG).write_text(yaml.safe_dump(container(config)))
        (directory / IDENTITY).write_text(json.dumps(describe(config)))
        (directory / RESULT).write_text("{}")
        example = Replay(1, 1, 1, 11, 3).example()
        states = [algorithm.init(jax.random.key(10 * seed + i), example, NO_FACTS) for i in range(3)]
        read = policies.arrays_read(algorithm, states[0], example.observation)
        for step, state in zip((0, 20), states, strict=False):
            policies.save(directory / CHECKPOINTS, step, state, read)
        checkpoint.save(directory / FINAL_STATE, states[2])
        return directory

    return of


def test_several_runs_make_a_table_and_what_cannot_be_evaluated_is_told(made, tmp_path, say, capsys):
    one, other, broken = made(0), made(1), made(2)
    (broken / FINAL_STATE).unlink()
    assert main([str(other), "--episodes", "2"]) == 0
    alone = capsys.readouterr().out
    assert alone.startswith(f"{other}: 2 episodes on hopper\nreturn ")
    assert main([str(tmp_path), "--episodes", "2"]) == 1
    said = capsys.readouterr()
    heads, setting, *rows = said.out.splitlines()
    assert heads.split() == ["seed", "score", "±", "std", "return", "length", "Q", "-", "return"]
    assert setting == str(one.parent)
    assert [row.split()[0] for row in rows] == ["0", "1"]
    assert max(map(len, [heads, *rows])) <= 80
    told = alone.split()
    _, score, _, std, returned, length, excess = rows[1].split()
    assert {score, std, returned, length, excess} <= set(told)
    assert str(broken / FINAL_STATE) in said.err
    assert "1 of 3 runs could not be evaluated" in said.err
    code, said = say("evaluate", "seed=1", "--episodes", "2")
    assert (code, said) == (0, alone)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--video"], "--video is of one run, and these are 2"),
        (["--video", "film.mp4"], "film.mp4 is no name of a GIF"),
        (["--episodes", "0"], "--episodes must be at least 1"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_computed(words, told, made, tmp_path, capsys):
    made(0), made(1)
    try:
        code = main([str(tmp_path), *words])
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert told in capsys.readouterr().err


def test_where_nothing_can_draw_it_says_what_to_install(made, tmp_path, monkeypatch, capsys):
    run = made(0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUJOCO_GL", "paper")
    assert main([str(run), "--video"]) == 2
    said = capsys.readouterr().err
    assert "libegl1" in said
    assert "Traceback" not in said
    assert not list(tmp_path.glob("*.gif"))


@pytest.fixture
def drawing(monkeypatch):
    """Skips where no picture can be made."""
    monkeypatch.setenv("MUJOCO_GL", "")  # so that what is chosen is taken back
    monkeypatch.delenv("MUJOCO_GL")
    try:
        video.choose_renderer()
    except ConfigError as error:
        pytest.skip(str(error))
    environments = Environments(TASKS["hopper"], [0], render_mode="rgb_array")
    environments.reset()
    try:
        video._picture(environments, 0)
    except ConfigError as error:
        pytest.skip(str(error))
    finally:
        environments.close()


def test_a_video_shows_the_policies_that_were_kept(drawing, made, tmp_path, monkeypatch, capsys):
    run = made(0)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    monkeypatch.chdir(tmp_path)
    assert main([str(run), "--video"]) == 0
    *rows, name = capsys.readouterr().out.splitlines()
    assert name == "hopper-td3-seed-0.gif"
    assert [row.split(" env")[0].strip() for row in rows] == ["0", "20", "150"]
    lengths = [int(row.split()[-1]) for row in rows]
    steps = 6  # of 1/125 s, in a picture's 1/20
    with Image.open(tmp_path / name) as gif:
        assert gif.size == (3 * video.WIDTH + 2 * video.GAP, video.WIDTH + video.CAPTION_HEIGHT)
        assert gif.n_frames == 1 + -(-max(lengths) // steps)
        gif.seek(0)
        first = gif.convert("RGB")
        gif.seek(gif.n_frames - 1)
        assert gif.convert("RGB").tobytes() != first.tobytes()
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
