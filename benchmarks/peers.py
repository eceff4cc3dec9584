"""`python -m benchmarks.peers`: against d3rlpy's TD3+BC offline and sbx's TD3 online, in an environment that has both.

Same machine, task, batch size, number of hidden units and updates an env step. Each contestant is a process of its
own, which waits while another one's round is timed. The peers' own networks have neither LayerNorm nor tanh nor ELU,
which favours them; sbx competes a second time, with ours.
`make bench-peers` makes the environment: they need torch, which this project does not.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import results
from benchmarks.workload import ROWS, Workload, composed
from o2o.algorithms.networks import critic_value, init_critic, init_policy, policy_action, stacked
from o2o.envs.tasks import TASKS
from o2o.training.loop import CHUNK
from o2o.training.reports import Report
from o2o.training.seeds import Members
from o2o.types import Network, Parameters

WARMUP = 1100  # sbx collects a hundred steps, we a thousand where nothing is preloaded, and both compile
COMPILE_NOTHING = ("pretrain", "d3rlpy")  # or have done so after the first updates


def main(arguments: list[str] | None = None) -> None:
    """Times the contestants in turn and adds the ratios to the file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("--task", choices=TASKS, default="walker2d")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=1000, help="of each contestant in a round")
    parser.add_argument("--peers", default=",".join(peer for _, peer in PAIRS), help="some of %(default)s")
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.contestant:
        _serve(options.contestant, options.task, options.updates)
        return
    if options.updates % CHUNK:
        parser.error(f"--updates={options.updates} is not a multiple of {CHUNK}")
    pairs = [(ours, peer) for ours, peer in PAIRS if peer in options.peers.split(",")]
    names = [name for name in CONTESTANTS if any(name in pair for pair in pairs)]
    rates = _compete(names, options.task, options.rounds, options.updates)
    ratios = {
        f"over_{peer}": statistics.median(a / b for a, b in zip(rates[ours], rates[peer], strict=True))
        for ours, peer in pairs
    }
    for name, values in rates.items():
        print(f"{name:24}{statistics.median(values):10.0f} updates/s")
    for name, ratio in ratios.items():
        print(f"{name:24}{ratio:10.2f}")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    results.add(options.out, ratios)


def pretrain(task: str, updates: int) -> Callable[[int], None]:
    """Our pretraining: a function that makes so many updates."""
    reports = Workload(composed(f"dataset={task}-medium-v2"), Members(1)).pretraining(
        range(CHUNK, 10**7, updates)
    )
    return lambda _: _finish(reports)


def finetune(task: str, updates: int) -> Callable[[int], None]:
    """Our finetuning, which stops to report as often as a round ends: a run's stops are 500 steps and more apart."""
    reports = Workload(composed(f"dataset={task}-medium-v2"), Members(1)).finetuning(
        range(WARMUP, 10**6, updates)
    )
    return lambda _: _finish(reports)


def _finish(reports: Iterator[Report]) -> None:
    jax.block_until_ready(next(reports).state)


def d3rlpy(task: str, _: int) -> Callable[[int], None]:
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


def sbx(task: str, _: int, same_networks: bool = False) -> Callable[[int], None]:
    """The TD3 of sbx, one update an env step, with networks of its own or with ours."""
    from sbx import TD3  # pyright: ignore[reportMissingImports]

    config = composed(f"dataset={task}-medium-v2")
    model = TD3(
        _policy_of_our_networks(config.network) if same_networks else "MlpPolicy",
        TASKS[task].gymnasium_id,
        batch_size=config.batch_size,
        train_freq=1,
        gradient_steps=1,
        policy_kwargs={"net_arch": list(config.network.hidden_sizes)},
    )

    def advance(updates: int) -> None:
        model.learn(updates, reset_num_timesteps=False)

    return advance


def _policy_of_our_networks(network: Network) -> type:
    """The TD3 policy of sbx with this project's networks: their functions, layers and first parameters.

    Its two critics are one call mapped over both, as sbx's own are. All else, the losses among it, stays sbx's.
    """
    from sbx.common.type_aliases import RLTrainState  # pyright: ignore[reportMissingImports]
    from sbx.td3.policies import TD3Policy  # pyright: ignore[reportMissingImports]

    class Policy(TD3Policy):
        def build(self, key: Any, lr_schedule: Any, qf_learning_rate: float) -> Any:
            """Replaces the states of sbx's networks by those of ours."""
            key = super().build(key, lr_schedule, qf_learning_rate)
            sizes = self.observation_space.shape[0], self.action_space.shape[0]
            policy_key, *critic_keys, key = jax.random.split(key, 4)
            policy = init_policy(policy_key, network, *sizes)
            critics = stacked([init_critic(k, network, *sizes) for k in critic_keys])
            for name, of_ours, parameters, rate in (
                ("actor_state", policy_action, policy, lr_schedule(1)),
                ("qf_state", _values, critics, qf_learning_rate),
            ):
                optimizer = self.optimizer_class(learning_rate=rate, **self.optimizer_kwargs)
                targets = jax.tree.map(jnp.copy, parameters)
                state = RLTrainState.create(
                    apply_fn=of_ours, params=parameters, target_params=targets, tx=optimizer
                )
                setattr(self, name, state)
            return key

    return Policy


def _values(critics: Parameters, observation: jax.Array, action: jax.Array, rngs: Any = None) -> jax.Array:
    """Both critics' values, as sbx asks for them; `rngs` are for its dropout."""
    return jax.vmap(critic_value, in_axes=(0, None, None))(critics, observation, action)[..., None]


CONTESTANTS = {
    "pretrain": pretrain,
    "d3rlpy": d3rlpy,
    "sbx": sbx,
    "finetune": finetune,
    "sbx_same_networks": functools.partial(sbx, same_networks=True),
}
PAIRS = (("pretrain", "d3rlpy"), ("finetune", "sbx"), ("finetune", "sbx_same_networks"))


def _compete(names: Sequence[str], task: str, rounds: int, updates: int) -> dict[str, list[float]]:
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
        for name in names
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


def _serve(name: str, task: str, updates: int) -> None:
    """Times a round whenever a line comes in."""
    advance = CONTESTANTS[name](task, updates)
    _told(advance, CHUNK if name in COMPILE_NOTHING else WARMUP)
    for _ in sys.stdin:
        _told(advance, updates)


def _told(advance: Callable[[int], None], updates: int) -> None:
    start = time.perf_counter()
    advance(updates)
    print(f"took {time.perf_counter() - start}", flush=True)


if __name__ == "__main__":
    main()
