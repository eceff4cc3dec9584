"""Scores trained policies again: `python -m o2o.runs.evaluate RUN… [--episodes N] [--seed N] [--video]`.

RUN is a finished run's directory, or one that holds several; `python -m o2o.sweep evaluate` chooses runs by filters.
The policies act without noise, and nothing is written to the directories of runs.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from o2o.errors import ConfigError
from o2o.machine import terminal
from o2o.machine.arguments import add_version, whole_number
from o2o.machine.counting import counted
from o2o.machine.progress import Progress
from o2o.runs.directory.layout import find_runs

# What needs JAX is imported where it is used: `python -m o2o.sweep` reads the options from here.
if TYPE_CHECKING:
    from o2o.config.schema import Config
    from o2o.training.evaluation import Evaluation

EPISODES_AT_ONCE = 10
SUMMARY, ROW = (
    "{:>6}  {:>17}  {:>10}  {:>8}  {:>12}",
    "{:>6}  {:>8.2f} ± {:6.2f}  {:>10.2f}  {:>8.1f}  {:>12}",
)


def evaluate(directory: Path, episodes: int, seed: int) -> tuple[Config, Evaluation]:
    """The configuration of the run in `directory`, and its final policy's evaluation on fresh episodes.

    Raises:
        ConfigError: if it is not the directory of a finished run of this version, or JAX cannot be had as it must be.
    """
    from o2o.runs.trained.policy import load_trained
    from o2o.training.evaluation import Evaluator, episode_seeds
    from o2o.training.seeds import make_members

    trained = load_trained(directory)
    members = make_members(1)
    config, at_once = trained.config, min(episodes, EPISODES_AT_ONCE)
    bundle, seeds = members.bundle([trained.state]), [episode_seeds(seed, 0, episodes)]
    with closing(Evaluator(trained.algorithm, members, trained.task, at_once, config.discount)) as evaluator:
        (evaluation,) = evaluator.evaluate(bundle, seeds)
    return config, evaluation


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what is to be done with the runs to a command line that says which."""
    parser.add_argument("--episodes", type=whole_number, default=100)
    parser.add_argument(
        "--seed", type=whole_number, default=1_000_000, help="of the episodes; the run's own start at 0"
    )
    parser.add_argument(
        "--video",
        nargs="?",
        type=_gif,
        const=Path(),
        metavar="PATH.gif",
        help="instead, of one run: an episode of each policy that it kept, side by side (default: "
        "TASK-ALGORITHM-seed-N.gif in the working directory)",
    )


def run_evaluate(directories: Sequence[Path], options: argparse.Namespace) -> int:
    """Does with the runs in these directories what the options say; the exit code.

    Raises:
        ConfigError: bad options, or a run that is the only one and cannot be evaluated.
    """
    if options.episodes < 1 or options.seed < 0:
        raise ConfigError(["--episodes must be at least 1 and --seed at least 0"])
    if not directories:
        raise ConfigError(["no run is chosen"])
    if options.video is not None:
        if len(directories) > 1:
            raise ConfigError([f"--video is of one run, and these are {len(directories)}"])
        with closing(_waiting("playing and drawing", 1, "videos")) as progress:
            progress.say(_show(directories[0], options.video, options.seed))
        return 0
    with closing(_waiting("evaluating", len(directories), "runs")) as progress:
        if len(directories) == 1:
            progress.say(_told(directories[0], *_evaluated(directories[0], options)))
            return 0
        progress.say(SUMMARY.format("seed", "score ± std", "return", "length", "Q - return"))
        failed, setting = 0, None
        for number, directory in enumerate(directories, start=1):
            if directory.parent != setting:
                setting = directory.parent
                progress.say(str(setting))
            try:
                progress.say(_row(*_evaluated(directory, options)))
            except ConfigError as error:
                failed += 1
                progress.say(terminal.fitted("\n".join(error.problems), sys.stderr), is_error=True)
            progress.at(number)
    if failed:
        print(f"{failed} of {counted(len(directories), 'run')} could not be evaluated", file=sys.stderr)
    return int(failed > 0)


def _waiting(label: str, total: int, unit: str) -> Progress:
    """Returns a line that moves while JAX is imported and compiles, and that goes away."""
    return Progress([label], total, unit, stays=False)


