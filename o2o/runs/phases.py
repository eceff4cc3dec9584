"""A job's two phases: the pieces of each, put together, and its way from the first report to the results.

A phase drives a generator of `training`, and evaluates, records and saves what it reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, fields, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from o2o.config.schema import Config
from o2o.envs import episodes
from o2o.envs.mujoco_tasks import make_environments
from o2o.envs.tasks import Task, own_time_limit
from o2o.errors import ConfigError
from o2o.machine.signals import Interruption, StopRequested
from o2o.replay.buffer import Replay, Rows
from o2o.runs.directory import layout
from o2o.runs.directory.layout import FINETUNE, PRETRAIN
from o2o.runs.directory.writer import RunDirectory
from o2o.runs.identity import run_directory
from o2o.runs.lock import Leases
from o2o.runs.recording.divergence import DivergedError
from o2o.runs.recording.recorder import Recorder
from o2o.runs.resume import Checkpointer
from o2o.training import checkpoint, loop, policies
from o2o.training.diagnostics import Diagnostics
from o2o.training.evaluation import Evaluation, Evaluator, episode_seeds
from o2o.training.reports import Report
from o2o.training.seeds import Bundle, Members, make_members
from o2o.training.steps import Learner, no_sums
from o2o.types import Algorithm, Facts, State

SWITCH = "switch.json"  # in a pretraining's directory: its evaluation at the switch, shared by its arms

# What a seed's key is folded with, so that every use of randomness has a stream of its own.
(
    INIT_STREAM,
    PRETRAIN_STREAM,
    FINETUNE_STREAM,
    PROBE_STREAM,
    ENVIRONMENT_STREAM,
    ADOPTION_STREAM,
    RESET_STREAM,
) = range(7)

PARTS = {
    "policy": ("policy", "target_policy", "policy_optimizer"),
    "critics": ("critics", "target_critics", "critic_optimizers", "value", "value_optimizer"),
    "temperature": ("log_temperature", "temperature_optimizer"),
}
"""The fields of the algorithms' states by the words of `finetune.reset`."""


@dataclass(frozen=True)
class Job:
    """The task, data and guards that the runs of a job share."""

    task: Task
    replay: Replay
    offline: Rows
    """The dataset on the device; no rows where it is not needed."""
    facts: Facts
    stop: Interruption
    leases: Leases


def switch_seeds(config: Config) -> list[int]:
    """Returns the seeds of the switch's episodes; the first `evaluation.episodes` are those of an evaluation there."""
    return episode_seeds(config.seed, config.pretrain.updates, config.evaluation.switch_episodes)


def evaluation_steps(config: Config, phase: str) -> list[int]:
    """Returns the updates (pretraining) or env steps (finetuning) after which a run is evaluated, the last included."""
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


def pretrain(configs: Sequence[Config], job: Job) -> None:
    """Brings pretrainings to their results, side by side, from wherever they stand."""
    config = configs[0]
    replay = replace(job.replay, batch_size=config.batch_size)
    algorithm, members = config.pretrain.algorithm, make_members(len(configs))
    evaluated = set(evaluation_steps(config, PRETRAIN))
    stops = sorted({*evaluated, *_multiples(config.execution.records.interval, config.pretrain.updates)})
    keys = members.bundle([_key(c, PRETRAIN_STREAM) for c in configs])
    with (
        _evaluator(config, algorithm, members, job) as evaluator,
        Recorder(configs, _remarks(config, job)) as recorder,
        job.stop.deferred(),
    ):
        checkpointer = Checkpointer(configs, members, replay, recorder, job.stop, job.leases)
        states = [algorithm.init(_key(c, INIT_STREAM), replay.example(), job.facts) for c in configs]
        for c in configs:
            (run_directory(c) / SWITCH).unlink(missing_ok=True)  # of a policy that is about to be replaced
        found = checkpointer.restore(states, no_sums(algorithm))
        states, resumed = found or (states, None)

        def examine(report: Report) -> Examined:
            if report.step not in evaluated:
                return Examined()
            seeds = [episode_seeds(c.seed, report.step, c.evaluation.episodes) for c in configs]
            return Examined(evaluations=evaluator.evaluate(report.state, seeds))

        state = members.bundle(states)
        learner = Learner(algorithm, replay)
        reports = loop.pretrain(learner, members, state, job.offline, keys, stops, resumed, checkpointer.due)
        _follow(configs, state, reports, examine, recorder, checkpointer, job)


