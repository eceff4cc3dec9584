"""Behaviour policies for the regenerated datasets: SAC on the schedule that D4RL's came from (rlkit's).

    python -m o2o.datasets.behavior walker2d --seed 0 --epochs 300 --out DIRECTORY

First 1000 environment steps with the untrained stochastic policy; then epochs of 1000 steps and 1000
updates, each block of steps starting with a reset, so the last episode of a block is cut short. Every few
epochs a snapshot of the policy is written, with the mean return of stochastic episodes; `--export` copies
the snapshot whose return is nearest to D4RL's medium set to where the package ships it.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from o2o.algorithms.sac import SAC
from o2o.envs import TASKS, Environments, make_environments
from o2o.replay import Online, Replay, pack, unpack
from o2o.types import LearningRate, Network, Parameters, State, update

BLOCK = 1000  # environment steps, and updates, an epoch
MEDIUM_RETURN = {
    "hopper": 1422.06,
    "halfcheetah": 4770.33,
    "walker2d": 2852.09,
}  # D4RL's medium sets, mean return

RLKIT_SAC = SAC(
    discount=0.99,
    learning_rate=LearningRate(policy=3e-4, critic=3e-4),
    network=Network((256, 256)),
    target_step=0.005,
    target_entropy_per_dim=-1.0,
    initial_temperature=1.0,
    temperature_learning_rate=3e-4,
)


def train(task: str, seed: int, epochs: int, snapshot_every: int, directory: Path) -> None:
    """Trains SAC and writes `<task>-<seed>-<epoch>.npz` snapshots to `directory`, printing a line for each."""
    environments = make_environments(TASKS[task], [seed])
    evaluation = make_environments(TASKS[task], range(10_000, 10_010))
    sizes = environments.observation_size, environments.action_size
    replay = Replay(256, 10**6, 1, *sizes)
    online = replay.init((epochs + 1) * BLOCK)
    key = jax.random.key(seed)
    state = RLKIT_SAC.init(jax.random.fold_in(key, 0), unpack(online.rows[0], sizes[0]))
    learn = jax.jit(functools.partial(_update_block, replay), donate_argnums=(0,))
    add = jax.jit(_add_block, donate_argnums=(0,))
    directory.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    for epoch in range(epochs + 1):
        epoch_key = jax.random.fold_in(key, epoch + 1)
        online = add(online, _collect(environments, state, jax.random.fold_in(epoch_key, 0)))
        if epoch == 0:
            continue
        state, metrics = learn(state, online, jax.random.fold_in(epoch_key, 1))
        if epoch % snapshot_every == 0:
            returns = rollout_returns(evaluation, state.actor.policy, jax.random.fold_in(epoch_key, 2))
            provenance = {
                "command": f"python -m o2o.datasets.behavior {task} --seed {seed} --epochs {epochs}",
                "algorithm": "SAC, rlkit's schedule (o2o/datasets/behavior.py)",
                "task": task,
                "seed": seed,
                "epoch": epoch,
                "stochastic_return_mean": float(returns.mean()),
                "stochastic_return_std": float(returns.std()),
                "episodes": len(returns),
                "device": jax.devices()[0].device_kind,
                "versions": {name: version(name) for name in ("jax", "mujoco", "gymnasium")},
            }
            write_policy(directory / f"{task}-{seed}-{epoch:04d}.npz", state.actor.policy, provenance)
            line = {k: f"{float(v):.3g}" for k, v in metrics.items()}
            elapsed = time.monotonic() - start
            print(
                f"epoch {epoch} return {returns.mean():.0f} ± {returns.std():.0f} {line} {elapsed:.0f}s",
                flush=True,
            )


def rollout_returns(
    environments: Environments, policy: Parameters, key: Key[Array, ""]
) -> Float[np.ndarray, " E"]:
    """Returns of one stochastic episode an environment."""
    live = np.arange(len(environments))
    observation = environments.reset()
    returns = np.zeros(len(environments))
    for step in range(environments.time_limit):
        action = np.asarray(_explore(policy, observation, key, step))
        next_observation, reward, terminated, truncated = environments.step(action[live], live.tolist())
        returns[live] += reward
        observation[live] = next_observation
        live = live[~(terminated | truncated)]
        if not len(live):
            break
    return returns


def write_policy(path: Path, policy: Parameters, provenance: dict[str, Any]) -> None:
    """Writes a tanh-Gaussian policy as D4RL's files hold theirs (weights output × input), and its provenance."""
    mean, log_std = np.split(np.asarray(policy["output"]["kernel"]).T, 2)
    mean_bias, log_std_bias = np.split(np.asarray(policy["output"]["bias"]), 2)
    arrays = {
        "fc0/weight": np.asarray(policy["hidden_0"]["kernel"]).T,
        "fc0/bias": np.asarray(policy["hidden_0"]["bias"]),
        "fc1/weight": np.asarray(policy["hidden_1"]["kernel"]).T,
        "fc1/bias": np.asarray(policy["hidden_1"]["bias"]),
        "last_fc/weight": mean,
        "last_fc/bias": mean_bias,
        "last_fc_log_std/weight": log_std,
        "last_fc_log_std/bias": log_std_bias,
    }
    np.savez_compressed(path, provenance=np.array(json.dumps(provenance)), **cast(Any, arrays))


