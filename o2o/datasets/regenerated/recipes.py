"""Data in D4RL's manner, made here with behaviour policies of this project, and always called `regen-…`.

D4RL's medium sets are stochastic rollouts of a half-trained SAC policy, cut at 1000 steps, episode after episode
until there are enough rows; its medium-replay sets are the replay buffers of those policies' training runs. So are
these, on gymnasium's `-v4` tasks, by one of three recipes (`dataset.source`):

- `regenerated`, for medium: rollouts of a shipped policy.
- `snapshots`, for medium-replay, in minutes: rlkit's blocks of 1000 steps, collected by shipped snapshots of the
  medium policy's training run in their order. Where D4RL's has another policy in every block, this has a few dozen.
- `retrain`, for medium-replay: the replay buffer of a SAC run made on the spot.

A set is identified by its recipe: the same recipe gives the same file on one machine type.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from o2o.config.schema import Dataset, Paths
from o2o.datasets import mix
from o2o.datasets.files import hdf5
from o2o.datasets.files.locking import exclusive
from o2o.datasets.regenerated import tanh_gaussian
from o2o.datasets.regenerated.rollouts import BLOCK, STREAMS, Request, RolloutRows, streamed
from o2o.datasets.regenerated.storing import Writer
from o2o.errors import ConfigError
from o2o.machine.progress import Progress

POLICIES = Path(__file__).with_name("policies")
# Raise these with anything below that changes the values generated.
RECIPE_VERSIONS = {"regenerated": 2, "snapshots": 2, "retrain": 3}
OPTIONS = ("source", "rows", "seed", "snapshots")
"""Keys of a set in which sets of one name may differ."""
ENVIRONMENTS = 16  # in each stream
GROUP = 16  # blocks that one policy collects together, at most
QUALITIES = {"regenerated": "medium", "snapshots": "medium-replay", "retrain": "medium-replay"}


def recipe(dataset: Dataset) -> dict[str, Any]:
    """All that decides the values of a regenerated set, as plain JSON values; nothing is generated.

    Raises:
        ConfigError: if no behaviour policy is shipped for it, or a key it needs is not set.
    """
    if dataset.mix:
        return {"parts": [recipe(part) for part, _ in mix.parts(dataset)], "seed": dataset.seed}
    problems = []
    if dataset.rows is None:
        problems.append(
            "dataset.rows=null: a regenerated set needs it. Set it, as conf/dataset/regen-*.yaml do."
        )
    if not dataset.name.startswith("regen-"):
        problems.append(
            f"dataset.name={dataset.name}: generated data are called regen-…, so that nobody is misled."
        )
    if dataset.quality != (quality := QUALITIES[dataset.source]):
        problems.append(
            f"dataset.quality={dataset.quality}: dataset.source={dataset.source} makes {quality} sets only."
        )
    path = policy_path(dataset)
    if path is not None and not path.is_file():
        shipped = ", ".join(sorted(path.stem for path in POLICIES.glob("*.npz"))) or "none"
        problems.append(
            f"dataset={dataset.name}: no policies {path.stem} are shipped (there are: {shipped})."
        )
    elif path is not None and dataset.snapshots and dataset.snapshots > (count := _count(path)):
        problems.append(
            f"dataset.snapshots={dataset.snapshots}: {dataset.name} has {count}, so at most {count}."
        )
    if problems:
        raise ConfigError(problems)
    return {
        "name": dataset.name,
        "task": dataset.task,
        "source": dataset.source,
        "rows": dataset.rows,
        "seed": dataset.seed,
        "snapshots": dataset.snapshots,
        "policies_sha256": path and _sha256(path),
        "recipe_version": RECIPE_VERSIONS[dataset.source],
        "mujoco": _mujoco_version(),
    }


def file_path(dataset: Dataset, data_directory: Path) -> Path:
    """Returns the path of the set of this recipe, whether it was generated or not."""
    identity = hashlib.sha256(json.dumps(recipe(dataset), sort_keys=True).encode()).hexdigest()
    return data_directory / "regen" / f"{dataset.name}-{identity[:8]}.hdf5"


def others_there(dataset: Dataset, data_directory: Path) -> list[str]:
    """The words that choose sets of the same name which are there, by other recipes: `dataset.rows=200000`."""
    own, found = file_path(dataset, data_directory), []
    for path in sorted(own.parent.glob(f"{dataset.name}-{8 * '?'}.hdf5")):
        if path != own and (made_by := _recipe_in(path)):
            differing = [key for key in OPTIONS if made_by.get(key) != getattr(dataset, key)]
            words = " ".join(f"dataset.{key}={_word(made_by.get(key))}" for key in differing)
            found.append(words or f"{path.name}, by an earlier recipe")
    return found


def policy_path(dataset: Dataset) -> Path | None:
    """The file of the shipped policies that the set is made with; None if it needs none."""
    if dataset.source == "retrain":
        return None
    kind = "medium" if dataset.source == "regenerated" else "snapshots"
    return POLICIES / f"{dataset.task}-{kind}.npz"


def generate_sets(sets: Sequence[Dataset], paths: Paths) -> None:
    """Generates sets that are not there yet."""
    for dataset in sets:
        if not dataset.made_here:
            raise ConfigError([f"{dataset.name}: only regen-… sets can be generated."])
        for part in mix.stored(dataset):
            path = obtain(part, paths.data)
            print(f"{path}  {describe_policies(part)}")


def count_policies(dataset: Dataset) -> int:
    """How many behaviour policies a regenerated set comes from."""
    if dataset.source == "regenerated":
        return 1
    if dataset.source == "snapshots":
        return len(set(_schedule(dataset)[1]))
    return max(1, _blocks(dataset) - 1)  # the first two blocks are the untrained policy's


def describe_policies(dataset: Dataset) -> str:
    """How many behaviour policies a regenerated set comes from, beside D4RL's."""
    count = count_policies(dataset)
    if dataset.source == "regenerated":
        return "1 behaviour policy, as in D4RL's"
    if dataset.source == "retrain":
        return f"{count} behaviour policies, one every {BLOCK} steps, as in D4RL's"
    return f"{count} distinct behaviour policies, where D4RL's has one every {BLOCK} steps"


