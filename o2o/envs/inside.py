"""Environments stepped from inside a compiled program of JAX.

The program calls a C function that is registered under a name, so JAX keeps it in its compilation cache as any other.
It gets the environments' `handle` as an operand: one program serves all environments of a task and number. Not to be
vmapped; the calls follow each other in the order of their data.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, UInt32

_NAME = "o2o_step"


def advance_inside(
    handle: UInt32[Array, " 2"], action: Float32[Array, "E A"], observation_size: int
) -> Float32[Array, "E P"]:
    """Does what `Environments.advance` does, and returns its packets."""
    return _step(handle, action, 3 * observation_size + action.shape[1] + 2)


def play_inside(
    handle: UInt32[Array, " 2"], action: Float32[Array, "E A"], observation_size: int
) -> Float32[Array, "E O"]:
    """Does what `Environments.play` does, and returns its observations."""
    return _step(handle, action, observation_size)


def _step(handle: UInt32[Array, " 2"], action: Float32[Array, "E A"], width: int) -> Float32[Array, "E W"]:
    result = jax.ShapeDtypeStruct((action.shape[0], width), jnp.float32)
    return jax.ffi.ffi_call(_NAME, result, has_side_effect=True)(handle, action)


@functools.cache  # which keeps what JAX may call
def register(platform: str) -> Any:
    """Registers the C function for cpu or CUDA; returns None, and says why, where there is none."""
    from o2o.envs import kernels

    try:
        is_cpu = platform == "cpu"
        function = kernels.make_on_cpu() if is_cpu else kernels.make_on_cuda(ctypes.CDLL("libcuda.so.1"))
        jax.ffi.register_ffi_target(_NAME, jax.ffi.pycapsule(function.ctypes), platform)
    except Exception as error:  # no CUDA, or a JAX that wants something else of such functions
        said = f"environments are stepped from outside of JAX's programs: {error}"
        print(said, file=sys.stderr, flush=True)
        return None
    return function
