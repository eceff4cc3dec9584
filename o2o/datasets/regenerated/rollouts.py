"""Rollouts of behaviour policies, as rows under D4RL's names, computed in processes of their own.

A rollout is cut into streams, which do not depend on each other and are the same wherever they are computed, so that
all cores can work and the result has the same bytes on few and on many. The process of a stream reads a request from
standard input and writes pieces of rows to standard output (`main`).
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Float

from o2o.datasets.regenerated import tanh_gaussian
from o2o.datasets.regenerated.tanh_gaussian import TanhGaussian

STREAMS = 4
BLOCK = 1000
"""Steps between two policies in a replay: rlkit collects so many, from a reset on, before it trains again."""

RolloutRows = dict[str, np.ndarray]
"""Arrays of the same length by D4RL's names, of one episode or one block."""


@dataclass(frozen=True)
class Request:
    """The work of one stream."""

    task: str
    policies: str
    """The file of the behaviour policies."""
    seed: int
    stream: int
    environments: int
    """The most environments that are stepped together."""
    units: list[tuple[int, list[int]]] | None
    """For a replay, which policy (its index) collects which blocks; None is whole episodes of the first, endlessly."""


def pieces(request: Request) -> Iterator[RolloutRows]:
    """The episodes or blocks of a stream, in order."""
    from o2o.envs.mujoco_tasks import MujocoEnvironments  # loads the simulator, which planning does without
    from o2o.envs.tasks import TASKS

    behaviours, _ = tanh_gaussian.load(Path(request.policies))
    environments = MujocoEnvironments(TASKS[request.task], [0] * request.environments)
    try:
        if request.units is None:
            yield from _episodes(environments, behaviours[0], request.seed, request.stream)
        else:
            for index, numbers in request.units:
                yield from blocks(environments, behaviours[index], request.seed, numbers)
    finally:
        environments.close()


def step(
    environments: Any, observation: np.ndarray, action: np.ndarray, log_prob: np.ndarray, members: np.ndarray
) -> tuple[RolloutRows, np.ndarray]:
    """One step of `members`: its rows, and which of them ended an episode."""
    rows = {
        "observations": observation,
        "actions": action,
        "infos/action_log_probs": log_prob,
        "infos/qpos": environments.qpos[members],
        "infos/qvel": environments.qvel[members],
    }
    if environments.task.name == "ant":
        rows["infos/xpos"] = environments.torso[members]  # its rewards are measured on it
    following, rewards, terminated, truncated = environments.step(action, members.tolist())
    rows |= {
        "rewards": rewards,
        "next_observations": following,
        "terminals": terminated,
        "timeouts": truncated,
    }
    return rows, terminated | truncated


def returns(
    environments: Any, policy: TanhGaussian, generator: np.random.Generator
) -> Float[np.ndarray, " E"]:
    """Undiscounted returns of one stochastic episode an environment."""
    live = np.arange(len(environments))
    observation = environments.reset()
    sums = np.zeros(len(environments))
    for _ in range(environments.time_limit):
        noise = generator.standard_normal((len(live), environments.action_size), np.float32)
        action, _ = policy.sample(observation, noise)
        observation, reward, terminated, truncated = environments.step(action, live.tolist())
        sums[live] += reward
        going_on = ~(terminated | truncated)
        live, observation = live[going_on], observation[going_on]
        if not len(live):
            break
    return sums


def _episodes(environments: Any, policy: TanhGaussian, seed: int, stream: int) -> Iterator[RolloutRows]:
    """Endless whole episodes, in the order in which they were begun.

    The order in which they end would favour short ones.
    """
    seeds, noise_seed = np.random.SeedSequence([seed], spawn_key=(stream,)).spawn(2)
    generator = np.random.default_rng(noise_seed)
    count = len(environments)
    environments.reseed(seeds.generate_state(count).tolist())
    everyone = np.arange(count)
    number = everyone.copy()  # of the episode that each environment is in
    finished: dict[int, RolloutRows] = {}
    upcoming = 0
    recorded: RolloutRows = {}
    observation = environments.reset()
    while True:
        noise = generator.standard_normal((count, environments.action_size), np.float32)
        action, log_prob = policy.sample(observation, noise)
        time = environments.elapsed.copy()
        rows, ended = step(environments, observation, action, log_prob, everyone)
        rows["terminals"] &= ~rows["timeouts"]  # D4RL: the step at the limit is a timeout, whatever happens
        _record(recorded, rows, (count, environments.time_limit), (everyone, time))
        observation = rows["next_observations"]
        done = np.flatnonzero(ended)
        if not done.size:
            continue
        for i in done:
            finished[number[i]] = {key: values[i, : time[i] + 1].copy() for key, values in recorded.items()}
        number[done] = number.max() + 1 + np.arange(done.size)
        observation = observation.copy()
        observation[done] = environments.reset(done.tolist())
        while upcoming in finished:
            yield finished.pop(upcoming)
            upcoming += 1


