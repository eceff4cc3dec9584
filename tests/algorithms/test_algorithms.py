"""TD3, TD3-BC and TD3-C against the reference in reference.py, and rule by rule."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from small import assert_close, assert_equal, batch_of, batches_of, differ, fresh, make, update, used

from o2o.types import LearningRate, State

KEY = jax.random.key(7)
TD3_FAMILY = ("td3", "td3_bc", "td3_c")
ALL = (*TD3_FAMILY, "sac", "iql", "awac", "cql", "cal_ql")


def critic(ensemble: Any, i: int) -> Any:
    """The parameters of one critic."""
    return jax.tree.map(lambda leaf: leaf[i], ensemble)


def twins(ensemble: Any) -> Any:
    """An ensemble whose second critic is its first."""
    return jax.tree.map(lambda leaf: leaf[jnp.zeros(2, int)], ensemble)


def critics_after(algorithm: Any, state: Any, batch: Any, due: bool = True) -> Any:
    """What the critics' step makes of them."""
    return algorithm.critic_step(state, batch, KEY, due)[0]


def doubled(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("td3", {}),
        ("td3", {"dpg_reduce": "mean", "action_gradient_clip": 0.05}),
        ("td3", {"target_noise_shared_in_batch": False, "delay_target_critic": True}),
        ("td3", {"target_noise_shared_in_batch": False, "target_noise_shared_by_critics": True}),
        ("td3", {"gradient_norm_clip": 0.05, "policy_delay": 3}),
        ("td3_bc", {}),
        ("td3_bc", {"bc_normaliser": "mean_abs_dqda", "dpg_reduce": "mean"}),
        ("td3_c", {}),
        ("td3_c", {"constraint_reduce": "sum", "dual": "exp", "dual_init": 0.5, "dual_cadence": "update"}),
        ("td3_c", {"constraint_reduce": "per_dimension", "dual_init": 1.0, "action_gradient_clip": 0.05}),
        (
            "td3_c",
            {"dual": "projected", "dual_init": 0.5, "dual_optimizer": "sgd", "constraint_epsilon": 0.1},
        ),
    ],
)
def test_three_updates_are_those_of_the_reference(name, changes):
    algorithm = make(name, **changes)
    with jax.enable_x64(True):  # in double precision, so that no tolerance hides a mistake
        state = doubled(used(algorithm))
        expected = reference.start(state)
        for k in range(3):
            batch, key = doubled(batch_of(6, seed=k)), jax.random.fold_in(KEY, k)
            state, _ = update(algorithm, state, batch, key, k % algorithm.period == 0)
            expected = reference.step(expected, batch, key, algorithm)
        found = {"theta": state.policy, "theta'": state.target_policy}
        found |= {f"phi{i + 1}": critic(state.critics, i) for i in range(2)}
        found |= {f"phi{i + 1}'": critic(state.target_critics, i) for i in range(2)}
        if name == "td3_c":
            found["nu"] = state.dual
        # the moves are of the order 3e-4; optax takes Adam's powers of beta in single precision
        assert_close(found, {part: expected[part] for part in found}, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", TD3_FAMILY)
def test_policy_moves_in_the_first_of_two_updates_and_critics_and_their_targets_in_both(name):
    algorithm, batch = make(name), batch_of()
    state = used(algorithm)
    for phase, moves in ((0, True), (1, False)):
        new, metrics = update(algorithm, state, batch, KEY, phase == 0)
        for part in ("policy", "target_policy", "policy_optimizer"):
            assert differ(getattr(new, part), getattr(state, part)) == moves
        assert ("policy_loss" in metrics) == moves
        for i in range(2):
            assert differ(critic(new.critics, i), critic(state.critics, i))
            assert differ(critic(new.target_critics, i), critic(state.target_critics, i))


def test_delayed_target_critics_move_with_the_policy_only():
    algorithm, batch = make("td3", delay_target_critic=True), batch_of()
    state = used(algorithm)
    for phase, moves in ((0, True), (1, False)):
        new = critics_after(algorithm, state, batch, phase == 0)
        assert differ(new["critics"], state.critics)
        for i in range(2):
            targets = new["target_critics"], state.target_critics
            assert differ(*(critic(target, i) for target in targets)) == moves


@pytest.mark.parametrize("name", TD3_FAMILY)
def test_the_policy_follows_the_first_critic_from_before_the_update(name):
    batch = batch_of()
    state = used(make(name))
    expected, _ = update(make(name), state, batch, KEY)
    faster, _ = update(make(name, learning_rate=LearningRate(policy=3e-4, critic=1.0)), state, batch, KEY)
    without_twin, _ = update(
        make(name), state.replace(critics=twins(state.critics), target_critics=state.critics), batch, KEY
    )
    for other in (faster, without_twin):
        for part in ("policy", "target_policy", "policy_optimizer"):
            assert_equal(getattr(other, part), getattr(expected, part))


def test_the_critics_learn_from_policy_and_targets_from_before_the_update():
    algorithm, batch = make("td3"), batch_of()
    state = used(algorithm)
    new, _ = update(make("td3", learning_rate=LearningRate(policy=1.0, critic=3e-4)), state, batch, KEY)
    expected, _ = update(algorithm, state, batch, KEY)
    assert_equal(new.critics, expected.critics)


@pytest.mark.parametrize("shared", [True, False])
def test_target_noise_is_one_vector_for_the_batch_or_one_a_sample(shared):
    batch = batch_of()
    same = jnp.broadcast_to(batch.next_observation[:1], batch.next_observation.shape)
    batch = batch._replace(reward=jnp.zeros(8), terminated=jnp.zeros(8, bool), next_observation=same)
    algorithm = make("td3", target_noise_shared_in_batch=shared)
    target = algorithm.td_target(used(algorithm), batch, KEY)
    assert np.allclose(target, target[0], rtol=1e-5) == shared


@pytest.mark.parametrize(("target_noise", "alike"), [(0.2, False), (0.0, True)])
def test_the_two_critics_learn_from_noise_of_their_own(target_noise, alike):
    algorithm, batch = make("td3", target_noise=target_noise), batch_of()
    state = used(algorithm)
    state = state.replace(critics=twins(state.critics), target_critics=twins(state.target_critics))
    new = critics_after(algorithm, state, batch)["critics"]
    assert differ(critic(new, 0), critic(new, 1)) != alike


def test_target_noise_is_clipped_and_so_is_the_action_it_is_added_to():
    algorithm = make("td3", target_noise=1e6, target_noise_clip=1e-7)
    batch, state = batch_of(), used(make("td3"))
    expected = make("td3", target_noise=0.0).td_target(state, batch, KEY)
    np.testing.assert_allclose(algorithm.td_target(state, batch, KEY), expected, rtol=1e-4, atol=1e-6)
    # every entry of the noise is far outside: with the action clipped, its size no longer matters
    huge = [
        make("td3", target_noise=1e6, target_noise_clip=c).td_target(state, batch, KEY) for c in (3.0, 99.0)
    ]
    np.testing.assert_array_equal(*huge)


# Not CQL's, which judges actions for the observation there, whatever it is worth.
@pytest.mark.parametrize("name", [name for name in ALL if name not in ("cql", "cal_ql")])
def test_what_follows_a_termination_changes_nothing(name):
    algorithm = make(name)
    batch = batch_of()._replace(terminated=jnp.ones(8, bool))
    elsewhere = batch._replace(next_observation=batch.next_observation + 1)
    state = used(algorithm)
    one, other, going_on = (
        update(algorithm, state, rows, KEY, due=False)[0].critics
        for rows in (batch, elsewhere, elsewhere._replace(terminated=jnp.zeros(8, bool)))
    )
    assert_equal(one, other)
    assert differ(going_on, one)


def test_with_fujimotos_noise_both_critics_have_one_target_and_with_acmes_each_its_own():
    state = used(make("td3"))
    # Equal critics at equal targets part company by nothing but the noise of their targets.
    state = state.replace(critics=twins(state.critics))
    batch = batch_of()._replace(terminated=jnp.zeros(8, bool))
    for shared in (True, False):
        algorithm = make("td3", target_noise_shared_in_batch=False, target_noise_shared_by_critics=shared)
        new = critics_after(algorithm, state, batch)["critics"]
        assert differ(critic(new, 0), critic(new, 1)) != shared


def policy_gradient(algorithm: Any, state: State, batch: Any) -> Any:
    return jax.grad(lambda p: algorithm.policy_loss(p, state, batch)[0])(state.policy)


def test_the_policy_gradient_is_that_of_minus_the_mean_value():
    algorithm, batch = make("td3"), batch_of()
    state = used(algorithm)

    def minus_value(policy):
        action = algorithm.act(state.replace(policy=policy), batch.observation, KEY, True)
        return -algorithm.value(state, batch.observation, action).mean()

    expected = jax.grad(minus_value)(state.policy)
    assert_close(policy_gradient(algorithm, state, batch), expected, rtol=0, atol=1e-6)
    averaged = policy_gradient(make("td3", dpg_reduce="mean"), state, batch)
    assert_close(averaged, jax.tree.map(lambda g: g / 3, expected), rtol=0, atol=1e-6)


def test_td3_bcs_gradient_is_mean_q_over_alpha_times_fujimotos():
    algorithm, batch = make("td3_bc"), batch_of()
    state = used(algorithm)

    def fujimotos(policy):
        action = algorithm.act(state.replace(policy=policy), batch.observation, KEY, True)
        value = algorithm.value(state, batch.observation, action)
        weight = 2.5 / jax.lax.stop_gradient(jnp.abs(value).mean())
        return -weight * value.mean() + jnp.mean((action - batch.action) ** 2)

    value = algorithm.value(state, batch.observation, algorithm.act(state, batch.observation, KEY, True))
    factor = jnp.abs(value).mean() / 2.5
    expected = jax.tree.map(lambda g: factor * g, jax.grad(fujimotos)(state.policy))
    assert_close(policy_gradient(algorithm, state, batch), expected, rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_by_their_global_norm_only_where_configured():
    # Adam's first step does not feel its gradient's scale, its first moment does.
    batch, norms = batch_of(), {}
    for clip in (None, 1e-3):
        algorithm = make("td3", gradient_norm_clip=clip)
        new, _ = update(algorithm, fresh(algorithm), batch, KEY)
        optimizers = new.policy_optimizer, *(critic(new.critic_optimizers, i) for i in range(2))
        norms[clip] = [float(optax.tree.norm(optax.tree.get(o, "mu"))) for o in optimizers]
    np.testing.assert_allclose(norms[1e-3], [1e-4, 1e-4, 1e-4], rtol=1e-4)
    assert min(norms[None]) > 1e-3


def dual_after_one(algorithm: Any, state: State) -> jax.Array:
    return update(algorithm, state, batch_of(), KEY)[0].dual


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize(("dual", "start"), [("softplus", 1.0), ("exp", 0.0), ("projected", 1.0)])
def test_the_multiplier_grows_if_and_only_if_the_constraint_is_violated(dual, start, optimizer):
    settings = {"dual": dual, "dual_init": start, "dual_optimizer": optimizer}
    state = used(make("td3_c", **settings))
    action = make("td3_c").act(state, batch_of().observation, KEY, True)
    constraint = float(make("td3_c").constraint(action, state, batch_of())[0])
    for epsilon, sign in ((constraint / 2, 1), (constraint * 2, -1)):
        algorithm = make("td3_c", constraint_epsilon=epsilon, **settings)
        change = algorithm.multiplier(dual_after_one(algorithm, state)) - algorithm.multiplier(state.dual)
        assert float(change[0]) * sign > 0


@pytest.mark.parametrize(("dual", "lowest"), [("softplus", -18.0), ("exp", -18.0), ("projected", 0.0)])
def test_the_multiplier_never_falls_below_its_floor(dual, lowest):
    algorithm = make(
        "td3_c",
        dual=dual,
        dual_init=1.0,
        constraint_epsilon=1e6,
        dual_optimizer="sgd",
        dual_learning_rate=1e3,
    )
    new = dual_after_one(algorithm, used(algorithm))
    assert new[0] == lowest
    assert algorithm.multiplier(new)[0] >= 0


@pytest.mark.parametrize(("cadence", "moves"), [("policy", False), ("update", True)])
def test_the_dual_variable_moves_with_the_policy_or_in_every_update(cadence, moves):
    algorithm = make("td3_c", dual_cadence=cadence)
    state = used(algorithm)
    new, _ = update(algorithm, state, batch_of(), KEY, due=False)
    assert differ(new.dual, state.dual) == moves
    assert_equal(new.policy, state.policy)


def test_the_constraint_is_a_mean_a_sum_or_a_vector_over_action_dimensions():
    state = used(make("td3_c"))
    action = make("td3_c").act(state, batch_of().observation, KEY, True)
    found = {
        how: make("td3_c", constraint_reduce=how).constraint(action, state, batch_of())
        for how in ("mean", "sum", "per_dimension")
    }
    assert [value.shape for value in found.values()] == [(1,), (1,), (3,)]
    np.testing.assert_allclose(found["sum"], 3 * found["mean"], rtol=1e-5)
    np.testing.assert_allclose(found["per_dimension"].sum(), found["sum"][0], rtol=1e-5)


def test_td3_c_without_a_constraint_is_td3_with_clipping():
    conservative = make(
        "td3_c", constraint_epsilon=1e6, dual="projected", dual_init=0.0, action_gradient_clip=0.05
    )
    plain = make("td3", action_gradient_clip=0.05)
    start = used(plain)
    states = [algorithm.adopt(start, plain, KEY) for algorithm in (plain, conservative)]
    for k in range(2):
        key = jax.random.fold_in(KEY, k)
        states = [
            update(a, s, batch_of(seed=k), key, k == 0)[0]
            for a, s in zip((plain, conservative), states, strict=True)
        ]
    assert states[1].dual[0] == 0
    assert_close(plain.adopt(states[1], conservative, KEY), states[0])


def test_only_a_configured_clip_changes_the_policy_gradient():
    batch, state = batch_of(), used(make("td3"))
    gradients = [
        policy_gradient(make("td3", action_gradient_clip=clip), state, batch) for clip in (None, 1e6, 0.05)
    ]
    assert_close(gradients[0], gradients[1])
    assert differ(gradients[0], gradients[2])
    shares = [
        float(
            make("td3", action_gradient_clip=clip).policy_loss(state.policy, state, batch)[1]["clipped_share"]
        )
        for clip in (None, 1e6, 1e-6)
    ]
    assert shares == [0, 0, 1]


@pytest.fixture(scope="module")
def pretrained() -> State:
    algorithm = make("td3_bc")
    return update(algorithm, used(algorithm), batch_of(), KEY)[0]


@pytest.mark.parametrize("name", TD3_FAMILY)
def test_finetuning_starts_from_networks_targets_and_moments_of_the_pretraining(name, pretrained):
    adopted = make(name).adopt(pretrained, make("td3_bc"), KEY)
    for part, value in vars(pretrained).items():
        assert_equal(getattr(adopted, part), value)
    assert jax.tree.structure(adopted) == jax.tree.structure(fresh(make(name)))


def test_moments_and_targets_are_reset_on_request_and_networks_never(pretrained):
    algorithm = make("td3")
    adopted = algorithm.adopt(pretrained, algorithm, KEY, reset_optimizers=True)
    initial = fresh(algorithm)
    assert_equal(adopted.policy_optimizer, initial.policy_optimizer)
    assert_equal(adopted.critic_optimizers, initial.critic_optimizers)
    assert_equal(adopted.target_critics, pretrained.target_critics)
    adopted = algorithm.adopt(pretrained, algorithm, KEY, reset_targets=True)
    assert_equal(adopted.target_policy, pretrained.policy)
    assert_equal(adopted.target_critics, pretrained.critics)
    assert_equal(adopted.critic_optimizers, pretrained.critic_optimizers)
    assert_equal(adopted.policy, pretrained.policy)


def test_the_dual_variable_is_fresh_at_the_switch():
    algorithm = make("td3_c", dual_init=3.0)
    state, _ = update(algorithm, used(algorithm), batch_of(), KEY)
    adopted = algorithm.adopt(state, algorithm, KEY)
    assert differ(state.dual, adopted.dual)
    assert_equal(adopted.dual, jnp.full(1, 3.0))
    assert_equal(adopted.dual_optimizer, fresh(algorithm).dual_optimizer)
    other = make("td3_c", constraint_reduce="per_dimension")
    assert other.adopt(state, algorithm, KEY).dual.shape == (3,)


@pytest.mark.parametrize("name", TD3_FAMILY)
def test_targets_start_as_copies_in_memory_of_their_own(name):
    state = fresh(make(name))
    assert_equal(state.policy, state.target_policy)
    assert_equal(state.critics, state.target_critics)
    assert differ(critic(state.critics, 0), critic(state.critics, 1))
    for one in (state, make(name).adopt(state, make(name), KEY, reset_targets=True)):
        places = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(one)]
        assert len(set(places)) == len(places)  # otherwise the state could not be donated


def test_exploration_adds_noise_to_the_policys_action_and_clips():
    state, observation = used(make("td3")), jnp.zeros((4000, 5))
    action, noisy = (make("td3").act(state, observation, KEY, evaluate) for evaluate in (True, False))
    np.testing.assert_allclose((noisy - action).std(), 0.1, rtol=0.05)
    assert jnp.abs(make("td3", exploration_noise=5.0).act(state, observation, KEY, False)).max() == 1


def test_the_diagnosis_is_mean_q_and_root_mean_square_td_error():
    algorithm, batch = make("td3"), batch_of()
    state = used(algorithm)
    found = algorithm.diagnose(state, batch, KEY)
    value = algorithm.value(state, batch.observation, batch.action)
    error = value - algorithm.td_target(state, batch, KEY)
    np.testing.assert_allclose(found["q_mean"], np.mean(value), rtol=1e-5)
    np.testing.assert_allclose(found["td_error"], np.sqrt(np.mean(np.square(error))), rtol=1e-5)


def test_sacs_temperature_falls_while_there_is_more_entropy_than_wanted():
    for wanted, falls in ((-100.0, True), (100.0, False)):
        algorithm = make("sac", target_entropy_per_dim=wanted)
        state = used(algorithm)
        new, _ = update(algorithm, state, batch_of(), KEY)
        assert (new.log_temperature < state.log_temperature) == falls


def test_sac_goes_on_from_its_own_state_and_resets_what_is_asked_for():
    algorithm = make("sac")
    state, _ = update(algorithm, used(algorithm), batch_of(), KEY)
    assert_equal(algorithm.adopt(state, algorithm, KEY), state)
    adopted = algorithm.adopt(state, algorithm, KEY, reset_optimizers=True, reset_targets=True)
    assert_equal(adopted.target_critics, state.critics)
    assert_equal(adopted.temperature_optimizer, fresh(algorithm).temperature_optimizer)
    assert_equal(adopted.log_temperature, state.log_temperature)


@pytest.mark.parametrize(
    ("name", "source", "taken"),
    [
        ("td3_c", "td3_bc", True),
        ("frozen", "td3", True),
        ("sac", "sac", True),
        ("td3", "sac", False),
        ("sac", "td3_bc", False),
    ],
)
def test_an_algorithm_says_whose_states_it_adopts(name, source, taken):
    assert make(name).adopts(make(source)) == taken


# They share what takes them one after the other; of the rest two compile fast enough.
@pytest.mark.parametrize(
    "name", [name if name in ("td3", "sac") else pytest.param(name, marks=pytest.mark.slow) for name in ALL]
)
def test_several_updates_of_a_step_are_taken_one_after_the_other(name):
    algorithm, batches = make(name), [batch_of(seed=k) for k in range(3)]
    due, keys = (False, True, False), jax.random.split(KEY, 3)
    state = expected = used(algorithm)
    reports = []
    for batch, key, is_due in zip(batches, keys, due, strict=True):
        expected, metrics = update(algorithm, expected, batch, key, is_due)
        reports.append(metrics)
    found, metrics = algorithm.update(state, batches_of(*batches), KEY, due)
    assert_equal(found, expected)
    np.testing.assert_allclose(
        metrics["critic_loss"], np.mean([report["critic_loss"] for report in reports]), rtol=1e-6
    )
    assert metrics["policy_loss"] == reports[1]["policy_loss"]


@pytest.mark.parametrize("name", ALL)
def test_whatever_is_reported_was_declared(name):
    algorithm = make(name)
    state = fresh(algorithm)
    _, metrics = jax.eval_shape(lambda s, b: update(algorithm, s, b, KEY), state, batch_of())
    assert set(metrics) == set(algorithm.metrics)


@pytest.mark.parametrize("name", ALL)
def test_an_update_keeps_the_states_structure_types_and_shapes(name):
    algorithm = make(name)
    state = fresh(algorithm)
    for phase in range(algorithm.period):
        new, _ = jax.eval_shape(
            lambda s, b, due=phase == 0: update(algorithm, s, b, KEY, due), state, batch_of()
        )
        assert jax.tree.structure(new) == jax.tree.structure(state)
        for one, other in zip(jax.tree.leaves(new), jax.tree.leaves(state), strict=True):
            assert (one.shape, one.dtype, one.weak_type) == (other.shape, other.dtype, other.weak_type)
