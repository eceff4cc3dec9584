"""Behaviour policies for the regenerated datasets: SAC on the schedule that D4RL's came from (rlkit's).

    python -m o2o.datasets.behavior train walker2d --seed 0 --epochs 300 --out DIRECTORY
    python -m o2o.datasets.behavior export walker2d --out DIRECTORY

First 1000 environment steps with the untrained stochastic policy; then epochs of 1000 steps and 1000 updates, each
block of steps starting with a reset, so the last episode of a block is cut short. The run is saved after every epoch
and goes on from there. Every few epochs a snapshot of the policy is written, with the mean return of stochastic
episodes; `export` makes of a run's snapshots what the package ships.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from o2o import checkpoint, tanh_gaussian
from o2o.algorithms.sac import SAC
from o2o.envs import TASKS, MujocoEnvironments
from o2o.errors import ConfigError
from o2o.replay import Online, Replay, pack, unpack
from o2o.rollouts import BLOCK, Rows, returns, step
from o2o.tanh_gaussian import TanhGaussian
from o2o.types import LearningRate, Network, Parameters, State, update

POLICIES = Path(__file__).with_name("policies")
UPDATES = 250  # in one call: between two of them, a signal to stop is obeyed
EPISODES = 10  # by which a snapshot is judged
MEDIUM_RETURN = {
    "hopper": 1422.06,
    "halfcheetah": 4770.33,
    "walker2d": 2852.09,
}
"""The mean returns of D4RL's medium sets."""

RLKIT_SAC = SAC(
    discount=0.99,
    learning_rate=LearningRate(policy=3e-4, critic=3e-4),
    network=Network((256, 256)),
    target_step=0.005,
    target_entropy_per_dim=-1.0,
    initial_temperature=1.0,
    temperature_learning_rate=3e-4,
)


class Epoch(NamedTuple):
    """What an epoch, whose number is in `epoch`, led to; the first has no updates."""

    epoch: int
    note: str
    """The mean return of the episodes that its block of steps completed, in words."""
    state: State


def run(task: str, seed: int, epochs: int, directory: Path) -> Iterator[Epoch]:
    """A SAC run of that many epochs after the first, which goes on where `directory` says that it was stopped.

    An epoch is yielded when it is saved, and the last saved one once more when a run goes on.

    Raises:
        ConfigError: if what is saved cannot be read.
    """
    environments = MujocoEnvironments(TASKS[task], [seed])
    sizes = environments.observation_size, environments.action_size
    replay = Replay(256, 10**6, 1, *sizes)
    online = replay.init((epochs + 1) * BLOCK)
    key = jax.random.key(seed)
    state = RLKIT_SAC.init(jax.random.fold_in(key, 0), unpack(online.rows[0], sizes[0]))
    learn = jax.jit(functools.partial(_update, replay), donate_argnums=(0,))
    add = jax.jit(_add_block, donate_argnums=(0,))
    first = 0
    if (saved := directory / "state.npz").is_file():
        environments.reset()
        tree = _load(saved, {"state": state, "environment": environments.snapshot(), "epoch": np.array(0)})
        first = int(tree["epoch"]) + 1
        state = jax.tree.map(jnp.asarray, tree["state"])
        environments.restore(tree["environment"])
        for number in range(first):
            online = add(online, _packed(block(directory, number)))
        yield Epoch(first - 1, _returns_note(block(directory, first - 1)), state)
    for epoch in range(first, epochs + 1):
        epoch_key = jax.random.fold_in(key, epoch + 1)
        rows = _collect(environments, state.actor.policy, jax.random.fold_in(epoch_key, 0))
        online = add(online, _packed(rows))
        if epoch > 0:
            for start in range(0, BLOCK, UPDATES):
                state = jax.block_until_ready(learn(state, online, jax.random.fold_in(epoch_key, 1), start))
        checkpoint.save(directory / f"{epoch:04d}.npz", rows)
        tree = {"state": state, "environment": environments.snapshot(), "epoch": np.array(epoch)}
        checkpoint.save(saved, tree)
        yield Epoch(epoch, _returns_note(rows), state)
    environments.close()


