"""CQL and Cal-QL against their equations written out in numpy, and SAC's ensembles rule by rule."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import assert_close, assert_equal, batch_of, batches_of, differ, fresh, make, update, used

from o2o.algorithms import losses
from o2o.algorithms.sac import SAC

KEY = jax.random.key(3)


def forward(parameters: Any, inputs: Any) -> Any:
    """Linear, ReLU, linear, ReLU, linear."""
    x = inputs
    with jax.numpy_rank_promotion("allow"):
        for layer in ("hidden_0", "hidden_1"):
            x = jnp.maximum(x @ parameters[layer]["kernel"] + parameters[layer]["bias"], 0)
        return x @ parameters["output"]["kernel"] + parameters["output"]["bias"]


def q_value(parameters: Any, observation: Any, action: Any) -> Any:
    return forward(parameters, jnp.concatenate([observation, action], axis=-1))[..., 0]


def sampled(policy: Any, observation: Any, noise: Any) -> tuple[Any, Any]:
    """tanh(mean + std · noise), and its log density by the change of variables."""
    mean, log_std = jnp.split(forward(policy, observation), 2, axis=-1)
    std = jnp.exp(jnp.clip(log_std, -20, 2))
    raw = mean + std * noise
    normal = -0.5 * noise**2 - jnp.log(std) - 0.5 * jnp.log(2 * jnp.pi)
    return jnp.tanh(raw), jnp.sum(normal - jnp.log(1 - jnp.tanh(raw) ** 2 + 1e-12), axis=-1)


def critic(ensemble: Any, i: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[i], ensemble)


def reference_loss(
    parameters: Any, i: int, algorithm: Any, state: Any, batch: Any, key: Any, floor: Any
) -> tuple[Any, Any]:
    """The TD error and the weighted penalty of one critic, for each row and each action by itself."""
    n, (rows, size) = algorithm.penalty_actions, batch.action.shape
    uniform_key, here_key, next_key = jax.random.split(jax.random.fold_in(key, 2), 3)
    uniform = jax.random.uniform(uniform_key, (n, rows, size), minval=-1, maxval=1)
    here = jax.random.normal(here_key, (n, rows, size))
    following = jax.random.normal(next_key, (n, rows, size))
    gaps, errors = [], []
    kind = (n, rows, size) if algorithm.max_target_backup else (rows, size)
    target_noise = jax.random.normal(key, kind)
    for row in range(rows):
        s, after = batch.observation[row], batch.next_observation[row]
        own = q_value(parameters, s, batch.action[row])
        found = [q_value(parameters, s, a) - size * np.log(0.5) for a in uniform[:, row]]
        for start, noise in ((s, here), (after, following)):
            for k in range(n):
                a, density = sampled(state.policy, start, noise[k, row])
                found.append(jnp.maximum(q_value(parameters, s, a), floor[row]) - density)
        largest = max(float(v) for v in found)
        gaps.append(largest + jnp.log(sum(jnp.exp(v - largest) for v in found)) - own)
        candidates = []
        for noise in target_noise[:, row] if algorithm.max_target_backup else [target_noise[row]]:
            a, _ = sampled(state.policy, after, noise)
            candidates.append(min(float(q_value(critic(state.target_critics, j), after, a)) for j in (0, 1)))
        y = batch.reward[row] + 0.99 * (0.0 if batch.terminated[row] else max(candidates))
        errors.append((own - y) ** 2)
    return sum(errors) / rows, algorithm.penalty_weight * sum(gaps) / rows


@pytest.mark.parametrize(
    ("name", "best"), [("cql", False), pytest.param("cal_ql", True, marks=pytest.mark.slow)]
)
def test_the_critics_step_is_the_equations(name, best):
    algorithm = make(name, backup_entropy=False, max_target_backup=best, penalty_actions=2)
    batch = batch_of(4)
    state = used(algorithm)
    known = np.asarray(batch.columns["return_to_go"])
    floor = np.where(np.isnan(known), -np.inf, known) if name == "cal_ql" else np.full(4, -np.inf)
    new, metrics = algorithm.critic_step(state, batch, KEY)
    found = [
        reference_loss(critic(state.critics, i), i, algorithm, state, batch, KEY, floor) for i in range(2)
    ]
    assert float(metrics["critic_loss"]) == pytest.approx(
        float(np.mean([float(e) for e, _ in found])), rel=1e-4
    )
    assert float(metrics["penalty"]) == pytest.approx(float(np.mean([float(p) for _, p in found])), rel=1e-4)

    def loss(parameters: Any) -> Any:
        return sum(reference_loss(parameters, 0, algorithm, state, batch, KEY, floor))

    def whole(parameters: Any) -> Any:
        target = algorithm._td_target(state, batch, KEY)
        actions, density = algorithm._judged(state.policy, batch, jax.random.fold_in(KEY, 2))
        gap = algorithm._gap(parameters, batch, actions, density)
        error = losses.td_loss(q_value(parameters, batch.observation, batch.action), target)
        return error + algorithm.penalty_weight * gap

    first = critic(state.critics, 0)
    # Along random directions, by central differences of the reference.
    gradient = jax.grad(whole)(first)
    for seed in range(2):
        generator = np.random.default_rng(seed)
        direction = jax.tree.map(lambda p, g=generator: jnp.asarray(g.normal(size=p.shape), p.dtype), first)
        moved = [
            float(loss(jax.tree.map(lambda p, d, h=h: p + h * d, first, direction))) for h in (1e-3, -1e-3)
        ]
        slope = sum(
            float(jnp.sum(g * d))
            for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
        )
        assert (moved[0] - moved[1]) / 2e-3 == pytest.approx(slope, rel=0.03)
    step = jax.tree.map(lambda p, g: p - 3e-4 * g / (jnp.abs(g) + 1e-8), first, gradient)
    assert_close(critic(new["critics"], 0), step, atol=2e-6, rtol=1e-4)


def test_without_a_weight_cql_is_sac_bit_for_bit():
    batch = batch_of()
    found = update(make("cql", penalty_weight=0.0), used(make("cql")), batch, KEY)
    assert_equal(found, update(make("sac"), used(make("sac")), batch, KEY))


def test_cal_ql_without_returns_is_cql_and_with_high_ones_pushes_no_policy_action_down():
    cql, cal_ql, batch = make("cql"), make("cal_ql"), batch_of()
    state = used(cql)
    unknown = batch._replace(columns={"return_to_go": jnp.full(8, -jnp.inf)})
    expected = update(cql, state, batch, KEY)
    assert_equal(update(cal_ql, state, unknown, KEY), expected)
    assert_equal(
        update(cal_ql, state, batch._replace(columns={"return_to_go": jnp.full(8, jnp.nan)}), KEY), expected
    )
    value = jnp.asarray([[-1.0, 5.0]] * 3)
    two = batch_of(2)._replace(columns={"return_to_go": jnp.asarray([2.0, jnp.nan])})
    np.testing.assert_array_equal(cal_ql.bounded(value, two), [[2.0, 5.0]] * 3)


def test_sac_goes_on_from_cql_with_networks_of_the_same_shapes_only():
    assert make("sac").adopts(make("cql"))
    assert make("cal_ql").adopts(make("cql"))
    assert make("sac", critics=3).adopts(make("cql", critics=3))
    assert not make("sac", critics=3).adopts(make("cql"))
    assert not make("sac", layer_norm="all").adopts(make("cql"))


def test_two_chosen_of_two_are_the_twin_minimum():
    twin, drawn, batch = make("sac"), make("sac", target_critics=2), batch_of()
    state = used(twin)
    assert_close(drawn._td_target(state, batch, KEY), twin._td_target(state, batch, KEY), rtol=1e-6)


def test_a_target_is_the_least_of_a_pair_drawn_anew_for_each_update():
    algorithm, batch = make("sac", critics=5, target_critics=2, backup_entropy=False), batch_of()
    state = used(algorithm)
    chosen = set()
    for seed in range(20):
        key = jax.random.key(seed)
        action, _ = algorithm.sample(state.policy, batch.next_observation, key)
        each = [q_value(critic(state.target_critics, i), batch.next_observation, action) for i in range(5)]
        target = algorithm._td_target(state, batch, key)
        pairs = [
            (i, j)
            for i in range(5)
            for j in range(i + 1, 5)
            if np.allclose(
                target, batch.reward + 0.99 * ~batch.terminated * np.minimum(each[i], each[j]), rtol=1e-5
            )
        ]
        assert pairs
        chosen.add(tuple(pairs))  # pairs with the same least critic cannot be told apart
    assert len(chosen) > 2


def test_with_replacement_a_critic_may_judge_alone():
    algorithm, batch = make("sac", critics=2, target_critics=2, drawn_twice=True), batch_of()
    state = used(algorithm)
    targets = [np.asarray(algorithm._td_target(state, batch, jax.random.key(seed))) for seed in range(8)]
    least = [np.asarray(make("sac")._td_target(state, batch, jax.random.key(seed))) for seed in range(8)]
    assert any((one > other + 1e-4).any() for one, other in zip(targets, least, strict=True))


def test_the_policy_climbs_the_least_or_the_mean_of_all_critics():
    batch = batch_of()
    for name, reduce in (("min", np.min), ("mean", np.mean)):
        algorithm = make("sac", critics=4, policy_value=name)
        state = used(algorithm)
        _, metrics = algorithm.policy_step(state, batch, KEY)
        action, density = algorithm.sample(state.policy, batch.observation, KEY)
        each = [q_value(critic(state.critics, i), batch.observation, action) for i in range(4)]
        temperature = metrics["temperature"]
        expected = np.mean(temperature * density - reduce(each, axis=0))
        assert float(metrics["policy_loss"]) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("kind", ["last_batch", "all_batches"])
def test_one_update_of_the_policy_follows_all_of_the_critics(kind):
    algorithm = make("sac", order="critics_first", policy_updates=kind)
    alone = make("sac")
    batches, state = [batch_of(seed=k) for k in range(3)], used(algorithm)
    critics_key, policy_key = jax.random.split(KEY)
    found, _ = algorithm.update(state, batches_of(*batches), KEY, (True, True, True))
    critics, _ = alone.update(state, batches_of(*batches), critics_key, (False, False, False))
    batch = batches[-1]
    if kind == "all_batches":
        batch = jax.tree.map(lambda *columns: jnp.concatenate(columns), *batches)
    policy, _ = algorithm.policy_step(critics, batch, policy_key)
    assert_close(found, critics.replace(**policy), rtol=1e-5, atol=1e-6)
    standing, metrics = algorithm.update(state, batches_of(*batches), KEY, (False, False, False))
    assert_equal(standing.policy, state.policy)
    assert "policy_loss" not in metrics


def test_orders_differ_in_whose_critics_and_temperature_the_policy_sees():
    batch = batch_of()
    losses_of = {}
    for order in ("policy_first", "together", "critics_first"):
        algorithm = make("sac", order=order, temperature_learning_rate=0.5)
        new, metrics = update(algorithm, used(algorithm), batch, KEY)
        losses_of[order] = float(metrics["policy_loss"])
        assert differ(new.policy, used(algorithm).policy)
    assert len(set(losses_of.values())) == 3


def test_many_updates_of_a_step_in_a_loop_are_those_written_out(monkeypatch):
    batches = batches_of(*[batch_of(seed=k) for k in range(12)])
    for name in ("td3", "sac"):
        algorithm, due = make(name), tuple(k % 2 == 0 for k in range(12))
        state = used(algorithm)
        looped = algorithm.update(state, batches, KEY, due)
        with monkeypatch.context() as patch:
            patch.setattr(losses, "UNROLLED", 100)
            written = algorithm.update(state, batches, KEY, due)
        assert_close(looped, written, rtol=1e-4, atol=1e-5)


def test_layer_norm_and_initialisers_are_those_of_the_networks_asked_for():
    state = fresh(make("sac", layer_norm="critics", initializer="xavier_uniform", critics=3))
    assert "norm_0" in state.critics
    assert "norm_0" not in state.policy
    kernel = np.asarray(state.critics["hidden_1"]["kernel"])
    assert kernel.shape == (3, 16, 16)
    assert 0.9 < np.abs(kernel).max() / np.sqrt(6 / 32) <= 1
    square = np.asarray(
        fresh(make("sac", layer_norm="all", initializer="orthogonal")).policy["hidden_1"]["kernel"]
    )
    np.testing.assert_allclose(square @ square.T, 2 * np.eye(16), atol=1e-5)


def test_what_was_added_to_sac_changes_nothing_by_default():
    added = [field for field in fields(SAC) if field.metadata]
    assert {field.name for field in added} >= {"critics", "order", "policy_updates"}
    assert_equal(
        update(make("sac"), used(make("sac")), batch_of(), KEY),
        update(make("sac", critics=2, order="policy_first"), used(make("sac")), batch_of(), KEY),
    )
