"""Contradictions between keys that are each right by themselves, with the way out."""

from __future__ import annotations

import itertools

from o2o.config.dataset_names import D4RL_QUALITIES, REGENERATED, name_problem
from o2o.config.parsing import shown, suggestion
from o2o.config.schema import (
    Config,
    Dataset,
    EvaluationSettings,
    Finetune,
    OfflineRatio,
    algorithm_name,
)
from o2o.envs.scores import REFERENCE_RETURNS
from o2o.machine.names import PLAIN, is_plain
from o2o.types import Algorithm


def contradictions(config: Config) -> list[str]:
    """One line for each contradiction in a configuration."""
    pretrain, finetune, replay = config.pretrain, config.finetune, config.replay_init
    ratio, batch_size = config.offline_ratio.value, finetune.batch_size or config.batch_size
    scratch = pretrain.updates == 0
    problems = _dataset_problems(config.dataset, is_used=not scratch or replay.preload)
    problems += _schedule_problems(config.evaluation)
    if scratch and finetune.env_steps == 0:
        problems.append(
            "pretrain.updates=0 and finetune.env_steps=0 leave nothing to do: set one of them above 0"
        )
    if ratio is not None and not replay.preload:
        problems.append(
            f"offline_ratio.value={ratio:g} needs offline rows, but replay_init={replay.name} has none: "
            "set replay_init=offline or offline_ratio=uniform"
        )
    for key, share in (("value", ratio), ("last", config.offline_ratio.last)):
        if share is not None and 0 < share < 1 and round(share * batch_size) in (0, batch_size):
            problems.append(
                f"offline_ratio.{key}={share:g} of batch_size={batch_size} rounds to {round(share * batch_size)} "
                f"offline rows: say offline_ratio.{key}={round(share)}, or enlarge batch_size"
            )
    problems += _moving_share_problems(config.offline_ratio)
    if replay.min_size > replay.capacity:
        problems.append(
            f"replay_init.min_size={replay.min_size} is above replay_init.capacity={replay.capacity}: "
            "updates would never begin"
        )
    waits = finetune.env_steps > 0 and (not replay.preload or (ratio is not None and ratio < 1))
    if waits and batch_size > replay.min_size:
        problems.append(
            f"batch_size={batch_size} is above replay_init.min_size={replay.min_size}: the first batches "
            f"would repeat rows; set replay_init.min_size={batch_size} or more"
        )
    if waits and replay.min_size > finetune.env_steps:
        problems.append(
            f"finetune.env_steps={finetune.env_steps} is below replay_init.min_size={replay.min_size}: "
            "updates would never begin; lower replay_init.min_size or collect more"
        )
    no_data = scratch and finetune.env_steps > 0 and not replay.preload
    if no_data and getattr(config.algorithm, "needs_returns", False):
        problems.append(
            "algorithm.reward_scale=return_range needs the returns of a dataset, and pretrain.updates=0 "
            f"replay_init={replay.name} has none: set algorithm.reward_scale=none"
        )
    if no_data and (columns := getattr(config.algorithm, "columns", ())):
        problems.append(
            f"algorithm={algorithm_name(config.algorithm)} needs the {' and '.join(columns)} of a dataset, and "
            f"pretrain.updates=0 replay_init={replay.name} has none: add replay_init=offline"
        )
    problems += _online_problems(finetune)
    if config.dataset.rows is not None:
        problems += starvation(config, config.dataset.rows - 1)  # the last row has no successor
    if not scratch and finetune.env_steps > 0 and not config.algorithm.adopts(pretrain.algorithm):
        online, offline = algorithm_name(config.algorithm), algorithm_name(pretrain.algorithm)
        alone = "offline" if ratio is not None or _needs_data(config.algorithm) else "empty"
        problems.append(
            f"algorithm={online} cannot take over what {offline} pretrained: "
            f"set algorithm@pretrain.algorithm={online}, or pretrain.updates=0 replay_init={alone}"
        )
    return problems


def _needs_data(algorithm: Algorithm) -> bool:
    return bool(getattr(algorithm, "needs_returns", False) or getattr(algorithm, "columns", ()))


def _online_problems(finetune: Finetune) -> list[str]:
    """One line for each key that leaves no step of the online phase to what it delays."""
    left = {
        "warmup_steps": "to learn in",
        "critic_only_steps": "in which the policy learns",
        "random_steps": "in which the policy acts",
    }
    return [
        f"finetune.{key}={getattr(finetune, key)} leaves no step of finetune.env_steps={finetune.env_steps} {what}: "
        "lower it, or collect more"
        for key, what in left.items()
        if 0 < finetune.env_steps <= getattr(finetune, key)
    ]


