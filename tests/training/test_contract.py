"""Every registered algorithm keeps the protocol, and what does not is told before anything is computed."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from composing import composed
from small import make

from o2o.algorithms import ALGORITHMS
from o2o.algorithms.bc import BC
from o2o.config.build import build
from o2o.replay.buffer import Replay
from o2o.training import contract
from o2o.types import Facts

REPLAY = Replay(batch_size=8, capacity=30, min_size=6, observation_size=5, action_size=3)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_keeps_the_protocol_with_the_values_of_its_yaml(name):
    tree = composed(
        f"algorithm={name}",
        f"algorithm@pretrain.algorithm={name}",
        "dataset=hopper-medium-v2",
        "network.hidden_sizes=[8,8]",
    )
    algorithm = build(tree).algorithm
    replay = dataclasses.replace(REPLAY, columns=getattr(algorithm, "columns", ()))
    assert contract.problems(algorithm, replay) == ()
    assert contract.adoption_problems(algorithm, algorithm, replay) == ()
    key = jax.random.key(0)
    state = algorithm.init(key, replay.example(), Facts(0.0, 1.0))
    for evaluate in (True, False):
        action = algorithm.act(state, jnp.ones((50, 5)), key, evaluate)
        assert np.abs(action).max() <= 1


def broken(**changes: Any) -> Any:
    """Behaviour cloning with other methods."""
    kind = dataclasses.dataclass(frozen=True)(type("Mine", (BC,), {"__module__": __name__, **changes}))
    return kind(**{field.name: getattr(make("bc"), field.name) for field in dataclasses.fields(BC)})


def reporting(**metrics: Any) -> Any:
    def update(self, state, batches, key, due):
        return BC.update(self, state, batches, key, due)[0], metrics

    return update


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"metrics": {}}, "update reports behavior_cloning, which metrics does not declare"),
        (
            {"metrics": BC.metrics | {"step": "how far it is"}},
            "metrics are called step, which train.jsonl has",
        ),
        ({"metrics": BC.metrics | {"td_error_fresh": "an error"}}, "metrics are called td_error_fresh"),
        (
            {"update": reporting(behavior_cloning=jnp.zeros(3))},
            r"behavior_cloning has the shape \(3,\), not \(\)",
        ),
        (
            {"update": lambda self, state, batches, key, due: state},
            "update returns something else than a state and",
        ),
        (
            {"update": lambda self, state, batches, key, due: ((state, state), {})},
            "update returns a state of another shape than init's",
        ),
        ({"period": 0}, "period is 0: it counts updates"),
        (
            {"act": lambda self, state, observation, key, evaluate: observation},
            r"act, given a batch of observations, has the shape \(8, 5\), not \(8, 3\)",
        ),
        (
            {"value": lambda self, state, observation, action: observation[..., :1]},
            r"value has the shape \(8, 1\)",
        ),
        (
            {"diagnose": lambda self, state, batch, key: {"q": jnp.zeros(())}},
            "diagnose returns q, not q_mean and td_error",
        ),
        ({"adopts": property()}, "has no adopts"),
        ({"columns": ("return",)}, "no dataset has the columns return, only return_to_go, next_action"),
    ],
)
def test_what_does_not_keep_it_is_told_in_a_line(changes, told):
    problem, *_ = contract.problems(broken(**changes), REPLAY)
    assert problem.startswith("Mine")
    assert re.search(told, problem)


def test_a_column_that_another_phases_algorithm_asks_for_in_vain_is_told_too():
    replay = dataclasses.replace(REPLAY, columns=("return",))
    assert contract.problems(make("td3"), replay) == (
        "TD3: no dataset has the columns return, only return_to_go, next_action",
    )


def test_an_adopted_state_must_be_the_algorithms_own():
    mine = broken(adopt=lambda self, pretrained, source, key, reset_optimizers, reset_targets: pretrained[0])
    (problem,) = contract.adoption_problems(mine, make("bc"), REPLAY)
    assert problem == "Mine: adopt returns a state of another shape than init's"
