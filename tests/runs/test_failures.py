from __future__ import annotations

import pytest

from o2o.runs.recording.failures import Failure, classify, of_job, side_by_side, try_again

RUNNING = {"JobState": "RUNNING", "PreemptTime": "None"}


@pytest.mark.parametrize(
    ("message", "failure"),
    [
        ("XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate", Failure.MEMORY),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0", Failure.MEMORY),
        ("FloatingPointError: critic_loss is nan at update 3", Failure.NON_FINITE),
        ("OSError: [Errno 28] No space left on device: 'train.jsonl'", Failure.INFRASTRUCTURE),
        ("CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure", Failure.INFRASTRUCTURE),
        ("CUDA_ERROR_OUT_OF_MEMORY: out of memory", Failure.MEMORY),
        ("KeyError: 'observation'", Failure.CODE),
        ("ValueError: a banana is not finished", Failure.CODE),
    ],
)
def test_a_message_tells_the_class_of_a_failure(message, failure):
    assert classify(message) is failure


@pytest.mark.parametrize(
    ("code", "slurm", "log", "failure"),
    [
        (0, RUNNING, "", None),
        (140, RUNNING, "", Failure.TIME),
        (140, {"JobState": "RUNNING", "PreemptTime": "2026-11-22T20:00:00"}, "", Failure.PREEMPTION),
        (143, RUNNING, "", Failure.PREEMPTION),
        (143, {"JobState": "COMPLETING", "Reason": "TimeLimit"}, "", Failure.TIME),
        (143, {"JobState": "COMPLETING", "Reason": "None"}, "", None),
        (137, {"JobState": "COMPLETING", "Reason": "None"}, "", None),
        (137, {"JobState": "CANCELLED", "Reason": "None"}, "", None),
        (143, {}, "", None),
        (137, RUNNING, "", Failure.INFRASTRUCTURE),
        (137, RUNNING, "slurmstepd: error: Detected 1 oom_kill event", Failure.MEMORY),
        (139, {}, "", Failure.INFRASTRUCTURE),
        (2, RUNNING, "", Failure.CODE),
        (1, RUNNING, "ModuleNotFoundError: No module named 'jax'", Failure.CODE),
    ],
)
def test_a_job_is_judged_by_how_it_ended(code, slurm, log, failure):
    assert of_job(code, [], log, slurm) is failure


def test_a_failure_that_can_be_tried_again_decides_for_the_job():
    assert of_job(1, [Failure.CODE, Failure.INFRASTRUCTURE], "", RUNNING) is Failure.INFRASTRUCTURE
    assert of_job(1, [Failure.CODE, Failure.NON_FINITE], "", RUNNING) is Failure.NON_FINITE


def ended(*failures):
    return [{"failure": failure, "gained": True} for failure in failures]


@pytest.mark.parametrize("failure", [Failure.CODE, Failure.NON_FINITE])
def test_what_would_end_the_same_way_is_not_tried_again(failure):
    assert try_again(failure, [], 10, gained=True)


def test_a_lost_job_is_tried_three_times_more_and_a_preempted_one_always():
    lost = Failure.INFRASTRUCTURE
    assert [try_again(lost, ended(*[lost] * n), 1, gained=False) is None for n in range(5)] == [True] * 3 + [
        False
    ] * 2
    assert try_again(Failure.PREEMPTION, ended(*[Failure.PREEMPTION] * 50), 1, gained=False) is None


def test_a_job_that_gains_nothing_in_two_time_limits_is_given_up():
    stuck = [{"failure": "time", "gained": False}]
    assert try_again(Failure.TIME, [], 1, gained=False) is None
    assert try_again(Failure.TIME, stuck, 1, gained=True) is None
    assert "raise timeout_min" in str(try_again(Failure.TIME, stuck, 1, gained=False))


def test_a_job_out_of_memory_runs_half_its_seeds_side_by_side_down_to_one():
    memory = Failure.MEMORY
    assert [side_by_side(10, [memory] * n) for n in range(5)] == [10, 5, 2, 1, 1]
    assert [try_again(memory, ended(*[memory] * n), 10, gained=False) is None for n in range(4)] == [
        True
    ] * 3 + [False]
    assert "ask for more memory" in str(try_again(memory, [], 1, gained=False))
