"""From a composed configuration to frozen dataclasses, with every problem found at once, and back to plain containers.

Values live in `conf/*.yaml`, once; names, types, ranges and meanings live in `o2o.config.schema` and in
`o2o.algorithms`. `build` joins the two. What both phases of a run must agree on (network, batch size, discount,
learning rates) stands once at the top of the configuration and is handed to both algorithms.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from o2o.algorithms import ALGORITHMS
from o2o.config import stored_yaml
from o2o.config.parsing import BROKEN, MISSING, Reader, hints_of, shown, suggestion
from o2o.config.schema import EXECUTION, Config, Dataset, Execution, OnlineLearningRate, Pretrain
from o2o.config.validation import contradictions
from o2o.errors import ConfigError
from o2o.types import ADDED_LATER, Algorithm, LearningRate

Composed = DictConfig
"""The type of a composition of Hydra's."""

SHARED = ("discount", "learning_rate", "network")
"""The top-level keys that both algorithms get, those that have them."""


def build(container: Mapping[str, Any]) -> Config:
    """The configuration that a plain container (of dicts, lists and scalars) describes.

    Raises `ConfigError` with all that is wrong: names, missing keys and types, and where those are right also
    ranges and contradictions.
    """
    reader = Reader()
    config = _read(reader, dict(container))
    if config is not BROKEN:
        reader.problems += contradictions(config)
    if reader.problems:
        raise ConfigError(reader.problems)
    return replace(config, dataset=_named_for_its_mix(config.dataset)) if config.dataset.mix else config


def plain(composed: Composed) -> dict[str, Any]:
    """The resolved container of a composition, without Hydra's own node (whose keys need a running job)."""
    tree = {}
    for key in composed:
        if key != "hydra":
            node = MISSING if OmegaConf.is_missing(composed, key) else composed[key]
            tree[str(key)] = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    return tree


def container(config: Config) -> dict[str, Any]:
    """The plain container from which `build` makes the same configuration again."""
    tree = _plain(config)
    tree |= tree.pop("execution")
    for algorithm in (tree["algorithm"], tree["pretrain"]["algorithm"]):
        for key in SHARED:
            algorithm.pop(key, None)
    return tree


def load(path: Path) -> Config:
    """The configuration in a run directory's `config.yaml`, which holds its `container`.

    Raises `ConfigError` if the file does not fit this version of the code.
    """
    try:
        tree = stored_yaml.read(path)
    except ValueError as error:
        raise ConfigError([str(error)]) from None
    if not isinstance(tree, dict):
        raise ConfigError([f"{path} is damaged: it holds no keys"])
    try:
        return build(tree)
    except ConfigError as error:
        raise ConfigError([f"{path} does not fit this version:", *error.problems]) from None


def _named_for_its_mix(dataset: Dataset) -> Dataset:
    """A mixture goes by what is in it, so that no table shows it as one of the sets that it was made of."""
    shares = "-".join(f"{quality}-{100 * share:.4g}" for quality, share in dataset.mix or ())
    name = f"{dataset.task}-mix-{shares}"
    if dataset.made_here:
        return replace(dataset, name=f"regen-{name}", source="regenerated", quality="mix")
    return replace(dataset, name=f"{name}-v2", quality="mix")


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        tree = {
            field.name: _plain(getattr(value, field.name))
            for field in fields(value)
            if _is_said(field, value)
        }
        names = [name for name, cls in ALGORITHMS.items() if type(value) is cls]
        return {"name": names[0], **tree} if names else tree
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _is_said(field: Field[Any], value: Any) -> bool:
    """Whether a field is written; not where it was added later, and stands for what was done before it was."""
    return not ADDED_LATER.keys() <= field.metadata.keys() or getattr(value, field.name) != field.default


