from __future__ import annotations

import argparse
import functools
import json

import pytest

from benchmarks import flops, paper, peers, rates, results, startup, stepping
from benchmarks.workload import Workload, composed
from o2o.training import loop
from o2o.training.loop import CHUNK
from o2o.training.seeds import Members
from o2o.training.steps import Learner

SMALL = ("batch_size=8", "network.hidden_sizes=[8,8]", "evaluation.episodes=2")


@pytest.fixture(scope="module")
def small():
    return composed("dataset=hopper-medium-v2", *SMALL)


def test_the_flops_of_an_update_are_those_of_its_matrix_products(small):
    """TD3-BC's written out, with layers of 8 and 8; a backward pass is twice a forward, without the inputs' share."""
    replay = Workload(small, Members(1)).replay
    observation, action = replay.observation_size, replay.action_size

    def forward(inputs: int, outputs: int) -> tuple[float, float]:
        layers = [2.0 * 8 * a * b for a, b in ((inputs, 8), (8, 8), (8, outputs))]
        return sum(layers), layers[0]

    (policy, policy_first), (critic, critic_first) = (
        forward(observation, action),
        forward(observation + action, 1),
    )
    # Each critic has target noise of its own, so the target critics are evaluated at two sets of actions.
    critic_step = policy + 4 * critic + 2 * (3 * critic - critic_first)
    policy_step = 3 * policy - policy_first + 2 * critic
    algorithm = small.pretrain.algorithm
    assert flops.update_flops(algorithm, replay) == pytest.approx(critic_step + policy_step / 2, rel=1e-6)
    # Many updates are a loop, whose products count each time.
    many = flops.update_flops(algorithm, replay, updates=20)
    assert many == pytest.approx(20 * critic_step + 10 * policy_step, rel=1e-6)


@pytest.mark.slow  # it compiles a whole round
@pytest.mark.parametrize("kind", [Members, functools.partial(Members, together=True)])
def test_a_round_measures_both_phases_and_evaluation_for_every_number_of_members(small, kind, monkeypatch):
    monkeypatch.setattr(flops, "PEAK_SIZE", 64)
    (measured,) = rates.measure(small, small, kind, [1, 2], rounds=1, updates=CHUNK)
    for found in (measured.pretrain, measured.finetune, measured.evaluation_seconds):
        assert set(found) == {1, 2}
        assert min(found.values()) > 0
    summary = rates.summary(small, Workload(small, kind(1)), [measured])
    assert summary["members_2_over_single"] == pytest.approx(measured.pretrain[2] / measured.pretrain[1])
    assert summary["members_2_evaluation_seconds"] == measured.evaluation_seconds[2]
    assert 0 < summary["evaluation_share"] < 1
    assert 0 < summary["members_2_evaluation_share"] < 1


def test_loading_is_measured_on_a_file_in_the_layout_of_d4rl():
    assert 0 < startup.load_seconds(rows=2000) < 60


@pytest.mark.slow
def test_a_start_is_shorter_where_all_is_compiled():
    found = startup.start_seconds("cpu")
    assert 0 < found["start_warm_seconds"] < found["start_cold_seconds"]


@pytest.mark.slow
@pytest.mark.parametrize("members", [Members(1), Members(4, together=True)])
def test_a_step_is_told_with_its_parts_and_the_host_calls_in_for_whole_blocks_alone(small, members):
    found = stepping.split(Workload(small, members), 2 * CHUNK)
    assert set(found) == set(results.PARTS)
    assert min(found.values()) > 0
    settled = 1
    assert found["calls_per_100_steps"] == (2 + settled) * 100 / (2 * CHUNK)


def test_members_in_one_program_make_blocks_as_long_as_one_member_does(small):
    asked: list[int] = []

    def pause_at(step: int) -> bool:
        asked.append(step)
        return False

    workload = Workload(small, Members(4, together=True)).collecting(CHUNK)
    learner = Learner(small.algorithm, workload.replay)
    reports = loop.finetune(
        learner,
        workload.members,
        workload.environments,
        workload.state(learner.algorithm),
        workload.offline[:0],
        workload.keys,
        [2 * CHUNK],
        pause_at=pause_at,
    )
    next(reports)
    assert asked == [CHUNK]