def obtain(dataset: Dataset, data_directory: Path) -> Path:
    """The set's file, generated first if it is not there; of two processes one generates, the other waits.

    Asked to stop meanwhile (SIGINT, SIGTERM, SIGHUP, SIGUSR2), it stops at once, and leaves nothing half-written.

    Raises:
        ConfigError: if it cannot be generated or written.
    """
    path = file_path(dataset, data_directory)
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(path.with_suffix(".lock"), "generated"):
            if not path.is_file():
                bar = Progress([dataset.shown_name], dataset.rows or 0, "rows")
                try:
                    generate(dataset, path, bar.at)
                finally:
                    bar.close()
    except OSError as error:
        raise ConfigError(
            [f"{path}: cannot be written ({error.strerror or error}). Name another directory with O2O_DATA."]
        ) from None
    return path


def generate(
    dataset: Dataset, path: Path, progress: Callable[[int, str], object] = lambda rows, note: None
) -> None:
    """Makes the set and writes it to `path`, which appears only when it is complete.

    Args:
        dataset: a regenerated one.
        path: the file to write, in D4RL's layout.
        progress: called now and then with the number of rows that there are, and a note.

    Raises:
        ConfigError: if there is no usable behaviour policy.
        OSError: if the file cannot be written.
    """
    made_by = recipe(dataset)
    with hdf5.create(path) as file:
        writer = Writer(file, made_by["rows"], made_by)
        if dataset.source == "retrain":
            _retrain(dataset, path.with_suffix(".training"), writer, progress)
        elif dataset.source == "snapshots":
            _replay_snapshots(dataset, writer, progress)
        else:
            _roll_out(dataset, writer, progress)
    if dataset.source == "retrain":
        from o2o.datasets.regenerated import rlkit

        rlkit.forget(path.with_suffix(".training"))


def verify(path: Path, dataset: Dataset) -> None:
    """Checks that the file was made by this recipe.

    Raises:
        ConfigError: if it is another set's.
    """
    with hdf5.opened(path) as file:
        made_by = str(file.attrs.get("recipe"))
    if made_by != json.dumps(recipe(dataset)):
        raise ConfigError([f"{path}: not made by {dataset.name}'s recipe. Delete it to generate it anew."])


def _recipe_in(path: Path) -> dict[str, Any]:
    """The recipe that a file names; empty where it cannot be read."""
    try:
        with hdf5.opened(path) as file:
            return json.loads(str(file.attrs.get("recipe")))
    except (ConfigError, OSError, ValueError):
        return {}


def _word(value: Any) -> str:
    return "null" if value is None else str(value)


