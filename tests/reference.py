"""TD3, TD3-BC and TD3-C written out once more, from the paper's equations, one update after the other.

It shares nothing with the code but the names of parameters and the keys of the noise: the policy descends -mean Q
itself where the code has a surrogate, and networks, Adam and averages are spelled out.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Tree = Any
each = jax.tree.map


def network(p: Tree, x: jax.Array) -> jax.Array:
    """The output for one input, without an activation."""
    x = x @ p["hidden_0"]["kernel"] + p["hidden_0"]["bias"]
    x = (x - x.mean()) / jnp.sqrt(x.var() + 1e-5)
    x = jnp.tanh(x * p["norm"]["scale"] + p["norm"]["bias"])
    x = x @ p["hidden_1"]["kernel"] + p["hidden_1"]["bias"]
    x = jnp.where(x > 0, x, jnp.exp(jnp.minimum(x, 0)) - 1)
    return x @ p["output"]["kernel"] + p["output"]["bias"]


def pi(p: Tree, s: jax.Array) -> jax.Array:
    """One action."""
    return jnp.tanh(network(p, s))


def q(p: Tree, s: jax.Array, a: jax.Array) -> jax.Array:
    """One value."""
    return network(p, jnp.concatenate([s, a]))[0]


def start(state: Any) -> dict[str, Any]:
    """The reference's state from the code's, with Adam at its start."""
    learned = {
        "theta": state.policy,
        "phi1": each(lambda leaf: leaf[0], state.critics),
        "phi2": each(lambda leaf: leaf[1], state.critics),
    }
    if hasattr(state, "dual"):
        learned["nu"] = state.dual
    zeros = {name: each(jnp.zeros_like, tree) for name, tree in learned.items()}
    return learned | {
        "theta'": state.target_policy,
        "phi1'": each(lambda leaf: leaf[0], state.target_critics),
        "phi2'": each(lambda leaf: leaf[1], state.target_critics),
        "adam": {name: (0, zero, zero) for name, zero in zeros.items()},
        "k": 0,
    }


def step(s: dict[str, Any], batch: Any, key: jax.Array, x: Any) -> dict[str, Any]:
    """One update with the hyperparameters of `x`."""
    new = s | {"adam": dict(s["adam"]), "k": s["k"] + 1}
    due = s["k"] % x.policy_delay == 0
    critic_step(new, s, batch, key, x, moves_targets=due or not x.delay_target_critic)
    if due:
        adam(new, "theta", jax.grad(policy_loss)(s["theta"], s, batch, x), x.learning_rate.policy, x)
        new["theta'"] = average(s["theta'"], new["theta"], x)
    if "nu" in s and (due or x.dual_cadence == "update"):
        dual_step(new, s, batch, x)
    return new


def critic_step(
    new: dict[str, Any], s: dict[str, Any], batch: Any, key: jax.Array, x: Any, moves_targets: bool
) -> None:
    """Both critics; targets and policy are those of `s`."""
    size, actions = batch.action.shape
    first, second = jax.random.split(key)
    for i, own in ((1, first), (2, first if x.target_noise_shared_by_critics else second)):
        if x.target_noise_shared_in_batch:
            n = jnp.stack([jax.random.normal(own, (actions,))] * size)
        else:
            n = jax.random.normal(own, (size, actions))
        n = jnp.clip(x.target_noise * n, -x.target_noise_clip, x.target_noise_clip)
        y = jax.vmap(bellman, (None, 0, 0, None))(s, batch, n, x)

        def loss(phi, y=y):
            return jnp.mean((y - jax.vmap(q, (None, 0, 0))(phi, batch.observation, batch.action)) ** 2)

        adam(new, f"phi{i}", jax.grad(loss)(s[f"phi{i}"]), x.learning_rate.critic, x)
        if moves_targets:
            new[f"phi{i}'"] = average(s[f"phi{i}'"], new[f"phi{i}"], x)


def bellman(s: dict[str, Any], one: Any, noise: jax.Array, x: Any) -> jax.Array:
    """What the value of one transition should be."""
    after = one.next_observation
    a = jnp.clip(pi(s["theta'"], after) + noise, -1, 1)
    bootstrap = jnp.minimum(q(s["phi1'"], after, a), q(s["phi2'"], after, a))
    return one.reward + x.discount * (1 - one.terminated) * bootstrap


def policy_loss(theta: Tree, s: dict[str, Any], batch: Any, x: Any) -> jax.Array:
    """What the policy descends; `s` is from before the update."""
    phi = s["phi1"]
    a = jax.vmap(pi, (None, 0))(theta, batch.observation)
    fixed = jax.lax.stop_gradient(a)
    values = jax.vmap(q, (None, 0, 0))(phi, batch.observation, a)
    slopes = jax.vmap(jax.grad(q, argnums=2), (None, 0, 0))(phi, batch.observation, fixed)
    loss = -values.mean()
    if x.action_gradient_clip is not None:
        norms = jnp.linalg.norm(slopes, axis=1)
        factors = jnp.where(norms > x.action_gradient_clip, x.action_gradient_clip / norms, 1.0)
        loss = -jnp.mean(factors * (slopes * a).sum(axis=1))
    if x.dpg_reduce == "mean":
        loss = loss / a.shape[1]
    if hasattr(x, "behavior_cloning_alpha"):
        scale = jnp.abs(values if x.bc_normaliser == "mean_abs_q" else slopes).mean()
        bc = jnp.mean((a - batch.action) ** 2)
        loss = loss + jax.lax.stop_gradient(scale) / x.behavior_cloning_alpha * bc
    if "nu" in s:
        loss = loss + jnp.sum(multiplier(s["nu"], x) * constraint(a, s, batch, x))
    return loss


def constraint(a: jax.Array, s: dict[str, Any], batch: Any, x: Any) -> jax.Array:
    """The distance to the target policy, as a vector of length 1, or of one a dimension."""
    squares = (a - jax.vmap(pi, (None, 0))(s["theta'"], batch.observation)) ** 2
    match x.constraint_reduce:
        case "mean":
            return squares.mean()[None]
        case "sum":
            return squares.sum(axis=1).mean()[None]
        case _:
            return squares.mean(axis=0)


def multiplier(nu: jax.Array, x: Any) -> jax.Array:
    """Lambda."""
    return {"softplus": jnp.log(1 + jnp.exp(nu)) + 1e-8, "exp": jnp.exp(nu), "projected": nu}[x.dual]


def dual_step(new: dict[str, Any], s: dict[str, Any], batch: Any, x: Any) -> None:
    """Nu, at the policy and target policy of `s`."""
    violation = constraint(jax.vmap(pi, (None, 0))(s["theta"], batch.observation), s, batch, x)
    slope = {
        "softplus": 1 / (1 + jnp.exp(-s["nu"])),
        "exp": jnp.exp(s["nu"]),
        "projected": jnp.ones_like(s["nu"]),
    }[x.dual] * (x.constraint_epsilon - violation)
    if x.dual_optimizer == "sgd":
        new["nu"] = s["nu"] - x.dual_learning_rate * slope
    else:
        adam(new, "nu", slope, x.dual_learning_rate)
    new["nu"] = jnp.maximum(new["nu"], 0 if x.dual == "projected" else -18)


def adam(s: dict[str, Any], name: str, gradient: Tree, rate: float, x: Any = None) -> None:
    """One step of Adam (b1 0.9, b2 0.999, eps 1e-8), after clipping by global norm where `x` has one."""
    if x is not None and x.gradient_norm_clip is not None:
        norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))
        gradient = each(lambda g: g * jnp.minimum(1.0, x.gradient_norm_clip / norm), gradient)
    t, m, v = s["adam"][name]
    t += 1
    m = each(lambda m, g: 0.9 * m + 0.1 * g, m, gradient)
    v = each(lambda v, g: 0.999 * v + 0.001 * g**2, v, gradient)
    s["adam"][name] = (t, m, v)
    s[name] = each(
        lambda p, m, v: p - rate * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8), s[name], m, v
    )


def average(old: Tree, new: Tree, x: Any) -> Tree:
    """A target, moved."""
    return each(lambda o, n: o + x.target_step * (n - o), old, new)
