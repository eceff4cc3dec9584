"""Hydra's door to the planning sweeper. Nothing heavy is imported before there is something to plan."""

from __future__ import annotations

import codecs
import os
import sys
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.errors import ConfigCompositionException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, ListConfig, OmegaConf

from hydra_plugins.o2o.grammar import expand
from hydra_plugins.o2o.launchers import JobLauncher
from o2o.machine import terminal
from o2o.machine.counting import counted
from o2o.machine.installation import ROOT

if TYPE_CHECKING:
    from o2o.sweep.planning.plan import Plan


class PlanningSweeper(Sweeper):
    """Plans before it runs: expand, check, leave out what is done, and give the rest to the launcher."""

    def __init__(self, grids: ListConfig, zip: ListConfig, exclude: ListConfig) -> None:
        """A sweeper over `grids`, a list of {override: values}, joined with the command line."""
        self.grids, self.zip, self.exclude = (_plain(value) for value in (grids, zip, exclude))

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keeps what Hydra hands over, and makes the launcher that was chosen."""
        self.master = config
        self.loader = hydra_context.config_loader
        for group, option in config.hydra.runtime.choices.items():
            self._refuse_mark(f"{group.partition('@')[0]}/{option}.yaml")
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Runs what `arguments` and the grids ask for; exits with 1 if a run failed, 2 if only by bad input."""
        from hydra_plugins.o2o.composition import Composer, is_confined
        from o2o.machine import device
        from o2o.machine.progress import following
        from o2o.sweep.launching import here, prepare
        from o2o.sweep.ledger import manifest
        from o2o.sweep.planning import estimate, plan

        products = expand(arguments, self.grids, self.loader.get_group_options, self.zip, self.exclude)
        choices = self.master.hydra.runtime.choices
        load = partial(self.loader.load_sweep_config, self.master)
        folders = [Path(source.path) for source in self.loader.get_sources() if source.scheme() == "file"]
        compose = Composer(load, self.loader.get_group_options, partial(is_confined, folders))
        launcher = self.master.hydra.launcher._target_  # its file may be the user's, of any name
        planned = plan.make(products, compose, launcher.endswith(".SlurmLauncher"))
        name = planned.name(choices.get("experiment"))
        print(terminal.fitted(planned.text()), flush=True)
        if planned.dry_run and planned.to_run and isinstance(self.launcher, JobLauncher):
            print(terminal.fitted(self.launcher.preview(planned)))
        if planned.dry_run:
            return []
        if not planned.to_run:
            known = manifest.read_manifest(planned.root, name)
            print(prepare.next_steps(planned.root, name if known else ""))
            return []
        if isinstance(self.launcher, JobLauncher):
            if code := self.launcher.launch_plan(planned, name):
                sys.exit(code)
            return []
        assert self.launcher is not None
        by_submitit, seeds = "submitit" in launcher, planned.seeds_per_job
        if not by_submitit:
            for platform in {run.config.execution.device.platform for run in planned.to_run}:
                device.probe(platform)
        with here.under_way(planned.asked, planned.to_run, name, seeds):
            seconds = {} if by_submitit else estimate.seconds_here(planned.root)
            if not by_submitit and (told := estimate.ahead(planned.due, seeds, seconds)):
                print(told, flush=True)
            with following(estimate.agenda(planned.to_run, seeds, seconds)):
                return self._launch(planned, name, by_submitit)

    def _launch(self, planned: Plan, name: str, by_submitit: bool) -> Any:
        """Gives the jobs to a launcher of Hydra's, and says how they ended."""
        assert self.launcher is not None
        from o2o.sweep.launching import prepare
        from o2o.sweep.planning import plan

        packed, began = planned.jobs, time.monotonic()
        if by_submitit:  # its jobs are started elsewhere, and must find this project there
            os.environ["PYTHONPATH"] = os.pathsep.join(
                filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
            )
        try:
            returns = self.launcher.launch([plan.overrides(job) for job in packed], initial_job_idx=0)
        except Exception as error:
            if not by_submitit:
                raise
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            sys.exit(1)
        # A failed job does not raise: Hydra keeps its exception as what it returned.
        errors = [job._return_value if job.status is JobStatus.FAILED else None for job in returns]
        report = plan.failures(packed, errors)
        if report:
            print(report, file=sys.stderr)
        done, due = sum(run.done for run in planned.to_run), counted(len(planned.to_run), "run")
        print(f"{done} of {due} done in {timedelta(seconds=int(time.monotonic() - began))}")
        print(prepare.next_steps(planned.root, name, failed=bool(report)), flush=True)
        if report:
            sys.exit(2 if plan.bad_input(errors) else 1)
        return returns

    def _refuse_mark(self, name: str) -> None:
        """Refuses a file whose first line, which says where its keys belong, Hydra does not see."""
        for source in self.loader.get_sources():
            path = Path(source.path, name)
            if source.scheme() == "file" and path.is_file() and path.read_bytes().startswith(codecs.BOM_UTF8):
                raise ConfigCompositionException(
                    f"{path} begins with a byte-order mark, behind which Hydra does not find its first line: "
                    "save it as UTF-8 without one"
                )


def _plain(value: ListConfig) -> list[Any]:
    return cast("Any", OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value)