def block(directory: Path, epoch: int) -> Rows:
    """The steps that an epoch of a saved run collected.

    Raises:
        ConfigError: if they cannot be read.
    """
    path = directory / f"{epoch:04d}.npz"
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {key: file[key] for key in file.files if key != "version"}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError([f"{path} cannot be read ({error}): delete {directory} to begin anew"]) from None


def forget(directory: Path) -> None:
    """Deletes what only an unfinished run needs."""
    shutil.rmtree(directory, ignore_errors=True)


def train(task: str, seed: int, epochs: int, snapshot_every: int, directory: Path) -> None:
    """Runs, or goes on with a run, and writes `<task>-<seed>-<epoch>.npz` snapshots to `directory`."""
    evaluation = MujocoEnvironments(TASKS[task], range(10_000, 10_000 + EPISODES))
    for epoch, note, state in run(task, seed, epochs, directory / f"{task}-{seed}-run"):
        if epoch % snapshot_every == 0:
            policy = exported(state.actor.policy)
            evaluation.reseed(range(10_000, 10_000 + EPISODES))
            earned = returns(evaluation, policy, np.random.default_rng([seed, epoch]))
            provenance = {
                "command": f"python -m o2o.datasets.behavior train {task} --seed {seed} --epochs {epochs}",
                "algorithm": "SAC, rlkit's schedule (o2o/datasets/behavior.py)",
                "task": task,
                "seed": seed,
                "epoch": epoch,
                "stochastic_return_mean": float(earned.mean()),
                "stochastic_return_std": float(earned.std()),
                "episodes": len(earned),
                "device": jax.devices()[0].device_kind,
                "versions": {name: version(name) for name in ("jax", "mujoco", "gymnasium")},
            }
            tanh_gaussian.save(directory / f"{task}-{seed}-{epoch:04d}.npz", [policy], provenance)
            note = f"{note}; snapshot {earned.mean():.0f} ± {earned.std():.0f}"
        print(f"epoch {epoch} {note}", flush=True)


def exported(policy: Parameters) -> TanhGaussian:
    """A tanh-Gaussian policy's parameters as D4RL's files hold theirs (weights output × input)."""
    mean, log_std = np.split(np.asarray(policy["output"]["kernel"]).T, 2)
    mean_bias, log_std_bias = np.split(np.asarray(policy["output"]["bias"]), 2)
    return TanhGaussian(
        {
            "fc0/weight": np.asarray(policy["hidden_0"]["kernel"]).T,
            "fc0/bias": np.asarray(policy["hidden_0"]["bias"]),
            "fc1/weight": np.asarray(policy["hidden_1"]["kernel"]).T,
            "fc1/bias": np.asarray(policy["hidden_1"]["bias"]),
            "last_fc/weight": mean,
            "last_fc/bias": mean_bias,
            "last_fc_log_std/weight": log_std,
            "last_fc_log_std/bias": log_std_bias,
        }
    )


def export(
    task: str, seed: int, directory: Path, epoch: int | None, last: int | None, destination: Path
) -> list[Path]:
    """Makes a run's snapshots what is shipped: the medium policy, and a run's policies in one file.

    Args:
        task: which one's.
        seed: of the run.
        directory: where its snapshots are.
        epoch: of the medium policy; None is the one nearest to D4RL's medium set in its mean return.
        last: epoch of the last policy that the replay is made with; None is the medium one's.
        destination: where shipped policies belong.
    """
    found = {}
    for path in sorted(directory.glob(f"{task}-{seed}-*.npz")):
        (policy,), provenance = tanh_gaussian.load(path)
        found[provenance["epoch"]] = policy, provenance
    if epoch is None:
        target = MEDIUM_RETURN[task]
        epoch = min(found, key=lambda k: abs(found[k][1]["stochastic_return_mean"] - target))
    medium, about = found[epoch]
    upto = [k for k in sorted(found) if k <= (epoch if last is None else last)]
    of_each = ("stochastic_return_mean", "stochastic_return_std")
    provenance = {key: value for key, value in about.items() if key not in ("epoch", *of_each)}
    provenance |= {key: [found[k][1][key] for k in upto] for key in of_each}
    paths = destination / f"{task}-medium.npz", destination / f"{task}-snapshots.npz"
    tanh_gaussian.save(paths[0], [medium], about)
    tanh_gaussian.save(
        paths[1], [_without_padding(task, found[k][0]) for k in upto], provenance | {"epochs": upto}
    )
    return list(paths)


