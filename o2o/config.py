"""From a composed configuration to frozen dataclasses, with every problem found at once.

Values live in `conf/*.yaml`, once; names, types, ranges and meanings live in the dataclasses here and in
`o2o.algorithms`. `build` joins the two. What both phases of a run must agree on (network, batch size,
discount, learning rates) stands once at the top of the configuration and is handed to both algorithms.
"""

from __future__ import annotations

import difflib
import itertools
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from omegaconf import DictConfig, OmegaConf

from o2o.types import Algorithm, Fraction, LearningRate, Network, NonNegative, Positive, Range

SHARED = ("discount", "learning_rate", "network")
"""The top-level keys that both algorithms get."""


class ConfigError(Exception):
    """Bad input, told to the user without a traceback; each of `problems` is one line or paragraph."""

    def __init__(self, problems: Iterable[str]) -> None:
        """An error that lists `problems`."""
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True)
class Dataset:
    """The offline data: D4RL's own file, data that we generated, the user's HDF5 file, or a Minari set."""

    name: str
    source: Literal["d4rl", "regenerated", "file", "minari"]
    task: str
    """`hopper`, `halfcheetah`, `walker2d`, `ant`, or a gymnasium id, which needs its reference returns."""
    quality: str | None
    """What kind of policy the data come from, such as `medium`."""
    rows: Annotated[int, Positive] | None
    """Steps in the file; for regenerated data, how many are made."""
    seed: Annotated[int, NonNegative]
    """The seed of the generation; regenerated data only."""
    path: str | None
    """An HDF5 file with D4RL's keys; `source: file` only."""
    id: str | None
    """Minari's name of the set; `source: minari` only."""
    reference_min: float | None
    """The return that scores 0; D4RL's where not given."""
    reference_max: float | None
    """The return that scores 100; D4RL's where not given."""


@dataclass(frozen=True)
class Pretrain:
    """The offline phase; zero updates is training from scratch."""

    updates: Annotated[int, NonNegative]
    algorithm: Algorithm


@dataclass(frozen=True)
class Finetune:
    """The online phase, one update per environment step; zero steps is pretraining only."""

    env_steps: Annotated[int, NonNegative]
    reset_optimizers: bool
    """Forget Adam's moments at the switch; the paper carries the state over."""
    reset_targets: bool
    """Copy the networks to their targets at the switch."""


@dataclass(frozen=True)
class ReplayInit:
    """What the online replay buffer holds before the first step."""

    name: str
    preload: bool
    """Begin with all offline rows."""
    capacity: Annotated[int, Positive]
    """Rows; the oldest leave first."""
    min_size: Annotated[int, Positive]
    """Rows that must be there before the first update."""


@dataclass(frozen=True)
class OfflineRatio:
    """How many rows of each online batch are offline rows."""

    name: str
    value: Annotated[float, Fraction] | None
    """The offline share of each batch, exactly; null samples uniformly from what the buffer holds."""


@dataclass(frozen=True)
class Evaluation:
    """When the policy is evaluated, on how many episodes."""

    episodes: Annotated[int, Positive]
    interval: Annotated[int, Positive]
    """Updates or env steps between evaluations."""
    online_intervals: tuple[tuple[Annotated[int, Positive], Annotated[int, Positive]], ...]
    """Pairs (until, every): up to `until` env steps, evaluate `every` so many; then `interval`."""
    switch_episodes: Annotated[int, Positive]
    """Episodes of the evaluation between the phases, which all arms of a pretraining share."""


@dataclass(frozen=True)
class Paths:
    """Where data are found and runs are written."""

    data: Path
    runs: Path


@dataclass(frozen=True)
class Tracker:
    """Whether runs are mirrored to wandb; `auto` is online where one is logged in, else offline."""

    mode: Literal["none", "offline", "online", "auto"]
    project: str


