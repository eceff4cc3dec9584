"""The four locomotion tasks stepped by compiled code, without Python's lock: equal to gymnasium's bit for bit.

numba compiles what gymnasium's `-v4` environments do around `mj_step` of the `libmujoco` in MuJoCo's wheel, and keeps
it on disk. The functions work on gymnasium's own simulators and random generators, so these can be read, saved
and reset from Python between two calls. A *control* is one array of words that says where all of it lies; its address
is all that a function needs, so that compiled programs of JAX can call in too (`make_on_cpu`, `make_on_cuda`; typed
FFI, see jaxlib's `xla/ffi/api/c_api.h`). All of it is in one file: numba looks at no other when it asks whether what
it kept is still right.

Environments are stepped by the calling thread and, where there are cores, by workers of the control's own: numba's
parallel loops must not be entered from two threads at once, and members of a job may step side by side.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding
import mujoco
import numpy as np
from llvmlite import ir
from numba import cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

# A control's words. Pointers to arrays of one element an environment, unless said otherwise:
(
    TASK,  # the index in NAMES
    OBSERVATION_SIZE,  # padding included
    ACTION_SIZE,
    POSITIONS,  # how many joint positions
    VELOCITIES,
    FRAME_SKIP,
    TIME_LIMIT,
    CONSTANTS,  # pointer to the numbers below
    SIMULATORS,  # pointer: PLACES words each
    OBSERVATIONS,
    ELAPSED,
    EPISODE_RETURNS,
    ENV_STEPS,  # pointer to one number
    ENDED,  # pointer: how many training episodes ended since they were collected
    ENDED_AT,  # pointer: the env step, return and length of each, MOST_ENDED rows an environment
    LIVE,
    REWARDS,  # pointer: of evaluation, a row a step
    LENGTHS,
    TRUNCATED,
    # The call in progress:
    MODE,
    ENVIRONMENTS,
    MEMBERS,  # pointer to which environments are stepped, or 0 for all
    ACTIONS,
    RESULTS,
    # Its threads:
    WORKERS,
    SPINS,  # how often a worker looks for work before it sleeps
    STOP,
    BUSY,  # whether a compiled program is in a call
    FULL,  # whether an environment has as many ended episodes as are kept
    HOST_ACTIONS,  # pointers to where a GPU's buffers are copied to and from
    HOST_PACKETS,
) = range(31)
# Apart from the rest and from each other, since all threads write to them.
LEFT, DONE, SLEEPERS, SEMAPHORE, CONTROL = 32, 40, 48, 56, 64

# The task's numbers; the last is where the joints' positions and velocities before a reset's noise begin.
SECONDS, ACTION_COST, NOISE, HEALTHY_REWARD, LOW, HIGH, LEFTMOST, RIGHTMOST, LEAST, MOST, INITIAL = range(11)
MODEL, DATA, CTRL, QPOS, QVEL, TORSO, GENERATOR, PLACES = range(8)
NAMES = ("hopper", "walker2d", "halfcheetah", "ant")
HOPPER, WALKER2D, HALFCHEETAH, ANT = range(4)
STEP, ADVANCE, PLAY = range(3)
MOST_ENDED = 200
"""Training episodes of one environment that are kept until Python collects them: one a step of the longest block."""

USUAL_SPINS = 50
SPINS_ON_GPU = 1000
"""About a millisecond: on a GPU the cores have nothing else to do while the learning takes that long."""

_CREATE_ERROR, _GET_STREAM = 6, 10  # words of XLA_FFI_Api
_EXECUTE, _INTERNAL_ERROR = 3, 13
_FFI_VERSION = 3 << 32  # 0.3

_intp, _WORD = types.int64, ir.IntType(64)
_LIBRARY = next(
    path
    for path in Path(mujoco.__file__).parent.iterdir()
    if path.name.startswith(("libmujoco", "mujoco.dll"))
)
_LIBMUJOCO = ctypes.CDLL(str(_LIBRARY))
_NUMPY = ctypes.CDLL(sys.modules["numpy.random._generator"].__file__ or "")
_LIBC = ctypes.CDLL(None)

_OTHER_SIZES = np.frombuffer(
    b"these environments are not those that the program was compiled for\0", np.uint8
)
_CUDA_ERROR = np.frombuffer(b"CUDA error 000 where the environments read and write\0", np.uint8)


def _external(library: Any, name: str, result: Any, *arguments: Any) -> Any:
    """Returns a function of a library, to be called from compiled code that can be kept on disk."""
    llvmlite.binding.add_symbol(name, ctypes.cast(getattr(library, name), ctypes.c_void_p).value)
    return types.ExternalFunction(name, result(*arguments))


mj_step = _external(_LIBMUJOCO, "mj_step", types.void, _intp, _intp)
mj_forward = _external(_LIBMUJOCO, "mj_forward", types.void, _intp, _intp)
mj_reset_data = _external(_LIBMUJOCO, "mj_resetData", types.void, _intp, _intp)
# As numpy's documentation shows it; Generator.uniform and Generator.standard_normal are loops over these.
random_uniform = _external(_NUMPY, "random_uniform", types.float64, _intp, types.float64, types.float64)
random_standard_normal = _external(_NUMPY, "random_standard_normal", types.float64, _intp)
sched_yield = _external(_LIBC, "sched_yield", types.int32)
sem_wait = _external(_LIBC, "sem_wait", types.int32, _intp)
sem_post = _external(_LIBC, "sem_post", types.int32, _intp)


@ctypes.CFUNCTYPE(None, ctypes.c_char_p)
def _fatal(message: bytes) -> None:
    """Ends the process with MuJoCo's message. MuJoCo calls it on a fatal error, and it must not return."""
    sys.stdout.flush()
    print(
        f"MuJoCo cannot go on, nor can this process: {message.decode(errors='replace')}",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


# MuJoCo's Python functions raise their errors by a handler of their own, which comes before this one.
ctypes.c_void_p.in_dll(_LIBMUJOCO, "mju_user_error").value = ctypes.cast(_fatal, ctypes.c_void_p).value


def prepare_semaphore(control: int, workers: int) -> int:
    """Prepares the semaphore that workers sleep on; returns how many workers there can be."""
    return 0 if _LIBC.sem_init(ctypes.c_void_p(control + 8 * SEMAPHORE), 0, 0) else workers  # macOS has none


def _operation(generate: Callable[..., Any], result: Any) -> Any:
    """Returns a function of compiled code, from words to what `generate` makes of a builder and the words."""

    def operation(_: Any, *words: Any) -> Any:
        def generated(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return generate(builder, *values)

        return result(*[_intp] * len(words)), generated

    if generate.__code__.co_argcount == 2:
        return intrinsic(lambda typing, word: operation(typing, word))
    return intrinsic(lambda typing, word, value: operation(typing, word, value))


def _pointer(builder: Any, address: Any, element: ir.Type = _WORD) -> Any:
    return builder.inttoptr(address, element.as_pointer())


def _call(builder: Any, function: Any, argument: Any) -> Any:
    return builder.call(_pointer(builder, function, ir.FunctionType(_WORD, [_WORD])), [argument])


def _pause(builder: Any, _: Any) -> Any:
    if platform.machine() in ("x86_64", "AMD64"):
        nothing = ir.FunctionType(ir.VoidType(), [])
        builder.call(cgutils.get_or_insert_function(builder.module, nothing, "llvm.x86.sse2.pause"), [])
    return _WORD(0)


def _elements(element: Any, stored: ir.Type) -> Any:
    """Returns a function from an address to the elements there, which can be indexed."""
    return _operation(lambda b, address: _pointer(b, address, stored), types.CPointer(element))


int64s, float64s = _elements(types.int64, _WORD), _elements(types.float64, ir.DoubleType())
int32s, float32s = _elements(types.int32, ir.IntType(32)), _elements(types.float32, ir.FloatType())
uint8s = _elements(types.uint8, ir.IntType(8))
# Words that several threads read and write; the first two return what was there before.
atomic_add = _operation(lambda b, a, v: b.atomic_rmw("add", _pointer(b, a), v, "seq_cst"), _intp)
atomic_set = _operation(lambda b, a, v: b.atomic_rmw("xchg", _pointer(b, a), v, "seq_cst"), _intp)
atomic_load = _operation(lambda b, a: b.load_atomic(_pointer(b, a), "seq_cst", 8), _intp)
# What a C function at an address, of one pointer to one pointer, returns.
call = _operation(_call, _intp)
# What tells a core that its thread only waits.
pause = _operation(_pause, _intp)
# The address of eight words that live as long as the call in which they are asked for; numba's arrays are freed after
# their last use by name, whoever still has their address.
words = _operation(lambda b, _: b.ptrtoint(cgutils.alloca_once(b, ir.ArrayType(_WORD, 8)), _WORD), _intp)


inner = njit(error_model="numpy")
"""Marks a function that is compiled as a part of its callers."""


def kept(compiler: Any, signature: Any, function: Any, **options: Any) -> Any:
    """Returns the function, taken from the disk or compiled, and kept where there is a place for it.

    That is NUMBA_CACHE_DIR, where it is set, else beside this file, else below the user's home.
    """
    try:
        return compiler(signature, cache=True, error_model="numpy", **options)(function)
    except (RuntimeError, OSError):  # numba's words for no place, and the system's
        return compiler(signature, error_model="numpy", **options)(function)


def outer(signature: Any) -> Any:
    """Returns a decorator of functions that Python calls, without its lock."""
    return lambda function: kept(njit, signature, function, nogil=True)


@inner
def _observe(control, simulator, to):
    """Writes an observation of float32 to an address."""
    c, places, result = int64s(control), int64s(simulator), float32s(to)
    qpos, qvel = float64s(places[QPOS]), float64s(places[QVEL])
    task, n = c[TASK], 0
    for i in range(2 if task == ANT else 1, c[POSITIONS]):
        result[n] = qpos[i]
        n += 1
    for i in range(c[VELOCITIES]):
        v = qvel[i]
        if task in (HOPPER, WALKER2D):
            if v < -10:
                v = -10.0
            elif v > 10:
                v = 10.0
        result[n] = v
        n += 1
    for i in range(n, c[OBSERVATION_SIZE]):
        result[i] = 0


@inner
def _reset(control, simulator):
    """Begins a new episode, as gymnasium's `reset` without a seed does."""
    c, places = int64s(control), int64s(simulator)
    qpos, qvel, constants = float64s(places[QPOS]), float64s(places[QVEL]), float64s(c[CONSTANTS])
    nq, task, noise, generator = c[POSITIONS], c[TASK], constants[NOISE], places[GENERATOR]
    mj_reset_data(places[MODEL], places[DATA])
    for i in range(nq):
        qpos[i] = constants[INITIAL + i] + random_uniform(generator, -noise, noise - -noise)
    for i in range(c[VELOCITIES]):
        if task in (HALFCHEETAH, ANT):
            drawn = noise * random_standard_normal(generator)
        else:
            drawn = random_uniform(generator, -noise, noise - -noise)
        qvel[i] = constants[INITIAL + nq + i] + drawn
    mj_forward(places[MODEL], places[DATA])


@inner
def _healthy(control, simulator):
    """Returns whether an episode goes on; every comparison with NaN fails."""
    c, places = int64s(control), int64s(simulator)
    qpos, qvel, constants = float64s(places[QPOS]), float64s(places[QVEL]), float64s(c[CONSTANTS])
    task = c[TASK]
    if task == HALFCHEETAH:
        return True
    if task == ANT:
        for i in range(c[POSITIONS]):
            if not np.isfinite(qpos[i]):
                return False
        for i in range(c[VELOCITIES]):
            if not np.isfinite(qvel[i]):
                return False
        return constants[LOW] <= qpos[2] <= constants[HIGH]
    if task == HOPPER:
        for i in range(2, c[POSITIONS]):
            if not constants[LEAST] < qpos[i] < constants[MOST]:
                return False
        for i in range(c[VELOCITIES]):
            if not constants[LEAST] < qvel[i] < constants[MOST]:
                return False
    return constants[LOW] < qpos[1] < constants[HIGH] and constants[LEFTMOST] < qpos[2] < constants[RIGHTMOST]


@inner
def _square(value):
    return np.float32(value) * np.float32(value)


@inner
def _simulate(control, simulator, action):
    """Takes an action, clipped, and returns the reward."""
    c, places, given = int64s(control), int64s(simulator), float32s(action)
    task, size, ctrl = c[TASK], c[ACTION_SIZE], float64s(places[CTRL])
    forward = float64s(
        places[TORSO] if task == ANT else places[QPOS]
    )  # Ant's lags the joints by a physics step
    squares = np.float32(0)
    for i in range(size):
        a = given[i]
        if a < -1:
            a = np.float32(-1)
        elif a > 1:
            a = np.float32(1)
        ctrl[i] = a
        squares += _square(a)
    if size == 8:  # numpy adds up eight numbers in pairs
        squares = ((_square(ctrl[0]) + _square(ctrl[1])) + (_square(ctrl[2]) + _square(ctrl[3]))) + (
            (_square(ctrl[4]) + _square(ctrl[5])) + (_square(ctrl[6]) + _square(ctrl[7]))
        )
    before = forward[0]
    for _ in range(c[FRAME_SKIP]):
        mj_step(places[MODEL], places[DATA])
    constants = float64s(c[CONSTANTS])
    velocity = (forward[0] - before) / constants[SECONDS]
    return velocity + constants[HEALTHY_REWARD] - np.float32(constants[ACTION_COST]) * squares


@inner
def _one(control, j):
    """Does a call's work for the j-th of the environments that it steps."""
    c = int64s(control)
    e = int64s(c[MEMBERS])[j] if c[MEMBERS] else j
    mode, size, actions = c[MODE], c[OBSERVATION_SIZE], c[ACTION_SIZE]
    simulator, kept = c[SIMULATORS] + 8 * PLACES * e, float32s(c[OBSERVATIONS] + 4 * size * e)
    action = c[ACTIONS] + 4 * actions * j
    live = uint8s(c[LIVE])
    if mode == PLAY and not live[e]:
        result = float32s(c[RESULTS] + 4 * size * j)
        for i in range(size):
            result[i] = kept[i]
        return
    reward = np.float32(_simulate(control, simulator, action))
    terminated = not _healthy(control, simulator)
    elapsed = int64s(c[ELAPSED])
    elapsed[e] += 1
    truncated = elapsed[e] >= c[TIME_LIMIT]
    if mode == STEP:
        to = c[RESULTS] + 4 * (size + 3) * j
        result = float32s(to)
        _observe(control, simulator, to)
        result[size], result[size + 1], result[size + 2] = reward, terminated, truncated
        return
    if mode == PLAY:
        lengths = int64s(c[LENGTHS])
        float64s(c[REWARDS])[lengths[e] * c[ENVIRONMENTS] + e] = reward
        lengths[e] += 1
        uint8s(c[TRUNCATED])[e] = truncated and not terminated
        live[e] = not (terminated or truncated)
        to = c[RESULTS] + 4 * size * j
    else:
        width = 2 * size + actions + 2
        to = c[RESULTS] + 4 * (width + size) * j
        row, given = float32s(to), float32s(action)
        for i in range(size):
            row[i] = kept[i]
        for i in range(actions):
            row[size + i] = given[i]
        row[size + actions], row[size + actions + 1] = reward, terminated
        _observe(control, simulator, to + 4 * (width - size))
        returns = float64s(c[EPISODE_RETURNS])
        returns[e] += reward
        if terminated or truncated:
            n = int64s(c[ENDED])[e]
            int64s(c[ENDED])[e] = n + 1
            if n < MOST_ENDED:
                ended = float64s(c[ENDED_AT] + 24 * (MOST_ENDED * e + n))
                ended[0], ended[1], ended[2] = int64s(c[ENV_STEPS])[0], returns[e], elapsed[e]
            if n + 1 >= MOST_ENDED:
                c[FULL] = 1
            returns[e] = 0
            elapsed[e] = 0
            _reset(control, simulator)
        to += 4 * width
    _observe(control, simulator, to)
    result = float32s(to)
    for i in range(size):
        kept[i] = result[i]


@inner
def _wait():
    """Waits about a microsecond, or longer where another thread wants the core."""
    for _ in range(20):
        pause(0)
    sched_yield()


@inner
def _work(control):
    """Does a call's work for environments that no thread has taken yet, until none is left."""
    while True:
        j = atomic_add(control + 8 * LEFT, -1) - 1
        if j < 0:
            return
        _one(control, j)
        atomic_add(control + 8 * DONE, 1)


@outer(types.int64(_intp, _intp, _intp, _intp, _intp, _intp))
def run(control, mode, count, members, actions, results):
    """Steps `count` environments and returns whether ended episodes must be collected now."""
    c = int64s(control)
    c[MODE], c[MEMBERS], c[ACTIONS], c[RESULTS] = mode, members, actions, results
    if mode == ADVANCE:
        int64s(c[ENV_STEPS])[0] += 1
    if c[WORKERS] == 0 or count <= 1:
        for j in range(count):
            _one(control, j)
        return c[FULL]
    atomic_set(control + 8 * DONE, 0)
    atomic_set(control + 8 * LEFT, count)
    sleeping = min(atomic_load(control + 8 * SLEEPERS), count - 1)
    atomic_add(control + 8 * SLEEPERS, -sleeping)
    for _ in range(sleeping):
        sem_post(control + 8 * SEMAPHORE)
    _work(control)
    while atomic_load(control + 8 * DONE) < count:
        _wait()
    return c[FULL]


@outer(types.void(_intp))
def serve(control):
    """Works until it is stopped: the body of a worker thread.

    A worker that finds work just before it would have slept is still among the sleepers: so a later sleeper is woken
    for nothing, once.
    """
    c, spins = int64s(control), 0
    while not atomic_load(control + 8 * STOP):
        if atomic_load(control + 8 * LEFT) > 0:
            _work(control)
            spins = 0
        elif spins < c[SPINS]:
            _wait()
            spins += 1
        else:
            atomic_add(control + 8 * SLEEPERS, 1)
            if atomic_load(control + 8 * LEFT) <= 0 and not atomic_load(control + 8 * STOP):
                sem_wait(control + 8 * SEMAPHORE)
            spins = 0


@outer(types.void(_intp))
def stop(control):
    """Ends the workers. A program that still runs finds the environments closed: it may outlive them, the control not.

    One does where an exception, as of a second Ctrl-C, comes while it is waited for.
    """
    atomic_set(control + 8 * STOP, 1)
    while atomic_load(control + 8 * BUSY):
        _wait()
    for _ in range(int64s(control)[WORKERS]):
        sem_post(control + 8 * SEMAPHORE)


@inner
def _refuse(frame, text):
    """Returns an error for XLA, with the C string at that address."""
    asked = words(0)
    a = int64s(asked)
    a[0], a[1], a[2], a[3] = 28, 0, text, _INTERNAL_ERROR
    return call(int64s(int64s(frame)[2])[_CREATE_ERROR], asked)


@inner
def _refuse_cuda(frame, code):
    """Returns an error of CUDA for XLA."""
    text = words(0)
    for i in range(len(_CUDA_ERROR)):
        uint8s(text)[i] = _CUDA_ERROR[i]
    for i in range(3):
        uint8s(text)[13 - i] += code % 10
        code //= 10
    return _refuse(frame, text)


@inner
def _asked_what_it_is(frame):
    """Returns whether XLA only registers the function; tells it for which version it was written."""
    extension = int64s(int64s(frame)[1])
    if int64s(frame)[1] == 0 or int32s(int64s(frame)[1] + 8)[0] != 1:
        return int32s(frame + 32)[0] != _EXECUTE
    version = int64s(extension[3])
    version[3], version[4] = _FFI_VERSION, 0
    return True


@inner
def _fits(control, action, result):
    """Returns whether the buffers of a program have the sizes of the control's environments."""
    c, given, wanted = int64s(control), int64s(int64s(action)[5]), int64s(int64s(result)[5])
    size = c[OBSERVATION_SIZE]
    width = 3 * size + c[ACTION_SIZE] + 2
    return (
        given[0] == c[ENVIRONMENTS]
        and given[1] == c[ACTION_SIZE]
        and (wanted[1] == size or wanted[1] == width)
    )


@inner
def _step(control, result, actions, results):
    """Plays where the result has the width of an observation, else advances; does nothing if they are closed."""
    c = int64s(control)
    mode = PLAY if int64s(int64s(result)[5])[1] == c[OBSERVATION_SIZE] else ADVANCE
    atomic_set(control + 8 * BUSY, 1)
    if not atomic_load(control + 8 * STOP):
        run(control, mode, c[ENVIRONMENTS], 0, actions, results)
    atomic_set(control + 8 * BUSY, 0)


def make_on_cpu() -> Any:
    """Returns the function that a program of JAX calls on a CPU: operands control and actions, one result."""

    def on_cpu(frame):
        if _asked_what_it_is(frame):
            return 0
        arguments, result = int64s(int64s(frame)[9]), int64s(int64s(frame)[14])[0]
        control = int64s(int64s(arguments[0])[3])[0]
        if not _fits(control, arguments[1], result):
            return _refuse(frame, _OTHER_SIZES.ctypes.data)
        _step(control, result, int64s(arguments[1])[3], int64s(result)[3])
        return 0

    return kept(cfunc, types.int64(_intp), on_cpu)


def make_on_cuda(cuda: Any) -> Any:
    """Returns the function that a program of JAX calls on a GPU: operands control and actions, one result.

    CUDA's library copies the buffers to the host and back, on the program's stream. The host's buffers are the
    environments' own: the next call writes to them only when it has waited for the stream.
    """
    to_host = _external(cuda, "cuMemcpyDtoHAsync_v2", types.int32, _intp, _intp, _intp, _intp)
    to_device = _external(cuda, "cuMemcpyHtoDAsync_v2", types.int32, _intp, _intp, _intp, _intp)
    synchronize = _external(cuda, "cuStreamSynchronize", types.int32, _intp)

    def on_cuda(frame):
        if _asked_what_it_is(frame):
            return 0
        f = int64s(frame)
        arguments, result = int64s(f[9]), int64s(f[14])[0]
        asked = words(0)
        a = int64s(asked)
        a[0], a[1], a[2], a[3], a[4] = 32, 0, f[3], 0, 0
        error = call(int64s(f[2])[_GET_STREAM], asked)
        if error != 0:
            return error
        stream = a[3]
        failed = to_host(asked + 32, int64s(arguments[0])[3], 8, stream) or synchronize(stream)
        if failed:
            return _refuse_cuda(frame, failed)
        control, c = a[4], int64s(a[4])
        if not _fits(control, arguments[1], result):
            return _refuse(frame, _OTHER_SIZES.ctypes.data)
        c[SPINS] = SPINS_ON_GPU
        size = 4 * c[ENVIRONMENTS] * c[ACTION_SIZE]
        failed = to_host(c[HOST_ACTIONS], int64s(arguments[1])[3], size, stream) or synchronize(stream)
        if failed:
            return _refuse_cuda(frame, failed)
        _step(control, result, c[HOST_ACTIONS], c[HOST_PACKETS])
        size = 4 * c[ENVIRONMENTS] * int64s(int64s(result)[5])[1]
        failed = to_device(int64s(result)[3], c[HOST_PACKETS], size, stream)
        return _refuse_cuda(frame, failed) if failed else 0

    return kept(cfunc, types.int64(_intp), on_cuda)