def test_the_study_is_counted_from_its_plan(monkeypatch, tmp_path):
    monkeypatch.setenv("O2O_RUNS", str(tmp_path))
    total = paper.work(paper.planned("figure1"))
    scratch = total["TD3 from scratch", "hopper"]
    assert scratch == paper.Work(updates=10 * (200_000 - 999), env_steps=10 * 200_000, evaluations=10 * 66)
    assert total["TD3, replay offline", "ant"].updates == 2 * 10 * 200_000
    assert total["pretraining", "ant"] == paper.Work(
        updates=2 * 10 * 500_000, evaluations=2 * 10 * (100 + 10)
    )


def test_hours_are_work_over_speed():
    speed = paper.Speed(pretrain=100.0, finetune=50.0, evaluation_seconds=36.0)
    assert speed.hours(paper.Work(updates=360_000, evaluations=100)) == (1.0, 1.0)
    assert speed.hours(paper.Work(updates=1, env_steps=360_000)) == (2.0, 0.0)


def test_speeds_may_be_given_instead_of_measured(capsys):
    assert paper.speed_of_a_task("ant=100,50,3.5") == ("ant", paper.Speed(100.0, 50.0, 3.5))
    for wrong in ("ant=100,50", "ant", "ant=a,b,c", "cheetah=1,2,3"):
        with pytest.raises(argparse.ArgumentTypeError):
            paper.speed_of_a_task(wrong)
    total = {("pretraining", task): paper.Work(updates=360_000) for task in ("ant", "hopper")}
    speeds = {"ant": paper.Speed(100.0, 1.0, 1.0), "hopper": paper.Speed(50.0, 1.0, 1.0)}
    paper.show(total, speeds, {"device": "d", "machine": "m", "cores": 2}, given={"ant"})
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("ant, given: 100 updates/s") for line in lines)
    assert any(line.startswith("hopper, measured on d, m, 2 cores: 50 updates/s") for line in lines)
    assert lines[-1] == "3.0 hours, of which 0.0 evaluating"


def test_what_a_gpu_measured_is_added_to_what_a_cpu_did(tmp_path):
    path = tmp_path / "bench.json"
    results.add(path, {"step_ms": 2.0, "over_sbx": 1.5})
    results.add(path, {"gpu_step_ms": 1.0, "step_ms": 3.0})
    assert json.loads(path.read_text()) == {"step_ms": 3.0, "over_sbx": 1.5, "gpu_step_ms": 1.0}


def test_what_was_not_measured_is_said_to_be_so(capsys):
    about = {"task": "hopper", "batch_size": 8, "hidden_sizes": [8], "machine": "m", "cores": 2, "rounds": 1}
    results.show({**about, "pretrain_updates_per_second": 1234.5, "over_sbx_same_networks": 1.25})
    lines = capsys.readouterr().out.splitlines()
    assert any("pretraining, one seed" in line and "1 234" in line for line in lines)
    assert any("with our networks" in line and "1.25" in line and "≥ 1.2" in line for line in lines)
    assert any("GPU:" in line for line in lines)
    assert all("not measured" in line for line in lines if "GPU:" in line)


def test_every_figure_of_the_table_is_one_that_is_measured(small):
    counts: list[int] = [1, 2, 5, 10, 40]
    rates_of_all = dict.fromkeys(counts, 1.0)
    measured = rates.Round(1.0, rates_of_all, rates_of_all, rates_of_all)
    names = {
        *rates.summary(small, Workload(small, Members(1)), [measured]),
        *(f"{members}{part}" for members in ("", "members_10_", "members_40_") for part in results.PARTS),
        *("start_cold_seconds", "start_warm_seconds", "load_1m_rows_seconds", "memory_peak_gib"),
        *(f"over_{peer}" for _, peer in peers.PAIRS),
    }
    assert {*results.FIGURES, *results.ON_A_GPU} <= names
