from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import pytest
from tiny import TINY

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    # What one run of the tests compiled, the next one need not.
    jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("jax")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_disable_most_optimizations", True)  # compiling is most of the tests' time


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(1800))


def pytest_addoption(parser):
    parser.addoption("--write-golden", action="store_true", help="rewrite tests/golden instead of comparing")


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
    from test_config import composed

    from o2o.config import build

    def config(runs: Path, *overrides: str) -> Any:
        return build(composed(*TINY, f"dataset.path={dataset}", f"paths.runs={runs}", *overrides))

    return config