def export_nearest(task: str, target: float, directory: Path, destination: Path) -> Path:
    """Copies the snapshot whose stochastic return is nearest to `target` to `destination`."""

    def distance(path: Path) -> float:
        provenance = json.loads(str(np.load(path, allow_pickle=False)["provenance"]))
        return abs(provenance["stochastic_return_mean"] - target)

    nearest = min(directory.glob(f"{task}-*.npz"), key=distance)
    destination.parent.mkdir(parents=True, exist_ok=True)
    destination.write_bytes(nearest.read_bytes())
    return nearest


def _collect(environments: Environments, state: State, key: Key[Array, ""]) -> Float[np.ndarray, "N W"]:
    """A block of packed transitions of the stochastic policy, from a fresh episode on."""
    rows = []
    observation = environments.reset()
    for step in range(BLOCK):
        action = np.asarray(_explore(state.actor.policy, observation, key, step))
        next_observation, reward, terminated, truncated = environments.step(action)
        rows.append(pack(observation, action, reward, terminated, next_observation))
        observation = environments.reset() if terminated[0] or truncated[0] else next_observation
    return np.concatenate(rows)


@jax.jit
def _explore(
    policy: Parameters, observation: Float[Array, "E O"], key: Key[Array, ""], step: int
) -> Float[Array, "E A"]:
    return RLKIT_SAC.sample(policy, observation, jax.random.fold_in(key, step))[0]


def _add_block(online: Online, block: Float[Array, "N W"]) -> Online:
    rows = jax.lax.dynamic_update_slice_in_dim(online.rows, block, online.added, 0)
    return Online(rows, online.added + block.shape[0])


def _update_block(replay: Replay, state: State, online: Online, key: Key[Array, ""]) -> tuple[State, Any]:
    nothing = online.rows[:0]

    def one(state: State, i: Array) -> tuple[State, Any]:
        sample_key, update_key = jax.random.split(jax.random.fold_in(key, i))
        return update(RLKIT_SAC, state, replay.sample(nothing, online, sample_key), update_key, 0)

    state, metrics = jax.lax.scan(one, state, jnp.arange(BLOCK))
    return state, jax.tree.map(jnp.mean, metrics)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Trains a behaviour policy for a regenerated dataset.")
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--snapshot-every", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--export", type=Path, help="where to copy the snapshot nearest to D4RL's medium set")
    options = parser.parse_args(arguments)
    if not options.export:
        train(options.task, options.seed, options.epochs, options.snapshot_every, options.out)
    else:
        print(export_nearest(options.task, MEDIUM_RETURN[options.task], options.out, options.export))


if __name__ == "__main__":
    main()
