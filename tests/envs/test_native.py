"""The environments that compiled code steps, against gymnasium's own steps."""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import check_inside
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src import dispatch
from small import NO_FACTS, make

from o2o.envs import inside, kernels, mujoco_tasks
from o2o.envs.episodes import Episode
from o2o.envs.mujoco_tasks import make_environments
from o2o.envs.tasks import TASKS
from o2o.replay.buffer import Replay, pack
from o2o.training import loop
from o2o.training.seeds import Members
from o2o.training.steps import Learner

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def several_threads(monkeypatch):
    """As on a machine with three cores."""
    monkeypatch.setattr(mujoco_tasks, "_cores", lambda: 3)


@pytest.mark.parametrize("name", TASKS)
def test_stepped_from_inside_a_program_all_is_as_gymnasium_has_it(name):
    check_inside.check(name, "cpu", count=4, steps=160)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_a_long_training_is_gymnasiums_bit_for_bit(name):
    task, count, steps = TASKS[name], 3, 5500
    ours = make_environments(task, range(count))
    with pytest.warns(DeprecationWarning, match="out of date"):
        theirs = [gymnasium.make(task.gymnasium_id) for _ in range(count)]

    def padded(observation):
        return np.pad(observation, (0, task.padding)).astype(np.float32)

    observation = np.stack([padded(env.reset(seed=i)[0]) for i, env in enumerate(theirs)])
    np.testing.assert_array_equal(ours.start(), observation)
    returns, lengths, ended = np.zeros(count), np.zeros(count, int), []
    for step, action in enumerate(check_inside.actions(ours, steps), 1):
        taken = [env.step(np.clip(a, -1, 1)) for env, a in zip(theirs, action, strict=True)]
        following = np.stack([padded(o) for o, *_ in taken])
        reward = np.array([r for _, r, *_ in taken], np.float32)
        terminated = np.array([t for _, _, t, *_ in taken])
        row = pack(observation, action, reward, terminated, following)
        returns, lengths, observation = returns + reward, lengths + 1, following.copy()
        for i, (_, _, *ends, _) in enumerate(taken):
            if any(ends):
                ended.append(Episode(i, step, returns[i], lengths[i]))
                returns[i] = lengths[i] = 0
                observation[i] = padded(theirs[i].reset()[0])
        np.testing.assert_array_equal(ours.advance(action), np.concatenate([row, observation], axis=1))
    assert ours.ended() == ended
    assert len(ended) >= count * (steps // 1000)


@pytest.mark.parametrize("name", ["hopper", "ant"])
def test_a_snapshot_goes_on_the_same_natively_and_by_gymnasium(name):
    ours = make_environments(TASKS[name], range(3))
    ours.start()
    given = check_inside.actions(ours, 95)
    for action in given[:35]:
        ours.advance(action)
    kept, rest = ours.snapshot(), given[35:]
    expected = [ours.advance(action) for action in rest]
    theirs = check_inside.python_environments(name, [7, 8, 9])
    for again in (ours, theirs, make_environments(TASKS[name], [7, 8, 9])):
        again.restore(kept, env_steps=35)
        np.testing.assert_array_equal([again.advance(action) for action in rest], expected)
        ended = again.ended()
        assert again.env_steps == 95
        assert all(35 < episode.env_step <= 95 for episode in ended)
    without = [{k: v for k, v in s.items() if k not in ("observation", "episode_return")} for s in kept]
    ours.restore(without)
    check_inside.same(ours, restored(theirs, without))


def restored(environments, snapshots):
    environments.restore(snapshots)
    return environments


def test_evaluation_episodes_are_recorded_and_what_ended_stays_still():
    ours, theirs = (
        make_environments(TASKS["hopper"], [0] * 4),
        check_inside.python_environments("hopper", [0] * 4),
    )
    for seeds in ([5, 6, 7, 8], [1, 2, 3, 4]):
        observation = ours.begin(seeds)
        np.testing.assert_array_equal(observation, theirs.begin(seeds))
        for action in check_inside.actions(ours, 1000):
            was_live = ours.live.copy()
            following = ours.play(action)
            np.testing.assert_array_equal(following, theirs.play(action))
            np.testing.assert_array_equal(following[~was_live], observation[~was_live])
            np.testing.assert_array_equal(ours.live, theirs.live)
            observation = following
            if not was_live.any():
                break
        mine, other = ours.record(), theirs.record()
        np.testing.assert_array_equal(mine.reward, other.reward)
        np.testing.assert_array_equal(mine.lengths, other.lengths)
        assert not mine.truncated.any()
        assert (np.count_nonzero(mine.reward, axis=0) == mine.lengths).all()


def test_two_sets_of_environments_step_side_by_side():
    names, found = ["hopper", "halfcheetah"], {}

    def train(name):
        environments = make_environments(TASKS[name], range(4))
        environments.can_step_inside("cpu")
        environments.start()
        given, size = check_inside.actions(environments, 300), environments.observation_size
        found[name] = np.asarray(check_inside.block(environments.handle, given, size, 0, 300)[1])

    threads = [threading.Thread(target=train, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = dict(found)
    for name in names:
        train(name)
        np.testing.assert_array_equal(together[name], found[name])


def test_one_program_serves_all_environments_of_a_kind_and_refuses_others():
    compiled = check_inside.block._cache_size()

    def train(count, told):
        environments = make_environments(TASKS["walker2d"], range(count))
        environments.can_step_inside("cpu")
        environments.start()
        given = np.zeros((7, told, 6), np.float32)
        return check_inside.block(environments.handle, given, 17, 0, 3)[0].block_until_ready()

    np.testing.assert_array_equal(train(5, 5), train(5, 5))
    assert check_inside.block._cache_size() == compiled + 1
    with pytest.raises(jax.errors.JaxRuntimeError, match="not those that the program was compiled for"):
        train(2, 5)
    dispatch.runtime_tokens.clear()  # else JAX raises it again when the process ends


def test_more_episodes_between_two_reports_than_environments_keep():
    replay = Replay(batch_size=8, capacity=9, min_size=9, observation_size=11, action_size=3)
    algorithm = make("frozen")
    environments = make_environments(TASKS["hopper"], [0])
    environments.can_step_inside("cpu")
    environments._control[kernels.TIME_LIMIT] = 1
    state = algorithm.init(jax.random.key(0), replay.example(), NO_FACTS)
    steps = kernels.MOST_ENDED + 50
    (report,) = loop.finetune(
        Learner(algorithm, replay, warmup_steps=steps),
        Members(1),
        [environments],
        [state],
        jnp.zeros((0, replay.row_width)),
        [jax.random.key(1)],
        [steps],
    )
    environments.close()
    assert [(e.env_step, e.length) for e in report.episodes] == [(step, 1) for step in range(1, steps + 1)]


def test_more_episodes_than_are_kept_for_a_block():
    ours = make_environments(TASKS["halfcheetah"], [0, 1])
    ours.can_step_inside("cpu")
    ours.start()
    ours._control[kernels.TIME_LIMIT] = 1
    steps = 2 * kernels.MOST_ENDED + 1
    given = check_inside.actions(ours, steps)
    for action in given:
        ours.advance(action)
    assert [(e.env_step, e.member, e.length) for e in ours.ended()] == [
        (step, member, 1) for step in range(1, steps + 1) for member in (0, 1)
    ]
    check_inside.block(ours.handle, given, 17, 0, steps)[0].block_until_ready()
    with pytest.raises(RuntimeError, match="over 200 episodes of an environment"):
        ours.ended()


def test_an_unstable_simulation_is_reset_by_mujoco_as_in_gymnasium(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log
    ours, theirs = make_environments(TASKS["ant"], [0]), check_inside.python_environments("ant", [0])
    for environments in (ours, theirs):
        environments.start()
        environments.place(environments.qpos, environments.qvel * np.nan)
    for action in check_inside.actions(ours, 3):
        np.testing.assert_array_equal(ours.advance(action), theirs.advance(action))
    check_inside.same(ours, theirs)
    assert capfd.readouterr().out.count("The simulation is unstable") >= 2


def test_where_there_is_no_cuda_it_is_said_and_all_goes_on_from_outside(monkeypatch, capsys):
    monkeypatch.setattr(kernels, "make_on_cuda", lambda cuda: 1 / 0)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    monkeypatch.setattr(inside, "register", functools.cache(inside.register.__wrapped__))
    ours = make_environments(TASKS["hopper"], [0])
    assert [ours.can_step_inside(platform) for platform in ("gpu", "cuda", "gpu")] == [False] * 3
    assert capsys.readouterr().err == (
        "environments are stepped from outside of JAX's programs: division by zero\n"
    )


def test_actions_of_another_shape_are_refused():
    ours = make_environments(TASKS["hopper"], [0, 1])
    ours.start()
    for shape in ((2, 4), (1, 3), (3, 3)):
        with pytest.raises(ValueError, match="for 2 environments"):
            ours.advance(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("name", "setting", "reason"),
    [("o2o.envs.kernels", None, "kernels"), ("numba", None, "numba"), (None, "0", "O2O_NATIVE=0")],
)
def test_without_compiled_code_gymnasium_steps_and_it_is_said_once(name, setting, reason):
    lost = f"import sys; sys.modules[{name!r}] = None" if name else ""
    code = f"""
{lost}
from o2o.envs.mujoco_tasks import make_environments
from o2o.envs.tasks import TASKS
for _ in range(2):
    environments = make_environments(TASKS["hopper"], [0])
environments.start()
environments.advance(environments.observation[:, :3])
print(environments.can_step_inside("cpu"), environments.env_steps)
"""
    done = python(code, **({"O2O_NATIVE": setting} if setting else {}))
    assert done.stdout.split() == ["False", "1"]
    assert done.stderr.count("stepped by gymnasium, which is slow") == 1
    assert reason in done.stderr


def test_a_fatal_error_of_mujoco_is_said_before_the_process_ends():
    done = python("""
import mujoco
from o2o.envs.mujoco_tasks import make_environments
from o2o.envs.tasks import TASKS
environments = make_environments(TASKS["hopper"], [0, 1, 2])
observation = environments.start()
env = environments._envs[1]
env.model.opt.integrator = 99
try:
    mujoco.mj_step(env.model, env.data)
except mujoco.FatalError as error:
    print("raised:", error)
environments.advance(observation[:, :3])
print("not reached")
""")
    assert done.returncode == 1
    assert done.stdout == "raised: mj_step: invalid integrator\n"
    assert done.stderr == "MuJoCo cannot go on, nor can this process: mj_step: invalid integrator\n"


@pytest.mark.slow
def test_another_process_takes_the_program_from_the_compilation_cache(tmp_path):
    code = f"""
import sys; sys.path.insert(0, {str(ROOT / "tests/envs")!r})
import check_inside, jax
jax.config.update("jax_compilation_cache_dir", {str(tmp_path)!r})
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event.rpartition("/")[2]))
check_inside.check("hopper", "cpu", 2, 30)
print(events.count("cache_hits"), events.count("cache_misses"))
"""
    (_, missed), (hits, missed_again) = (map(int, python(code).stdout.split()) for _ in range(2))
    assert missed_again == 0
    assert hits == missed > 0


def python(code, **environment):
    """Runs a program."""
    environment = os.environ | environment | {"JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, cwd=ROOT
    )


class Cuda:
    """CUDA's copies, on the host's memory, and what XLA hands to a function on a GPU."""

    def __init__(self, handle, action, width):
        copy = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_int64] * 4)
        self.cuMemcpyDtoHAsync_v2 = self.cuMemcpyHtoDAsync_v2 = copy(self._copy)
        self.cuStreamSynchronize = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int64)(self._synchronize)
        self.calls, self.status, self.error = [], 0, None
        self.result = np.zeros((len(action), width), np.float32)
        word = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
        self._functions = word(self._create_error), word(self._get_stream)
        api = np.zeros(24, np.int64)
        api[[6, 10]] = [ctypes.cast(function, ctypes.c_void_p).value for function in self._functions]
        buffers = [self._buffer(array) for array in (handle, action, self.result)]
        self._kept = [api, buffers]
        arguments, results = np.array(buffers[:2]), np.array(buffers[2:])
        self._kept += [arguments, results]
        self.frame = np.zeros(21, np.int64)
        self.frame[[2, 3, 4, 9, 14]] = address(api), 11, 3, address(arguments), address(results)

    def _buffer(self, array):
        dims = np.array(array.shape)
        words = np.array([48, 0, 0, address(array), array.ndim, address(dims)])
        self.__dict__.setdefault("arrays", []).extend([array, dims, words])
        return address(words)

    def _copy(self, to, source, size, stream):
        self.calls.append((size, stream))
        ctypes.memmove(to, source, size)
        return self.status

    def _synchronize(self, stream):
        self.calls.append(("wait", stream))
        return 0

    def _get_stream(self, arguments):
        words = (ctypes.c_int64 * 4).from_address(arguments)
        assert (words[0], words[2]) == (32, 11)
        words[3] = 42
        return 0

    def _create_error(self, arguments):
        words = (ctypes.c_int64 * 4).from_address(arguments)
        self.error = ctypes.string_at(words[2])
        return 99


def address(array):
    return array.ctypes.data


def test_on_a_gpu_actions_come_and_results_go_by_the_programs_stream():
    ours, theirs = (make_environments(TASKS["hopper"], [3, 4]) for _ in range(2))
    ours.start()
    theirs.start()
    given = check_inside.actions(ours, 2)
    for action, expected, width in ((given[0], theirs.advance, 38), (given[1], theirs.play, 11)):
        if width == 11:
            ours.begin([1, 2])
            theirs.begin([1, 2])
        cuda = Cuda(ours.handle, action, width)
        function = kernels.make_on_cuda(cuda).ctypes
        assert function(address(cuda.frame)) == 0
        np.testing.assert_array_equal(cuda.result, expected(action))
        assert cuda.calls == [(8, 42), ("wait", 42), (24, 42), ("wait", 42), (8 * width, 42)]
        assert ours._control[kernels.SPINS] == kernels.SPINS_ON_GPU
        assert cuda.error is None
    cuda = Cuda(ours.handle, np.zeros((3, 3), np.float32), 38)
    assert kernels.make_on_cuda(cuda).ctypes(address(cuda.frame)) == 99
    assert cuda.error == b"these environments are not those that the program was compiled for"
    cuda.status = 701
    assert kernels.make_on_cuda(cuda).ctypes(address(cuda.frame)) == 99
    assert cuda.error == b"CUDA error 701 where the environments read and write"
    before = ours.env_steps
    cuda.frame[4] = 1  # what is to be prepared, not executed
    assert kernels.make_on_cuda(cuda).ctypes(address(cuda.frame)) == 0
    assert ours.env_steps == before


@pytest.mark.parametrize(
    "make", [make_environments, lambda task, seeds: check_inside.python_environments("hopper", seeds)]
)
def test_what_comes_too_early_does_no_harm(make):
    ours = make(TASKS["hopper"], [0, 1])
    assert not ours.play(np.zeros((2, 3), np.float32)).any()
    for _ in range(120):
        ours.advance(np.ones((2, 3), np.float32))
    assert ours.ended()
    assert ours.ended() == []
    with pytest.raises(IndexError):
        ours.step(np.zeros((1, 3), np.float32), [2])


def test_a_program_that_is_no_longer_waited_for_outlives_the_environments():
    ours = make_environments(TASKS["hopper"], [0, 1])
    ours.can_step_inside("cpu")
    ours.start()
    given, steps = check_inside.actions(ours, 1), 50_000
    many = np.broadcast_to(given, (steps, *given.shape[1:]))
    running = threading.Thread(
        target=lambda: check_inside.block(ours.handle, many, 11, 0, steps)[0].block_until_ready()
    )
    running.start()
    while not ours.env_steps:
        time.sleep(0.001)
    ours.close()
    done = ours.env_steps
    assert 0 < done < steps
    running.join()
    assert ours.env_steps == done
    with pytest.raises(ValueError, match="these environments are closed"):
        _ = ours.handle


def test_closing_ends_the_threads():
    ours = make_environments(TASKS["hopper"], range(6))
    before = threading.active_count()
    assert ours._control[kernels.WORKERS] == 2
    ours.close()
    assert threading.active_count() == before - 2
    forgotten = make_environments(TASKS["hopper"], range(6))
    assert threading.active_count() == before
    del forgotten
    assert threading.active_count() == before - 2


@pytest.mark.parametrize(
    ("name", "index", "values"),
    [
        ("hopper", 1, [0.8, 0.6, 3.0, np.inf]),
        ("hopper", 2, [0.19, 0.21, -0.21]),
        ("hopper", 6, [95, 105]),
        ("walker2d", 1, [0.81, 0.79, 1.98, 2.02]),
        ("walker2d", 2, [0.98, 1.02, -1.02]),
        ("ant", 2, [0.21, 0.19, 0.98, 1.02]),
        ("halfcheetah", 1, [5.0]),
    ],
)
def test_episodes_end_at_gymnasiums_bounds(name, index, values, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log of what is unstable
    ours, theirs = make_environments(TASKS[name], [0]), check_inside.python_environments(name, [0])
    ended = []
    for value in values:
        for environments in (ours, theirs):
            environments.start()
            state = np.concatenate([environments.qpos, environments.qvel * 0], axis=1)
            state[0, index] = value
            environments.place(*np.split(state, [environments.qpos.shape[1]], axis=1))
        action = np.zeros((1, ours.action_size), np.float32)
        packet = ours.advance(action)
        np.testing.assert_array_equal(packet, theirs.advance(action))
        ended.append(packet[0, -2 * ours.observation_size - 1])
    assert name == "halfcheetah" or len(set(ended)) == 2


@pytest.mark.slow
def test_without_a_place_to_keep_it_the_code_is_compiled_anew():
    done = python("""
import numba.core.caching
numba.core.caching.CacheImpl._locator_classes = []
from o2o.envs.mujoco_tasks import make_environments
from o2o.envs.tasks import TASKS
environments = make_environments(TASKS["hopper"], [0])
print(environments.can_step_inside("cpu"))
""")
    assert done.stdout == "True\n"
    assert done.stderr == ""