def _row(config: Config, evaluation: Evaluation) -> str:
    returns, score = evaluation.returns, _score(config, evaluation.returns)
    excess = evaluation.q_minus_return
    row = config.seed, score.mean(), score.std(), returns.mean(), evaluation.lengths.mean()
    return ROW.format(*row, "" if excess is None else f"{excess:.2f}")


def _evaluated(directory: Path, options: argparse.Namespace) -> tuple[Config, Evaluation]:
    try:
        return evaluate(directory, options.episodes, options.seed)
    except OSError as error:  # of a path that no file can have
        raise ConfigError([f"{str(directory)[:200]}: {error.strerror}"]) from None


def _score(config: Config, returns: Any) -> Any:
    """The score of a return, or the scores of an array of them."""
    from o2o.envs.scores import normalised_score, reference_returns

    dataset = config.dataset
    references = reference_returns(dataset.task, dataset.reference_min, dataset.reference_max)
    return normalised_score(returns, *references)


def _told(directory: Path, config: Config, evaluation: Evaluation) -> str:
    returns, score = evaluation.returns, _score(config, evaluation.returns)
    excess = evaluation.q_minus_return
    compared = "none: no return is long enough" if excess is None else f"{excess:.2f}"
    return (
        f"{directory}: {counted(len(returns), 'episode')} on {config.dataset.task}\n"
        f"return  {returns.mean():9.2f} ± {returns.std():.2f}   (min {returns.min():.2f}, max {returns.max():.2f})\n"
        f"score   {score.mean():9.2f} ± {score.std():.2f}\n"
        f"length  {evaluation.lengths.mean():9.1f}   Q - return {compared}"
    )


def _show(directory: Path, path: Path, seed: int) -> str:
    """Writes the video; returns what is to be said of it, its path last."""
    from o2o.runs.trained import video

    video.choose_renderer()
    from o2o.config.schema import algorithm_name  # not above: from here on MuJoCo is imported
    from o2o.runs.trained.policy import load_kept
    from o2o.training.evaluation import episode_seeds

    try:
        policies = load_kept(directory)
        trained = next(iter(policies.values()))
        config, scored = trained.config, functools.partial(_score, trained.config)
        if path == Path():
            task = config.dataset.task.replace("/", "-")
            path = Path(f"{task}-{algorithm_name(trained.algorithm)}-seed-{config.seed}.gif")
        named = {f"{step:,} env steps".replace(",", " "): own.state for step, own in policies.items()}
        episode = episode_seeds(seed, 0, 1)[0]
        episodes = video.write(path, trained.task, trained.algorithm, named, episode, scored)
    except OSError as error:
        raise ConfigError([f"{str(error.filename or directory)[:200]}: {error.strerror}"]) from None
    told = [
        f"{name:>18}  return {own.episode_return:9.2f}  score {scored(own.episode_return):7.2f}  length {own.length:5}"
        for name, own in zip(named, episodes, strict=True)
    ]
    return "\n".join([*told, str(path)])


def _gif(text: str) -> Path:
    if not text.endswith(".gif"):
        raise argparse.ArgumentTypeError(
            f"{text} is no name of a GIF; write --video=name.gif, or --video after all else"
        )
    return Path(text)


def main(arguments: list[str] | None = None) -> int:
    """The command line; 2 for bad input, 1 where some of several runs could not be evaluated."""
    parser = argparse.ArgumentParser(
        prog="python -m o2o.runs.evaluate",
        description="Scores trained policies again.",
        epilog="By filters, as algorithm=td3 seed=0-4, runs are chosen with: python -m o2o.sweep evaluate",
    )
    add_version(parser)
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="run", help="the directory of a finished run, or of several"
    )
    add_options(parser)
    options = parser.parse_args(arguments)
    try:
        return run_evaluate([found for run in options.runs for found in _runs_in(run)], options)
    except ConfigError as error:
        print(terminal.fitted("\n".join(error.problems), sys.stderr), file=sys.stderr)
        return 2


def _runs_in(place: Path) -> list[Path]:
    """Returns the runs below a directory, or the place itself where none is, which is then told to be no run."""
    if "=" in str(place) and not os.path.exists(place):
        raise ConfigError([f"{place} is no run; filters are for: python -m o2o.sweep evaluate {place}"])
    try:
        return find_runs(place, []) or [place]
    except (OSError, ValueError):
        return [place]


if __name__ == "__main__":
    sys.exit(terminal.run(main))