def finetune(configs: Sequence[Config], job: Job) -> None:
    """Brings finetunings to their results, side by side, from wherever they stand."""
    config, replay = configs[0], job.replay
    algorithm, members = config.algorithm, make_members(len(configs))
    sampled = job.offline if config.replay_init.preload else job.offline[:0]
    evaluated = set(evaluation_steps(config, FINETUNE))
    stops = sorted({*evaluated, *_multiples(config.execution.records.interval, config.finetune.env_steps)})
    keys = members.bundle([_key(c, FINETUNE_STREAM) for c in configs])
    updates_before = config.pretrain.updates
    seeds = members.groups([_environment_seed(c) for c in configs])
    with (
        ExitStack() as stack,
        _evaluator(config, algorithm, members, job) as evaluator,
        Recorder(configs, _remarks(config, job)) as recorder,
        job.stop.deferred(),
    ):
        environments = [stack.enter_context(closing(make_environments(job.task, own))) for own in seeds]
        checkpointer = Checkpointer(configs, members, replay, recorder, job.stop, job.leases)
        states = [_initial_state(c, job) for c in configs]
        probe_keys = [_key(c, PROBE_STREAM) for c in configs]
        at_switch = members.bundle(states)
        kept = policies.steps_to_keep(config.execution.records.policies, stops)
        read = policies.arrays_read(algorithm, states[0], replay.example().observation)

        def keep(state: Bundle, step: int) -> None:
            for c, own in zip(configs, members.values(state), strict=True) if step in kept else ():
                policies.save(run_directory(c) / layout.CHECKPOINTS, step, own, read)

        diagnostics = Diagnostics(algorithm, replay, members, job.offline, probe_keys, at_switch)
        found = checkpointer.restore(states, no_sums(algorithm), loop.empty_snapshots(environments))
        for c in configs:  # of a future that may turn out otherwise
            policies.forget(run_directory(c) / layout.CHECKPOINTS, after=found[1].step if found else -1)
        if found is None:
            keep(at_switch, 0)
            try:
                evaluations = _evaluate_switch(configs, evaluator, at_switch)
            except StopRequested:
                job.stop.obey()
                raise
            recorder.clock("evaluation")
            recorder.switched(evaluations, diagnostics.at_switch(at_switch))
        states, resumed = found or (states, None)

        def examine(report: Report) -> Examined:
            keep(report.state, report.step)
            if report.step not in evaluated:
                return Examined()
            step = updates_before + report.step
            seeds = [episode_seeds(c.seed, step, c.evaluation.episodes) for c in configs]
            evaluations = evaluator.evaluate(report.state, seeds)
            return Examined(evaluations, diagnostics.of(report.state, report.online, report.step))

        state = members.bundle(states)
        reports = loop.finetune(
            make_learner(config, replay),
            members,
            environments,
            state,
            sampled,
            keys,
            stops,
            updates_before,
            resumed,
            checkpointer.due,
        )
        _follow(configs, state, reports, examine, recorder, checkpointer, job)


@dataclass(frozen=True)
class Examined:
    """The members' evaluations and diagnostics at a stop; empty where none is due."""

    evaluations: Sequence[Evaluation] = ()
    diagnostics: Sequence[dict[str, float]] = ()


def _follow(
    configs: Sequence[Config],
    state: Bundle,
    reports: Iterator[Report],
    examine: Callable[[Report], Examined],
    recorder: Recorder,
    checkpointer: Checkpointer,
    job: Job,
) -> None:
    """Drives a phase from `state` to its end and writes its results.

    The rows of a stop are written when all of them are known. Where that does not come about, since members diverged
    or a signal ends the evaluation, the others are saved as standing before it.
    """
    for report in reports:
        recorder.clock("training")
        job.leases.check()
        recorder.episodes(report)
        if report.is_stop:
            if diverged := recorder.diverged(report):
                if len(diverged) < len(configs):
                    checkpointer.save(report, reported=False, without=diverged)
                raise DivergedError(diverged)
            try:
                examined = examine(report)
            except StopRequested:
                checkpointer.save(report, reported=False)
                job.stop.obey()
                raise
            recorder.clock("evaluation")
            recorder.reported(report, examined.evaluations, examined.diagnostics)
        checkpointer.save_if_due(report)
        state = report.state
    members = make_members(len(configs))
    for config, final in zip(configs, members.values(state), strict=True):
        checkpoint.save(run_directory(config) / layout.FINAL_STATE, final)
    job.leases.check()
    recorder.finish()
    checkpointer.forget()


