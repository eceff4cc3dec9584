"""A plan whose jobs run in this process, one after the other.

It is written down before the first begins, so that those which have not begun are not forgotten when it is stopped; a
lease on what is written shows that it is under way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from o2o.errors import ConfigError
from o2o.runs.lock import Leases
from o2o.sweep.launching import prepare
from o2o.sweep.launching.jobs import PlannedRun
from o2o.sweep.ledger import manifest


@contextmanager
def under_way(
    asked: Sequence[PlannedRun], due: Sequence[PlannedRun], name: str, seeds: int
) -> Iterator[None]:
    """Writes a plan down, and shows that it is under way for as long as the context lasts.

    Args:
        asked: all runs of the sweep, those that are done among them.
        due: those that are to be run.
        name: the sweep's.
        seeds: how many a job trains side by side.

    Raises:
        ConfigError: it could not be written, and why.
    """
    root = due[0].config.execution.paths.runs.absolute()
    with Leases() as leases:
        try:
            with prepare.locked(root):
                submission = prepare.launch(root, due, name, seeds, "here", {}, {})
                manifest.add_runs(root, name, [prepare.entry(root, run) for run in asked])
            leases.take(manifest.submission_directory(root, name, submission.token))
        except OSError as error:
            raise ConfigError([prepare.unwritten(error, root)]) from None
        yield