@dataclass(frozen=True)
class Launch:
    """How planned runs are turned into jobs."""

    seeds_per_job: Annotated[int, Positive]
    """Runs that differ only in their seed and train side by side in one job."""
    redo: bool
    """Run again what is done."""
    dry_run: bool
    """Print the plan and stop."""


@dataclass(frozen=True)
class Records:
    """How densely training metrics are written."""

    interval: Annotated[int, Positive]
    """Updates that one row of `train.jsonl` averages over."""


@dataclass(frozen=True)
class Checkpoint:
    """How often a run saves what it needs to go on."""

    interval_seconds: Annotated[float, Positive]


@dataclass(frozen=True)
class Device:
    """What a job computes on; `auto` is an accelerator where there is one."""

    platform: Literal["auto", "cpu", "gpu", "tpu"]


@dataclass(frozen=True)
class Execution:
    """Where and how a run runs; it changes nothing of what the run is."""

    paths: Paths
    tracker: Tracker
    launch: Launch
    records: Records
    checkpoint: Checkpoint
    device: Device


@dataclass(frozen=True)
class Config:
    """One run: everything but `execution` and `conventions` says what it is (sweep/identity.py)."""

    seed: Annotated[int, NonNegative]
    conventions: str
    """The name of a choice that sets details of both algorithms, whose values already stand there."""
    batch_size: Annotated[int, Positive]
    discount: Annotated[float, Fraction]
    learning_rate: LearningRate
    network: Network
    dataset: Dataset
    algorithm: Algorithm
    pretrain: Pretrain
    finetune: Finetune
    replay_init: ReplayInit
    offline_ratio: OfflineRatio
    evaluation: Evaluation
    execution: Execution


EXECUTION = tuple(field.name for field in fields(Execution))
"""The top-level keys of the YAML that say where and how a run runs."""


def build(container: Mapping[str, Any]) -> Config:
    """The configuration that a plain container (of dicts, lists and scalars) describes.

    Raises `ConfigError` with all that is wrong: names, missing keys and types, and where those are right also
    ranges and contradictions.
    """
    problems: list[str] = []
    config = _Reader(problems).config(dict(container))
    if config is not _BROKEN:
        problems += _contradictions(config)
    if problems:
        raise ConfigError(problems)
    return config


def from_hydra(composed: DictConfig) -> Config:
    """The configuration that Hydra composed."""
    return build(plain(composed))


def plain(composed: DictConfig) -> dict[str, Any]:
    """The resolved container of a composition, without Hydra's own node (whose keys need a running job)."""
    return {
        str(key): OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        for key, node in (
            (key, "???" if OmegaConf.is_missing(composed, key) else composed[key])
            for key in composed
            if key != "hydra"
        )
    }


def container(config: Config) -> dict[str, Any]:
    """The plain container from which `build` makes the same configuration again."""
    tree = _plain(config)
    tree |= tree.pop("execution")
    for algorithm in (tree["algorithm"], tree["pretrain"]["algorithm"]):
        for key in SHARED:
            del algorithm[key]
    return tree


def load(path: Path) -> Config:
    """The configuration in a run directory's `config.yaml`, which holds its `container`.

    Raises `ConfigError` if the file does not fit this version of the code.
    """
    try:
        return build(plain(typing.cast("DictConfig", OmegaConf.load(path))))
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from None


def algorithm_name(algorithm: Algorithm) -> str:
    """The name under which an algorithm is registered."""
    from o2o.algorithms import ALGORITHMS

    return next(name for name, cls in ALGORITHMS.items() if type(algorithm) is cls)


