"""A terminal that is closed (SIGHUP) stops a run as SIGTERM does, wherever it runs; `nohup` still ignores it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from o2o.machine.signals import Interruption, signals
from o2o.runs.recording import failures
from o2o.sweep.launching import entry, pool
from o2o.sweep.ledger import manifest
from o2o.sweep.ledger.manifest import Submission, SubmittedJob

STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2]


@pytest.fixture(autouse=True)
def handlers():
    """Puts back what a test changes."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_terminal_that_is_closed_asks_to_stop():
    with pytest.raises(SystemExit) as ended, Interruption():
        signal.raise_signal(signal.SIGHUP)
    assert ended.value.code == failures.HUNG_UP == 128 + signal.SIGHUP


def test_what_nohup_ignores_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert signal.SIGHUP not in signals()
    with Interruption() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert not stop.requested
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.parametrize("number", STOPPING)
def test_a_job_that_has_not_begun_to_train_ends_with_the_signal(number, monkeypatch):
    def told(*_):
        signal.raise_signal(number)

    class Nowhere:
        runs = submission = job = None

    monkeypatch.setattr(manifest, "write_job", told)
    with pytest.raises(SystemExit) as ended:
        entry.run(Nowhere())
    assert ended.value.code == 128 + number


@pytest.mark.parametrize("number", STOPPING)
def test_a_pool_hands_a_signal_on_as_a_request_to_stop(number, tmp_path, monkeypatch):
    def start(self, ready, directory):
        waits = "import signal, sys; signal.signal(15, lambda *_: sys.exit(143)); print(flush=True); signal.pause()"
        command = [sys.executable, "-c", waits]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
        process.stdout.readline()
        process.stdout.close()
        self._due.remove(ready)
        self._running[process] = ready, self._free.pop()
        started.append(process)
        os.kill(os.getpid(), number)

    started = []
    monkeypatch.setattr(pool._Pool, "_start", start)
    monkeypatch.setattr(pool.entry, "Place", lambda *_: None)
    monkeypatch.setattr(pool.entry, "end", lambda *_: False)
    only = SubmittedJob(number=0, phase="finetune", runs=["a/b/c/seed-0"], seeds=[0], needs=[], id="local-0")
    submission = Submission(
        sweep="s", token="t", launcher="local", at="", host="", user="", command=[], code="", settings={}, jobs=[only]
    )  # fmt: skip
    assert pool._Pool(tmp_path, submission, [pool.Slot({})], {}).run() == 128 + number
    assert started[0].returncode == 143


def test_a_hang_up_is_no_failure_without_slurm_and_a_preemption_with_it():
    assert failures.of_job(failures.HUNG_UP, [], "", {}) is None
    assert failures.of_job(failures.HUNG_UP, [], "", {"JobState": "RUNNING"}) is failures.Failure.PREEMPTION