def _evaluator(config: Config, algorithm: Algorithm, members: Members, job: Job) -> closing[Evaluator]:
    episodes = config.evaluation.episodes
    return closing(Evaluator(algorithm, members, job.task, episodes, config.discount, job.stop.check))


def _remarks(config: Config, job: Job) -> list[str]:
    return episodes.remarks(config.dataset.task, own_time_limit(job.task), config.discount)


def pretraining(config: Config) -> Config:
    """Returns the run that this run finetunes from: the same without its online phase."""
    return replace(config, finetune=replace(config.finetune, env_steps=0), method=None)


def _initial_state(config: Config, job: Job) -> State:
    """Returns the state that finetuning starts from: the pretrained one, adopted, or a fresh one."""
    example, key = job.replay.example(), _key(config, INIT_STREAM)
    if config.pretrain.updates == 0:
        return config.algorithm.init(key, example, job.facts)
    like = jax.eval_shape(config.pretrain.algorithm.init, key, example, job.facts)
    path = _pretrain_directory(config) / layout.FINAL_STATE
    try:
        pretrained = jax.tree.map(jnp.asarray, checkpoint.load(path, like))
    except checkpoint.CheckpointError as error:
        raise ConfigError([f"{error}. Remove {path.parents[1]} to pretrain again."]) from None
    state = config.algorithm.adopt(
        pretrained,
        config.pretrain.algorithm,
        jax.random.fold_in(key, ADOPTION_STREAM),
        reset_optimizers=config.finetune.reset_optimizers,
        reset_targets=config.finetune.reset_targets,
    )
    anew = [name for part in config.finetune.reset for name in parts(state, part)]
    if not anew:
        return state
    fresh = config.algorithm.init(jax.random.fold_in(key, RESET_STREAM), example, job.facts)
    return replace(state, **{name: getattr(fresh, name) for name in anew})


def make_learner(config: Config, replay: Replay) -> Learner:
    """Returns the learner of a run's online phase."""
    paces = (field.name for field in fields(Learner) if hasattr(config.finetune, field.name))
    return Learner(config.algorithm, replay, **{name: getattr(config.finetune, name) for name in paces})


def parts(state: State, part: str) -> list[str]:
    """Returns the names of a state's fields that `finetune.reset` begins anew; none where it has no such part."""
    return [name for name in PARTS[part] if hasattr(state, name)]


def _evaluate_switch(configs: Sequence[Config], evaluator: Evaluator, state: Bundle) -> list[Evaluation]:
    """Returns the evaluation between the phases, made by the first arm of a pretraining and read by the others."""
    shared = [_switch_file(c) for c in configs]
    # Named after the arm, since what a kill left of it is ours, unlike the rest of the pretraining's directory.
    temporary = [f".{SWITCH}.{run_directory(c).parent.name}.tmp" for c in configs]
    for path, name in zip(shared, temporary, strict=True):
        if path is not None:
            path.with_name(name).unlink(missing_ok=True)
    found = [_read_switch(path, len(switch_seeds(c))) for path, c in zip(shared, configs, strict=True)]
    if all(evaluation is not None for evaluation in found):
        return [evaluation for evaluation in found if evaluation is not None]
    evaluations = evaluator.evaluate(state, [switch_seeds(c) for c in configs])
    for path, name, evaluation in zip(shared, temporary, evaluations, strict=True):
        if path is not None:
            RunDirectory(path.parent).write(path.name, vars(evaluation), name)
    return evaluations


def _read_switch(path: Path | None, episodes: int) -> Evaluation | None:
    content = layout.read_object(path) if path else None
    if content is None or len(content["returns"]) != episodes:
        return None
    return Evaluation(**{name: np.array(values) for name, values in content.items()})


def _switch_file(config: Config) -> Path | None:
    return _pretrain_directory(config) / SWITCH if config.pretrain.updates else None


def _pretrain_directory(config: Config) -> Path:
    return run_directory(pretraining(config))


def _key(config: Config, stream: int) -> Key[Array, ""]:
    return jax.random.fold_in(jax.random.key(config.seed), stream)


def _environment_seed(config: Config) -> int:
    return int(np.random.SeedSequence([config.seed], spawn_key=(ENVIRONMENT_STREAM,)).generate_state(1)[0])


def _multiples(interval: int, end: int) -> list[int]:
    """Returns interval, 2 · interval, … and `end`."""
    return [*range(interval, end, interval), end]
