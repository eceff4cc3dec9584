"""The two phases against loops of single updates, one after the other."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import assert_close, assert_equal, batches_of, differ, make, used

from o2o.envs.episodes import Episode
from o2o.envs.mujoco_tasks import make_environments
from o2o.envs.tasks import TASKS
from o2o.replay.buffer import Replay, pack, unpack
from o2o.training import loop
from o2o.training.reports import Report
from o2o.training.seeds import Members
from o2o.training.steps import Learner
from o2o.types import LearningRate, State, Transition

SIZES = {"observation_size": 3, "action_size": 2}
REPLAY = Replay(batch_size=8, capacity=30, min_size=6, **SIZES)
ONE = Members(1)
KEY = jax.random.key(11)


class Clockwork:
    """Environments whose episodes end after 5 steps, by a termination and by a time limit in turns.

    An observation is (seed, episode, time); the reward is the time plus a tenth of the first action.
    """

    can_be_saved = False

    def __init__(self, seeds: Sequence[int] = (0,)):
        self.seeds = np.array(seeds)
        self.episode, self.time, self.returns = np.zeros((3, len(seeds)))
        self.actions: list[np.ndarray] = []
        self.episodes: list[Episode] = []

    def __len__(self) -> int:
        return len(self.seeds)

    def can_step_inside(self, platform: str) -> bool:
        return False

    def start(self) -> np.ndarray:
        self.episode[:] = 1
        return self.observation()

    def advance(self, action: np.ndarray) -> np.ndarray:
        before = self.observation()
        self.actions.append(action)
        self.time += 1
        ends = self.time == 5
        reward = (self.time + 0.1 * action[:, 0]).astype(np.float32)
        row = pack(before, action, reward, ends & (self.episode % 2 == 1), self.observation())
        self.returns += reward
        for i in np.flatnonzero(ends):
            self.episodes.append(Episode(int(i), len(self.actions), float(self.returns[i]), 5))
        self.returns[ends] = self.time[ends] = 0
        self.episode[ends] += 1
        return np.concatenate([row, self.observation()], axis=1)

    def ended(self) -> list[Episode]:
        ended, self.episodes = self.episodes, []
        return ended

    def observation(self) -> np.ndarray:
        return np.stack([self.seeds, self.episode, self.time], axis=1).astype(np.float32) / 5


def offline_rows(count: int = 20) -> Any:
    generator = np.random.default_rng(0)
    rows = pack(
        generator.normal(size=(count, 3)).astype(np.float32),
        generator.uniform(-1, 1, (count, 2)).astype(np.float32),
        generator.normal(size=count).astype(np.float32),
        generator.random(count) < 0.2,
        generator.normal(size=(count, 3)).astype(np.float32),
    )
    return jnp.asarray(rows)


NO_ROWS = offline_rows()[:0]


def start(algorithm: Any, seed: int = 0) -> State:
    example = Transition(
        jnp.zeros((1, 3)), jnp.zeros((1, 2)), jnp.zeros(1), jnp.zeros(1, bool), jnp.zeros((1, 3))
    )
    return used(algorithm, seed, example)


def copy(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: np.array(leaf), tree)


def pretrained(algorithm: Any, stops: list[int]) -> list[tuple[State, dict[str, float]]]:
    """State and metrics at every stop."""
    reports = loop.pretrain(Learner(algorithm, REPLAY), ONE, [start(algorithm)], offline_rows(), [KEY], stops)
    return [(copy(report.state[0]), report.metrics[0]) for report in reports]


def finetuned(
    algorithm: Any,
    stops: list[int],
    offline: Any = NO_ROWS,
    replay: Replay = REPLAY,
    updates_before: int = 0,
    **pace: int,
) -> tuple[list[Report], Clockwork]:
    environments, learner = Clockwork(), Learner(algorithm, replay, **pace)
    reports = [
        replace(r, state=copy(r.state[0]), online=copy(r.online[0]))
        for r in loop.finetune(
            learner, ONE, [environments], [start(algorithm)], offline, [KEY], stops, updates_before
        )
    ]
    return reports, environments


@functools.cache
def compiled_update() -> Any:
    return jax.jit(lambda algorithm, *rest: algorithm.update(*rest), static_argnums=(0, 4))


def single_updates(algorithm: Any, count: int) -> tuple[State, list[dict[str, float]]]:
    """What pretraining is, one update after the other."""
    state, collected = start(algorithm), []
    for i in range(count):
        sample_key, update_key = jax.random.split(jax.random.fold_in(KEY, i))
        batches = batches_of(REPLAY.sample_offline(offline_rows(), sample_key).data)
        state, metrics = compiled_update()(
            algorithm, state, batches, update_key, (i % algorithm.period == 0,)
        )
        collected.append({name: float(value) for name, value in metrics.items()})
    return state, collected


def means(collected: list[dict[str, float]]) -> dict[str, float]:
    names = {name for metrics in collected for name in metrics}
    return {name: float(np.mean([m[name] for m in collected if name in m])) for name in names}


@pytest.fixture(scope="module")
def seven_single_updates():
    return single_updates(make("td3_bc"), 7)


# An odd number of updates ends in the middle of TD3's cycle of two.
@pytest.mark.parametrize("stops", [[7], [3, 7], pytest.param([1, 2, 7], marks=pytest.mark.slow)])
def test_pretraining_is_one_update_after_the_other_wherever_it_stops(stops, seven_single_updates):
    state, collected = seven_single_updates
    found = pretrained(make("td3_bc"), stops)
    assert_close(found[-1][0], state, rtol=1e-4, atol=1e-6)
    bounds = [0, *stops]
    for (_, metrics), a, b in zip(found, bounds[:-1], bounds[1:], strict=True):
        expected = means(collected[a:b])
        assert metrics == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_an_algorithm_without_delayed_work_pretrains_any_number_of_updates():
    state, collected = single_updates(make("sac"), 3)
    ((found, metrics),) = pretrained(make("sac"), [3])
    assert_close(found, state, rtol=1e-4, atol=1e-6)
    assert metrics == pytest.approx(means(collected), rel=1e-3)


def straightforward(algorithm: Any, offline: Any, replay: Replay, steps: int) -> Any:
    """Finetuning as one reads it: act, step, add, and update on a sample of all there is."""
    environments = Clockwork()
    state, online = start(algorithm), replay.init(steps)
    observation, collected, updates = environments.start(), [], 0
    explore_key = jax.random.fold_in(KEY, 0)
    sample = jax.jit(replay.sample)
    for step in range(1, steps + 1):
        action = np.asarray(algorithm.act(state, jnp.asarray(observation[0]), explore_key, False))[None]
        packet = environments.advance(action)
        online = replay.add(online, jnp.asarray(packet[0, :-3]))
        sample_key, update_key, explore_key = jax.random.split(jax.random.fold_in(KEY, step), 3)
        if replay.ready(offline.shape[0], step):
            batches = batches_of(sample(offline, online, sample_key).data)
            due = (updates % algorithm.period == 0,)
            state, metrics = compiled_update()(algorithm, state, batches, update_key, due)
            collected.append({name: float(value) for name, value in metrics.items()})
            updates += 1
        observation = packet[:, -3:]
    return state, replay.settle(online), collected, np.concatenate(environments.actions)


@pytest.mark.parametrize(("name", "offline"), [("td3", 0), ("td3_bc", 20)])
def test_finetuning_is_act_step_add_update_one_after_the_other(name, offline):
    algorithm, rows = make(name), offline_rows()[:offline]
    state, online, collected, actions = straightforward(algorithm, rows, REPLAY, 16)
    (report,), environments = finetuned(algorithm, [16], rows)
    np.testing.assert_allclose(np.concatenate(environments.actions), actions, rtol=1e-4, atol=1e-5)
    assert_close(report.online, copy(online), rtol=1e-4, atol=1e-5)
    assert_close(report.state, copy(state), rtol=1e-4, atol=1e-5)
    assert report.updates == len(collected) == (16 if offline else 11)
    assert report.metrics[0] == pytest.approx(means(collected), rel=1e-3, abs=1e-5)


@pytest.fixture(scope="module")
def sixteen_steps():
    return finetuned(make("td3"), [16])


def test_where_it_stops_does_not_change_what_finetuning_computes(sixteen_steps):
    (expected,), _ = sixteen_steps
    reports, _ = finetuned(make("td3"), [1, 7, 8, 15, 16])
    assert_equal(reports[-1].state, expected.state)
    assert_equal(reports[-1].online.ring, expected.online.ring)
    assert [episode for report in reports for episode in report.episodes] == expected.episodes
    assert [r.updates for r in reports] == [0, 2, 3, 10, 11]
    policy_updates = [0, 1, 1, 3, 1]
    total = sum(
        n * r.metrics[0].get("policy_loss", 0.0) for n, r in zip(policy_updates, reports, strict=True)
    )
    np.testing.assert_allclose(total / sum(policy_updates), expected.metrics[0]["policy_loss"], rtol=1e-5)


def test_before_the_first_update_there_are_no_metrics_and_nothing_is_learned():
    (report, *_), _ = finetuned(make("td3"), [5, 6])
    assert report.updates == 0
    assert report.metrics == [{}]
    assert_equal(report.state, copy(start(make("td3"))))


def test_finetuning_goes_on_in_the_cycle_where_pretraining_left_it():
    algorithm = make("td3")
    (first, second), _ = finetuned(algorithm, [1, 2], offline_rows(), updates_before=5)
    assert_equal(first.state.policy, copy(start(algorithm).policy))
    assert differ(first.state.critics, start(algorithm).critics)
    assert differ(second.state.policy, first.state.policy)
    assert "policy_loss" not in first.metrics[0]
    assert "policy_loss" in second.metrics[0]


def test_training_episodes_are_told_with_their_return_and_length(sixteen_steps):
    (report,), environments = sixteen_steps
    actions = np.concatenate(environments.actions)
    assert [(e.member, e.env_step, e.length) for e in report.episodes] == [(0, 5, 5), (0, 10, 5), (0, 15, 5)]
    for episode, end in zip(report.episodes, (5, 10, 15), strict=True):
        expected = 15 + 0.1 * actions[end - 5 : end, 0].sum()
        np.testing.assert_allclose(episode.episode_return, expected, rtol=1e-5)


def test_what_was_lived_is_stored_with_the_last_observation_of_each_episode(sixteen_steps):
    (report,), environments = sixteen_steps
    stored = unpack(jnp.asarray(report.online.ring), 3)
    time = np.arange(16) % 5
    episode = 1 + np.arange(16) // 5
    np.testing.assert_allclose(stored.observation[:, 1:], np.stack([episode, time], 1) / 5, rtol=1e-6)
    np.testing.assert_allclose(
        stored.next_observation[:, 1:], np.stack([episode, time + 1], 1) / 5, rtol=1e-6
    )
    np.testing.assert_array_equal(stored.action, np.concatenate(environments.actions))
    # the second episode is cut by the time limit, which is no termination
    assert np.flatnonzero(stored.terminated).tolist() == [4, 14]


def test_a_ratio_of_zero_is_an_empty_replay_bit_for_bit(sixteen_steps):
    (expected,), _ = sixteen_steps
    zero = Replay(batch_size=8, capacity=30, min_size=6, offline_share=0.0, **SIZES)
    (found,), _ = finetuned(make("td3"), [16], offline_rows(), zero)
    assert_equal(found.state, expected.state)
    assert found.metrics == expected.metrics


def test_the_states_handed_in_are_used_up_and_those_reported_are_not_needed_again():
    algorithm = make("td3")
    state = start(algorithm)
    reports = loop.pretrain(Learner(algorithm, REPLAY), ONE, [state], offline_rows(), [KEY], [2, 4])
    next(reports)
    assert jax.tree.leaves(state)[0].is_deleted()


@pytest.mark.slow  # the tracer sees all of JAX too
def test_one_online_update_runs_through_seven_modules_of_ours():
    """A reader who follows one update of TD3-BC opens no more; Python's tracer says which."""
    algorithm, seen = make("td3_bc", learning_rate=LearningRate(policy=1e-4, critic=1e-4)), set()
    reports = loop.finetune(
        Learner(algorithm, REPLAY), ONE, [Clockwork()], [start(algorithm)], offline_rows(), [KEY], [1]
    )
    package = str(Path(loop.__file__).parents[1])

    def note(frame: Any, event: str, _: Any) -> None:
        if frame.f_code.co_filename.startswith(package):
            seen.add(str(Path(frame.f_code.co_filename).relative_to(package)))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        next(reports)
    finally:
        sys.setprofile(before)
    seen.remove("training/loop.py")  # the phase, which calls the step
    assert seen == {
        "training/steps.py",
        "training/seeds.py",
        "replay/buffer.py",
        "algorithms/td3_bc.py",
        "algorithms/td3.py",
        "algorithms/losses.py",
        "algorithms/networks.py",
    }


