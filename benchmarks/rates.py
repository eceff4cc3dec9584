"""Updates and environment steps a second, for different numbers of members, against each other in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import jax

from benchmarks.flops import matmul_peak, update_flops
from benchmarks.workload import Workload
from o2o.config.schema import Config
from o2o.runs.directory.layout import FINETUNE
from o2o.runs.phases import evaluation_steps
from o2o.training.evaluation import Evaluator
from o2o.training.loop import CHUNK
from o2o.training.reports import Report
from o2o.training.seeds import Members


@dataclass(frozen=True)
class Round:
    """Measurements that were made one after the other."""

    peak: float
    """Floating-point operations a second."""
    pretrain: dict[int, float]
    """Updates a second of all members, by the number of members."""
    finetune: dict[int, float]
    """Environment steps a second of all members, one update each."""
    evaluation_seconds: dict[int, float]
    """Of all members together, ten episodes each by default."""


def measure(
    config: Config,
    evaluated: Config,
    make_members: Callable[[int], Members],
    counts: Sequence[int],
    rounds: int,
    updates: int,
) -> Iterator[Round]:
    """Rounds of about `updates` updates in either phase for every number of members; the first one only compiles.

    On a CPU the members share the updates, since they take turns; under vmap each makes so many.
    """
    workloads = [Workload(config, make_members(count)) for count in counts]
    steps = [_steps(workload.members, updates) for workload in workloads]
    stops = [range(n, n * (rounds + 2), n) for n in steps]
    pretrainings = [w.pretraining(s) for w, s in zip(workloads, stops, strict=True)]
    finetunings = [w.finetuning(s) for w, s in zip(workloads, stops, strict=True)]
    evaluations = {count: _evaluation(evaluated, make_members(count)) for count in counts}
    for i in range(rounds + 1):
        round_ = Round(matmul_peak(), {}, {}, {count: run() for count, run in evaluations.items()})
        for count, n, pretraining, finetuning in zip(counts, steps, pretrainings, finetunings, strict=True):
            round_.pretrain[count] = count * n / _seconds(pretraining)
            round_.finetune[count] = count * n / _seconds(finetuning)
        if i > 0:
            yield round_


def summary(config: Config, workload: Workload, rounds: Sequence[Round]) -> dict[str, float]:
    """The medians over the rounds, of rates and of ratios within a round."""

    def median(value: Callable[[Round], float]) -> float:
        return statistics.median(map(value, rounds))

    flops = update_flops(config.pretrain.algorithm, workload.replay)
    counts = list(rounds[0].pretrain)
    result = {
        "pretrain_updates_per_second": median(lambda r: r.pretrain[1]),
        "matmul_peak_gflops": median(lambda r: r.peak / 1e9),
        "pretrain_share_of_peak": median(lambda r: flops * r.pretrain[1] / r.peak),
        "finetune_steps_per_second": median(lambda r: r.finetune[1]),
        "finetune_over_pretrain": median(lambda r: r.finetune[1] / r.pretrain[1]),
        "evaluation_seconds": median(lambda r: r.evaluation_seconds[1]),
        "evaluation_share": median(lambda r: _evaluation_share(config, r, 1)),
    }
    for count in counts[1:]:
        result |= {
            f"members_{count}_pretrain_updates_per_second": median(lambda r, n=count: r.pretrain[n]),
            f"members_{count}_over_single": median(lambda r, n=count: r.pretrain[n] / r.pretrain[1]),
            f"members_{count}_finetune_steps_per_second": median(lambda r, n=count: r.finetune[n]),
            f"members_{count}_over_single_finetune": median(lambda r, n=count: r.finetune[n] / r.finetune[1]),
            f"members_{count}_evaluation_seconds": median(lambda r, n=count: r.evaluation_seconds[n]),
            f"members_{count}_evaluation_share": median(lambda r, n=count: _evaluation_share(config, r, n)),
        }
    return result


def _steps(members: Members, updates: int) -> int:
    """Of one member in a round: whole chunks, since a shorter one would be compiled anew."""
    each = updates if members.together else updates // members.count
    return max(CHUNK, each // CHUNK * CHUNK)


def _seconds(reports: Iterator[Report]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(next(reports).state)
    return time.perf_counter() - start


def _evaluation(config: Config, members: Members) -> Callable[[], float]:
    workload = Workload(config, members)
    episodes = config.evaluation.episodes
    evaluator = Evaluator(config.algorithm, members, workload.task, episodes, config.discount)
    state = workload.state(config.algorithm)
    seeds = [range(episodes) for _ in range(members.count)]

    def run() -> float:
        start = time.perf_counter()
        evaluator.evaluate(state, seeds)
        return time.perf_counter() - start

    return run


def _evaluation_share(config: Config, measured: Round, count: int) -> float:
    """Of the time of so many finetuning runs with the default schedule, in which no episode ends early."""
    evaluating = len(evaluation_steps(config, FINETUNE)) * measured.evaluation_seconds[count]
    return evaluating / (evaluating + count * config.finetune.env_steps / measured.finetune[count])