def _moving_share_problems(ratio: OfflineRatio) -> list[str]:
    if ratio.last is not None and ratio.value is None:
        return [
            f"offline_ratio.last={ratio.last:g} needs the share to begin with: set offline_ratio.value=…, from 0 to 1"
        ]
    if (ratio.last is None) != (ratio.steps is None):
        return ["offline_ratio.last and offline_ratio.steps belong together: set both or neither"]
    return []


def starvation(config: Config, transitions: int) -> list[str]:
    """Checks that a run which begins with so many offline transitions learns online; at most one problem."""
    env_steps, replay = config.finetune.env_steps, config.replay_init
    uniform = config.offline_ratio.value is None
    if env_steps == 0 or not replay.preload or not uniform or transitions + env_steps >= replay.min_size:
        return []
    return [
        f"the set's {transitions} transitions and finetune.env_steps={env_steps} are together below "
        f"replay_init.min_size={replay.min_size}: updates would never begin online; lower replay_init.min_size, or "
        "collect more"
    ]


def _dataset_problems(dataset: Dataset, is_used: bool) -> list[str]:
    problems: list[str] = []
    if not is_plain(dataset.name):
        problems.append(f"dataset.name={shown(dataset.name)} names a folder: {PLAIN}")
    needed = {
        "d4rl": ("quality",),
        "regenerated": ("quality", "rows"),
        "snapshots": ("quality", "rows"),
        "retrain": ("quality", "rows"),
        "file": ("path",),
        "minari": ("id",),
    }[dataset.source]
    for name in needed:
        if getattr(dataset, name) is None:
            problems.append(f"dataset.{name} is missing: dataset={dataset.name} needs dataset.{name}=…")
    has_snapshots = dataset.source == "snapshots" or (dataset.made_here and dataset.mix)
    if dataset.snapshots is not None and not has_snapshots:
        problems.append(
            f"dataset.snapshots={dataset.snapshots} is for replays that are made of snapshots, which "
            f"dataset={dataset.name} is not: add dataset.source=snapshots to a regen-…-medium-replay"
        )
    if dataset.episode_length is not None and dataset.source != "file":
        problems.append(
            f"dataset.episode_length={dataset.episode_length} is for dataset=file without timeouts, but "
            f"dataset={dataset.name} says itself where its episodes end"
        )
    if dataset.mix is not None:
        problems += _mix_problems(dataset, dict(dataset.mix))
    low, high = dataset.reference_min, dataset.reference_max
    if (low is None) != (high is None):
        problems.append(
            "dataset.reference_min and dataset.reference_max belong together: set both or neither"
        )
    elif low is not None and high is not None and low >= high:
        problems.append(f"dataset.reference_min={low:g} should be below dataset.reference_max={high:g}")
    elif low is None and dataset.task not in REFERENCE_RETURNS:
        problems.append(
            f"dataset.task={dataset.task} is none of {', '.join(REFERENCE_RETURNS)}"
            f"{suggestion(dataset.task, REFERENCE_RETURNS)}; "
            "for a gymnasium id of your own set dataset.reference_min and dataset.reference_max, the returns "
            "that score 0 and 100"
        )
    if is_used and not problems and not dataset.mix and (problem := name_problem(vars(dataset))):
        problems.append(problem)
    return problems


def _mix_problems(dataset: Dataset, mix: dict[str, float]) -> list[str]:
    problems = []
    if dataset.source in ("file", "minari", "retrain"):
        problems.append(
            f"dataset={dataset.name}: dataset.mix mixes D4RL's sets, or those regenerated from shipped policies"
        )
    elif dataset.made_here and (unknown := [quality for quality in mix if quality not in REGENERATED]):
        problems.append(
            f"dataset.mix: {', '.join(unknown)} cannot be regenerated, only {' and '.join(REGENERATED)} can"
        )
    elif not dataset.made_here and (unknown := [quality for quality in mix if quality not in D4RL_QUALITIES]):
        problems.append(f"dataset.mix: D4RL has no {', '.join(unknown)}, only {', '.join(D4RL_QUALITIES)}")
    if abs(sum(mix.values()) - 1) > 1e-6 or not all(mix.values()):
        problems.append("dataset.mix: the shares should be above 0 and add up to 1")
    if dataset.rows is None:
        problems.append("dataset.rows is missing: a mixture has a fixed size; set dataset.rows=…")
    return problems


def _schedule_problems(evaluation: EvaluationSettings) -> list[str]:
    ends = [until for until, _ in evaluation.online_intervals]
    if any(end <= start for start, end in itertools.pairwise([0, *ends])):
        return [f"evaluation.online_intervals: the ends {ends} should increase"]
    return []