def test_nothing_is_learned_in_warmup_steps():
    algorithm = make("td3")
    (first, second), _ = finetuned(algorithm, [4, 5], offline_rows(), warmup_steps=4)
    assert (first.updates, second.updates) == (0, 1)
    assert_equal(first.state, copy(start(algorithm)))
    assert differ(second.state, first.state)


def test_random_steps_are_uniform_and_change_no_action_after_them():
    (_,), plain = finetuned(make("td3"), [8], warmup_steps=8)
    (_,), explored = finetuned(make("td3"), [8], warmup_steps=8, random_steps=5)
    of_policy, found = np.concatenate(plain.actions), np.concatenate(explored.actions)
    np.testing.assert_array_equal(found[5:], of_policy[5:])
    assert (np.abs(found[:5] - of_policy[:5]).max(axis=1) > 0.3).all()  # the policy's are near zero
    assert (np.abs(found) <= 1).all()


def test_the_policy_stands_while_the_critics_alone_learn():
    algorithm = make("td3")
    reports, _ = finetuned(algorithm, [3, 4, 5], offline_rows(), critic_only_steps=3)
    policies, critics = ([getattr(r.state, name) for r in reports] for name in ("policy", "critics"))
    before = copy(start(algorithm))
    assert_equal(policies[0], before.policy)
    assert differ(critics[0], before.critics)
    assert differ(policies[2], policies[0])
    assert [r.updates for r in reports] == [3, 4, 5]


def test_the_first_steps_that_learn_may_have_more_updates():
    pace = {"first_updates_multiplier": 6, "first_updates_steps": 2, "updates_per_step": 2}
    learner = Learner(make("td3"), REPLAY, critic_only_steps=8, **pace)
    assert learner.stretches(0, 9) == [(5, (0, False)), (7, (12, False)), (8, (2, False)), (9, (2, True))]
    assert learner.stretches(20, 9) == [(2, (12, False)), (8, (2, False)), (9, (2, True))]


def test_asking_for_the_shape_of_snapshots_draws_nothing_from_the_environments():
    (asked,), (expected,) = ([make_environments(TASKS["hopper"], [3])] for _ in range(2))
    (before,) = loop.empty_snapshots([asked])
    np.testing.assert_array_equal(asked.start(), expected.start())
    (after,) = asked.snapshot()
    assert {name: (x.shape, x.dtype) for name, x in before.items()} == {
        name: (x.shape, x.dtype) for name, x in after.items()
    }
    asked.close()
    expected.close()
