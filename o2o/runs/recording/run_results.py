"""Rows and results as they are written: from an evaluation to a row of `eval.jsonl`, from rows to `result.json`."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

import o2o
from o2o import collapse
from o2o.config.schema import Config, Dataset
from o2o.envs.scores import normalised_score, reference_returns
from o2o.machine import device
from o2o.training.evaluation import Evaluation

LAST_EVALUATIONS = 10
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "mujoco", "gymnasium")


def evaluation_row(dataset: Dataset, evaluation: Evaluation) -> dict[str, Any]:
    """The columns of `eval.jsonl` that an evaluation fills."""
    mean = float(evaluation.returns.mean())
    return {
        "return_mean": mean,
        "return_std": float(evaluation.returns.std()),
        "score": _score(dataset, mean),
        "returns": evaluation.returns,
        "length_mean": float(evaluation.lengths.mean()),
        "q_minus_return": evaluation.q_minus_return,
    }


def scores_of(config: Config, evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The scores in `result.json`, from a run's rows of `eval.jsonl`."""
    scores = np.array([row["score"] for row in evaluations])
    if config.finetune.env_steps == 0:
        return {"offline_score": float(scores[-1])}
    online = {
        "online_score": float(scores[-1]),
        "online_score_last_10": float(scores[1:][-LAST_EVALUATIONS:].mean()),
    }
    if config.pretrain.updates == 0:  # nothing was pretrained, so nothing can be lost
        return {"offline_score": None} | online | {"delta": None, "collapse": None}
    offline = float(scores[0])
    first = float(np.mean(evaluations[0]["returns"][: config.evaluation.episodes]))
    env_steps = np.array([row["env_steps"] for row in evaluations])
    return (
        {"offline_score": offline, "offline_score_first_episodes": _score(config.dataset, first)}
        | online
        | {
            "delta": online["online_score"] - offline,
            "collapse": collapse.summarise(env_steps, scores, offline),
        }
    )


def execution(
    config: Config, seconds: Mapping[str, float], members: int, code_changed: bool
) -> dict[str, Any]:
    """The part of `result.json` on how a job ran: everything that another machine or attempt may have otherwise."""
    steps = config.finetune.env_steps or config.pretrain.updates
    used = jax.devices()[0]
    return {
        "seconds": sum(seconds.values()),
        "training_seconds": seconds["training"],
        "evaluation_seconds": seconds["evaluation"],
        "steps_per_second": steps / max(seconds["training"], 1e-9),
        "members": members,
        "code_changed": code_changed,
        "rounding": device.rounding_otherwise(),
        "device": f"{used.platform}: {used.device_kind}",
        "host": platform.node(),
        "versions": {"o2o": o2o.__version__, "python": platform.python_version()}
        | {name: version(name) for name in PACKAGES},
    }


def _score(dataset: Dataset, episode_return: float) -> float:
    references = reference_returns(dataset.task, dataset.reference_min, dataset.reference_max)
    return float(normalised_score(episode_return, *references))
