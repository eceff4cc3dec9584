"""TD3, TD3-BC and TD3-C against the reference in reference.py, and rule by rule."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from small import assert_close, assert_equal, batch_of, differ, fresh, make, used

from o2o.types import LearningRate, State, update

KEY = jax.random.key(7)
TD3_FAMILY = ("td3", "td3_bc", "td3_c")
ALL = (*TD3_FAMILY, "sac")


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
            state, _ = update(algorithm, state, batch, key, k % algorithm.period)
            expected = reference.step(expected, batch, key, algorithm)
        actor, critics = state.actor, state.critics
        found = {"theta": actor.policy, "theta'": actor.target_policy}
        found |= {f"phi{i + 1}": critics.critics[i] for i in range(2)}
        found |= {f"phi{i + 1}'": critics.target_critics[i] for i in range(2)}
        if name == "td3_c":
            found["nu"] = actor.dual
        # the moves are of the order 3e-4; optax takes Adam's powers of beta in single precision
        assert_close(found, {part: expected[part] for part in found}, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", TD3_FAMILY)
def test_policy_moves_in_the_first_of_two_updates_and_critics_and_their_targets_in_both(name):
    algorithm, batch = make(name), batch_of()
    state = used(algorithm)
    for phase, moves in ((0, True), (1, False)):
        new, metrics = update(algorithm, state, batch, KEY, phase)
        assert differ(new.actor, state.actor) == moves
        assert differ(new.actor.target_policy, state.actor.target_policy) == moves
        assert ("policy_loss" in metrics) == moves
        for i in range(2):
            assert differ(new.critics.critics[i], state.critics.critics[i])
            assert differ(new.critics.target_critics[i], state.critics.target_critics[i])


def test_delayed_target_critics_move_with_the_policy_only():
    algorithm, batch = make("td3", delay_target_critic=True), batch_of()
    state = used(algorithm)
    for phase, moves in ((0, True), (1, False)):
        new, _ = algorithm.update_critic(state, batch, KEY, phase)
        assert differ(new.critics, state.critics.critics)
        for i in range(2):
            assert differ(new.target_critics[i], state.critics.target_critics[i]) == moves


@pytest.mark.parametrize("name", TD3_FAMILY)
def test_the_policy_follows_the_first_critic_from_before_the_update(name):
    batch = batch_of()
    state = used(make(name))
    expected, _ = update(make(name), state, batch, KEY, 0)
    faster, _ = update(make(name, learning_rate=LearningRate(policy=3e-4, critic=1.0)), state, batch, KEY, 0)
    assert_equal(faster.actor, expected.actor)
    own = state.critics.replace(
        critics=(state.critics.critics[0], state.critics.critics[0]), target_critics=state.critics.critics
    )
    without_twin, _ = update(make(name), State(state.actor, own), batch, KEY, 0)
    assert_equal(without_twin.actor, expected.actor)


def test_the_critics_learn_from_policy_and_targets_from_before_the_update():
    algorithm, batch = make("td3"), batch_of()
    state = used(algorithm)
    new, _ = update(make("td3", learning_rate=LearningRate(policy=1.0, critic=3e-4)), state, batch, KEY, 0)
    expected, _ = update(algorithm, state, batch, KEY, 0)
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
    critics = used(algorithm).critics
    twins = critics.replace(
        critics=(critics.critics[0],) * 2, target_critics=(critics.target_critics[0],) * 2
    )
    new, _ = algorithm.update_critic(State(used(algorithm).actor, twins), batch, KEY, 0)
    assert differ(*new.critics) != alike


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


@pytest.mark.parametrize("name", ALL)
def test_what_follows_a_termination_changes_nothing(name):
    algorithm = make(name)
    batch = batch_of()._replace(terminated=jnp.ones(8, bool))
    elsewhere = batch._replace(next_observation=batch.next_observation + 1)
    state = used(algorithm)
    one, _ = algorithm.update_critic(state, batch, KEY, 0)
    other, _ = algorithm.update_critic(state, elsewhere, KEY, 0)
    assert_equal(one, other)
    going_on = elsewhere._replace(terminated=jnp.zeros(8, bool))
    assert differ(algorithm.update_critic(state, going_on, KEY, 0)[0], one)


def test_with_fujimotos_noise_both_critics_have_one_target_and_with_acmes_each_its_own():
    state = used(make("td3"))
    (phi, _), (target, other) = state.critics.critics, state.critics.target_critics
    # Equal critics at equal targets part company by nothing but the noise of their targets.
    twins = state.critics.replace(critics=(phi, phi), target_critics=(target, other))
    state = State(state.actor, twins)
    batch = batch_of()._replace(terminated=jnp.zeros(8, bool))
    for shared in (True, False):
        algorithm = make("td3", target_noise_shared_in_batch=False, target_noise_shared_by_critics=shared)
        first, second = algorithm.update_critic(state, batch, KEY, 0)[0].critics
        assert differ(first, second) != shared


def policy_gradient(algorithm: Any, state: State, batch: Any) -> Any:
    return jax.grad(lambda p: algorithm.policy_loss(p, state, batch)[0])(state.actor.policy)


def test_the_policy_gradient_is_that_of_minus_the_mean_value():
    algorithm, batch = make("td3"), batch_of()
    state = used(algorithm)

    def minus_value(policy):
        action = algorithm.act(State(state.actor.replace(policy=policy), state.critics), batch.observation)
        return -algorithm.value(state, batch.observation, action).mean()

    expected = jax.grad(minus_value)(state.actor.policy)
    assert_close(policy_gradient(algorithm, state, batch), expected, rtol=0, atol=1e-6)
    averaged = policy_gradient(make("td3", dpg_reduce="mean"), state, batch)
    assert_close(averaged, jax.tree.map(lambda g: g / 3, expected), rtol=0, atol=1e-6)


def test_td3_bcs_gradient_is_mean_q_over_alpha_times_fujimotos():
    algorithm, batch = make("td3_bc"), batch_of()
    state = used(algorithm)

    def fujimotos(policy):
        action = algorithm.act(State(state.actor.replace(policy=policy), state.critics), batch.observation)
        value = algorithm.value(state, batch.observation, action)
        weight = 2.5 / jax.lax.stop_gradient(jnp.abs(value).mean())
        return -weight * value.mean() + jnp.mean((action - batch.action) ** 2)

    value = algorithm.value(state, batch.observation, algorithm.act(state, batch.observation))
    factor = jnp.abs(value).mean() / 2.5
    expected = jax.tree.map(lambda g: factor * g, jax.grad(fujimotos)(state.actor.policy))
    assert_close(policy_gradient(algorithm, state, batch), expected, rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped_by_their_global_norm_only_where_configured():
    # Adam's first step does not feel its gradient's scale, its first moment does.
    batch, norms = batch_of(), {}
    for clip in (None, 1e-3):
        algorithm = make("td3", gradient_norm_clip=clip)
        new, _ = update(algorithm, fresh(algorithm), batch, KEY, 0)
        optimizers = (new.actor.optimizer, *new.critics.optimizers)
        norms[clip] = [float(optax.tree.norm(optax.tree.get(o, "mu"))) for o in optimizers]
    np.testing.assert_allclose(norms[1e-3], [1e-4, 1e-4, 1e-4], rtol=1e-4)
    assert min(norms[None]) > 1e-3


def dual_after_one(algorithm: Any, state: State, phase: int = 0) -> jax.Array:
    return algorithm.update_policy(state, batch_of(), KEY, phase)[0].dual


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize(("dual", "start"), [("softplus", 1.0), ("exp", 0.0), ("projected", 1.0)])
def test_the_multiplier_grows_if_and_only_if_the_constraint_is_violated(dual, start, optimizer):
    settings = {"dual": dual, "dual_init": start, "dual_optimizer": optimizer}
    state = used(make("td3_c", **settings))
    action = make("td3_c").act(state, batch_of().observation)
    constraint = float(make("td3_c").constraint(action, state, batch_of())[0])
    for epsilon, sign in ((constraint / 2, 1), (constraint * 2, -1)):
        algorithm = make("td3_c", constraint_epsilon=epsilon, **settings)
        change = algorithm.multiplier(dual_after_one(algorithm, state)) - algorithm.multiplier(
            state.actor.dual
        )
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
    new, _ = algorithm.update_policy(state, batch_of(), KEY, 1)
    assert differ(new.dual, state.actor.dual) == moves
    assert_equal(new.policy, state.actor.policy)


def test_the_constraint_is_a_mean_a_sum_or_a_vector_over_action_dimensions():
    state = used(make("td3_c"))
    action = make("td3_c").act(state, batch_of().observation)
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
    states = [plain.adopt(start), conservative.adopt(start)]
    for k in range(2):
        key = jax.random.fold_in(KEY, k)
        states = [
            update(a, s, batch_of(seed=k), key, k)[0]
            for a, s in zip((plain, conservative), states, strict=True)
        ]
    assert states[1].actor.dual[0] == 0
    assert_close(plain.adopt(states[1]), states[0])


def test_only_a_configured_clip_changes_the_policy_gradient():
    batch, state = batch_of(), used(make("td3"))
    gradients = [
        policy_gradient(make("td3", action_gradient_clip=clip), state, batch) for clip in (None, 1e6, 0.05)
    ]
    assert_close(gradients[0], gradients[1])
    assert differ(gradients[0], gradients[2])
    shares = [
        float(
            make("td3", action_gradient_clip=clip).policy_loss(state.actor.policy, state, batch)[1][
                "clipped_share"
            ]
        )
        for clip in (None, 1e6, 1e-6)
    ]
    assert shares == [0, 0, 1]


@pytest.fixture(scope="module")
def pretrained() -> State:
    algorithm = make("td3_bc")
    return update(algorithm, used(algorithm), batch_of(), KEY, 0)[0]


@pytest.mark.parametrize("name", TD3_FAMILY)
def test_finetuning_starts_from_networks_targets_and_moments_of_the_pretraining(name, pretrained):
    adopted = make(name).adopt(pretrained)
    assert_equal(adopted.critics, pretrained.critics)
    for part in ("policy", "target_policy", "optimizer"):
        assert_equal(getattr(adopted.actor, part), getattr(pretrained.actor, part))
    assert jax.tree.structure(adopted) == jax.tree.structure(fresh(make(name)))


def test_moments_and_targets_are_reset_on_request_and_networks_never(pretrained):
    algorithm = make("td3")
    adopted = algorithm.adopt(pretrained, reset_optimizers=True)
    initial = fresh(algorithm)
    assert_equal(adopted.actor.optimizer, initial.actor.optimizer)
    assert_equal(adopted.critics.optimizers, initial.critics.optimizers)
    assert_equal(adopted.critics.target_critics, pretrained.critics.target_critics)
    adopted = algorithm.adopt(pretrained, reset_targets=True)
    assert_equal(adopted.actor.target_policy, pretrained.actor.policy)
    assert_equal(adopted.critics.target_critics, pretrained.critics.critics)
    assert_equal(adopted.critics.optimizers, pretrained.critics.optimizers)
    assert_equal(adopted.actor.policy, pretrained.actor.policy)


def test_the_dual_variable_is_fresh_at_the_switch():
    algorithm = make("td3_c", dual_init=3.0)
    state, _ = update(algorithm, used(algorithm), batch_of(), KEY, 0)
    adopted = algorithm.adopt(state)
    assert differ(state.actor.dual, adopted.actor.dual)
    assert_equal(adopted.actor.dual, jnp.full(1, 3.0))
    assert_equal(adopted.actor.dual_optimizer, fresh(algorithm).actor.dual_optimizer)
    assert make("td3_c", constraint_reduce="per_dimension").adopt(state).actor.dual.shape == (3,)


@pytest.mark.parametrize("name", TD3_FAMILY)
def test_targets_start_as_copies_in_memory_of_their_own(name):
    state = fresh(make(name))
    assert_equal(state.actor.policy, state.actor.target_policy)
    assert_equal(state.critics.critics, state.critics.target_critics)
    assert differ(*state.critics.critics)
    for one in (state, make(name).adopt(state, reset_targets=True)):
        places = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(one)]
        assert len(set(places)) == len(places)  # otherwise the state could not be donated


def test_exploration_adds_noise_to_the_policys_action_and_clips():
    state, observation = used(make("td3")), jnp.zeros((4000, 5))
    action = make("td3").act(state, observation)
    noisy = make("td3").explore(state, observation, KEY)
    np.testing.assert_allclose((noisy - action).std(), 0.1, rtol=0.05)
    assert jnp.abs(make("td3", exploration_noise=5.0).explore(state, observation, KEY)).max() == 1


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
        new, _ = algorithm.update_policy(state, batch_of(), KEY, 0)
        assert (new.log_temperature < state.actor.log_temperature) == falls


def test_sac_refuses_to_finetune_another_familys_state():
    with pytest.raises(NotImplementedError, match="SAC"):
        make("sac").adopt(fresh(make("sac")), reset_targets=True)


@pytest.mark.parametrize("name", ALL)
def test_an_update_keeps_the_states_structure_types_and_shapes(name):
    algorithm = make(name)
    state = fresh(algorithm)
    for phase in range(algorithm.period):
        new, _ = update(algorithm, state, batch_of(), KEY, phase)
        assert jax.tree.structure(new) == jax.tree.structure(state)
        for one, other in zip(jax.tree.leaves(new), jax.tree.leaves(state), strict=True):
            assert (one.shape, one.dtype, one.weak_type) == (other.shape, other.dtype, other.weak_type)
