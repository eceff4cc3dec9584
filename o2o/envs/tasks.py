"""Tasks, by the names that configs use.

The four locomotion tasks are gymnasium's `-v4` environments, which keep the rewards and terminations that
D4RL's `-v2` data were collected with (`-v5` changed both). Any other gymnasium id is taken with all the wrappers that
it was registered with.

Ant: D4RL's observations have 111 entries of which the last 84, contact forces, are zero throughout (MuJoCo
2 no longer filled them in). So contact forces stay off and 84 zeros are appended.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np


@dataclass(frozen=True)
class Task:
    """A gymnasium id, and how many zeros are appended to its observations."""

    name: str
    gymnasium_id: str
    padding: int = 0


TASKS = {
    "hopper": Task("hopper", "Hopper-v4"),
    "halfcheetah": Task("halfcheetah", "HalfCheetah-v4"),
    "walker2d": Task("walker2d", "Walker2d-v4"),
    "ant": Task("ant", "Ant-v4", padding=84),
}


def find_task(name: str) -> Task:
    """Returns the task of that name: one of the four, else the name is taken as a gymnasium id.

    Raises:
        LookupError: if gymnasium does not know it, it has no version, or its spaces are not one-dimensional boxes.
    """
    if name in TASKS:
        return TASKS[name]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*unversioned.*")  # it is refused below
            warnings.filterwarnings("ignore", ".*is out of date.*")  # the version was asked for
            environment = gymnasium.make(name)
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        raise LookupError(
            f"task={name}: neither one of {', '.join(TASKS)} nor a gymnasium id ({error})"
        ) from None
    spaces = environment.observation_space, environment.action_space
    environment.close()
    full = environment.spec.id if environment.spec else name
    if full != name.rpartition(":")[2]:
        near = f", or {name.lower()}, D4RL's" if name.lower() in TASKS else ""
        raise LookupError(
            f"task={name}: without its version it is whatever is newest in this gymnasium; say {full}{near}"
        )
    for space in spaces:
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise LookupError(
                f"task={name}: observations and actions must be one-dimensional boxes, not {space}"
            )
    if not np.isfinite([spaces[1].low, spaces[1].high]).all():  # pyright: ignore[reportAttributeAccessIssue]
        raise LookupError(
            f"task={name}: its actions have no bounds, so a policy that ends in a tanh does not fit"
        )
    return Task(name, name)


@functools.cache
def task_sizes(task: Task) -> tuple[int, int]:
    """Returns the sizes of a task's observations, padding included, and actions."""
    environment = make(task)
    environment.close()
    return environment.observation_space.shape[0] + task.padding, environment.action_space.shape[0]


@functools.cache
def own_time_limit(task: Task) -> int | None:
    """Returns after how many steps the task itself cuts an episode; None where it never does."""
    if task.name in TASKS:
        return gymnasium.spec(task.gymnasium_id).max_episode_steps
    environment = make(task)
    try:
        return _time_limit(environment)
    finally:
        environment.close()


def make(task: Task, render_mode: str | None = None) -> Any:
    """Returns one environment of the task, as gymnasium makes it; `rgb_array` is the mode that gives pictures."""
    drawn: dict[str, Any] = {"render_mode": render_mode} if render_mode else {}
    if drawn and task.name in TASKS:
        drawn["camera_name"] = "track"  # which goes along
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is out of date.*")  # -v4 is meant: see the module's docstring
        environment = gymnasium.make(task.gymnasium_id, disable_env_checker=True, **drawn)
    if drawn and task.name in TASKS:
        # Without a GPU shadows and smooth edges take nine tenths of the time of a picture.
        quality = environment.unwrapped.model.vis.quality  # pyright: ignore[reportAttributeAccessIssue]
        quality.shadowsize = quality.offsamples = 0
    # Of the four tasks, gymnasium's order and time limit wrappers cost more than the physics; others' wrappers may be
    # what the task is.
    return environment.unwrapped if task.name in TASKS else environment


def _time_limit(environment: Any) -> int | None:
    """Returns the shortest of the limits that its wrappers set."""
    limits = []
    while isinstance(environment, gymnasium.Wrapper):
        if isinstance(environment, gymnasium.wrappers.TimeLimit):
            limits.append(environment._max_episode_steps)
        environment = environment.env
    return min(limits, default=None)
