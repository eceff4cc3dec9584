"""Hydra's doors to SLURM and to the local pool, which run plans; Hydra's own launchers run lists of overrides."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from o2o.sweep.planning.plan import Plan


class JobLauncher(Launcher):
    """A launcher of whole plans: it knows which jobs need which."""

    def __init__(self, **settings: Any) -> None:
        """A launcher with the settings of its file in `conf/hydra/launcher`."""
        self.settings: Any = OmegaConf.to_container(OmegaConf.create(settings), resolve=True)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Nothing: jobs run from their own frozen files."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Refuses: without a plan it is not known what must come first."""
        raise RuntimeError(f"{type(self).__name__} runs plans: leave hydra/sweeper=planning alone")

    @abstractmethod
    def preview(self, planned: Plan) -> str:
        """Says what it would do with a plan, for a dry run."""

    @abstractmethod
    def launch_plan(self, planned: Plan, name: str) -> int:
        """Launches what is to run under the sweep's name, and gives the exit code."""


class SlurmLauncher(JobLauncher):
    """Submits job arrays, and returns."""

    def preview(self, planned: Plan) -> str:
        """The jobs that SLURM would get, and what of it; settings that there are not are refused."""
        from o2o.sweep.launching import prepare
        from o2o.sweep.launching.job_array import Array

        Array(planned.to_run[0].config.execution.paths.runs, self.settings, [], [])
        return prepare.preview(planned.to_run, planned.seeds_per_job, "SLURM", self.settings)

    def launch_plan(self, planned: Plan, name: str) -> int:
        """Submits, and says what to follow it with; 2 if not all could be submitted."""
        from o2o.sweep.launching import submit

        report = submit.to_slurm(planned.asked, planned.to_run, name, planned.seeds_per_job, self.settings)
        print(report.text())
        return 2 if report.problem else 0


class LocalLauncher(JobLauncher):
    """Runs jobs in processes of this machine, some at a time, and waits for them."""

    def preview(self, planned: Plan) -> str:
        """The jobs that it would run."""
        from o2o.sweep.launching import prepare

        return prepare.preview(planned.to_run, planned.seeds_per_job, "this machine", self.settings)

    def launch_plan(self, planned: Plan, name: str) -> int:
        """Runs what is to run; 1 if a run failed, 128 and the signal's number if it was stopped."""
        from o2o.sweep.launching import pool

        return pool.run(planned.asked, planned.to_run, name, planned.seeds_per_job, self.settings)
