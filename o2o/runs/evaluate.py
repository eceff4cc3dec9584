"""Scores a trained policy again: `python -m o2o.runs.evaluate RUN [--episodes N] [--seed N]`.

RUN is a finished run's directory. The policy acts without noise; nothing is written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from o2o.config.schema import Config
from o2o.envs.scores import normalised_score, reference_returns
from o2o.errors import ConfigError
from o2o.machine import terminal
from o2o.machine.arguments import add_version, whole_number
from o2o.machine.counting import counted
from o2o.runs.policy import load_trained
from o2o.training.evaluation import Evaluation, Evaluator, episode_seeds
from o2o.training.seeds import make_members

EPISODES_AT_ONCE = 10


def evaluate(directory: Path, episodes: int, seed: int) -> tuple[Config, Evaluation]:
    """The configuration of the run in `directory`, and its final policy's evaluation on fresh episodes.

    Raises:
        ConfigError: if it is not the directory of a finished run of this version, or JAX cannot be had as it must be.
    """
    trained = load_trained(directory)
    members = make_members(1)
    config, at_once = trained.config, min(episodes, EPISODES_AT_ONCE)
    evaluator = Evaluator(trained.algorithm, members, trained.task, at_once, config.discount)
    (evaluation,) = evaluator.evaluate(members.bundle([trained.state]), [episode_seeds(seed, 0, episodes)])
    return config, evaluation


def main(arguments: list[str] | None = None) -> int:
    """The command line; 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m o2o.runs.evaluate", description="Scores a trained policy again."
    )
    add_version(parser)
    parser.add_argument("run", type=Path, help="the directory of a finished run")
    parser.add_argument("--episodes", type=whole_number, default=100)
    parser.add_argument(
        "--seed", type=whole_number, default=1_000_000, help="of the episodes; the run's own start at 0"
    )
    options = parser.parse_args(arguments)
    if options.episodes < 1 or options.seed < 0:
        parser.error("--episodes must be at least 1 and --seed at least 0")
    try:
        config, evaluation = evaluate(options.run, options.episodes, options.seed)
    except ConfigError as error:
        print("\n".join(error.problems), file=sys.stderr)
        return 2
    except OSError as error:  # of a path that no file can have
        print(f"{str(options.run)[:200]}: {error.strerror}", file=sys.stderr)
        return 2
    returns, dataset = evaluation.returns, config.dataset
    score = normalised_score(
        returns, *reference_returns(dataset.task, dataset.reference_min, dataset.reference_max)
    )
    print(f"{options.run}: {counted(len(returns), 'episode')} on {dataset.task}")
    print(
        f"return  {returns.mean():9.2f} ± {returns.std():.2f}   (min {returns.min():.2f}, max {returns.max():.2f})"
    )
    print(f"score   {score.mean():9.2f} ± {score.std():.2f}")
    excess = evaluation.q_minus_return
    compared = "none: no return is long enough" if excess is None else f"{excess:.2f}"
    print(f"length  {evaluation.lengths.mean():9.1f}   Q - return {compared}")
    return 0


if __name__ == "__main__":
    sys.exit(terminal.run(main))
