"""The replay: offline rows that all members share, and each member's own online rows.

A transition is kept as one packed row of float32 (observation, action, reward, terminated, next
observation), so that sampling a batch is one gather and adding a transition one row written in place.
New rows are written into a short buffer, which is moved into the ring between blocks of steps: a ring of
200 000 rows that a loop on the device writes into would be copied in every step.

`offline_share=None` is one FIFO of `capacity` rows over *offline rows, then online rows*: after the n-th
online row the rows max(0, offline + n - capacity) … offline + n - 1 of that sequence are valid, so evicting
costs nothing. With a share, every batch has exactly round(share · batch_size) offline rows; then offline
rows are never evicted and the online rows are a FIFO of their own. The share may move in a straight line.

An offline row may be followed by *columns*, further facts of it that a method asks for (`Transition.columns`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

from o2o.types import Batch, Transition

BLOCK = 200
"""The most rows that may be added before `settle`."""

Rows = Float[Array, "N W"]

COLUMN_SIZES: Mapping[str, Callable[[int], int]] = {
    "return_to_go": lambda _: 1,
    "next_action": lambda actions: actions,
}
"""The numbers in a column, given the size of an action."""


def row_width(observation_size: int, action_size: int) -> int:
    """Returns W, the length of a packed transition."""
    return 2 * observation_size + action_size + 2


def pack(
    observation: Float[np.ndarray, "*N O"],
    action: Float[np.ndarray, "*N A"],
    reward: Float[np.ndarray, "*N"],
    terminated: Bool[np.ndarray, "*N"],
    next_observation: Float[np.ndarray, "*N O"],
) -> Float[np.ndarray, "*N W"]:
    """Returns transitions on the host as packed rows."""
    parts = (observation, action, reward[..., None], terminated[..., None], next_observation)
    return np.concatenate(parts, axis=-1, dtype=np.float32)


def unpack(rows: Float[Array, "*N W"], observation_size: int) -> Transition:
    """Returns the transitions of packed rows, without columns."""
    o, w = observation_size, rows.shape[-1]
    return Transition(
        observation=rows[..., :o],
        action=rows[..., o : w - o - 2],
        reward=rows[..., w - o - 2],
        terminated=rows[..., w - o - 1] != 0,
        next_observation=rows[..., w - o :],
    )


@struct.dataclass
class Online:
    """One member's online rows: a ring, those since the last `settle`, and how many were ever added."""

    ring: Rows
    newest: Rows
    settled: Int[Array, ""]
    """How many of those added have been moved into the ring; the rest is in `newest`."""
    added: Int[Array, ""]


