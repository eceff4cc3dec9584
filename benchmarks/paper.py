"""`python -m benchmarks.paper`: the hours that the whole study would take on this machine, stage by stage.

Every task's two phases and its evaluation are measured, with ten seeds side by side; what there is to do is
counted from the plan of `conf/experiment/paper.yaml`, as `launch.py` would run it. TD3's rate stands for all
three algorithms.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table

from benchmarks import rates, results
from benchmarks.workload import CONF, composed
from hydra_plugins.o2o.composition import Composer
from hydra_plugins.o2o.grammar import expand
from o2o.config.schema import Config
from o2o.errors import ConfigError
from o2o.machine import device
from o2o.replay.buffer import Replay
from o2o.runs.directory.layout import FINETUNE, PRETRAIN
from o2o.runs.phases import evaluation_steps
from o2o.sweep.planning import plan
from o2o.training.seeds import Members, make_members

SEEDS_TOGETHER = 10
# Where an evaluation is measured: a fresh policy soon falls in hopper and walker2d, a good one does not.
FULL_EPISODES = {
    "hopper": "halfcheetah",
    "walker2d": "halfcheetah",
    "halfcheetah": "halfcheetah",
    "ant": "ant",
}


@dataclass(frozen=True)
class Work:
    """The work of a stage in one task, of all its runs together."""

    updates: int = 0
    env_steps: int = 0
    evaluations: int = 0
    """Of `evaluation.episodes` episodes each."""

    def __add__(self, other: Work) -> Work:
        return Work(
            self.updates + other.updates,
            self.env_steps + other.env_steps,
            self.evaluations + other.evaluations,
        )


@dataclass(frozen=True)
class Speed:
    """Of one task, members together; seconds an evaluation of one of them."""

    pretrain: float
    finetune: float
    evaluation_seconds: float

    def hours(self, work: Work) -> tuple[float, float]:
        """Of training and of evaluating."""
        training = work.env_steps / self.finetune if work.env_steps else work.updates / self.pretrain
        return training / 3600, work.evaluations * self.evaluation_seconds / 3600


def speed_of_a_task(text: str) -> tuple[str, Speed]:
    """Reads `TASK=UPDATES,ENV_STEPS,SECONDS`."""
    task, _, numbers = text.partition("=")
    try:
        pretrain, finetune, evaluation_seconds = map(float, numbers.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not TASK=U,S,E, three numbers") from None
    if task not in FULL_EPISODES:
        raise argparse.ArgumentTypeError(f"{task!r} is none of {', '.join(FULL_EPISODES)}")
    return task, Speed(pretrain, finetune, evaluation_seconds)


def planned(experiment: str = "paper") -> list[Config]:
    """Every run of a preset, and the pretrainings that it needs."""
    grids = yaml.safe_load((CONF / "experiment" / f"{experiment}.yaml").read_text())["hydra"]["sweeper"][
        "grids"
    ]

    def options(group: str) -> list[str]:
        return sorted(path.stem for path in (CONF / group).glob("*.yaml"))

    with initialize_config_dir(str(CONF), version_base="1.3"):
        composer = Composer(lambda overrides: compose("config", overrides), options)
        asked = plan.make(expand(["launch.redo=true"], grids, options), composer).asked
    pretrainings = {run.identity: run for run in (each.pretraining for each in asked) if run}
    return [run.config for run in (*pretrainings.values(), *asked)]


def work(configs: Iterable[Config]) -> dict[tuple[str, str], Work]:
    """Returns the work, by stage and task."""
    total: dict[tuple[str, str], Work] = {}
    for config in configs:
        key = stage(config), config.dataset.task
        total[key] = total.get(key, Work()) + _work(config)
    return total


def stage(config: Config) -> str:
    """Returns the stage that a run is a part of."""
    if config.finetune.env_steps == 0:
        return "pretraining"
    name = type(config.algorithm).__name__
    if config.pretrain.updates == 0:
        return f"{name} from scratch"
    ratio = config.offline_ratio.value
    replay = f"replay {config.replay_init.name}" if ratio is None else f"{ratio:.0%} offline rows"
    return f"{name}, {replay}"


def speeds(
    tasks: Iterable[str],
    make_members: Callable[[int], Members],
    rounds: int,
    updates: int,
    overrides: Sequence[str] = (),
) -> dict[str, Speed]:
    """The medians over the rounds, by task."""
    found = {}
    for task in tasks:
        config, evaluated = (
            composed(f"dataset={name}-medium-v2", *overrides) for name in (task, FULL_EPISODES[task])
        )
        measured = list(rates.measure(config, evaluated, make_members, [SEEDS_TOGETHER], rounds, updates))
        found[task] = Speed(
            median(r.pretrain[SEEDS_TOGETHER] for r in measured),
            median(r.finetune[SEEDS_TOGETHER] for r in measured),
            median(r.evaluation_seconds[SEEDS_TOGETHER] for r in measured) / SEEDS_TOGETHER,
        )
    return found


def show(
    total: Mapping[tuple[str, str], Work],
    speed: Mapping[str, Speed],
    machine: Mapping[str, Any],
    given: Container[str] = (),
) -> None:
    """Prints the hours of every stage, and the speeds: those of tasks in `given` were not measured here."""
    table = Table(
        title="the whole study, estimated from rates",
        caption=f"{SEEDS_TOGETHER} seeds side by side, one job after the other",
    )
    for name in ("stage", "million updates", "million env steps", "hours training", "hours evaluating"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    sums = [0.0] * 4
    for stage in dict.fromkeys(stage for stage, _ in total):
        tasks = {task: work for (of, task), work in total.items() if of == stage}
        hours = [speed[task].hours(work) for task, work in tasks.items()]
        row = [
            sum(work.updates for work in tasks.values()) / 1e6,
            sum(work.env_steps for work in tasks.values()) / 1e6,
            sum(training for training, _ in hours),
            sum(evaluating for _, evaluating in hours),
        ]
        sums = [a + b for a, b in zip(sums, row, strict=True)]
        table.add_row(stage, *(f"{value:.1f}" for value in row))
    table.add_section()
    table.add_row("all", *(f"{value:.1f}" for value in sums))
    Console().print(table)
    here = "measured on {device}, {machine}, {cores} cores".format_map(machine)
    for task, its in speed.items():
        both = f"{its.pretrain:.0f} updates/s, {its.finetune:.0f} env steps/s"
        print(
            f"{task}, {'given' if task in given else here}: {both}, {its.evaluation_seconds:.2g} s an evaluation"
        )
    Console().print(f"{sums[2] + sums[3]:.1f} hours, of which {sums[3]:.1f} evaluating")


def _work(config: Config) -> Work:
    if config.finetune.env_steps == 0:
        evaluations = len(evaluation_steps(config, PRETRAIN))
        # The episodes at the switch, which a pretraining's arms share.
        evaluations += config.evaluation.switch_episodes // config.evaluation.episodes
        return Work(updates=config.pretrain.updates, evaluations=evaluations)
    replay = Replay(
        config.batch_size,
        config.replay_init.capacity,
        config.replay_init.min_size,
        observation_size=1,
        action_size=1,
        offline_share=config.offline_ratio.value,
    )
    offline_rows = config.replay_init.capacity if config.replay_init.preload else 0
    env_steps = config.finetune.env_steps
    first = next(step for step in range(1, env_steps + 1) if replay.ready(offline_rows, step))
    return Work(env_steps - first + 1, env_steps, len(evaluation_steps(config, FINETUNE)))


def main(arguments: list[str] | None = None) -> None:
    """Counts, measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=1000, help="of a phase in a round, about")
    parser.add_argument(
        "--speed",
        type=speed_of_a_task,
        action="append",
        default=[],
        metavar="TASK=U,S,E",
        help=f"a task that is not to be measured: updates and env steps a second of {SEEDS_TOGETHER} seeds together, "
        "and an evaluation of one of them in seconds",
    )
    options = parser.parse_args(arguments)
    try:
        device.configure(options.device)
    except ConfigError as error:
        parser.error(str(error))
    total = work(planned())
    known = dict(options.speed)
    tasks = dict.fromkeys(task for _, task in total if task not in known)
    show(
        total, known | speeds(tasks, make_members, options.rounds, options.updates), results.machine(), known
    )


if __name__ == "__main__":
    main()
