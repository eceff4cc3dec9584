"""Names of datasets and who may bear them: D4RL's are for its own files, regenerated ones for their recipes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

TASKS = ("hopper", "halfcheetah", "walker2d", "ant")
D4RL_QUALITIES = ("medium", "medium-replay", "random", "expert", "medium-expert", "full-replay")
D4RL_NAMES = tuple(f"{task}-{quality}-v2" for quality in D4RL_QUALITIES for task in TASKS)
REGENERATED = ("medium", "medium-replay")
"""The qualities that this project generates."""
REGENERATED_ROWS = {
    **{("medium", task): 1_000_000 for task in TASKS},
    ("medium-replay", "hopper"): 402_000,
    ("medium-replay", "halfcheetah"): 202_000,
    ("medium-replay", "walker2d"): 302_000,
    ("medium-replay", "ant"): 302_000,
}
"""The size of a regenerated set whose name says no other: D4RL's."""
MADE_HERE = ("regenerated", "snapshots", "retrain")
"""The sources of datasets that this project generates, which are never D4RL's."""

_OWNERS = {
    rf"({'|'.join(D4RL_NAMES)})": "D4RL's own set",
    rf"({'|'.join(TASKS)})-({'|'.join(D4RL_QUALITIES)})-v\d+": "another version of D4RL's set",
    rf"({'|'.join(TASKS)})-mix-.*-v2": "a mixture of D4RL's sets",
    rf"regen-({'|'.join(TASKS)})-.*": "one of the sets that this project generates",
    r"regen-.*": "data that this project generates",
}
_ANY_GENERATED = _OWNERS[r"regen-.*"]


def own_name(dataset: Mapping[str, Any]) -> str | None:
    """The name of a set from D4RL or generated here, by its task, quality and recipe; None for any other."""
    source, stem = dataset["source"], f"{dataset['task']}-{dataset.get('quality')}"
    if source == "d4rl":
        return f"{stem}-v2"
    if source not in MADE_HERE:
        return None
    return f"regen-{stem}" if source == "regenerated" else f"regen-{stem}-{source}"


def stands_for(name: str) -> str:
    """The task and quality of D4RL's set, or of what is generated in its place: `hopper-medium-replay`.

    Any other name says more: a regenerated part is `hopper-medium-60k`, and stands for no set of D4RL's.
    """
    if name.startswith("regen-"):
        for source in MADE_HERE:
            name = name.removesuffix(f"-{source}")
        return name.removeprefix("regen-")
    return name.removesuffix("-v2")


def shown_name(dataset: Mapping[str, Any]) -> str:
    """Returns the name of a set where its settings are not shown, as in tables and figures.

    A regenerated set of another size, seed or number of policies than its name stands for says so, and so does a part.
    """
    name, top = dataset["name"], dataset.get("top_fraction")
    part = [] if top is None else [f"top-{100 * top:g}"]
    if dataset["source"] not in MADE_HERE or dataset.get("mix") or name != own_name(dataset):
        return "-".join([name, *part])
    rows, parts = dataset["rows"], [name]
    if rows != REGENERATED_ROWS.get((dataset["quality"], dataset["task"])):
        parts.append(f"{rows // 1000}k" if rows % 1000 == 0 else str(rows))
    if dataset.get("snapshots"):
        parts.append(f"{dataset['snapshots']}-policies")
    if dataset.get("seed"):
        parts.append(f"seed-{dataset['seed']}")
    return "-".join([*parts, *part])


def name_problem(dataset: Mapping[str, Any]) -> str | None:
    """Says why a set that is no mixture may not have its name, and the way out; None where it may."""
    name, rows, own = dataset["name"], dataset["rows"], own_name(dataset)
    owner = _owner(name)
    if own is None:
        return owner and (
            f"dataset.name={name} is the name of {owner}, which dataset.source={dataset['source']} is not: "
            "give yours another name with dataset.name=…"
        )
    what = f"dataset.task={dataset['task']} dataset.quality={dataset['quality']}"
    generated = dataset["source"] != "d4rl"
    if (
        dataset["quality"] not in (REGENERATED if generated else D4RL_QUALITIES)
        or dataset["task"] not in TASKS
    ):
        return (
            f"dataset.name={name}: {what} would be {own}, which does not exist; choose another dataset=…, "
            "dataset=file for your own, or pretrain.updates=0 replay_init=empty to train without one"
        )
    if name == own and rows is not None and not generated:
        return (
            f"dataset.rows={rows} is a part of D4RL's {own}, whose name belongs to the whole set: "
            f"name the part, for instance dataset.name={own}-first-{rows}, or take all with dataset.rows=null"
        )
    if owner and name != own and not (generated and owner == _ANY_GENERATED):
        return (
            f"dataset.name={name} is the name of {owner}, but {what} is {own}: choose dataset="
            f"{own.removesuffix('-snapshots').removesuffix('-retrain')}, or another dataset.name"
        )
    return None


def _owner(name: str) -> str | None:
    """Returns the owner of a name, however it is written; None if it has none."""
    plain = name.casefold().replace("_", "-")
    return next((owner for pattern, owner in _OWNERS.items() if re.fullmatch(pattern, plain)), None)
