"""The protocol of a run in words, from the settings that its identity.json holds."""

from __future__ import annotations

import pytest
from composing import composed

from o2o.config.build import build
from o2o.runs.directory.protocol import protocol, updates_per_step
from o2o.runs.identity import describe


def settings(*words: str) -> dict[str, object]:
    return describe(build(composed(*words)))["settings"]


@pytest.mark.parametrize(
    ("words", "item", "said"),
    [
        ("method=td3_c", "updates per env step", "1, policy 0.5"),
        ("method=iql", "updates per env step", "1"),
        ("method=rlpd", "updates per env step", "20, policy 1"),
        ("method=wsrl", "updates per env step", "4, policy 1"),
        ("method=frozen", "updates per env step", "0"),
        (
            "algorithm=sac algorithm@pretrain.algorithm=sac finetune.first_updates_multiplier=10",
            "updates per env step",
            "1; × 10 in the first 1000 that learn",
        ),
        ("method=rlpd", "pretraining", "none"),
        ("method=rlpd", "carried over", "nothing"),
        ("method=rlpd", "batch", "256, 50 % offline rows exactly"),
        ("method=wsrl", "replay", "begins empty, keeps the last 1000000 rows"),
        ("method=iql", "rewards", "× 1000 / range of the data's returns, offline and online"),
        (
            "finetune.reset=[critics] finetune.reset_targets=true",
            "carried over",
            "but critics, targets, copied",
        ),
        ("finetune.critic_only_steps=500", "first steps", "the policy stands in the first 500, no updates"),
        (
            "offline_ratio.value=1 offline_ratio.last=0.25 offline_ratio.steps=9000",
            "batch",
            "100 % offline rows exactly, 25 % after 9000 steps",
        ),
        ("finetune.learning_rate.policy=1e-5 finetune.batch_size=512", "batch", "512, each row"),
        (
            "finetune.learning_rate.policy=1e-5",
            "learning rates",
            "constant, policy 1e-05 (offline 0.0003), critic",
        ),
        ("pretrain.updates=0 replay_init=empty", "data", "none"),
        ("dataset=regen-hopper-medium", "data", "regen-hopper-medium, by policies of sha256 "),
    ],
)
def test_each_item_says_what_the_run_does(words, item, said):
    assert said in protocol(settings(*words.split()))[item]


def test_a_run_without_the_keys_that_were_added_does_what_was_done_before():
    found = settings("method=td3")
    old = {key: value for key, value in found.items() if not key.startswith("finetune.first")}
    assert protocol(old) == protocol(found)
    assert updates_per_step(old) == "1, policy 0.5"
