"""Seeds side by side against the same seeds alone."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import assert_close, assert_equal, make
from test_training import NO_ROWS, REPLAY, Clockwork, copy, offline_rows, start

from o2o.training import loop
from o2o.training.seeds import Members, make_members
from o2o.training.steps import Learner

KINDS = (Members, functools.partial(Members, together=True))
SEEDS = (3, 4, 5)


PACE = {
    "updates_per_step": 2,
    "random_steps": 3,
    "critic_only_steps": 8,
    "first_updates_multiplier": 3,
    "first_updates_steps": 2,
}


def both_phases(
    members: Any,
    seeds: tuple[int, ...],
    algorithm: Any = None,
    replay: Any = REPLAY,
    rows: Any = NO_ROWS,
    **pace: int,
) -> list[Any]:
    """Each member's final state, metrics and episodes."""
    algorithm = algorithm or make("td3_bc")
    keys = members.bundle([jax.random.key(seed) for seed in seeds])
    state = members.bundle([start(algorithm, seed) for seed in seeds])
    offline = rows if len(rows) else offline_rows()
    (pretraining,) = loop.pretrain(Learner(algorithm, replay), members, state, offline, keys, [4])
    learned = [copy(pretraining.metrics)]
    environments = [Clockwork(own) for own in members.groups(seeds)]
    (report,) = loop.finetune(
        Learner(algorithm, replay, **pace),
        members,
        environments,
        pretraining.state,
        rows,
        keys,
        [12],
        updates_before=4,
    )
    learned.append(report.metrics)
    returns = [[e.episode_return for e in report.episodes if e.member == i] for i in range(len(seeds))]
    return [
        (copy(state), [metrics[i] for metrics in learned], returns[i])
        for i, state in enumerate(members.values(report.state))
    ]


@pytest.fixture(scope="module")
def alone():
    return [both_phases(Members(1), (seed,))[0] for seed in SEEDS]


def test_looped_members_learn_what_each_learns_alone_bit_for_bit(alone):
    together = both_phases(Members(3), SEEDS)
    assert_equal(together, alone)
    assert len(alone[0][2]) == 2


def test_vmapped_members_learn_what_each_learns_alone(alone):
    assert_close(both_phases(Members(3, together=True), SEEDS), alone, rtol=2e-4, atol=1e-5)


@pytest.mark.slow  # each compiles three programs
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("iql", {}),
        ("awac", {}),
        ("cql", {"max_target_backup": True}),
        ("cal_ql", {}),
        ("sac", {"critics": 4, "target_critics": 2, "layer_norm": "all", "policy_updates": "all_batches"}),
        (
            "sac",
            {"critics": 3, "policy_value": "mean", "order": "critics_first", "policy_updates": "last_batch"},
        ),
    ],
)
def test_members_of_every_method_learn_what_each_learns_alone(name, changes):
    algorithm = make(name, **changes)
    columns = getattr(algorithm, "columns", ())
    replay = replace(REPLAY, offline_share=0.75, last_share=0.25, share_steps=9, columns=columns)
    rows = jnp.pad(offline_rows(), ((0, 0), (0, replay.columns_width)), constant_values=0.5)
    alone, together, vmapped = (
        functools.partial(both_phases, members, algorithm=algorithm, replay=replay, rows=rows, **PACE)
        for members in (Members(1), Members(3), Members(3, together=True))
    )
    expected = [alone((seed,))[0] for seed in SEEDS]
    assert_equal(together(SEEDS), expected)
    assert_close(vmapped(SEEDS), expected, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    [pytest.param("td3", marks=pytest.mark.slow), pytest.param("td3_bc", marks=pytest.mark.slow), "td3_c"],
)
def test_after_100_updates_vmapped_members_are_where_single_ones_are(name):
    def pretrained(members: Any, seeds: tuple[int, ...]) -> list[Any]:
        algorithm = make(name)
        keys = members.bundle([jax.random.key(seed) for seed in seeds])
        state = members.bundle([start(algorithm, seed) for seed in seeds])
        (report,) = loop.pretrain(Learner(algorithm, REPLAY), members, state, offline_rows(), keys, [100])
        return copy(members.values(report.state))

    alone = [pretrained(Members(1), (seed,))[0] for seed in SEEDS]
    assert_equal(pretrained(Members(3), SEEDS), alone)
    assert_close(pretrained(Members(3, together=True), SEEDS), alone, rtol=2e-3, atol=1e-4)


def test_members_with_different_seeds_learn_different_things(alone):
    assert alone[0][1][1]["q_mean"] != alone[1][1][1]["q_mean"]


@pytest.fixture(params=KINDS)
def members(request):
    return request.param(2)


TREES = ({"a": jnp.arange(2.0), "b": jnp.array(1)}, {"a": jnp.arange(2.0) + 5, "b": jnp.array(7)})


def test_what_was_bundled_comes_back(members):
    assert_equal(members.values(members.bundle(TREES)), list(TREES))


def test_a_bundle_of_arrays_comes_to_the_host_with_a_leading_axis(members):
    found = members.to_host(members.bundle([jnp.arange(3), jnp.arange(3) + 1]))
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, [[0, 1, 2], [1, 2, 3]])


def test_shared_and_static_arguments_are_the_same_for_all(members):
    def function(own, shared, static):
        return own * shared.sum() + static, own.shape

    own = members.bundle([jnp.array([1.0]), jnp.array([2.0])])
    mapped = members.map(lambda *arguments: function(*arguments)[:1], shared=(1,), static=(2,))
    (found,) = mapped(own, jnp.array([2.0, 3.0]), 1)
    np.testing.assert_array_equal(members.to_host(found), [[6.0], [11.0]])


def test_donated_arguments_are_used_up_and_others_are_not(members):
    one, other = (
        members.bundle([jnp.zeros(4)] * 1 + [jnp.ones(4)]),
        members.bundle([jnp.ones(4), jnp.ones(4)]),
    )
    members.map(lambda x, y: (x + y,), donated=(0,))(one, other)
    assert jax.tree.leaves(one)[0].is_deleted()
    assert not jax.tree.leaves(other)[0].is_deleted()


def test_a_cpu_loops_over_its_members():
    assert make_members(3) == Members(3)


def test_members_are_hashable_so_that_what_is_compiled_for_them_can_be_kept():
    calls = []
    keep = functools.cache(lambda members: calls.append(members))
    for kind in (*KINDS, *KINDS):
        keep(kind(2))
    assert len(calls) == 2
