"""Hydra's door to the planning sweeper. Nothing heavy is imported before there is something to plan."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any, cast

from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, ListConfig, OmegaConf

from hydra_plugins.o2o.grammar import expand


class PlanningSweeper(Sweeper):
    """Plans before it runs: expand, check, leave out what is done, and give the rest to the launcher."""

    def __init__(self, grids: ListConfig) -> None:
        """A sweeper over `grids`, a list of {override: values}, joined with the command line."""
        self.grids: list[dict[str, Any]] = cast("Any", OmegaConf.to_container(grids, resolve=True))

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keeps what Hydra hands over, and makes the launcher that was chosen."""
        self.master = config
        self.loader = hydra_context.config_loader
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.launch = launcher.launch

    def sweep(self, arguments: list[str]) -> Any:
        """Runs what `arguments` and the grids ask for; exits with 1 if a run failed, 2 if only by bad input."""
        from o2o.sweep import plan

        products = expand(arguments, self.grids, self.loader.get_group_options)
        planned = plan.make(products, partial(self.loader.load_sweep_config, self.master))
        print(planned.text(), flush=True)
        if planned.dry_run or not planned.to_run:
            return []
        returns = self.launch([run.overrides for run in planned.to_run], initial_job_idx=0)
        # A failed job does not raise: Hydra keeps its exception as what it returned.
        errors = [job._return_value if job.status is JobStatus.FAILED else None for job in returns]
        if report := plan.failures(planned.to_run, errors):
            print(report, file=sys.stderr)
            sys.exit(2 if plan.bad_input(errors) else 1)
        return returns