@dataclass(frozen=True)
class Replay:
    """How to add to and sample from a replay. Hashable, without arrays.

    Attributes:
        offline_share: the share of offline rows in every batch; None samples uniformly what the FIFO holds.
        min_size: rows there must be before learning starts: online ones where a share of them is wanted.
        last_share: the share after `share_steps` online rows, if it moves.
        columns: the names of what follows an offline row.
    """

    batch_size: int
    capacity: int
    min_size: int
    observation_size: int
    action_size: int
    offline_share: float | None = None
    last_share: float | None = None
    share_steps: int = 1
    columns: tuple[str, ...] = ()

    @property
    def offline_rows_per_batch(self) -> int:
        """The number of offline rows in a batch, where it is fixed; the first, where it moves."""
        return round((self.offline_share or 0.0) * self.batch_size)

    def offline_rows_after(self, added: Int[Array, ""]) -> Int[Array, ""]:
        """Returns the number of offline rows in a batch after so many online rows, where the share moves."""
        first, last = self.offline_share or 0.0, self.last_share or 0.0
        share = first + (last - first) * jnp.minimum(added / self.share_steps, 1.0)
        return jnp.round(share * self.batch_size).astype(jnp.int32)

    @property
    def row_width(self) -> int:
        """W, the length of a packed transition."""
        return row_width(self.observation_size, self.action_size)

    @property
    def columns_width(self) -> int:
        """K, the length of what follows an offline row's transition."""
        return sum(self._column_sizes.values())

    def example(self) -> Transition:
        """Returns a transition of zeros, for its shapes."""
        return self.transitions(jnp.zeros(self.row_width + self.columns_width))

    def transitions(self, rows: Float[Array, "*N X"]) -> Transition:
        """Returns the transitions of offline rows, columns included."""
        data, columns, end = unpack(rows[..., : self.row_width], self.observation_size), {}, self.row_width
        for name, size in self._column_sizes.items():
            column = rows[..., end : end + size]
            columns[name] = column[..., 0] if name == "return_to_go" else column
            end += size
        return data._replace(columns=columns) if columns else data

    def ring_size(self, env_steps: int) -> int:
        """Returns how many online rows are kept: `env_steps` or the capacity, whichever is less."""
        return max(1, min(self.capacity, env_steps))

    def init(self, env_steps: int) -> Online:
        """Returns empty online rows, with room for as many as a phase of `env_steps` keeps."""
        return self.restore(env_steps, np.zeros((0, self.row_width), np.float32))

    def restore(self, env_steps: int, rows: Float[np.ndarray, "N W"]) -> Online:
        """Returns the online rows after all of `rows` were added, one after the other, to empty ones."""
        ring = np.zeros((self.ring_size(env_steps), self.row_width), np.float32)
        kept = np.arange(max(0, len(rows) - len(ring)), len(rows))
        ring[kept % len(ring)] = rows[kept]
        newest = jnp.zeros((min(BLOCK, len(ring)), self.row_width), jnp.float32)
        # A buffer for each of the two, since they are donated.
        settled, added = (jnp.asarray(len(rows), jnp.int32) for _ in range(2))
        return Online(jnp.asarray(ring), newest, settled, added)

    def add(self, online: Online, row: Float[Array, " W"]) -> Online:
        """Returns the rows with one more. At most `len(online.newest)` may be added before `settle`."""
        slot = online.added - online.settled
        newest = jax.lax.dynamic_update_slice_in_dim(online.newest, row[None], slot, 0)
        return online.replace(newest=newest, added=online.added + 1)  # pyright: ignore[reportAttributeAccessIssue]

    def settle(self, online: Online) -> Online:
        """Returns the rows with those added since the last time in the ring, over the oldest where it is full."""
        size, count = online.ring.shape[0], online.newest.shape[0]
        number = online.settled + jnp.arange(count)
        slot = jnp.where(number < online.added, number % size, size)  # beyond its end: not written
        ring = online.ring.at[slot].set(online.newest, mode="drop")
        return online.replace(ring=ring, settled=online.added)  # pyright: ignore[reportAttributeAccessIssue]

    def extend(self, online: Online, rows: Float[Array, "N W"]) -> Online:
        """Returns the rows with a block of them more, which the ring must have room for; all must be settled."""
        ring = jax.lax.dynamic_update_slice_in_dim(online.ring, rows, online.added, 0)
        count = online.added + rows.shape[0]
        return Online(ring, online.newest, settled=count, added=count + 0)

    def since(self, online: Online, first: int, added: int) -> Float[Array, "N W"]:
        """Returns the settled rows from the `first` to the `added`-th.

        In place of those that have left the ring it has the ones that came there: the number of rows says how many
        were added, and `restore` uses no more than the ring holds.
        """
        return online.ring[np.arange(first, added) % online.ring.shape[0]]

    def fresh(self, online: Online) -> Transition:
        """Returns the newest transitions, a batch of them; all must be settled."""
        index = (online.added - 1 - jnp.arange(self.batch_size)) % online.ring.shape[0]
        return self.transitions(self._without_columns(online.ring[index]))

    def ready(self, offline_rows: int, added: int) -> bool:
        """Returns whether learning can start, with that many offline and online rows."""
        if self.offline_share is None:
            return min(offline_rows + added, self.capacity) >= self.min_size
        only_offline = self.offline_rows_per_batch == self.batch_size and self.last_share in (None, 1.0)
        return only_offline or added >= self.min_size

    def sample(self, offline: Rows, online: Online, key: Key[Array, ""]) -> Batch:
        """Returns a batch, uniform with replacement within each source; `offline` may have no rows."""
        fixed = self.offline_rows_per_batch
        if self.last_share is not None:
            return self._mixed(offline, online, key)
        if self.offline_share is None:
            return self._batch(*self._of_fifo(offline, online, key, self.batch_size))
        if fixed == self.batch_size:
            return self.sample_offline(offline, key)
        if fixed == 0:
            index, is_offline, rows = self._of_fifo(offline[:0], online, key, self.batch_size)
            return self._batch(index + offline.shape[0], is_offline, rows)
        offline_key, online_key = jax.random.split(key)
        chosen = jax.random.randint(offline_key, (fixed,), 0, offline.shape[0])
        index, _, rest = self._of_fifo(offline[:0], online, online_key, self.batch_size - fixed)
        return self._batch(
            jnp.concatenate([chosen, index + offline.shape[0]]),
            jnp.arange(self.batch_size) < fixed,
            jnp.concatenate([offline[chosen], rest]),
        )

    def sample_offline(self, offline: Rows, key: Key[Array, ""]) -> Batch:
        """Returns a batch of the offline part alone."""
        index = jax.random.randint(key, (self.batch_size,), 0, offline.shape[0])
        return self._batch(index, jnp.ones(self.batch_size, bool), offline[index])

    def _mixed(self, offline: Rows, online: Online, key: Key[Array, ""]) -> Batch:
        """Returns a batch whose number of offline rows follows from that of the online rows there are."""
        offline_key, online_key = jax.random.split(key)
        chosen = jax.random.randint(offline_key, (self.batch_size,), 0, offline.shape[0])
        index, _, rows = self._of_fifo(offline[:0], online, online_key, self.batch_size)
        is_offline = jnp.arange(self.batch_size) < self.offline_rows_after(online.added)
        return self._batch(
            jnp.where(is_offline, chosen, index + offline.shape[0]),
            is_offline,
            jnp.where(is_offline[:, None], offline[chosen], rows),
        )

    def _without_columns(self, online_rows: Rows) -> Float[Array, "N X"]:
        """Returns online rows in the width of offline ones; their columns are not known."""
        missing = sum(self._column_sizes.values())
        return (
            jnp.pad(online_rows, ((0, 0), (0, missing)), constant_values=jnp.nan) if missing else online_rows
        )

    @property
    def _column_sizes(self) -> dict[str, int]:
        return {name: COLUMN_SIZES[name](self.action_size) for name in self.columns}

    def _batch(
        self, index: Int[Array, " B"], is_offline: Bool[Array, " B"], rows: Float[Array, "B X"]
    ) -> Batch:
        return Batch(self.transitions(rows), index, is_offline, jnp.ones(self.batch_size))

    def _of_fifo(
        self, offline: Rows, online: Online, key: Key[Array, ""], count: int
    ) -> tuple[Int[Array, " B"], Bool[Array, " B"], Float[Array, "B W"]]:
        """Returns index, origin and rows of a uniform sample of one FIFO over `offline`, then `online`."""
        offline_size, ring_size = offline.shape[0], online.ring.shape[0]
        end = offline_size + online.added
        index = jax.random.randint(key, (count,), jnp.maximum(0, end - self.capacity), end)
        number = index - offline_size
        unsettled = jnp.clip(number - online.settled, 0, online.newest.shape[0] - 1)
        rows = jnp.where(
            (number >= online.settled)[:, None], online.newest[unsettled], online.ring[number % ring_size]
        )
        rows, is_offline = self._without_columns(rows), number < 0
        if offline_size:
            rows = jnp.where(is_offline[:, None], offline[jnp.minimum(index, offline_size - 1)], rows)
        return index, is_offline, rows