def suggestion(word: object, options: Iterable[str]) -> str:
    """` (did you mean …?)` if one of the options is near, else nothing."""
    near = difflib.get_close_matches(str(word), list(options), n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        tree = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        return {"name": algorithm_name(value), **tree} if _is_algorithm(value) else tree
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _is_algorithm(value: object) -> bool:
    from o2o.algorithms import ALGORITHMS

    return type(value) in ALGORITHMS.values()


_BROKEN: Any = object()
"""Stands for a value that could not be read; the problem is noted."""


class _Reader:
    """Reads values by the annotations of dataclasses, and notes what is wrong."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems

    def config(self, tree: dict[str, Any]) -> Config:
        conventions = tree.get("conventions")
        if isinstance(conventions, Mapping):
            tree["conventions"] = conventions.get("name", "???")
        hints = typing.get_type_hints(Config, include_extras=True)
        given = {key: self.value(hints[key], tree.get(key, "???"), key) for key in SHARED}
        given["algorithm"] = self.algorithm(tree.get("algorithm", "???"), "algorithm", given)
        pretrain = tree.get("pretrain", "???")
        offline = pretrain.get("algorithm", "???") if isinstance(pretrain, Mapping) else "???"
        inner = {
            "algorithm": self.algorithm(offline, "pretrain.algorithm", {key: given[key] for key in SHARED})
        }
        given["pretrain"] = self.dataclass(Pretrain, pretrain, "pretrain", inner)
        execution = {key: tree.pop(key) for key in EXECUTION if key in tree}
        given["execution"] = self.dataclass(Execution, execution, "", {})
        return self.dataclass(Config, tree, "", given)

    def algorithm(self, tree: Any, key: str, shared: Mapping[str, Any]) -> Any:
        from o2o.algorithms import ALGORITHMS

        name = tree.get("name") if isinstance(tree, Mapping) else tree
        if name not in ALGORITHMS:
            near = suggestion(name, ALGORITHMS)
            return self.note(f"{key}.name={_show(name)} is not one of {', '.join(ALGORITHMS)}{near}")
        own = {name: value for name, value in tree.items() if name != "name"}
        return self.dataclass(ALGORITHMS[name], own, key, shared)

    def dataclass(self, cls: type, tree: Any, key: str, given: Mapping[str, Any]) -> Any:
        if not isinstance(tree, Mapping):
            return self.note(
                f"{key}={_show(tree)} should be a group of keys: {', '.join(f.name for f in fields(cls))}"
            )
        hints = typing.get_type_hints(cls, include_extras=True)
        names = [field.name for field in fields(cls)]
        unknown = [name for name in tree if name not in names]
        for name in unknown:
            options = [option for option in names if option not in tree and option not in given] or names
            near = suggestion(name, options) or f" (the keys here are {', '.join(names)})"
            self.note(f"{_join(key, name)} is not a key{near}")
        values = {
            name: given[name]
            if name in given
            else self.value(hints[name], tree.get(name, "???"), _join(key, name))
            for name in names
        }
        return _BROKEN if unknown or any(v is _BROKEN for v in values.values()) else cls(**values)

    def value(self, annotation: Any, value: Any, key: str) -> Any:
        if isinstance(value, str) and value == "???":
            return self.note(f"{key} is missing; set {key}=…")
        if get_origin(annotation) is Annotated:
            inner, *limits = get_args(annotation)
            result = self.value(inner, value, key)
            for limit in limits:
                if isinstance(limit, Range) and isinstance(result, (int, float)) and result not in limit:
                    self.problems.append(f"{key}={_show(value)} is out of range: it must be {limit}")
            return result
        if get_origin(annotation) in (typing.Union, types.UnionType):
            if value is None:
                return None
            (annotation,) = (option for option in get_args(annotation) if option is not types.NoneType)
            return self.value(annotation, value, key)
        if get_origin(annotation) is Literal:
            options = get_args(annotation)
            if value in options:
                return value
            return self.note(
                f"{key}={_show(value)} is not one of {', '.join(options)}{suggestion(value, options)}"
            )
        if get_origin(annotation) is tuple:
            return self.tuple(get_args(annotation), value, key)
        if is_dataclass(annotation):
            return self.dataclass(typing.cast("type", annotation), value, key, {})
        return self.scalar(annotation, value, key)

    def tuple(self, items: tuple[Any, ...], value: Any, key: str) -> Any:
        if not isinstance(value, (list, tuple)):
            return self.note(f"{key}={_show(value)} should be a list, as in {key}=[…]")
        if items[-1] is Ellipsis:
            items = (items[0],) * len(value)
        elif len(items) != len(value):
            return self.note(f"{key}={_show(value)} should have {len(items)} items")
        read = tuple(
            self.value(item, v, f"{key}[{i}]") for i, (item, v) in enumerate(zip(items, value, strict=True))
        )
        return _BROKEN if any(item is _BROKEN for item in read) else read

    def scalar(self, kind: type, value: Any, key: str) -> Any:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if kind is bool and isinstance(value, bool):
            return value
        if kind is int and number and math.isfinite(value) and value == int(value):
            return int(value)
        if kind is float and number and math.isfinite(value):
            return float(value) + 0.0  # no negative zero: it equals zero, and so should its hash
        if kind in (str, Path) and isinstance(value, str):
            return kind(value)
        return self.note(f"{key}={_show(value)} should be {_KINDS[kind]}")

    def note(self, problem: str) -> Any:
        self.problems.append(problem)
        return _BROKEN


_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    Path: "a path",
}


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _show(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _contradictions(config: Config) -> list[str]:
    """What is wrong between keys that are each right by themselves, with the way out."""
    pretrain, finetune, replay = config.pretrain, config.finetune, config.replay_init
    ratio, batch_size = config.offline_ratio.value, config.batch_size
    problems: list[str] = _dataset_problems(config.dataset) + _schedule_problems(config.evaluation)
    scratch = pretrain.updates == 0
    if scratch and finetune.env_steps == 0:
        problems.append(
            "pretrain.updates=0 and finetune.env_steps=0 leave nothing to do: set one of them above 0"
        )
    if scratch and replay.preload:
        problems.append(
            f"pretrain.updates=0 is training from scratch, without a dataset, but replay_init={replay.name} "
            "preloads one: add replay_init=empty"
        )
    if ratio is not None and not replay.preload:
        problems.append(
            f"offline_ratio.value={ratio:g} needs offline rows, but replay_init={replay.name} has none: "
            "set replay_init=offline or offline_ratio=uniform"
        )
    if ratio is not None and 0 < ratio < 1 and round(ratio * batch_size) in (0, batch_size):
        problems.append(
            f"offline_ratio.value={ratio:g} of batch_size={batch_size} rounds to {round(ratio * batch_size)} "
            f"offline rows: say offline_ratio.value={round(ratio)}, or enlarge batch_size"
        )
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
    if not scratch and finetune.env_steps > 0 and not _same_family(config.algorithm, pretrain.algorithm):
        online, offline = algorithm_name(config.algorithm), algorithm_name(pretrain.algorithm)
        problems.append(
            f"algorithm={online} cannot take over what {offline} pretrained: "
            f"set algorithm@pretrain.algorithm={online}, or pretrain.updates=0 replay_init=empty"
        )
    return problems


def _same_family(one: Algorithm, other: Algorithm) -> bool:
    from o2o.algorithms import ALGORITHMS

    return any(isinstance(one, cls) and isinstance(other, cls) for cls in ALGORITHMS.values())


def _dataset_problems(dataset: Dataset) -> list[str]:
    from o2o.datasets.scores import REFERENCE_RETURNS

    problems = []
    needed = {
        "d4rl": ("quality",),
        "regenerated": ("quality", "rows"),
        "file": ("path",),
        "minari": ("id",),
    }[dataset.source]
    for name in needed:
        if getattr(dataset, name) is None:
            problems.append(f"dataset.{name} is missing: dataset={dataset.name} needs dataset.{name}=…")
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
    return problems


def _schedule_problems(evaluation: Evaluation) -> list[str]:
    ends = [until for until, _ in evaluation.online_intervals]
    if any(end <= start for start, end in itertools.pairwise([0, *ends])):
        return [f"evaluation.online_intervals: the ends {ends} should increase"]
    return []
