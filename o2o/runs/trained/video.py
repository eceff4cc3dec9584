"""A video of policies side by side, all in the same episode: what a score that falls looks like."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from o2o.envs.episodes import Episode
from o2o.envs.tasks import Task
from o2o.envs.vector import Environments
from o2o.errors import ConfigError
from o2o.types import Algorithm, State

FRAMES_PER_SECOND = 20
MOST_SECONDS = 10
LAST_FRAME_SECONDS = 1.5
WIDTH, GAP = 240, 4
CAPTION_HEIGHT = 40
COLORS = 128
_WAY_OUT = (
    "MuJoCo draws with OpenGL, and without a display by EGL or OSMesa: install libegl1 and libgl1-mesa-dri",
    "(or a GPU's driver) for MUJOCO_GL=egl, or libosmesa6 for MUJOCO_GL=osmesa",
)


def write(
    path: Path,
    task: Task,
    algorithm: Algorithm,
    policies: Mapping[str, State],
    seed: int,
    score: Callable[[float], float],
) -> list[Episode]:
    """Writes a GIF in which each of the policies plays the episode of this seed, and returns these episodes.

    `choose_renderer` comes first.

    Args:
        path: is replaced; nothing is written where a picture cannot be made.
        task: any; the four are stepped by gymnasium here, with the same results.
        algorithm: whose states the policies are.
        policies: by their names, in the order in which they are shown.
        seed: of the episode's random stream.
        score: of a return.

    Raises:
        ConfigError: nothing here makes pictures of this task.
        OSError: the file cannot be written.
    """
    try:
        made = Environments(task, [0] * len(policies), render_mode="rgb_array")
    except Exception as error:
        raise _not_drawn(task, error) from None
    with closing(made) as environments:
        frames = list(_frames(environments, algorithm, policies, seed, score))
        record = environments.record()
    _save(path, frames)
    lengths = record.lengths.tolist()
    episodes = zip(lengths, record.reward.sum(axis=0).tolist(), lengths, strict=True)
    return [Episode(i, *episode) for i, episode in enumerate(episodes)]


def _frames(
    environments: Environments,
    algorithm: Algorithm,
    policies: Mapping[str, State],
    seed: int,
    score: Callable[[float], float],
) -> Iterator[Image.Image]:
    """Plays the episodes to their ends and yields every so many steps what all look like; who has ended keeps still."""

    @jax.jit
    def act(state: State, observation: Any) -> jax.Array:
        return algorithm.act(state, observation, jax.random.key(0), evaluate=True)

    steps = max(
        1,
        round(environments.steps_per_second / FRAMES_PER_SECOND),
        math.ceil(environments.time_limit / (MOST_SECONDS * FRAMES_PER_SECOND)),
    )
    observation = environments.begin([seed] * len(policies))
    returns = np.zeros(len(policies))
    pictures: list[Image.Image] = [_picture(environments, i) for i in range(len(policies))]
    step = 0
    while True:
        captions = [
            (name, f"return {own:.0f}, score {score(own):.1f}" + ("" if live else ", ended"))
            for name, own, live in zip(policies, returns.tolist(), environments.live, strict=True)
        ]
        yield _beside(pictures, captions)
        if not environments.live.any():
            return
        before = environments.live.copy()
        for _ in range(steps):
            actions = [act(state, own) for state, own in zip(policies.values(), observation, strict=True)]
            observation = environments.play(np.stack(actions))
            step += 1
        returns = environments.record().reward[:step].sum(axis=0)
        for i in np.flatnonzero(before).tolist():
            pictures[i] = _picture(environments, i)


def _picture(environments: Environments, i: int) -> Image.Image:
    try:
        picture = Image.fromarray(environments.picture(i))
    except Exception as error:  # of many kinds, by what is missing: a library, a display, a mode of the task
        raise _not_drawn(environments.task, error) from None
    return picture.resize(
        (WIDTH, max(1, round(WIDTH * picture.height / picture.width))), Image.Resampling.BOX
    )


def _not_drawn(task: Task, error: Exception) -> ConfigError:
    """Returns what there is to say of whatever kept a picture from being made."""
    # Frees gymnasium's viewer, which complains where it was not made to its end.
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    traceback.clear_frames(error.__traceback__)
    sys.unraisablehook = hook
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ConfigError(
        [
            f"no picture of {task.gymnasium_id} can be made here: {said}",
            *_WAY_OUT,
        ]
    )


def _beside(pictures: Sequence[Image.Image], captions: Sequence[tuple[str, str]]) -> Image.Image:
    """Returns one frame: the pictures in a row, each below its two lines."""
    height = CAPTION_HEIGHT + max(picture.height for picture in pictures)
    frame = Image.new("RGB", ((WIDTH + GAP) * len(pictures) - GAP, height), "white")
    draw = ImageDraw.Draw(frame)
    for i, (picture, lines) in enumerate(zip(pictures, captions, strict=True)):
        left = i * (WIDTH + GAP)
        frame.paste(picture, (left, CAPTION_HEIGHT))
        for line, (size, color) in enumerate(((15, "black"), (12, "dimgray"))):
            draw.text((left + 8, 3 + 19 * line), lines[line], color, ImageFont.load_default(size))
    return frame


def _save(path: Path, frames: Sequence[Image.Image]) -> None:
    """Writes frames as a GIF that is repeated, with the colors of one palette, which holds still."""
    middle = frames[len(frames) // 2].quantize(COLORS)
    drawn = [frame.quantize(palette=middle, dither=Image.Dither.NONE) for frame in frames]
    durations = [1000 // FRAMES_PER_SECOND] * len(drawn)
    durations[-1] = round(1000 * LAST_FRAME_SECONDS)
    drawn[0].save(path, "GIF", save_all=True, append_images=drawn[1:], duration=durations, loop=0)


def choose_renderer() -> None:
    """Tells MuJoCo how to draw where there is no display, unless it was told; to be called before it is imported.

    Raises:
        ConfigError: that way there is no drawing here.
    """
    asked = os.environ.get("MUJOCO_GL")
    display = (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or not sys.platform.startswith("linux")
    )
    if asked == "glfw" or (display and not asked):
        return
    said = ""
    for library in (asked,) if asked else ("egl", "osmesa"):
        # In another process, since none could try a second library after a first.
        trial = f"from mujoco.{library} import GLContext; GLContext(8, 8).free()"
        tried = subprocess.run(
            [sys.executable, "-P", "-c", trial], capture_output=True, text=True, check=False
        )
        if tried.returncode == 0:
            os.environ["MUJOCO_GL"] = library
            return
        said = said or f"{library}: {tried.stderr.strip().splitlines()[-1][:100]}"
    raise ConfigError([f"no picture can be made here ({said})", *_WAY_OUT])
