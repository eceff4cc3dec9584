"""The equations, as pure functions of arrays, and the pieces that updates are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax.lax import stop_gradient
from jaxtyping import Array, Bool, Float, Key

from o2o.types import Batch, Metrics, Parameters, State, Transition

UNROLLED = 4
"""The most repetitions of a step's updates that are written out, which is faster than a loop and compiles slower."""


def td_target(
    reward: Float[Array, " B"], terminated: Bool[Array, " B"], next_value: Float[Array, " B"], discount: float
) -> Float[Array, " B"]:
    """Returns the one-step bootstrap target r + γ (1 - terminated) V(s'). No gradient flows through it (Eq. 1)."""
    _refuse_other_shapes(reward=reward, next_value=next_value)
    return stop_gradient(reward + discount * jnp.where(terminated, 0.0, next_value))


def td_loss(value: Float[Array, " B"], target: Float[Array, " B"]) -> Float[Array, ""]:
    """Returns the mean squared Bellman error, without a factor of one half (Eq. 1)."""
    _refuse_other_shapes(value=value, target=target)
    return jnp.mean(jnp.square(target - value))


def value_and_action_gradient(
    critic: Callable[[Float[Array, "B A"]], Float[Array, " B"]], action: Float[Array, "B A"]
) -> tuple[Float[Array, " B"], Float[Array, "B A"]]:
    """Returns Q(s, a) and ∂Q/∂a of every sample at `action`; no gradient flows through either."""
    value, pullback = jax.vjp(critic, stop_gradient(action))
    (gradient,) = pullback(jnp.ones_like(value))
    return stop_gradient(value), stop_gradient(gradient)


def clip_by_norm(gradient: Float[Array, "B A"], max_norm: float) -> Float[Array, "B A"]:
    """Returns each sample's vector, shortened to an L2 norm of at most `max_norm`.

    The paper clips in TD3-C (Appendix B) and gives no number; Acme's DDPG has 1.0.
    """
    norm = jnp.linalg.norm(gradient, axis=-1, keepdims=True)
    return gradient * (max_norm / jnp.maximum(norm, max_norm))


def dpg_loss(
    action: Float[Array, "B A"], action_gradient: Float[Array, "B A"], reduce: Literal["sum", "mean"]
) -> Float[Array, ""]:
    """Returns the deterministic policy gradient's surrogate: its gradient is that of -mean Q(s, π(s)) (Eq. 2).

    `reduce` runs over the action's dimensions. "mean" divides the gradient by their number, as stock Acme does.
    """
    reduced = jnp.sum if reduce == "sum" else jnp.mean
    return -jnp.mean(reduced(stop_gradient(action_gradient) * action, axis=-1))


def behavior_cloning_loss(
    action: Float[Array, "B A"], dataset_action: Float[Array, "B A"]
) -> Float[Array, ""]:
    """Returns the mean over batch and action dimensions of (a - π(s))² (Eq. 3)."""
    return jnp.mean(jnp.square(action - dataset_action))


def dual_loss(
    multiplier: Float[Array, " K"], constraint: Float[Array, " K"], epsilon: float
) -> Float[Array, ""]:
    """Returns λ (ε - c), to be minimised over λ: λ grows while c > ε (Eq. 5, with the sign of Eq. 4's Lagrangian)."""
    return jnp.sum(multiplier * (epsilon - stop_gradient(constraint)))


def expectile_loss(error: Float[Array, " B"], expectile: float) -> Float[Array, ""]:
    """Returns the mean of |τ - 1(u < 0)| u²: at τ = 0.5 half the mean square (IQL, Eq. 5)."""
    return jnp.mean(jnp.where(error > 0, expectile, 1 - expectile) * jnp.square(error))


def gaussian_log_density(
    action: Float[Array, "B A"], mean: Float[Array, "B A"], std: Float[Array, "B A"]
) -> Float[Array, " B"]:
    """Returns log N(a; μ, σ²) of independent dimensions."""
    return jnp.sum(
        -0.5 * jnp.square((action - mean) / std) - jnp.log(std) - 0.5 * jnp.log(2 * jnp.pi), axis=-1
    )


def tanh_gaussian(
    mean: Float[Array, "*B A"], log_std: Float[Array, "*B A"], noise: Float[Array, "*B A"]
) -> tuple[Float[Array, "*B A"], Float[Array, "*B"]]:
    """Returns the action tanh(mean + std · noise) and its log density."""
    raw = mean + jnp.exp(log_std) * noise
    log_normal = -0.5 * jnp.square(noise) - log_std - 0.5 * jnp.log(2 * jnp.pi)
    # log(1 - tanh²(x)) in a form that is exact at large |x|
    log_slope = 2 * (jnp.log(2.0) - raw - jax.nn.softplus(-2 * raw))
    return jnp.tanh(raw), jnp.sum(log_normal - log_slope, axis=-1)


def moved_towards(old: Parameters, new: Parameters, step: float) -> Parameters:
    """Returns a tree moved from `old` towards `new` by the share `step`: Polyak averaging."""
    return jax.tree.map(lambda o, n: (1 - step) * o + step * n, old, new)


