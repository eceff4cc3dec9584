"""One job: runs that differ only in their seeds, from data to result.

It builds the pieces, drives the generators of `training`, and evaluates, records and saves what they
report. A job's members train side by side; each has a run directory of its own. A pretraining is a run too,
shared by every run that finetunes from it; where it is not there yet, it is made first.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from o2o import checkpoint, datasets, records, training
from o2o.config import Config, ConfigError, Dataset
from o2o.diagnostics import Diagnostics
from o2o.envs import Task, find_task, make_environments, task_sizes
from o2o.evaluation import Evaluation, Evaluator, episode_seeds
from o2o.interruption import Interruption
from o2o.journal import Journal
from o2o.keeper import Keeper
from o2o.members import Bundle, make_members
from o2o.records import FINETUNE, PRETRAIN, RESULT
from o2o.replay import Replay, Rows, pack, row_width
from o2o.sweep.identity import run_directory
from o2o.training import Resumed
from o2o.types import State

FINAL_STATE = f"{records.CHECKPOINTS}/final.npz"
SWITCH = "switch.json"  # in a pretraining's directory: its evaluation at the switch, shared by its arms

# What a seed's key is folded with, so that every use of randomness has a stream of its own.
INIT_STREAM, PRETRAIN_STREAM, FINETUNE_STREAM, PROBE_STREAM, ENVIRONMENT_STREAM = range(5)


def run(config: Config) -> None:
    """Runs one run to its result, and first the pretraining it needs where that is not there yet.

    What was interrupted, by a signal or a crash, goes on from its last checkpoint and writes what it would have
    written. A first Ctrl-C or SIGTERM asks for a checkpoint at the next safe point, a second one ends at once.

    Raises:
        ConfigError: bad input, before anything is computed or written.
        KeyboardInterrupt, SystemExit: if it was asked to stop; it is recorded as INTERRUPTED.
        Exception: whatever stopped the run; it is recorded as FAILED, with the traceback.
    """
    run_members([config])


def run_members(configs: Sequence[Config]) -> None:
    """As `run`, for runs that differ only in their seeds, side by side."""
    config = configs[0]
    _configure_jax(config)
    task = _task(config.dataset.task)
    sizes = task_sizes(task)
    offline = jnp.zeros((0, row_width(*sizes)))
    if config.pretrain.updates or config.replay_init.preload:
        offline = _offline_rows(config.dataset, config.execution.paths.data, sizes)
    replay = _replay(config, sizes)
    asked_for = config.finetune.env_steps == 0
    with Interruption() as stop:
        if config.pretrain.updates:
            done = [(_pretrain_directory(c) / RESULT).is_file() and not asked_for for c in configs]
            due = [_pretraining(c) for c, is_done in zip(configs, done, strict=True) if not is_done]
            if due:
                _pretrain(due, task, replay, offline, stop)
        if not asked_for:
            _finetune(configs, task, replay, offline, stop)


def switch_seeds(config: Config) -> list[int]:
    """The seeds of the episodes at the switch; the first `evaluation.episodes` are those of any evaluation there."""
    return episode_seeds(config.seed, config.pretrain.updates, config.evaluation.switch_episodes)


def evaluation_steps(config: Config, phase: str) -> list[int]:
    """The updates (pretraining) or env steps (finetuning) after which a run is evaluated, the last one included."""
    evaluation = config.evaluation
    if phase == PRETRAIN:
        return _multiples(evaluation.interval, config.pretrain.updates)
    steps, step = [], 0
    while step < config.finetune.env_steps:
        every = next(
            (every for until, every in evaluation.online_intervals if step < until), evaluation.interval
        )
        step = min(step + every, config.finetune.env_steps)
        steps.append(step)
    return steps


def _pretrain(
    configs: Sequence[Config], task: Task, replay: Replay, offline: Rows, stop: Interruption
) -> None:
    config = configs[0]
    algorithm, members = config.pretrain.algorithm, make_members(len(configs))
    evaluated = set(evaluation_steps(config, PRETRAIN))
    stops = sorted({*evaluated, *_multiples(config.execution.records.interval, config.pretrain.updates)})
    keys = members.bundle([_key(c, PRETRAIN_STREAM) for c in configs])
    evaluator = Evaluator(algorithm, members, task, config.evaluation.episodes, config.discount)
    with closing(evaluator), Journal(configs) as journal:
        keeper = Keeper(configs, members, replay, journal, stop)
        states = [algorithm.init(_key(c, INIT_STREAM), training.example(replay)) for c in configs]
        for c in configs:
            (run_directory(c) / SWITCH).unlink(missing_ok=True)  # of a policy that is about to be replaced
        states, resumed = keeper.find(states) or (states, Resumed(0, 0))
        state = members.bundle(states)
        for report in training.pretrain(
            algorithm, replay, members, state, offline, keys, stops, resumed.step
        ):
            journal.trained(report)
            if report.step in evaluated:
                seeds = [episode_seeds(c.seed, report.step, c.evaluation.episodes) for c in configs]
                journal.evaluated(report, evaluator.evaluate(report.state, seeds))
            keeper.at(report)
            state = report.state
        _save_final(configs, members.values(state))
        journal.finish()
        keeper.forget()


def _finetune(
    configs: Sequence[Config], task: Task, replay: Replay, offline: Rows, stop: Interruption
) -> None:
    config = configs[0]
    algorithm, members = config.algorithm, make_members(len(configs))
    sampled = offline if config.replay_init.preload else offline[:0]
    evaluated = set(evaluation_steps(config, FINETUNE))
    stops = sorted({*evaluated, *_multiples(config.execution.records.interval, config.finetune.env_steps)})
    keys = members.bundle([_key(c, FINETUNE_STREAM) for c in configs])
    environments = make_environments(task, [_environment_seed(c) for c in configs])
    evaluator = Evaluator(algorithm, members, task, config.evaluation.episodes, config.discount)
    with closing(environments), closing(evaluator), Journal(configs) as journal:
        keeper = Keeper(configs, members, replay, journal, stop)
        states = [_initial_state(c, replay) for c in configs]
        probe_keys = [_key(c, PROBE_STREAM) for c in configs]
        at_switch = members.bundle(states)
        diagnostics = Diagnostics(algorithm, replay, members, offline, probe_keys, at_switch)
        found = keeper.find(states, training.empty_loops(environments))
        if found is None:
            journal.switched(
                _evaluate_switch(configs, evaluator, at_switch), diagnostics.at_switch(at_switch)
            )
        states, resumed = found or (states, None)
        state = members.bundle(states)
        updates_before = config.pretrain.updates
        for report in training.finetune(
            algorithm, replay, members, environments, state, sampled, keys, stops, updates_before, resumed
        ):
            if report.step in evaluated:
                journal.trained(report, diagnostics.of(report.state, report.online, report.step))
                step = updates_before + report.step
                seeds = [episode_seeds(c.seed, step, c.evaluation.episodes) for c in configs]
                journal.evaluated(report, evaluator.evaluate(report.state, seeds))
            else:
                journal.trained(report)
            keeper.at(report)
            state = report.state
        _save_final(configs, members.values(state))
        journal.finish()
        keeper.forget()


def _save_final(configs: Sequence[Config], states: Sequence[State]) -> None:
    for config, state in zip(configs, states, strict=True):
        checkpoint.save(run_directory(config) / FINAL_STATE, state)


def _initial_state(config: Config, replay: Replay) -> State:
    """The state that finetuning starts from: the pretrained one, adopted, or a fresh one."""
    example = training.example(replay)
    if config.pretrain.updates == 0:
        return config.algorithm.init(_key(config, INIT_STREAM), example)
    like = jax.eval_shape(config.pretrain.algorithm.init, jax.random.key(0), example)
    pretrained = jax.tree.map(jnp.asarray, checkpoint.load(_pretrain_directory(config) / FINAL_STATE, like))
    return config.algorithm.adopt(
        pretrained,
        reset_optimizers=config.finetune.reset_optimizers,
        reset_targets=config.finetune.reset_targets,
    )


def _evaluate_switch(configs: Sequence[Config], evaluator: Evaluator, state: Bundle) -> list[Evaluation]:
    """The evaluation between the phases: made by the first arm of a pretraining, read by the others."""
    shared = [_switch_file(c) for c in configs]
    found = [_read_switch(path, len(switch_seeds(c))) for path, c in zip(shared, configs, strict=True)]
    if all(evaluation is not None for evaluation in found):
        return [evaluation for evaluation in found if evaluation is not None]
    evaluations = evaluator.evaluate(state, [switch_seeds(c) for c in configs])
    for path, evaluation in zip(shared, evaluations, strict=True):
        if path is not None:
            records.RunDirectory(path.parent).write(path.name, vars(evaluation))
    return evaluations


def _read_switch(path: Path | None, episodes: int) -> Evaluation | None:
    content = records.read_object(path) if path else None
    if content is None or len(content["returns"]) != episodes:
        return None
    return Evaluation(**{name: np.array(values) for name, values in content.items()})


def _switch_file(config: Config) -> Path | None:
    return _pretrain_directory(config) / SWITCH if config.pretrain.updates else None


def _configure_jax(config: Config) -> None:
    """The platform, and a compilation cache on disk, so that only a machine's first start compiles."""
    platform = config.execution.device.platform
    if platform != "auto":
        jax.config.update("jax_platforms", {"gpu": "cuda"}.get(platform, platform))
    # On a GPU the default rounds the factors of matrix products, by more than TD3-C's constraint resolves.
    jax.config.update("jax_default_matmul_precision", "highest")
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update(
            "jax_compilation_cache_dir", str(config.execution.paths.runs.absolute() / ".cache" / "jax")
        )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    try:
        jax.devices()
    except RuntimeError:
        raise ConfigError(
            [f"device.platform={platform}: JAX finds no such device here; set device.platform=auto or cpu"]
        ) from None


