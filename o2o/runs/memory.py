"""The memory that a job's members need, told and compared with what is free before they start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax

from o2o.config.schema import Config
from o2o.errors import ConfigError
from o2o.replay.buffer import Replay
from o2o.types import NO_FACTS

STATES_AT_ONCE = 4  # the old one, the new one, its gradients and what a checkpoint copies
RINGS_AT_ONCE = 2  # the online rows, and once more while the members' are put together
WORKSPACE = 64 * 2**20  # activations of a batch of 256 and of an evaluation, generously
GIB = 2**30


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes, on the device that the members are trained on."""

    members: int
    each: int
    free: int | None
    """The bytes that are left once the dataset is loaded; None where the device does not say."""

    @property
    def fitting(self) -> int | None:
        """The number of members that there is room for."""
        return None if self.free is None else self.free // self.each

    def __str__(self) -> str:
        needed = f"{self.members} × {self.each / GIB:.2f} GiB"
        return f"memory: {needed} of {'an unknown amount' if self.free is None else f'{self.free / GIB:.1f} GiB'}"


def plan(config: Config, replay: Replay, members: int) -> MemoryPlan:
    """Returns the plan of `members` runs of this configuration, with what the default device has free now."""
    algorithms = [config.algorithm] if config.finetune.env_steps else []
    algorithms += [config.pretrain.algorithm] if config.pretrain.updates else []
    states = [jax.eval_shape(a.init, jax.random.key(0), replay.example(), NO_FACTS) for a in algorithms]
    state = max(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(s)) for s in states)
    ring = 0
    if config.finetune.env_steps:
        ring = replay.ring_size(config.finetune.env_steps) * replay.row_width * 4
    return MemoryPlan(members, STATES_AT_ONCE * state + RINGS_AT_ONCE * ring + WORKSPACE, _free())


def check(planned: MemoryPlan) -> None:
    """Refuses what would run out of memory later.

    Raises:
        ConfigError: if there is no room for the members; it says for how many there is.
    """
    fitting = planned.fitting
    if fitting is not None and fitting < planned.members:
        way_out = (
            f"set launch.seeds_per_job={fitting}" if fitting else "free some, or lower finetune.env_steps"
        )
        raise ConfigError([f"{planned} free: {planned.members} seeds do not fit in one job; {way_out}"])


def _free() -> int | None:
    device = jax.local_devices()[0]
    statistics = device.memory_stats()
    if statistics and "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)
    return _free_on_host() if device.platform == "cpu" else None


def _free_on_host() -> int | None:
    """Returns the bytes that the machine, or the control group of a job, has left; None where neither says."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
        limit, used = (
            Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current")
        )
        found += [int(limit) - int(used)] if limit.isdecimal() else []
    except OSError:  # not Linux, or no such control group
        pass
    return min(found, default=None)