def in_turn(
    update: Callable[[State, Transition, Key[Array, ""], bool], tuple[State, Metrics]],
    state: State,
    batches: Batch,
    key: Key[Array, ""],
    due: Sequence[bool],
) -> tuple[State, Metrics]:
    """Returns the state after one update a batch, each from the state that the one before left, and mean metrics.

    `key` is used as it is where there is one batch, and split where there are several. Many are a loop on the device.
    """
    keys = key[None] if len(due) == 1 else jax.random.split(key, len(due))
    cycle = _cycle(due)
    if len(due) // cycle > UNROLLED:

        def one_cycle(
            state: State, inputs: tuple[Transition, Key[Array, " C"]]
        ) -> tuple[State, list[Metrics]]:
            return _unrolled(update, state, *inputs, due[:cycle])

        cycles = jax.tree.map(
            lambda column: column.reshape(-1, cycle, *column.shape[1:]), (batches.data, keys)
        )
        state, reports = jax.lax.scan(one_cycle, state, cycles)
        reports = jax.tree.map(lambda metric: metric.mean(axis=0), reports)
    else:
        state, reports = _unrolled(update, state, batches.data, keys, due)
    names = dict.fromkeys(name for report in reports for name in report)
    by_name: dict[str, list[Any]] = {name: [r[name] for r in reports if name in r] for name in names}
    return state, {name: sum(values) / len(values) for name, values in by_name.items()}


def _unrolled(
    update: Callable[..., tuple[State, Metrics]],
    state: State,
    batches: Transition,
    keys: Key[Array, " U"],
    due: Sequence[bool],
) -> tuple[State, list[Metrics]]:
    reports: list[Metrics] = []
    for i, is_due in enumerate(due):
        batch = jax.tree.map(lambda column, i=i: column[i], batches)
        state, metrics = update(state, batch, keys[i], is_due)
        reports.append(metrics)
    return state, reports


def _cycle(due: Sequence[bool]) -> int:
    """Returns the length of the shortest pattern that `due` repeats."""
    lengths = (length for length in range(1, len(due)) if len(due) % length == 0)
    return next((n for n in lengths if due[n:] == due[:-n]), len(due))


def each(function: Callable[..., Any], *stacked: Any) -> Any:
    """Returns a function's results for every member of an ensemble, stacked; axis 0 of all arrays is the ensemble.

    Together where that is faster, one after the other where it is not: two critics on a CPU.
    """
    size = jax.tree.leaves(stacked)[0].shape[0]
    if jax.default_backend() != "cpu" or size > 2:
        return jax.vmap(function)(*stacked)
    results = [function(*jax.tree.map(lambda leaf, i=i: leaf[i], stacked)) for i in range(size)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)


def critics_moved(
    value: Callable[..., Float[Array, " B"]],
    state: State,
    batch: Transition,
    targets: Float[Array, "*E B"],
    optimizer: optax.GradientTransformation,
    target_step: float,
    penalty: Callable[[Parameters], Float[Array, ""]] | None = None,
) -> tuple[dict[str, Any], Metrics]:
    """Returns new critics, their targets and their optimisers, and metrics.

    Each critic takes one step of the optimiser on its squared error to its target, or to the one all share, and its
    target network moves towards it.

    Args:
        value: Q(s, a) of one critic's parameters, an observation and an action.
        state: its `critics`, `target_critics` and `critic_optimizers` are stacked.
        batch: what is learned from.
        targets: one row for all critics, or one each.
        optimizer: of one critic.
        target_step: how far a target network moves towards its critic.
        penalty: of one critic's parameters, what is added to its loss; the metric is the TD error alone.
    """
    number = jax.tree.leaves(state.critics)[0].shape[0]

    def loss(critic: Parameters, target: Float[Array, " B"]) -> tuple[Float[Array, ""], Any]:
        q = value(critic, batch.observation, batch.action)
        error = td_loss(q, target)
        more = penalty(critic) if penalty else jnp.zeros(())
        return error + more, (error, q.mean(), more)

    own_targets = jnp.broadcast_to(targets, (number, *batch.reward.shape))
    gradients, (errors, means, penalties) = each(jax.grad(loss, has_aux=True), state.critics, own_targets)
    updates, optimizers = jax.vmap(optimizer.update)(gradients, state.critic_optimizers)
    critics = optax.apply_updates(state.critics, updates)
    target_critics = moved_towards(state.target_critics, critics, target_step)
    new = {"critics": critics, "target_critics": target_critics, "critic_optimizers": optimizers}
    metrics = {"critic_loss": errors.mean(), "q_mean": means[0]}
    return new, metrics | ({"penalty": penalties.mean()} if penalty else {})


def _refuse_other_shapes(**arrays: Array) -> None:
    """Refuses what would be broadcast: (B,) with (B, 1) is (B, B), which learns something else without a word."""
    if len({array.shape for array in arrays.values()}) > 1:
        told = " and ".join(f"{name} of shape {array.shape}" for name, array in arrays.items())
        raise ValueError(f"{told} do not fit: one value for each row is wanted")