def _task(name: str) -> Task:
    try:
        return find_task(name)
    except LookupError as error:
        raise ConfigError([f"dataset.{error}"]) from None


@functools.lru_cache(maxsize=1)
def _offline_rows(dataset: Dataset, data_directory: Path, sizes: tuple[int, int]) -> Rows:
    """The dataset on the device, kept for the process's next run."""
    return jnp.asarray(pack(*map(np.asarray, datasets.load(dataset, data_directory, *sizes))))


def _replay(config: Config, sizes: tuple[int, int]) -> Replay:
    return Replay(
        batch_size=config.batch_size,
        capacity=config.replay_init.capacity,
        min_size=config.replay_init.min_size,
        observation_size=sizes[0],
        action_size=sizes[1],
        offline_share=config.offline_ratio.value,
    )


def _pretraining(config: Config) -> Config:
    """The run that this run finetunes from: the same without its online phase."""
    return replace(config, finetune=replace(config.finetune, env_steps=0))


def _pretrain_directory(config: Config) -> Path:
    return run_directory(_pretraining(config))


def _key(config: Config, stream: int) -> Key[Array, ""]:
    return jax.random.fold_in(jax.random.key(config.seed), stream)


def _environment_seed(config: Config) -> int:
    return int(np.random.SeedSequence([config.seed], spawn_key=(ENVIRONMENT_STREAM,)).generate_state(1)[0])


def _multiples(interval: int, end: int) -> list[int]:
    """interval, 2 · interval, … and `end`."""
    return [*range(interval, end, interval), end]
