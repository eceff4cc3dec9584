"""The keys of a configuration: names, types, ranges and meanings of all keys; the values live in `conf/*.yaml`.

The keys of an algorithm stand with it, in `o2o.algorithms`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

from o2o.config import dataset_names
from o2o.types import ADDED_LATER, Algorithm, Fraction, LearningRate, Network, NonNegative, Positive, Range


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
    """The kind of policy that the data come from, such as `medium`."""
    rows: Annotated[int, Positive] | None
    """Steps in the file; for regenerated data, how many are made."""
    seed: Annotated[int, NonNegative]
    """The seed of the generation; regenerated data and mixtures only."""
    path: Path | None = None
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
    episode_length: Annotated[int, Positive] | None = field(default=None, kw_only=True, metadata=ADDED_LATER)
    """After how many rows an episode was cut, where the file has no timeouts; `source: file` only."""
    top_fraction: Annotated[float, Range(above=0.0, at_most=1.0)] | None = field(
        default=None, kw_only=True, metadata=ADDED_LATER
    )
    """The share of the trajectories, those of the highest return, that are learned from; null for all."""

    @property
    def made_here(self) -> bool:
        """Whether this project generates it."""
        return self.source in dataset_names.MADE_HERE

    @property
    def shown_name(self) -> str:
        """The name that stands for it where its settings are not shown."""
        return dataset_names.shown_name(vars(self))


@dataclass(frozen=True)
class Pretrain:
    """The offline phase; zero updates is training from scratch."""

    updates: Annotated[int, NonNegative]
    algorithm: Algorithm


@dataclass(frozen=True)
class OnlineLearningRate:
    """Adam's step sizes of the online phase; null for those of both."""

    policy: Annotated[float, Positive] | None = None
    critic: Annotated[float, Positive] | None = None


@dataclass(frozen=True)
class Finetune:
    """The online phase; zero steps is pretraining only."""

    env_steps: Annotated[int, NonNegative]
    reset_optimizers: bool
    """Forget Adam's moments at the switch; the paper carries the state over."""
    reset_targets: bool
    """Copy the networks to their targets at the switch."""
    updates_per_step: Annotated[int, Range(at_least=1, at_most=100)] = field(
        default=1, kw_only=True, metadata=ADDED_LATER
    )
    """Updates for each environment step, each from a batch of its own."""
    warmup_steps: Annotated[int, NonNegative] = field(default=0, kw_only=True, metadata=ADDED_LATER)
    """Env steps in which the pretrained policy acts and nothing learns."""
    random_steps: Annotated[int, NonNegative] = field(default=0, kw_only=True, metadata=ADDED_LATER)
    """First env steps whose actions are uniform in [-1, 1]."""
    critic_only_steps: Annotated[int, NonNegative] = field(default=0, kw_only=True, metadata=ADDED_LATER)
    """First env steps in which the critics learn and the policy stands."""
    first_updates_multiplier: Annotated[int, Range(at_least=1, at_most=100)] = field(
        default=1, kw_only=True, metadata=ADDED_LATER
    )
    """By how much there are more updates in the first steps that learn."""
    first_updates_steps: Annotated[int, Positive] = field(default=1000, kw_only=True, metadata=ADDED_LATER)
    """How many steps these are."""
    reset: tuple[Literal["policy", "critics", "temperature"], ...] = field(
        default=(), kw_only=True, metadata=ADDED_LATER
    )
    """The parts that begin anew at the switch, with their targets and moments; the rest is carried over."""
    batch_size: Annotated[int, Positive] | None = field(default=None, kw_only=True, metadata=ADDED_LATER)
    """Of this phase; null for that of both."""
    learning_rate: OnlineLearningRate = field(
        default=OnlineLearningRate(), kw_only=True, metadata=ADDED_LATER
    )


@dataclass(frozen=True)
class ReplayInit:
    """The content of the online replay buffer before the first step."""

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
    last: Annotated[float, Fraction] | None = field(default=None, kw_only=True, metadata=ADDED_LATER)
    """The share that it moves to in a straight line; null where it stays."""
    steps: Annotated[int, Positive] | None = field(default=None, kw_only=True, metadata=ADDED_LATER)
    """Env steps until it is there."""


@dataclass(frozen=True)
class EvaluationSettings:
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
    """Base URLs, separated by spaces, that are tried first for D4RL's files."""


@dataclass(frozen=True)
class TrackerSettings:
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
    """How often training metrics are written, and at which steps policies."""

    interval: Annotated[int, Positive]
    """Updates that one row of `train.jsonl` averages over."""
    policies: tuple[Annotated[int, NonNegative], ...] = field(default=(), kw_only=True, metadata=ADDED_LATER)
    """Env steps whose policies are kept, each at the first evaluation or row of `train.jsonl` from there on; 0 is the
    switch."""


@dataclass(frozen=True)
class Checkpoint:
    """How often a run saves what it needs to go on; whichever interval passes first."""

    interval_seconds: Annotated[float, Positive]
    interval_steps: Annotated[int, Positive] | None
    """Updates while pretraining, env steps while finetuning; null counts seconds alone."""


@dataclass(frozen=True)
class Device:
    """The device that a job computes on; `auto` is an accelerator where there is one."""

    platform: Literal["auto", "cpu", "gpu", "tpu"]


@dataclass(frozen=True)
class Execution:
    """Where and how a run runs; it changes nothing of what the run is."""

    paths: Paths
    tracker: TrackerSettings
    launch: Launch
    records: Records
    checkpoint: Checkpoint
    device: Device


@dataclass(frozen=True)
class Config:
    """One run: everything but `execution` and `conventions` says what it is (runs/identity.py)."""

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
    evaluation: EvaluationSettings
    execution: Execution
    method: str | None = field(default=None, kw_only=True, metadata=ADDED_LATER)
    """The name of a choice that sets many of the keys above, which the command line may have changed since."""


EXECUTION = tuple(field.name for field in fields(Execution))
"""The top-level keys of the YAML that say where and how a run runs."""


def algorithm_name(algorithm: Algorithm) -> str:
    """The name under which an algorithm is registered."""
    from o2o.algorithms import ALGORITHMS

    return next(name for name, cls in ALGORITHMS.items() if type(algorithm) is cls)
