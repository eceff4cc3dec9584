"""What a step comes to in the four locomotion tasks: the rules of gymnasium's `-v4`, for all environments at once.

Equal to gymnasium's own bit for bit, so the order of operations is theirs.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64

Positions = Float64[np.ndarray, "E Q"]
Velocities = Float64[np.ndarray, "E V"]
Outcome = tuple[Float64[np.ndarray, "E O"], float, float, Bool[np.ndarray, " E"]]
"""Observations without padding, the reward for being healthy (also on the terminating step), the weight of the control
cost, and who terminated."""


def _hopper(qpos: Positions, qvel: Velocities) -> Outcome:
    state = np.concatenate([qpos, qvel], axis=1)[:, 2:]
    height, angle = qpos[:, 1], qpos[:, 2]
    healthy = ((state > -100) & (state < 100)).all(axis=1) & (height > 0.7) & (angle > -0.2) & (angle < 0.2)
    return np.concatenate([qpos[:, 1:], np.clip(qvel, -10, 10)], axis=1), 1.0, 1e-3, ~healthy


def _walker2d(qpos: Positions, qvel: Velocities) -> Outcome:
    height, angle = qpos[:, 1], qpos[:, 2]
    healthy = (height > 0.8) & (height < 2.0) & (angle > -1.0) & (angle < 1.0)
    return np.concatenate([qpos[:, 1:], np.clip(qvel, -10, 10)], axis=1), 1.0, 1e-3, ~healthy


def _halfcheetah(qpos: Positions, qvel: Velocities) -> Outcome:
    return np.concatenate([qpos[:, 1:], qvel], axis=1), 0.0, 0.1, np.zeros(len(qpos), bool)


def _ant(qpos: Positions, qvel: Velocities) -> Outcome:
    state = np.concatenate([qpos, qvel], axis=1)
    healthy = np.isfinite(state).all(axis=1) & (qpos[:, 2] >= 0.2) & (qpos[:, 2] <= 1.0)
    return np.concatenate([qpos[:, 2:], qvel], axis=1), 1.0, 0.5, ~healthy


RULES = {"hopper": _hopper, "walker2d": _walker2d, "halfcheetah": _halfcheetah, "ant": _ant}
"""By the names of the tasks, from the joints' positions and velocities after a step."""