def _without_padding(task: str, policy: TanhGaussian) -> TanhGaussian:
    """With zeros for the weights of inputs that are always zero, which need no space then."""
    weights = dict(policy.weights)
    weights["fc0/weight"] = weights["fc0/weight"].copy()
    padding = TASKS[task].padding
    if padding:
        weights["fc0/weight"][:, -padding:] = 0
    return TanhGaussian(weights)


def _collect(environments: MujocoEnvironments, policy: Parameters, key: Key[Array, ""]) -> Rows:
    """A block of steps of the stochastic policy, from a fresh episode on."""
    steps = []
    only = np.zeros(1, np.int64)
    observation = environments.reset()
    for time in range(BLOCK):
        action, log_prob = (np.asarray(array) for array in _explore(policy, observation, key, time))
        rows, ended = step(environments, observation, action, log_prob, only)
        steps.append(rows)
        observation = environments.reset() if ended[0] else rows["next_observations"]
    steps[-1]["timeouts"] = ~steps[-1]["terminals"]
    return {key: np.concatenate([rows[key] for rows in steps]) for key in steps[0]}


@jax.jit
def _explore(
    policy: Parameters, observation: Float[Array, "E O"], key: Key[Array, ""], time: int | Int[Array, ""]
) -> tuple[Float[Array, "E A"], Float[Array, " E"]]:
    return RLKIT_SAC.sample(policy, observation, jax.random.fold_in(key, time))


def _packed(rows: Rows) -> Float[np.ndarray, "N W"]:
    names = ("observations", "actions", "rewards", "terminals", "next_observations")
    return pack(*(rows[name] for name in names))


def _returns_note(rows: Rows) -> str:
    ends = np.flatnonzero(rows["terminals"]) + 1
    starts = np.concatenate([[0], ends])
    sums = np.add.reduceat(rows["rewards"], starts[starts < BLOCK])
    return f"return {sums[: max(1, len(ends))].mean():.0f}"


def _add_block(online: Online, rows: Float[Array, "N W"]) -> Online:
    added = jax.lax.dynamic_update_slice_in_dim(online.rows, rows, online.added, 0)
    return Online(added, online.added + rows.shape[0])


def _update(
    replay: Replay, state: State, online: Online, key: Key[Array, ""], start: int | Int[Array, ""]
) -> State:
    nothing = online.rows[:0]

    def one(state: State, i: Array) -> tuple[State, None]:
        sample_key, update_key = jax.random.split(jax.random.fold_in(key, i))
        batch = replay.sample(nothing, online, sample_key)
        return update(RLKIT_SAC, state, batch, update_key, 0)[0], None

    return jax.lax.scan(one, state, start + jnp.arange(UPDATES))[0]


def _load(path: Path, like: Any) -> Any:
    try:
        return checkpoint.load(path, like)
    except checkpoint.CheckpointError as error:
        raise ConfigError([f"{error}: delete {path.parent} to begin anew"]) from None


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m o2o.datasets.behavior", description="Behaviour policies for the regenerated datasets."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train SAC on rlkit's schedule, or go on")
    exporting = commands.add_parser("export", help="make a run's snapshots what the package ships")
    for command in (training, exporting):
        command.add_argument("task", choices=TASKS)
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--out", type=Path, required=True, help="where the run and its snapshots are")
    training.add_argument("--epochs", type=int, default=300)
    training.add_argument("--snapshot-every", type=int, default=5)
    exporting.add_argument("--epoch", type=int, help="the medium policy's; else nearest D4RL's mean return")
    exporting.add_argument("--last", type=int, help="the last policy of the replay; else the medium one")
    exporting.add_argument("--to", type=Path, default=POLICIES)
    options = parser.parse_args(arguments)
    try:
        if options.command == "train":
            train(options.task, options.seed, options.epochs, options.snapshot_every, options.out)
        else:
            chosen = options.epoch, options.last
            print(*export(options.task, options.seed, options.out, *chosen, options.to), sep="\n")
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