def blocks(environments: Any, policy: TanhGaussian, seed: int, numbers: list[int]) -> Iterator[RolloutRows]:
    """Rlkit's blocks: each begins with a reset, and cuts its last episode short.

    What a block is depends on the policy, the seed and its number alone.
    """
    members = np.arange(len(numbers))
    seeds = [np.random.SeedSequence([seed], spawn_key=(number,)).generate_state(2) for number in numbers]
    environments.reseed([int(own) for own, _ in seeds] + [0] * (len(environments) - len(numbers)))
    shape = (BLOCK, environments.action_size)
    noise = np.stack([np.random.default_rng(own).standard_normal(shape, np.float32) for _, own in seeds])
    recorded: RolloutRows = {}
    observation = environments.reset(members.tolist())
    for time in range(BLOCK):
        action, log_prob = policy.sample(observation, noise[:, time])
        rows, ended = step(environments, observation, action, log_prob, members)
        if time == BLOCK - 1:
            rows["timeouts"] = ~rows["terminals"]
        _record(recorded, rows, (len(numbers), BLOCK), (members, time))
        observation = rows["next_observations"]
        if ended.any():
            observation = observation.copy()
            observation[ended] = environments.reset(members[ended].tolist())
    yield from ({key: values[i] for key, values in recorded.items()} for i in members)


def _record(recorded: RolloutRows, rows: RolloutRows, shape: tuple[int, int], place: tuple[Any, Any]) -> None:
    for key, values in rows.items():
        if key not in recorded:
            recorded[key] = np.zeros((*shape, *values.shape[1:]), values.dtype)
        recorded[key][place] = values


@contextmanager
def streamed(requests: list[Request]) -> Iterator[list[Iterator[RolloutRows]]]:
    """The pieces of several streams, each computed by a process that ends with this context."""
    with ExitStack() as stack:
        processes = []
        for request in requests:
            process = stack.enter_context(process_of(__name__))
            assert process.stdin is not None
            process.stdin.write(json.dumps(asdict(request)).encode() + b"\n")
            process.stdin.flush()
            processes.append(process)
        yield [results(process) for process in processes]


@contextmanager
def process_of(module: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs `main(*words)` of a module, and ends with this context.

    Not one of multiprocessing's: those import the user's script again, take modules from the working directory, get
    Ctrl-C themselves, and live on where this process is killed.
    """
    package = Path(__file__).parents[3]
    environment = os.environ | {
        # The processes are the parallelism; BLAS with threads of its own would only get in their way.
        **dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")])),
    }
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", f"import sys; from {module} import main; main(*sys.argv[1:])", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # Ctrl-C is for the process that waits for this one
    )
    try:
        yield process
    finally:
        process.kill()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):  # something was being written to it
                pipe.close()
        process.wait()


def results(process: Any) -> Iterator[RolloutRows]:
    """Yields what a process sends back, piece by piece, until it ends.

    Raises:
        RuntimeError: if the process failed.
    """
    yield from received(process.stdout)
    if process.wait() != 0:
        raise RuntimeError(f"a process that computes rollouts ended with {process.returncode}; see above")


def received(pipe: Any) -> Iterator[RolloutRows]:
    """The pieces that are sent through a pipe, until whoever sends them ends; half a piece is none."""
    while head := pipe.readline():
        content = pipe.read(int(head))
        if len(content) == int(head):
            with np.load(io.BytesIO(content), allow_pickle=False) as piece:
                yield dict(piece)


def send(pipe: Any, piece: RolloutRows) -> None:
    """Sends a piece through a pipe."""
    content = io.BytesIO()
    np.savez(content, **cast(Any, piece))
    pipe.write(b"%d\n" % content.tell())
    pipe.write(content.getbuffer())
    pipe.flush()


@contextmanager
def standard_output() -> Iterator[Any]:
    """This process's standard output, for pieces alone."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # who reads may end at any time
    with os.fdopen(os.dup(1), "wb") as pipe:
        os.dup2(2, 1)  # MuJoCo prints its warnings to standard output: they must not get between the rows
        yield pipe


def main() -> None:
    """One stream, from standard input to standard output."""
    asked = json.loads(sys.stdin.readline())
    with standard_output() as pipe:
        for piece in pieces(Request(**asked)):
            send(pipe, piece)
