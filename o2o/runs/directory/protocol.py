"""The protocol of a run in words: what methods differ in at the switch and after it, beside their losses.

Each item has changed results in a published code base, or has differed between two that were compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

NOT_SAID: Mapping[str, Any] = {
    "finetune.updates_per_step": 1,
    "finetune.warmup_steps": 0,
    "finetune.random_steps": 0,
    "finetune.critic_only_steps": 0,
    "finetune.first_updates_multiplier": 1,
    "finetune.first_updates_steps": 1000,
    "finetune.reset": [],
}
"""The values of keys that were added later, where a run does not have them."""


def protocol(settings: Mapping[str, Any]) -> dict[str, str]:
    """Returns the protocol of a run that finetunes, item by item, given its settings by dotted keys.

    What follows from keys that are not there, as in imported runs, is "not recorded".
    """
    own = {**NOT_SAID, **settings}
    found = {}
    for item, words in _ITEMS.items():
        try:
            found[item] = words(own)
        except KeyError:
            found[item] = "not recorded"
    return found


def updates_per_step(settings: Mapping[str, Any]) -> str:
    """Returns how often critics and policy learn in an env step, as `4` or `20, policy 1`, given a run's settings."""
    own = {**NOT_SAID, **settings}
    updates = own["finetune.updates_per_step"]
    if own["algorithm.name"] == "frozen":
        return "0"
    policy = updates / own.get("algorithm.policy_delay", 1)
    if own.get("algorithm.policy_updates", "every") != "every":
        policy = 1
    words = f"{updates:g}" if policy == updates else f"{updates:g}, policy {policy:g}"
    multiplier = own["finetune.first_updates_multiplier"]
    if multiplier == 1:
        return words
    return f"{words}; × {multiplier} in the first {own['finetune.first_updates_steps']} that learn"


def _pretraining(own: Mapping[str, Any]) -> str:
    updates = own["pretrain.updates"]
    return f"{own['pretrain.algorithm.name']}, {updates} updates" if updates else "none"


def _carried(own: Mapping[str, Any]) -> str:
    if not own["pretrain.updates"]:
        return "nothing"
    anew = list(own["finetune.reset"])
    anew += ["Adam's moments"] if own["finetune.reset_optimizers"] else []
    anew += ["targets, copied from the networks"] if own["finetune.reset_targets"] else []
    return "everything that both algorithms have" + (f" but {', '.join(anew)}" if anew else "")


def _replay(own: Mapping[str, Any]) -> str:
    capacity = own["replay_init.capacity"]
    if not own["replay_init.preload"]:
        return f"begins empty, keeps the last {capacity} rows"
    if own["offline_ratio.value"] is None:
        return f"begins with the offline rows, keeps the last {capacity} rows of both"
    return f"begins with the offline rows, which stay, and keeps the last {capacity} online rows"


def _batch(own: Mapping[str, Any]) -> str:
    size = own.get("finetune.batch_size") or own["batch_size"]
    share, last = own["offline_ratio.value"], own.get("offline_ratio.last")
    if share is None:
        return f"{size}, each row of the replay as likely as another"
    if last is None:
        return f"{size}, {100 * share:g} % offline rows exactly"
    return f"{size}, {100 * share:g} % offline rows exactly, {100 * last:g} % after {own['offline_ratio.steps']} steps"


def _first_steps(own: Mapping[str, Any]) -> str:
    least = own["replay_init.min_size"]
    words = {
        "finetune.random_steps": "uniform actions in the first {}",
        "finetune.warmup_steps": "no updates in the first {}",
        "finetune.critic_only_steps": "the policy stands in the first {}",
    }
    said = [text.format(own[key]) for key, text in words.items() if own[key]]
    return ", ".join([*said, f"no updates below {least} rows"])


def _learning_rates(own: Mapping[str, Any]) -> str:
    def rate(kind: str) -> str:
        online = own.get(f"finetune.learning_rate.{kind}") or own[f"learning_rate.{kind}"]
        offline = own[f"learning_rate.{kind}"]
        return f"{kind} {online:g}" + (f" (offline {offline:g})" if online != offline else "")

    return f"constant, {rate('policy')}, {rate('critic')}"


def _data(own: Mapping[str, Any]) -> str:
    if "dataset.name" not in own:
        return "none" if "dataset.task" in own else "not recorded"
    known = {"dataset.sha256": "sha256", "dataset.recipe.policies_sha256": "by policies of sha256"}
    said = [f", {words} {own[key][:8]}" for key, words in known.items() if key in own]
    return own["dataset.name"] + "".join(said)


def _rewards(own: Mapping[str, Any]) -> str:
    scaled = own.get("algorithm.reward_scale") == "return_range"
    return "× 1000 / range of the data's returns, offline and online" if scaled else _unchanged(own)


def _unchanged(own: Mapping[str, Any]) -> str:
    return "as they are" if "batch_size" in own else "not recorded"


def _ends(own: Mapping[str, Any]) -> str:
    return "a time limit is no termination, offline and online" if "batch_size" in own else "not recorded"


def _evaluation(own: Mapping[str, Any]) -> str:
    return (
        f"{own['evaluation.episodes']} episodes in environments of their own, the policy's mode; "
        f"{own['evaluation.switch_episodes']} at the switch"
    )


_ITEMS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "pretraining": _pretraining,
    "carried over": _carried,
    "replay": _replay,
    "batch": _batch,
    "first steps": _first_steps,
    "updates per env step": updates_per_step,
    "learning rates": _learning_rates,
    "rewards": _rewards,
    "observations and actions": _unchanged,
    "ends": _ends,
    "evaluation": _evaluation,
    "data": _data,
}