def _read(reader: Reader, tree: dict[str, Any]) -> Config:
    if "experiment" in tree:  # where Hydra puts what a preset of this group says, unless that says otherwise
        reader.note(
            "experiment is not a key: the first line of a preset in experiment/ must be: # @package _global_"
        )
        del tree["experiment"]
    conventions = tree.get("conventions")
    if isinstance(conventions, Mapping):
        tree["conventions"] = conventions.get("name", MISSING)
    hints = hints_of(Config)
    shared = {key: reader.value(hints[key], tree.pop(key, MISSING), key) for key in SHARED}
    pretrain = tree.pop("pretrain", MISSING)
    offline = MISSING
    if isinstance(pretrain, Mapping):
        offline = pretrain.get("algorithm", MISSING)
        pretrain = {key: value for key, value in pretrain.items() if key != "algorithm"}
    offline_algorithm = _read_algorithm(reader, offline, "pretrain.algorithm", shared)
    online = shared | {"learning_rate": _online_rates(shared["learning_rate"], tree.get("finetune"))}
    execution = {key: tree.pop(key) for key in EXECUTION if key in tree}
    given = {
        "algorithm": _read_algorithm(reader, tree.pop("algorithm", MISSING), "algorithm", online),
        "pretrain": reader.dataclass(Pretrain, pretrain, "pretrain", {"algorithm": offline_algorithm}),
        "execution": reader.dataclass(Execution, execution, "", {}),
    }
    return reader.dataclass(Config, tree, "", {**shared, **given})


def _online_rates(both: Any, finetune: Any) -> Any:
    """The learning rates of the online phase; what is wrong with its own is told where they are read."""
    own = finetune.get("learning_rate") if isinstance(finetune, Mapping) else None
    own = Reader().value(OnlineLearningRate, own or {}, "")
    if BROKEN in (both, own):
        return both
    return LearningRate(policy=own.policy or both.policy, critic=own.critic or both.critic)


def _read_algorithm(reader: Reader, tree: Any, key: str, shared: Mapping[str, Any]) -> Any:
    if isinstance(tree, str) and tree != MISSING:
        group = "algorithm" if key == "algorithm" else f"algorithm@{key}"
        return reader.note(
            f"{key}={tree} is not how an algorithm is chosen: say {shlex.quote(f'{group}={tree}')}"
        )
    name = tree.get("name", MISSING) if isinstance(tree, Mapping) else tree
    if not isinstance(tree, Mapping) or not isinstance(name, str) or name not in ALGORITHMS:
        near = suggestion(name, ALGORITHMS)
        if isinstance(name, str) and name != MISSING and not near:
            near = " (a new one needs a row in o2o/algorithms/__init__.py)"
        return reader.note(f"{key}.name={shown(name)} is not one of {', '.join(ALGORITHMS)}{near}")
    if problem := _class_problem(name):
        return reader.note(problem)
    own = {field: value for field, value in tree.items() if field != "name"}
    wanted = {field.name for field in fields(ALGORITHMS[name])}
    given = {k: v for k, v in shared.items() if k in wanted}
    return reader.dataclass(ALGORITHMS[name], own, key, given, file=f"conf/algorithm/{name}.yaml")


def _class_problem(name: str) -> str | None:
    """Says why a row of `ALGORITHMS` is no algorithm, as far as its class shows; None where it is one."""
    cls: Any = ALGORITHMS[name]
    what = f"algorithm={name}: {getattr(cls, '__module__', '')}.{getattr(cls, '__qualname__', cls)}"
    if not isinstance(cls, type) or "__dataclass_params__" not in vars(
        cls
    ):  # one that it inherits is not its own
        return f"{what} is not a dataclass: write @dataclass(frozen=True) above its class"
    if not cls.__dataclass_params__.frozen:  # pyright: ignore[reportAttributeAccessIssue]
        return f"{what} can be changed: write @dataclass(frozen=True) above it, for it is kept by its values"
    there = {*dir(cls), *(field.name for field in fields(cls))}
    if missing := [member for member in vars(Algorithm) if member[0] != "_" and member not in there]:
        return f"{what} has no {', '.join(missing)}: o2o/types.py says what each is, o2o/algorithms/bc.py has them"
    return None
