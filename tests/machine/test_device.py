"""What is set in the environment does not change a run's numbers, and a platform that is not there is one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from exact import contents

from o2o.datasets.regenerated import rlkit
from o2o.errors import ConfigError
from o2o.machine import device
from o2o.runs import job
from o2o.runs.directory.layout import RESULT, find_runs
from o2o.runs.evaluate import evaluate
from o2o.runs.identity import identity, run_directory
from o2o.sweep.launching import pool
from o2o.sweep.launching.jobs import PlannedRun

ROOT = Path(__file__).parents[2]
OTHERWISE = {
    "jax_default_matmul_precision": "bfloat16",
    "jax_enable_x64": True,
    "jax_explicit_x64_dtypes": "allow",
    "jax_numpy_dtype_promotion": "strict",
    "jax_default_prng_impl": "rbg",
    "jax_threefry_partitionable": False,
    "jax_random_seed_offset": 7,
    "jax_high_dynamic_range_gumbel": True,
    "jax_accurate_erf_inv": True,
    "jax_use_hlo_logistic_lowering": True,
    "jax_softmax_custom_jvp": True,
    "jax_optimization_level": "O0",
    "jax_exec_time_optimization_effort": -1.0,
}
"""What somebody's environment may say of each switch."""
HERE = [name for name in OTHERWISE if name in jax.config.values]


@pytest.fixture
def environment_says():
    """Sets switches as JAX does from the environment, and puts them back."""
    before = {name: getattr(jax.config, name) for name in HERE}

    def say():
        for name in HERE:
            jax.config.update(name, OTHERWISE[name])

    yield say
    for name, value in before.items():
        jax.config.update(name, value)


def test_every_switch_is_pinned_to_what_it_was_found_to_be(environment_says):
    assert OTHERWISE.keys() == device.PINNED.keys()
    environment_says()
    device.configure("cpu")
    for name in HERE:
        value, pinned = getattr(jax.config, name), device.PINNED[name]
        assert value is pinned or value == type(value)(pinned), name  # some are enumerations


def test_what_finds_faults_stays_as_it_was_set():
    device.configure("cpu")
    assert jax.config.jax_numpy_rank_promotion == "raise"  # tests/conftest.py
    assert jax.config.read("jax_disable_most_optimizations")
    assert device.rounding_otherwise() == ["jax_disable_most_optimizations"]
    assert device.PINNED.keys().isdisjoint(("jax_disable_jit", "jax_debug_nans", "jax_debug_infs"))


def test_a_run_has_the_same_numbers_whatever_the_environment_says(configure, tmp_path, environment_says):
    config, other = (configure(tmp_path / name, "algorithm=td3_c") for name in "ab")
    job.run(config)
    environment_says()
    job.run(other)
    assert contents(other) == contents(config)
    result = json.loads((run_directory(other) / RESULT).read_text())
    assert result["execution"]["rounding"] == ["jax_disable_most_optimizations"]  # tests/conftest.py


def test_all_who_compute_pin_them(configure, tmp_path, environment_says):
    job.run(configure(tmp_path, "finetune.env_steps=0"))
    (run,) = find_runs(tmp_path, [])
    environment_says()
    evaluate(run, episodes=1, seed=0)
    assert not jax.config.jax_enable_x64
    environment_says()
    next(rlkit.run("hopper", [0], 0, tmp_path / "behaviour"))
    assert not jax.config.jax_enable_x64


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("--xla_cpu_enable_fast_math=true", "--xla_cpu_enable_fast_math=true"),
        ("--xla_dump_to=x --xla_gpu_ftz", "--xla_gpu_ftz"),
        ("--xla_backend_optimization_level=0", "--xla_backend_optimization_level=0"),
        ("--xla_cpu_enable_fast_math=false --xla_gpu_ftz=0 --xla_cpu_ftz=True", None),
        ("--xla_gpu_deterministic_ops=true --xla_force_host_platform_device_count=2", None),
        ("", None),
    ],
)
def test_flags_that_change_numbers_are_refused_by_name(flags, named, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", flags)
    problems = device.refused()
    assert [named in problem for problem in problems] == ([True] if named else [])


def test_rounding_of_factors_on_a_gpu_is_refused(monkeypatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert device.refused() == []
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    with pytest.raises(ConfigError, match="NVIDIA_TF32_OVERRIDE=1"):
        device.configure("cpu")


@pytest.mark.parametrize(
    ("platform", "environment", "told"),
    [
        ("auto", {"JAX_PLATFORMS": "nonsense"}, "JAX_PLATFORMS=nonsense: JAX finds no such device here"),
        ("gpu", {"CUDA_VISIBLE_DEVICES": ""}, "device.platform=gpu: JAX finds no such device here"),
        ("tpu", {}, "device.platform=tpu: JAX finds no such device here"),
        ("auto", {"JAX_PLATFORMS": "cpu"}, ""),
        ("cpu", {"JAX_PLATFORMS": "nonsense"}, ""),
    ],
)
def test_a_platform_that_is_not_there_is_one_sentence(platform, environment, told):
    done = subprocess.run(
        [sys.executable, "-m", "o2o.machine.device", platform],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (2 if told else 0), done.stderr
    assert len(done.stderr.splitlines()) == (1 if told else 0)
    assert done.stderr.startswith(told)


def test_a_probe_asks_another_process_and_only_where_there_is_a_doubt(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "nonsense")
    with pytest.raises(ConfigError, match="JAX_PLATFORMS=nonsense: JAX finds"):
        device.probe("auto")
    monkeypatch.setattr(subprocess, "run", None)
    device.probe("cpu")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    device.probe("auto")
    monkeypatch.delenv("JAX_PLATFORMS")
    device.probe("auto")


def test_a_pool_starts_nothing_where_the_device_is_missing(configure, tmp_path, monkeypatch):
    def missing(platform):
        raise ConfigError([f"device.platform={platform}: missing"])

    monkeypatch.setattr(device, "probe", missing)
    config = configure(tmp_path / "runs", "pretrain.updates=0", "replay_init=empty")
    run = PlannedRun(config, [], "", identity(config), run_directory(config), None)
    with pytest.raises(ConfigError, match="missing"):
        pool.run([run], [run], "name", 1, {"processes": 1, "gpus": []})
    assert not (tmp_path / "runs").exists()
