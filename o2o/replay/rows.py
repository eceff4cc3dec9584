"""The replay: offline rows that all members share, and each member's own online rows.

A transition is kept as one packed row of float32 (observation, action, reward, terminated, next
observation), so that sampling a batch is one gather and adding a transition one row written in place.

`offline_share=None` is one FIFO of `capacity` rows over *offline rows, then online rows*: after the n-th
online row the rows max(0, offline + n - capacity) … offline + n - 1 of that sequence are valid, so evicting
costs nothing. With a share, every batch has exactly round(share · batch_size) offline rows; then offline
rows are never evicted and the online rows are a FIFO of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

from o2o.types import Transition

Rows = Float[Array, "N W"]


def row_width(observation_size: int, action_size: int) -> int:
    """W: the length of a packed transition."""
    return 2 * observation_size + action_size + 2


def pack(
    observation: Float[np.ndarray, "*N O"],
    action: Float[np.ndarray, "*N A"],
    reward: Float[np.ndarray, "*N"],
    terminated: Bool[np.ndarray, "*N"],
    next_observation: Float[np.ndarray, "*N O"],
) -> Float[np.ndarray, "*N W"]:
    """Transitions on the host as packed rows."""
    parts = (observation, action, reward[..., None], terminated[..., None], next_observation)
    return np.concatenate(parts, axis=-1, dtype=np.float32)


def unpack(rows: Float[Array, "*N W"], observation_size: int) -> Transition:
    """The transitions of packed rows."""
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
    """One member's online rows: a ring, and how many were ever added."""

    rows: Rows
    added: Int[Array, ""]


@dataclass(frozen=True)
class Replay:
    """How to add to and sample from a replay. Hashable, without arrays.

    Attributes:
        offline_share: the share of offline rows in every batch; None samples uniformly what the FIFO holds.
        min_size: rows there must be before learning starts: online ones where a share of them is wanted.
    """

    batch_size: int
    capacity: int
    min_size: int
    observation_size: int
    action_size: int
    offline_share: float | None = None

    @property
    def offline_rows_per_batch(self) -> int:
        """How many rows of a batch are offline rows, where that number is fixed."""
        return round((self.offline_share or 0.0) * self.batch_size)

    def example(self) -> Transition:
        """A transition of zeros, for its shapes."""
        return unpack(self.init(1).rows[0], self.observation_size)

    def ring_size(self, env_steps: int) -> int:
        """How many online rows are kept: `env_steps` or the capacity, whichever is less."""
        return max(1, min(self.capacity, env_steps))

    def init(self, env_steps: int) -> Online:
        """Empty online rows, with room for as many as a phase of `env_steps` keeps."""
        width = row_width(self.observation_size, self.action_size)
        rows = jnp.zeros((self.ring_size(env_steps), width), jnp.float32)
        return Online(rows, jnp.zeros((), jnp.int32))

    def restore(self, env_steps: int, rows: Float[np.ndarray, "N W"]) -> Online:
        """The online rows after all of `rows` were added, one after the other, to empty ones."""
        ring = np.zeros((self.ring_size(env_steps), rows.shape[-1]), np.float32)
        newest = np.arange(max(0, len(rows) - len(ring)), len(rows))
        ring[newest % len(ring)] = rows[newest]
        return Online(jnp.asarray(ring), jnp.asarray(len(rows), jnp.int32))

    def add(self, online: Online, row: Float[Array, " W"]) -> Online:
        """With one more row, over the oldest where the ring is full."""
        slot = online.added % online.rows.shape[0]
        return Online(jax.lax.dynamic_update_slice_in_dim(online.rows, row[None], slot, 0), online.added + 1)

    def ready(self, offline_rows: int, added: int) -> bool:
        """Whether learning can start, with that many offline and online rows."""
        if self.offline_share is None:
            return min(offline_rows + added, self.capacity) >= self.min_size
        return self.offline_rows_per_batch == self.batch_size or added >= self.min_size

    def sample(self, offline: Rows, online: Online, key: Key[Array, ""]) -> Transition:
        """A batch, uniform with replacement within each source; `offline` may have no rows."""
        fixed = self.offline_rows_per_batch
        if self.offline_share is None:
            rows = self._sample_fifo(offline, online, key, self.batch_size)
        elif fixed == 0:
            rows = self._sample_fifo(offline[:0], online, key, self.batch_size)
        elif fixed == self.batch_size:
            rows = self.sample_offline(offline, key)
        else:
            offline_key, online_key = jax.random.split(key)
            index = jax.random.randint(offline_key, (fixed,), 0, offline.shape[0])
            rest = self._sample_fifo(offline[:0], online, online_key, self.batch_size - fixed)
            rows = jnp.concatenate([offline[index], rest])
        return unpack(rows, self.observation_size)

    def sample_offline(self, offline: Rows, key: Key[Array, ""]) -> Float[Array, "B W"]:
        """Packed rows of the offline part alone."""
        return offline[jax.random.randint(key, (self.batch_size,), 0, offline.shape[0])]

    def _sample_fifo(
        self, offline: Rows, online: Online, key: Key[Array, ""], count: int
    ) -> Float[Array, "B W"]:
        offline_size, ring_size = offline.shape[0], online.rows.shape[0]
        end = offline_size + online.added
        start = jnp.maximum(0, end - self.capacity)
        index = jax.random.randint(key, (count,), start, end)
        rows = online.rows[(index - offline_size) % ring_size]
        if offline_size == 0:
            return rows
        is_offline = index < offline_size
        return jnp.where(is_offline[:, None], offline[jnp.minimum(index, offline_size - 1)], rows)
