"""Environments stepped from inside a compiled program of JAX.

The program calls a C function that is registered under a name, so JAX keeps it in its compilation cache as any other.
It gets the environments' `handle` as an operand: one program serves all environments of a task and number. Not to be
vmapped; the calls follow each other in the order of their data.
"""

from __future__ import annotations

import functools
import sys

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, UInt32

_NAME = "o2o_step"


def advance_inside(
    handle: UInt32[Array, " 2"], action: Float32[Array, "E A"], observation_size: int
) -> Float32[Array, "E W+O"]:
    """As `Environments.advance`."""
    return _step(handle, action, 3 * observation_size + action.shape[1] + 2)


def play_inside(
    handle: UInt32[Array, " 2"], action: Float32[Array, "E A"], observation_size: int
) -> Float32[Array, "E O"]:
    """As `Environments.play`."""
    return _step(handle, action, observation_size)


def _step(handle: UInt32[Array, " 2"], action: Float32[Array, "E A"], width: int) -> Float32[Array, "E W"]:
    result = jax.ShapeDtypeStruct((action.shape[0], width), jnp.float32)
    return jax.ffi.ffi_call(_NAME, result, has_side_effect=True)(handle, action)


@functools.cache
def register(platform: str) -> bool:
    """Registers the function for a platform of JAX; whether there is one, which is said where there is not."""
    from o2o.envs import kernels

    makers = {"cpu": kernels.make_on_cpu, "gpu": kernels.make_on_cuda, "cuda": kernels.make_on_cuda}
    if platform not in makers:
        return False
    try:
        function = makers[platform]()
        capsule = jax.ffi.pycapsule(function.ctypes)
        jax.ffi.register_ffi_target(_NAME, capsule, {"gpu": "CUDA"}.get(platform, platform))
    except Exception as error:  # no CUDA, or a JAX that wants something else of such functions
        print(
            f"environments are not stepped from inside compiled programs: {error}",
            file=sys.stderr,
            flush=True,
        )
        return False
    _FUNCTIONS.append(function)
    return True


_FUNCTIONS = []
"""What JAX may call for as long as the process lives."""