def schedule(epochs: Sequence[int], blocks: int, count: int | None = None) -> list[int]:
    """Which policy collects each block of a replay: the one nearest in training, of `count` that span it all.

    The run's blocks are stretched to `blocks`: the first two are collected by the untrained policy, as in rlkit, the
    last by the last. Fewer policies are chosen from the last back to the first, evenly in number.

    Args:
        epochs: after how many epochs of its run each policy was taken, increasing.
        blocks: how many there are.
        count: how many policies to use; None uses all.
    """
    last = len(epochs) - 1
    chosen = np.arange(last + 1)
    if count is not None:
        chosen = np.linspace(last, 0, count).round().astype(int)[::-1]
    trained = np.maximum(0, np.arange(blocks) - 1) * (epochs[last] / max(1, blocks - 2))
    distance = np.abs(trained[:, None] - np.asarray(epochs)[chosen])
    return chosen[distance.argmin(axis=1)].tolist()


def _roll_out(dataset: Dataset, writer: Writer, progress: Callable[[int, str], object]) -> None:
    """A medium set: whole episodes of one policy, from the streams in turn."""
    path = policy_path(dataset)
    (policy,), provenance = tanh_gaussian.load(_given(path))
    writer.add_policy(policy, provenance)
    requests = [
        Request(dataset.task, str(path), dataset.seed, stream, ENVIRONMENTS, None)
        for stream in range(STREAMS)
    ]
    with streamed(requests) as streams:
        while writer.missing:
            for stream in streams:
                writer.add(next(stream))
                progress(writer.rows - writer.missing, "1 behaviour policy")
                if not writer.missing:
                    break


def _replay_snapshots(dataset: Dataset, writer: Writer, progress: Callable[[int, str], object]) -> None:
    """A replay: blocks of the shipped policies in the order of their training."""
    path, policy_of_block = _schedule(dataset)
    _, provenance = tanh_gaussian.load(path)
    writer.add_metadata("snapshots/epochs", np.array(provenance["epochs"], np.int32))
    writer.add_metadata("snapshots/provenance", np.bytes_(json.dumps(provenance).encode()))
    units: list[tuple[int, list[int]]] = []
    for block, policy in enumerate(policy_of_block):
        if not units or units[-1][0] != policy or len(units[-1][1]) == GROUP:
            units.append((policy, []))
        units[-1][1].append(block)
    requests = [
        Request(dataset.task, str(path), dataset.seed, stream, GROUP, units[stream::STREAMS])
        for stream in range(STREAMS)
    ]
    with streamed(requests) as streams:
        for i, (policy, blocks) in enumerate(units):
            for _ in blocks:
                writer.add(_marked(next(streams[i % STREAMS]), policy))
            progress(writer.rows - writer.missing, f"policy of epoch {provenance['epochs'][policy]}")


def _retrain(
    dataset: Dataset, directory: Path, writer: Writer, progress: Callable[[int, str], object]
) -> None:
    """A replay: the buffer of a SAC run, which goes on where an earlier one was stopped."""
    from o2o.datasets.regenerated import rlkit  # loads JAX, which planning does without

    blocks = _blocks(dataset)
    for epoch in rlkit.run(dataset.task, [dataset.seed], blocks - 1, directory):
        progress(min(writer.rows, (epoch.number + 1) * BLOCK), f"return {epoch.returns[0]:.0f}")
    for block in range(blocks):
        rows = {key: values[0] for key, values in rlkit.block(directory, block).items()}
        writer.add(_marked(rows, max(0, block - 1)))


def _marked(piece: RolloutRows, policy: int) -> RolloutRows:
    """With the number of the policy that collected them."""
    return piece | {"infos/policy": np.full(len(piece["rewards"]), policy, np.int32)}


def _schedule(dataset: Dataset) -> tuple[Path, list[int]]:
    path = _given(policy_path(dataset))
    _, provenance = tanh_gaussian.load(path)
    return path, schedule(provenance["epochs"], _blocks(dataset), dataset.snapshots)


def _blocks(dataset: Dataset) -> int:
    return -(-(dataset.rows or 0) // BLOCK)


def _given(path: Path | None) -> Path:
    assert path is not None
    return path


@functools.cache
def _count(path: Path) -> int:
    return len(tanh_gaussian.load(path)[0])


@functools.cache  # a plan asks for every one of its runs
def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@functools.cache
def _mujoco_version() -> str:
    return importlib.metadata.version("mujoco")
