"""Environments stepped from inside a compiled program of JAX.

The program calls a C function that is registered under a name, so JAX keeps it in its compilation cache as any other.
It gets the environments' `handle` as an operand: one program serves all environments of a task and number. Not to be
vmapped; the calls follow each other in the order of their data.
"""

from __future__ import annotations

import ctypes
import functools
import sys

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, UInt32

_NAME = "o2o_step"


def advance_inside(
    handle: UInt32[Array, " 2"], action: Float32[Array, "E A"], observation_size: int
) -> Float32[Array, "E P"]:
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

    try:
        if platform == "cpu":
            function, name = kernels.make_on_cpu(), "cpu"
        else:
            function, name = kernels.make_on_cuda(ctypes.CDLL("libcuda.so.1")), "CUDA"
        jax.ffi.register_ffi_target(_NAME, jax.ffi.pycapsule(function.ctypes), name)
    except Exception as error:  # no CUDA, or a JAX that wants something else of such functions
        print(
            f"environments are stepped from outside of JAX's programs: {error}", file=sys.stderr, flush=True
        )
        return False
    _FUNCTIONS.append(function)
    return True


_FUNCTIONS = []
"""What JAX may call for as long as the process lives."""
