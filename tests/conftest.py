from __future__ import annotations

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config):
    # What one run of the tests compiled, the next one need not.
    jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("jax")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def pytest_addoption(parser):
    parser.addoption("--write-golden", action="store_true", help="rewrite tests/golden instead of comparing")


@pytest.fixture
def write_golden(request) -> bool:
    """Whether golden numbers are to be rewritten (`make golden`)."""
    return request.config.getoption("--write-golden")
