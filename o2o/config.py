"""From a composed configuration to frozen dataclasses, with every problem found at once.

Values live in `conf/*.yaml`, once; names, types, ranges and meanings live in the dataclasses here and in
`o2o.algorithms`. `build` joins the two. What both phases of a run must agree on (network, batch size,
discount, learning rates) stands once at the top of the configuration and is handed to both algorithms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf

from o2o import stored_yaml
from o2o.errors import ConfigError as ConfigError
from o2o.reading import BROKEN, MISSING, Reader, hints_of, shown, suggestion
from o2o.types import Algorithm, Fraction, LearningRate, Network, NonNegative, Positive

Composed = DictConfig
"""What Hydra composes."""

SHARED = ("discount", "learning_rate", "network")
"""The top-level keys that both algorithms get."""


@dataclass(frozen=True)
class Dataset:
    """The offline data: D4RL's own file, data that we generated, the user's HDF5 file, or a Minari set."""

    name: str
    source: Literal["d4rl", "regenerated", "snapshots", "retrain", "file", "minari"]
    """`regenerated` is rollouts of one policy, `snapshots` of many, in the order in which a run passed through them,
    and `retrain` the replay buffer of a run made on the spot."""
    task: str
    """`hopper`, `halfcheetah`, `walker2d`, `ant`, or a gymnasium id, which needs its reference returns."""
    quality: str | None
    """What kind of policy the data come from, such as `medium`."""
    rows: Annotated[int, Positive] | None
    """Steps in the file; for regenerated data, how many are made."""
    seed: Annotated[int, NonNegative]
    """The seed of the generation; regenerated data and mixtures only."""
    path: str | None = None
    """An HDF5 file with D4RL's keys; `source: file` only."""
    id: str | None = None
    """Minari's name of the set; `source: minari` only."""
    reference_min: float | None = None
    """The return that scores 0; D4RL's where not given."""
    reference_max: float | None = None
    """The return that scores 100; D4RL's where not given."""
    snapshots: Annotated[int, Positive] | None = None
    """How many policies to use, spread over the training; all for null. `source: snapshots` only."""
    mix: tuple[tuple[str, Annotated[float, Fraction]], ...] | None = None
    """Qualities and their shares, which make a set of `rows` rows together; the set's own quality is not used then."""

    @property
    def made_here(self) -> bool:
        """Whether this project generates it."""
        return self.source in ("regenerated", "snapshots", "retrain")


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
    mirrors: str | None = None
    """Base URLs, separated by spaces, that are tried before D4RL's own for its files."""


@dataclass(frozen=True)
class Tracker:
    """Whether runs are mirrored to wandb; `auto` is online where one is logged in, else offline."""

    mode: Literal["none", "offline", "wandb", "auto"]
    project: str


@dataclass(frozen=True)
class Launch:
    """How planned runs are turned into jobs."""

    redo: bool
    """Run again what is done."""
    dry_run: bool
    """Print the plan and stop."""
    name: str | None = None
    """The sweep's, in `python -m o2o.sweep`; null takes the experiment's, or a hash of what was asked for."""
    seeds_per_job: Annotated[int, Positive] | Literal["auto"] = "auto"
    """How many seeds train side by side; auto is 10 on SLURM and with a GPU, where they share it, else 1."""
    seeds: tuple[int, ...] | None = None
    """The seeds of this job. Set by the plan; what is asked for is asked for with seed=."""


@dataclass(frozen=True)
class Records:
    """How densely training metrics are written."""

    interval: Annotated[int, Positive]
    """Updates that one row of `train.jsonl` averages over."""


@dataclass(frozen=True)
class Checkpoint:
    """How often a run saves what it needs to go on; whichever interval passes first."""

    interval_seconds: Annotated[float, Positive]
    interval_steps: Annotated[int, Positive] | None
    """Updates while pretraining, env steps while finetuning; null counts seconds alone."""


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
    from o2o.contradictions import contradictions

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
            del algorithm[key]
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


def algorithm_name(algorithm: Algorithm) -> str:
    """The name under which an algorithm is registered."""
    from o2o.algorithms import ALGORITHMS

    return next(name for name, cls in ALGORITHMS.items() if type(algorithm) is cls)


def _named_for_its_mix(dataset: Dataset) -> Dataset:
    """A mixture goes by what is in it, so that no table shows it as one of the sets that it was made of."""
    shares = "-".join(f"{quality}-{100 * share:.4g}" for quality, share in dataset.mix or ())
    name = f"{dataset.task}-mix-{shares}"
    if dataset.made_here:
        return replace(dataset, name=f"regen-{name}", source="regenerated", quality="mix")
    return replace(dataset, name=f"{name}-v2", quality="mix")


def _plain(value: Any) -> Any:
    from o2o.algorithms import ALGORITHMS

    if is_dataclass(value):
        tree = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        names = [name for name, cls in ALGORITHMS.items() if type(value) is cls]
        return {"name": names[0], **tree} if names else tree
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _read(reader: Reader, tree: dict[str, Any]) -> Config:
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
    execution = {key: tree.pop(key) for key in EXECUTION if key in tree}
    given = {
        "algorithm": _read_algorithm(reader, tree.pop("algorithm", MISSING), "algorithm", shared),
        "pretrain": reader.dataclass(Pretrain, pretrain, "pretrain", {"algorithm": offline_algorithm}),
        "execution": reader.dataclass(Execution, execution, "", {}),
    }
    return reader.dataclass(Config, tree, "", {**shared, **given})


def _read_algorithm(reader: Reader, tree: Any, key: str, shared: Mapping[str, Any]) -> Any:
    from o2o.algorithms import ALGORITHMS

    if isinstance(tree, str) and tree != MISSING:
        group = "algorithm" if key == "algorithm" else f"algorithm@{key}"
        return reader.note(f"{key}={tree} is not how an algorithm is chosen: say {group}={tree}")
    name = tree.get("name", MISSING) if isinstance(tree, Mapping) else tree
    if not isinstance(tree, Mapping) or not isinstance(name, str) or name not in ALGORITHMS:
        near = suggestion(name, ALGORITHMS)
        return reader.note(f"{key}.name={shown(name)} is not one of {', '.join(ALGORITHMS)}{near}")
    own = {field: value for field, value in tree.items() if field != "name"}
    return reader.dataclass(ALGORITHMS[name], own, key, shared)
