"""JAX as every program of the project has it: on the platform that was asked for, with the same arithmetic.

A run's identity does not hold what is set in the environment, so nothing that is set there may change its numbers.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import jax

from o2o.errors import ConfigError

BAD_INPUT = 2

PINNED: dict[str, Any] = {
    # On a GPU the default rounds the factors of matrix products, by more than TD3-C's constraint resolves.
    "jax_default_matmul_precision": "highest",
    "jax_enable_x64": False,
    "jax_explicit_x64_dtypes": "warn",
    "jax_numpy_dtype_promotion": "standard",
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_high_dynamic_range_gumbel": False,
    "jax_accurate_erf_inv": False,
    "jax_use_hlo_logistic_lowering": None,
    "jax_softmax_custom_jvp": False,
    "jax_optimization_level": "UNKNOWN",
    "jax_exec_time_optimization_effort": 0.0,
}
"""JAX's switches that change numbers, whatever the environment says; a version of JAX need not have them all.

What finds faults, such as `jax_debug_nans` and `jax_numpy_rank_promotion`, stays as it is set.
"""

ROUNDING = ("jax_disable_jit", "jax_disable_most_optimizations")
"""Switches that find faults too, and round otherwise: a run's result names those that were on."""

REFUSED: dict[str, str] = {
    "xla_allow_excess_precision": "true",
    "xla_backend_optimization_level": "3",
    "xla_cpu_enable_fast_math": "false",
    "xla_cpu_enable_fast_min_max": "true",
    "xla_cpu_enable_platform_dependent_math": "true",
    "xla_cpu_ftz": "true",
    "xla_gpu_default_to_alg_dot_bf16_bf16_f32": "false",
    "xla_gpu_enable_fast_min_max": "false",
    "xla_gpu_ftz": "false",
}
"""Flags in XLA_FLAGS that change numbers, for which JAX has no switch, and the only value that they may have."""


def configure(platform: str = "auto") -> None:
    """Takes the platform, and makes arithmetic what it always is.

    Args:
        platform: as `device.platform` has it; auto is what JAX_PLATFORMS says, else the best there is.

    Raises:
        ConfigError: JAX finds no such platform here, or the environment asks for other arithmetic.
    """
    if problems := refused():
        raise ConfigError(problems)
    for name, value in PINNED.items():
        if name in jax.config.values:
            jax.config.update(name, value)
    if platform != "auto":
        jax.config.update("jax_platforms", {"gpu": "cuda"}.get(platform, platform))
    try:
        jax.devices()
    except Exception as error:  # of several kinds, by platform and by what is wrong with it
        asked, way_out = f"device.platform={platform}", "set device.platform=auto or cpu"
        if platform == "auto":
            named = os.environ.get("JAX_PLATFORMS")
            asked, way_out = (
                (f"JAX_PLATFORMS={named}", "unset it") if named else (asked, "set JAX_PLATFORMS=cpu")
            )
        said = textwrap.shorten(str(error), 120, placeholder=" …")
        raise ConfigError(
            [f"{asked}: JAX finds no such device here{said and f' ({said})'}; {way_out}"]
        ) from None


def rounding_otherwise() -> list[str]:
    """Those of the switches that find faults which are on, and change the last digits."""
    return [name for name in ROUNDING if jax.config.values[name]]


def probe(platform: str) -> None:
    """Checks in a process of its own that `configure` succeeds, so as not to take the device that jobs need.

    Raises:
        ConfigError: as there.
    """
    named = os.environ.get("JAX_PLATFORMS", "") if platform == "auto" else platform
    if named in ("", "cpu"):  # which there always is
        return
    package = str(Path(__file__).parents[2])
    paths = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    asking = [sys.executable, "-P", "-m", "o2o.machine.device", platform]
    done = subprocess.run(
        asking, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    if done.returncode == BAD_INPUT:
        raise ConfigError([done.stderr.strip().splitlines()[-1]])


def refused() -> list[str]:
    """Lists settings of the environment that would change numbers and cannot be overruled here, a line each."""
    problems = []
    for word in os.environ.get("XLA_FLAGS", "").split():
        name, _, value = word.lstrip("-").partition("=")
        if name in REFUSED and _plain(value) != REFUSED[name]:
            problems.append(
                f"XLA_FLAGS={word}: it changes numbers, which a run's name does not tell; take it out of XLA_FLAGS"
            )
    if os.environ.get("NVIDIA_TF32_OVERRIDE") == "1":
        problems.append("NVIDIA_TF32_OVERRIDE=1: it rounds the factors of matrix products; unset it")
    return problems


def _plain(value: str) -> str:
    """A flag's value in one spelling; a flag without one is true."""
    return {"": "true", "1": "true", "0": "false"}.get(value.lower(), value.lower())


def main(platform: str) -> int:
    """Says what is wrong with a platform; the exit code is 2 then."""
    try:
        configure(platform)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
