"""The replay against a model in a few lines of numpy."""

from __future__ import annotations

import functools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import assert_equal

from o2o.replay.buffer import Online, Replay, pack, row_width, unpack
from o2o.types import Transition

WIDTH = row_width(1, 1)
BATCH = 256  # of at most 12 rows: one that could be sampled is missed with a probability below 1e-8


def rows_of(*numbers: int) -> jnp.ndarray:
    """Packed rows whose every entry is the row's number."""
    return jnp.broadcast_to(jnp.asarray(numbers, jnp.float32).reshape(-1, 1), (len(numbers), WIDTH))


def replay_of(
    capacity: int, share: float | None = None, batch_size: int = BATCH, min_size: int = 1
) -> Replay:
    return Replay(batch_size, capacity, min_size, 1, 1, offline_share=share)


@functools.cache
def compiled():
    return tuple(jax.jit(call, static_argnums=0) for call in (Replay.add, Replay.sample, Replay.settle))


def filled(replay: Replay, env_steps: int, *numbers: int) -> Online:
    """Online rows after adding those numbers one after the other, settled at most as often as must be."""
    online, (add, _, settle) = replay.init(env_steps), compiled()
    for number in numbers:
        if online.added - online.settled == len(online.newest):
            online = settle(replay, online)
        online = add(replay, online, rows_of(number)[0])
    return online


def sampled(replay: Replay, offline: jnp.ndarray, online: Online, seed: int = 0) -> Counter[int]:
    """How often each number is in a batch."""
    batch = compiled()[1](replay, offline, online, jax.random.key(seed))
    return Counter(np.asarray(batch.data.reward).astype(int).tolist())


class Model:
    """What a FIFO over offline rows, then online rows holds."""

    def __init__(self, capacity: int, offline: list[int]):
        self.capacity, self.rows = capacity, offline[-capacity:]

    def add(self, number: int) -> None:
        self.rows = [*self.rows, number][-self.capacity :]


@settings(deadline=None, max_examples=40)
@given(
    offline=st.sampled_from([0, 3, 7]),
    capacity=st.sampled_from([4, 9]),
    env_steps=st.sampled_from([5, 15]),
    data=st.data(),
)
def test_a_batch_is_made_of_exactly_what_a_fifo_over_offline_then_online_rows_holds(
    offline, capacity, env_steps, data
):
    added = data.draw(st.integers(0 if offline else 1, env_steps))
    model, replay = Model(capacity, list(range(1, offline + 1))), replay_of(capacity)
    numbers = range(101, 101 + added)
    for number in numbers:
        model.add(number)
    found = sampled(replay, rows_of(*range(1, offline + 1)), filled(replay, env_steps, *numbers))
    assert set(found) == set(model.rows)


@pytest.mark.parametrize("share", [None, 0.0, 0.5, 1.0])
def test_a_batch_says_where_its_rows_came_from(share):
    replay, offline = replay_of(capacity=8, share=share), rows_of(*range(3))
    batch = compiled()[1](replay, offline, filled(replay, 9, *range(3, 8)), jax.random.key(0))
    assert_equal(batch.index, batch.data.reward.astype(int))  # rows are numbered through
    assert_equal(batch.is_offline, batch.index < 3)
    assert (batch.weight == 1).all()


def test_settling_changes_nothing_of_what_is_sampled():
    for added in (2, 5, 9):
        replay, offline = replay_of(capacity=6), rows_of(1, 2, 3)
        online = filled(replay, 9, *range(10, 10 + added))
        settled = compiled()[2](replay, online)
        key, sample = jax.random.key(added), compiled()[1]
        assert_equal(sample(replay, offline, settled, key), sample(replay, offline, online, key))
        rows = replay.since(settled, 0, added)
        assert rows[-6:, 0].tolist() == list(range(10, 10 + added))[-6:]
        restored = replay.restore(9, np.asarray(rows))
        assert_equal(restored.ring, settled.ring)
        assert (restored.added, restored.settled) == (added, added)  # also of rows that are gone


def test_the_oldest_offline_row_leaves_with_the_first_online_row_beyond_the_capacity():
    replay, offline = replay_of(capacity=5), rows_of(1, 2, 3)
    assert set(sampled(replay, offline, filled(replay, 9, 10, 11))) == {1, 2, 3, 10, 11}
    assert set(sampled(replay, offline, filled(replay, 9, 10, 11, 12))) == {2, 3, 10, 11, 12}


def test_the_last_slot_is_sampled_before_and_after_wrapping():
    replay = replay_of(capacity=3)
    assert set(sampled(replay, rows_of(), filled(replay, 9, 10, 11, 12))) == {10, 11, 12}
    assert set(sampled(replay, rows_of(), filled(replay, 9, 10, 11, 12, 13))) == {11, 12, 13}


def test_rows_are_sampled_uniformly_and_with_replacement():
    replay = replay_of(capacity=8, batch_size=40_000)
    found = sampled(replay, rows_of(1, 2, 3), filled(replay, 9, *range(10, 15)))
    assert len(found) == 8
    # five standard deviations of a binomial count
    assert max(abs(n - 5000) for n in found.values()) < 5 * np.sqrt(40_000 / 8 * 7 / 8)


