from __future__ import annotations

import os
from pathlib import Path

import pytest
from cluster import Cluster, UnavailableError, require
from sweeping import PATIENCE, Sweep


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(3 * PATIENCE))


@pytest.fixture(autouse=True)
def no_slurm():
    """Nothing is hidden here."""


@pytest.fixture(scope="session")
def cluster():
    with available() as up:
        yield up


@pytest.fixture(scope="session")
def cluster_without_accounting():
    with available(accounting=False) as up:
        yield up


def available(**choices):
    """A cluster; skips where there can be none, but fails where there has to be one."""
    try:
        require()
    except UnavailableError as error:
        if os.environ.get("O2O_REQUIRE_SLURM") == "1":
            raise
        pytest.skip(f"no SLURM: {error}")
    return Cluster(**choices)


@pytest.fixture
def sweep(cluster, tmp_path, pytestconfig):
    made = Sweep(cluster, tmp_path, str(pytestconfig.cache.mkdir("jax-jobs")))
    yield made
    cluster.ask("scancel", "--user", "root")


@pytest.fixture
def sweep_without_accounting(cluster_without_accounting, tmp_path, pytestconfig):
    return Sweep(cluster_without_accounting, tmp_path, str(pytestconfig.cache.mkdir("jax-jobs")))
