"""`python -m benchmarks.peers`: against d3rlpy's TD3+BC offline and sbx's TD3 online, in an environment that has both.

Same machine, task, batch size, number of hidden units and updates an env step. Each contestant is a process of its
own, which waits while another one's round is timed. The peers' networks have no LayerNorm, which favours them.
`make bench-peers` makes the environment: they need torch, which this project does not.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import results
from benchmarks.workload import ROWS, Workload, composed
from o2o.envs.tasks import TASKS
from o2o.training.loop import CHUNK
from o2o.training.seeds import Members

WARMUP = 1100  # sbx collects a hundred steps, we a thousand where nothing is preloaded, and both compile


def main(arguments: list[str] | None = None) -> None:
    """Times the contestants in turn and adds the ratios to the file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("--task", choices=TASKS, default="walker2d")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=1000, help="of each contestant in a round")
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.contestant:
        _serve(CONTESTANTS[options.contestant](options.task), options.updates)
        return
    if options.updates % CHUNK:
        parser.error(f"--updates={options.updates} is not a multiple of {CHUNK}")
    rates = _compete(options.task, options.rounds, options.updates)
    ratios = {
        f"over_{peer}": statistics.median(a / b for a, b in zip(rates[ours], rates[peer], strict=True))
        for ours, peer in (("pretrain", "d3rlpy"), ("finetune", "sbx"))
    }
    for name, values in rates.items():
        print(f"{name:10}{statistics.median(values):10.0f} updates/s")
    for name, ratio in ratios.items():
        print(f"{name:14}{ratio:6.2f}")
    results.add(options.out, ratios)


def pretrain(task: str) -> Callable[[int], None]:
    """Our pretraining: a function that makes so many updates."""
    reports = Workload(composed(f"dataset={task}-medium-v2"), Members(1)).pretraining(
        range(CHUNK, 10**7, CHUNK)
    )

    def advance(updates: int) -> None:
        for _ in range(updates // CHUNK):
            next(reports)

    return advance


def finetune(task: str) -> Callable[[int], None]:
    """Our finetuning."""
    reports = Workload(composed(f"dataset={task}-medium-v2"), Members(1)).finetuning(
        range(CHUNK, 10**6, CHUNK)
    )

    def advance(updates: int) -> None:
        for _ in range(updates // CHUNK):
            next(reports)

    return advance


def d3rlpy(task: str) -> Callable[[int], None]:
    """The TD3+BC of d3rlpy on as much noise, with its own sampling."""
    import d3rlpy  # pyright: ignore[reportMissingImports]

    config = composed(f"dataset={task}-medium-v2")
    sizes = Workload(config, Members(1)).replay
    generator = np.random.default_rng(0)
    dataset = d3rlpy.dataset.MDPDataset(
        generator.normal(size=(ROWS, sizes.observation_size)).astype(np.float32),
        generator.uniform(-1, 1, (ROWS, sizes.action_size)).astype(np.float32),
        generator.normal(size=ROWS).astype(np.float32),
        np.zeros(ROWS, np.float32),
        timeouts=(np.arange(ROWS) % 1000 == 999).astype(np.float32),
    )
    encoder = d3rlpy.models.VectorEncoderFactory(list(config.network.hidden_sizes))
    algorithm = d3rlpy.algos.TD3PlusBCConfig(
        actor_encoder_factory=encoder, critic_encoder_factory=encoder, batch_size=config.batch_size
    ).create(device="cpu:0")
    algorithm.build_with_dataset(dataset)

    def advance(updates: int) -> None:
        for _ in range(updates):
            algorithm.update(dataset.sample_transition_batch(config.batch_size))

    return advance


def sbx(task: str) -> Callable[[int], None]:
    """The TD3 of sbx, one update an env step."""
    from sbx import TD3  # pyright: ignore[reportMissingImports]

    config = composed(f"dataset={task}-medium-v2")
    model = TD3(
        "MlpPolicy",
        TASKS[task].gymnasium_id,
        batch_size=config.batch_size,
        train_freq=1,
        gradient_steps=1,
        policy_kwargs={"net_arch": list(config.network.hidden_sizes)},
    )

    def advance(updates: int) -> None:
        model.learn(updates, reset_num_timesteps=False)

    return advance


CONTESTANTS = {"pretrain": pretrain, "d3rlpy": d3rlpy, "finetune": finetune, "sbx": sbx}


def _compete(task: str, rounds: int, updates: int) -> dict[str, list[float]]:
    """Updates a second of every contestant, round by round."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.peers",
        "--task",
        task,
        "--updates",
        str(updates),
        "--contestant",
    ]
    processes = {
        name: subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in CONTESTANTS
    }
    try:
        for name, process in processes.items():
            _answer(name, process)  # it is warmed up
        return_rates: dict[str, list[float]] = {name: [] for name in processes}
        for _ in range(rounds):
            for name, process in processes.items():
                assert process.stdin
                process.stdin.write("\n")
                process.stdin.flush()
                return_rates[name].append(updates / float(_answer(name, process)))
        return return_rates
    finally:
        for process in processes.values():
            process.kill()


def _answer(name: str, process: subprocess.Popen[str]) -> str:
    assert process.stdout
    for line in process.stdout:
        if line.startswith("took "):
            return line.removeprefix("took ")
    sys.exit(f"{name} ended early; make bench-peers makes an environment that has it")


def _serve(advance: Callable[[int], None], updates: int) -> None:
    """Times a round whenever a line comes in."""
    _told(advance, WARMUP)
    for _ in sys.stdin:
        _told(advance, updates)


def _told(advance: Callable[[int], None], updates: int) -> None:
    start = time.perf_counter()
    advance(updates)
    print(f"took {time.perf_counter() - start}", flush=True)


if __name__ == "__main__":
    main()
