from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import hidden
import jax
import pytest
from tiny import TINY

jax.config.update("jax_numpy_rank_promotion", "raise")

if jax.__version_info__ < (0, 11):  # later ones end the process for a flag that they do not know
    # A third less to compile. XLA reads its flags once, when it is first used; processes that tests start go without.
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false")
        jax.devices()


def pytest_configure(config):
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup's, which what the tests start would inherit
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # What one run of the tests compiled, the next one need not.
    jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("jax")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_disable_most_optimizations", True)  # compiling is most of the tests' time


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(1800))


def pytest_addoption(parser):
    parser.addoption(
        "--write-golden", action="store_true", help="rewrite tests/algorithms/golden instead of comparing"
    )


@pytest.fixture(scope="session")
def path_without_slurm(tmp_path_factory) -> str:
    """The search path as it is on a machine that has no SLURM."""
    return hidden.path_without(hidden.SLURM, os.environ["PATH"], tmp_path_factory.mktemp("path"))


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch, path_without_slurm):
    """Tests neither need the SLURM of this machine nor reach it; those in `tests/slurm` bring up their own."""
    monkeypatch.setenv("PATH", path_without_slurm)


@pytest.fixture
def write_golden(request) -> bool:
    """Whether golden numbers are to be rewritten (`make golden`)."""
    return request.config.getoption("--write-golden")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Path:
    """A random policy's steps in hopper."""
    from torture.data import random_steps  # not above: jaxtyping's plugin must come before o2o

    return random_steps(tmp_path_factory.mktemp("data") / "random.hdf5")


@pytest.fixture(scope="session")
def configure(dataset) -> Any:
    """Builds the configuration of a tiny job that writes to a given directory."""
    from composing import composed

    from o2o.config.build import build

    def config(runs: Path, *overrides: str, exploring: bool = True) -> Any:
        """`exploring` turns TD3's noise up, which other families do not have."""
        tiny = [word for word in TINY if exploring or "exploration_noise" not in word]
        return build(composed(*tiny, f"dataset.path={dataset}", f"paths.runs={runs}", *overrides))

    return config


@pytest.fixture
def say(tmp_path, capsys, monkeypatch) -> Any:
    """Runs a command of `o2o.sweep` on the runs in `tmp_path`, without SLURM: exit code and what it said."""
    from o2o.sweep.__main__ import main
    from o2o.sweep.ledger import slurm

    monkeypatch.setattr(slurm, "present", lambda: False)

    def run(*words: str) -> tuple[int, str]:
        code = main([words[0], "--runs", str(tmp_path), *words[1:]])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


@pytest.fixture
def slurm(say, tmp_path, monkeypatch) -> Any:
    """Commands that answer for SLURM: `slurm(squeue=…, sacct=…)` sets what they print, None that they fail.

    Returns a function that gives the commands that were called.
    """
    from o2o.sweep.ledger import slurm
    from o2o.sweep.surveying import launched

    binaries, log = tmp_path / "bin", tmp_path / "called"
    binaries.mkdir()
    monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "present", lambda: True)

    def answer(**answers: str | None) -> Any:
        launched._answers.cache_clear()
        for name, text in {"scancel": "", **answers}.items():
            script = binaries / name
            end = "echo slurm is out of order >&2; exit 1" if text is None else f"cat <<'EOF'\n{text}\nEOF"
            script.write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\n{end}\n')
            script.chmod(0o755)
        return lambda: log.read_text().splitlines() if log.exists() else []

    return answer