def test_room_is_made_for_no_more_rows_than_there_will_be():
    assert replay_of(capacity=100).init(7).ring.shape == (7, WIDTH)
    assert replay_of(capacity=5).init(7).ring.shape == (5, WIDTH)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.3, 0.5, 0.75, 0.9, 1.0])
def test_a_ratio_is_met_by_every_batch_exactly(share):
    replay = replay_of(capacity=4, share=share, batch_size=64)
    online = filled(replay, 9, *range(101, 107))
    for seed in range(3):
        found = sampled(replay, rows_of(*range(1, 8)), online, seed)
        assert sum(count for number, count in found.items() if number < 100) == round(share * 64)


def test_with_a_ratio_offline_rows_stay_and_online_rows_have_a_fifo_of_their_own():
    replay = replay_of(capacity=4, share=0.5)
    found = sampled(replay, rows_of(*range(1, 8)), filled(replay, 9, *range(101, 107)))
    assert set(found) == {*range(1, 8), 103, 104, 105, 106}


def test_a_ratio_of_zero_samples_what_an_empty_replay_would_bit_for_bit():
    online = filled(replay_of(capacity=4), 9, *range(101, 107))
    key, sample = jax.random.key(1), compiled()[1]
    assert_equal(
        sample(replay_of(capacity=4, share=0.0), rows_of(1, 2, 3), online, key).data,
        sample(replay_of(capacity=4), rows_of(), online, key).data,
    )


def test_pretraining_samples_every_offline_row_and_only_those():
    replay = replay_of(capacity=2)
    found = replay.sample_offline(rows_of(1, 2, 3), jax.random.key(0))
    assert set(found.data.reward.tolist()) == {1, 2, 3}
    assert found.is_offline.all()
    assert_equal(found.index, found.data.reward.astype(int) - 1)


@given(
    shape=st.sampled_from([(), (1,), (4,)]),
    observation=st.integers(1, 4),
    action=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=25)
def test_packing_loses_nothing(shape, observation, action, seed):
    generator = np.random.default_rng(seed)
    transition = Transition(
        observation=generator.normal(size=(*shape, observation)).astype(np.float32),
        action=generator.normal(size=(*shape, action)).astype(np.float32),
        reward=np.asarray(generator.normal(size=shape), np.float32),
        terminated=np.asarray(generator.random(shape) < 0.5),
        next_observation=generator.normal(size=(*shape, observation)).astype(np.float32),
    )
    rows = pack(*transition[:5])
    assert rows.shape == (*shape, row_width(observation, action))
    assert rows.dtype == np.float32
    for found, expected in zip(unpack(jnp.asarray(rows), observation)[:5], transition[:5], strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("first", "last"), [(1.0, 0.0), (0.25, 0.75)])
def test_a_share_that_moves_is_exact_in_every_batch(first, last):
    replay = Replay(BATCH, 50, 1, 1, 1, offline_share=first, last_share=last, share_steps=8)
    online = replay.init(20)
    for added in range(1, 13):
        online = compiled()[0](replay, online, rows_of(100 + added)[0])
        numbers = sampled(replay, rows_of(1, 2, 3), online)
        expected = round(BATCH * (first + (last - first) * min(added / 8, 1)))
        assert sum(numbers[n] for n in (1, 2, 3)) == expected
        batch = compiled()[1](replay, rows_of(1, 2, 3), online, jax.random.key(0))
        np.testing.assert_array_equal(batch.is_offline, np.asarray(batch.data.reward) < 100)
        np.testing.assert_array_equal(batch.index >= 3, ~batch.is_offline)


@pytest.mark.parametrize("share", [None, 0.5, 1.0])
def test_columns_of_offline_rows_are_in_the_batch_and_online_ones_are_not_known(share):
    replay = Replay(BATCH, 50, 1, 1, 1, offline_share=share, columns=("next_action", "return_to_go"))
    offline = jnp.concatenate([rows_of(1, 2, 3), jnp.asarray([[10.0, 100], [20, 200], [30, 300]])], axis=1)
    batch = compiled()[1](replay, offline, filled(replay, 9, 7, 8), jax.random.key(0))
    number = np.asarray(batch.data.reward)
    expected = np.where(number < 7, number, np.nan)
    np.testing.assert_array_equal(batch.data.columns["next_action"], 10 * expected[:, None])
    np.testing.assert_array_equal(batch.data.columns["return_to_go"], 100 * expected)


@pytest.mark.parametrize(
    ("share", "offline", "added", "ready"),
    [
        (None, 0, 9, False),
        (None, 0, 10, True),
        (None, 4, 5, False),
        (None, 4, 6, True),
        (None, 100, 0, True),
        (0.0, 100, 9, False),
        (0.0, 100, 10, True),
        (0.5, 100, 9, False),
        (0.5, 100, 10, True),
        (1.0, 100, 0, True),
    ],
)
def test_learning_waits_for_enough_rows_and_where_a_share_of_them_is_wanted_for_online_rows(
    share, offline, added, ready
):
    assert replay_of(capacity=50, share=share, min_size=10).ready(offline, added) == ready
