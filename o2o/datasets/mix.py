"""Mixtures of a task's sets at a fixed size: `dataset.mix={medium: 0.5, medium-replay: 0.5}`, `dataset.rows=200000`.

Regenerated parts are made at the size that is needed, so a replay still spans its whole run. Of D4RL's files, whole
episodes are drawn at random; the last one of a part may be cut short. The episodes of all parts are shuffled, since
a replay buffer forgets in the order of rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from jaxtyping import Int

from o2o.config.schema import Dataset
from o2o.datasets.files.hdf5 import StoredRows
from o2o.errors import ConfigError


def parts(dataset: Dataset) -> list[tuple[Dataset, int]]:
    """The sets that a mixture is made of, and how many rows of each; what rounding leaves is the last one's."""
    shares = dataset.mix or ()
    total = dataset.rows or 0
    sizes = [round(share * total) for _, share in shares[:-1]]
    sizes.append(total - sum(sizes))
    return [(_part(dataset, quality, size), size) for (quality, _), size in zip(shares, sizes, strict=True)]


def stored(dataset: Dataset) -> list[Dataset]:
    """The sets whose files a set is read from: a mixture's parts, or itself."""
    return [part for part, _ in parts(dataset)] if dataset.mix else [dataset]


def mixed(dataset: Dataset, rows: Iterable[StoredRows]) -> StoredRows:
    """The rows of a mixture, from those of its parts in order.

    Raises:
        ConfigError: if a part has too few rows.
    """
    generator = np.random.default_rng([dataset.seed, len(dataset.mix or ())])
    pieces: list[StoredRows] = []
    for (part, size), own in zip(parts(dataset), rows, strict=True):
        if len(own.rewards) < size:
            raise ConfigError(
                [
                    f"dataset.rows={dataset.rows}: {size} rows of {part.name} are wanted, but it has "
                    f"{len(own.rewards)}. Lower dataset.rows, or the share of {part.quality} in dataset.mix."
                ]
            )
        pieces += _drawn(own, size, generator)
    order = generator.permutation(len(pieces))
    return StoredRows(
        *(np.concatenate([pieces[i][k] for i in order]) for k in range(len(StoredRows._fields)))
    )


def _part(dataset: Dataset, quality: str, size: int) -> Dataset:
    if not dataset.made_here:
        name = f"{dataset.task}-{quality}-v2"
        return replace(dataset, name=name, quality=quality, rows=None, mix=None)
    replay = quality == "medium-replay"
    return replace(
        dataset,
        name=f"regen-{dataset.task}-{quality}{'-snapshots' if replay else ''}",
        source="snapshots" if replay else "regenerated",
        quality=quality,
        rows=size,
        snapshots=dataset.snapshots if replay else None,
        mix=None,
    )


def _drawn(rows: StoredRows, size: int, generator: np.random.Generator) -> list[StoredRows]:
    """Episodes of together `size` rows, drawn without replacement; what is cut ends in a timeout."""
    starts, ends = _episodes(rows)
    pieces = []
    for i in generator.permutation(len(starts)):
        stop = int(min(ends[i], starts[i] + size))
        piece = StoredRows(*(array[starts[i] : stop] for array in rows))
        if not (piece.terminals[-1] or piece.timeouts[-1]):
            timeouts = piece.timeouts.copy()
            timeouts[-1] = True
            piece = piece._replace(timeouts=timeouts)
        pieces.append(piece)
        size -= stop - int(starts[i])
        if size == 0:
            break
    return pieces


def _episodes(rows: StoredRows) -> tuple[Int[np.ndarray, " M"], Int[np.ndarray, " M"]]:
    """Where each episode starts and ends; the tail counts as one."""
    ends = np.flatnonzero(rows.terminals | rows.timeouts) + 1
    if not ends.size or ends[-1] < len(rows.rewards):
        ends = np.append(ends, len(rows.rewards))
    return np.concatenate([[0], ends[:-1]]), ends
