"""A toy algorithm with a state, a network and metrics of its own, through both phases, as the protocol promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_training import NO_ROWS, REPLAY, Clockwork, offline_rows

from o2o.training import contract, loop
from o2o.training.seeds import Members
from o2o.training.steps import Learner
from o2o.types import NO_FACTS


@dataclass(frozen=True)
class Toy:
    """Counts what it is asked to do. It has neither a value nor a diagnosis."""

    gain: float = 0.5
    period: ClassVar = 2
    metrics: ClassVar = {"due": "how much was due in a step", "alike": "share of rows that two batches share"}

    def init(self, key: Any, example: Any, facts: Any) -> Any:
        sizes = example.observation.shape[-1], example.action.shape[-1]
        return {"network": jax.random.normal(key, sizes), "updates": jnp.zeros(()), "due": jnp.zeros(())}

    def adopts(self, source: Any) -> bool:
        return isinstance(source, Toy)

    def adopt(
        self, pretrained: Any, source: Any, key: Any, reset_optimizers=False, reset_targets=False
    ) -> Any:
        return pretrained

    def act(self, state: Any, observation: Any, key: Any, evaluate: bool) -> Any:
        return jnp.tanh(self.gain * observation @ state["network"])

    def update(self, state: Any, batches: Any, key: Any, due: Any) -> Any:
        new = state | {"updates": state["updates"] + len(due), "due": state["due"] + sum(due)}
        metrics = {"due": jnp.asarray(float(sum(due)))}
        if len(due) > 1:
            metrics["alike"] = jnp.mean(batches.index[0] == batches.index[1])
        return new, metrics


def test_it_keeps_the_protocol():
    assert contract.problems(Toy(), REPLAY) == ()


@pytest.mark.parametrize("members", [Members(1), Members(2), Members(2, together=True)], ids=str)
def test_it_learns_in_both_phases_with_all_that_is_due_and_batches_of_their_own(members):
    seeds = range(members.count)
    keys = members.bundle([jax.random.key(seed) for seed in seeds])
    state = members.bundle([Toy().init(jax.random.key(seed), REPLAY.example(), NO_FACTS) for seed in seeds])
    (pretrained,) = loop.pretrain(Learner(Toy(), REPLAY), members, state, offline_rows(), keys, [5])
    for own, metrics in zip(members.values(pretrained.state), pretrained.metrics, strict=True):
        assert (float(own["updates"]), float(own["due"])) == (5, 3)
        assert metrics == {"due": 3 / 5}  # what is never reported has no mean
    environments = [Clockwork(own) for own in members.groups(seeds)]
    learner = Learner(Toy(), REPLAY, updates_per_step=3, warmup_steps=10)
    (report,) = loop.finetune(
        learner, members, environments, pretrained.state, NO_ROWS, keys, [14], updates_before=5
    )
    assert report.updates == 12
    for own, metrics in zip(members.values(report.state), report.metrics, strict=True):
        # Of the updates 5 to 16 those with an even number are due.
        assert (float(own["updates"]), float(own["due"])) == (17, 3 + 6)
        assert metrics["due"] == 6 / 4
        assert metrics["alike"] < 0.5  # chance makes it a tenth
    observation = np.stack([environment.observation() for environment in environments]).reshape(-1, 3)
    states = members.values(report.state)
    actions = [np.tanh(0.5 * o @ own["network"]) for o, own in zip(observation, states, strict=True)]
    np.testing.assert_allclose(report.actions, actions, rtol=1e-5)
