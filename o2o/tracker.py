"""wandb's door: it mirrors rows of the run directory to a tracker, and its failure never stops training.

Modes: `none`; `offline` (files in the run directory, to be synced later); `online`; `auto` (online where an
API key is configured, else offline). Nothing ever prompts: online without a key, without a network, or refused by the
server within a bounded time becomes offline, said in one line.

Rows carry their own `step` (pretraining updates + env_steps), which is declared as the x axis of every metric: wandb's
internal step starts at zero again when a run is resumed and drops rows that arrive out of order.
"""

from __future__ import annotations

import logging
import netrc
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

Mode = Literal["none", "offline", "online", "auto"]

INIT_SECONDS = 20
FINISH_SECONDS = 60

logger = logging.getLogger(__name__)

# Set once a server did not answer, so that the members of a job do not wait for it one after the other.
_unreachable = False


class Tracker:
    """Mirrors rows to one wandb run, or to nothing."""

    def __init__(self, run: Any | None = None) -> None:
        """Wraps a wandb run; None tracks nothing."""
        self._run = run

    def log(self, row: Mapping[str, Any]) -> None:
        """Mirrors one row of metrics; it holds its own `step`. Names become `<phase>/<name>` if it has a `phase`."""
        prefix = f"{row['phase']}/" if "phase" in row else ""
        named = {
            name if name == "step" else prefix + name: value for name, value in row.items() if name != "phase"
        }
        self._attempt("log", lambda run: run.log(named))

    def finish(self, failed: bool = False) -> None:
        """Ends the tracked run, marked as failed or as finished; further rows go nowhere."""
        self._attempt("finish", lambda run: run.finish(exit_code=int(failed)))
        self._run = None

    def _attempt(self, what: str, action: Callable[[Any], None]) -> None:
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:  # whatever a tracker does, training goes on
            self._run = None
            logger.warning("tracking stopped (%s: %s); the run directory has everything", what, error)


def open_tracker(
    mode: Mode,
    project: str,
    run_id: str,
    group: str,
    tags: Sequence[str],
    config: Mapping[str, Any],
    directory: str | os.PathLike[str],
) -> Tracker:
    """A tracker for the run `run_id`, which is the same for every attempt of a run, so that resuming continues it.

    Args:
        mode: see the module.
        project: wandb's project.
        run_id: unique within the project; the run's identity.
        group: what the seeds of one setting share.
        tags: words to filter by.
        config: the run's configuration, plain values.
        directory: where wandb keeps its files.
    """
    global _unreachable
    if mode == "none":
        return Tracker()
    try:
        import wandb  # heavy: only who tracks pays for it

        settings = wandb.Settings(
            console="off",
            silent=True,
            init_timeout=INIT_SECONDS,
            finish_timeout=FINISH_SECONDS,
            # By default rows wait up to 15 s in memory and a kill loses them all.
            x_transaction_log_flush_interval=1.0,
        )

        online = mode in ("online", "auto") and _has_key(wandb.setup().settings)
        if mode == "online" and not online:
            logger.warning("tracker: no wandb API key is configured; tracking offline")
        Path(directory).mkdir(parents=True, exist_ok=True)

        def init(wandb_mode: Literal["online", "offline"]) -> Any:
            return wandb.init(
                mode=wandb_mode,
                project=project,
                id=run_id,
                name=run_id,
                group=group,
                tags=list(tags),
                config=dict(config),
                dir=str(directory),
                resume="allow",
                reinit="create_new",  # a job has many members, each a run of its own
                settings=settings,
            )

        run = None
        if online and not _unreachable:
            try:
                run = init("online")
            except wandb.Error as error:
                _unreachable = True
                reason = " ".join(str(error).split())
                logger.warning("tracker: wandb is not reachable (%s); tracking offline", reason)
                wandb.teardown()  # it still holds the run's id
        run = run or init("offline")
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
    except Exception as error:  # whatever a tracker does, training goes on
        logger.warning("tracker: wandb did not start (%s); nothing is tracked", error)
        return Tracker()
    return Tracker(run)


def logged_in() -> bool:
    """Whether wandb would find an API key here."""
    import wandb

    return _has_key(wandb.setup().settings)


def _has_key(settings: Any) -> bool:
    """Whether wandb would find an API key for its server, asked without wandb's prompt."""
    if settings.api_key:
        return True
    paths = [os.environ.get("NETRC", ""), "~/.netrc", "~/_netrc"]
    for path in (Path(name).expanduser() for name in paths if name):
        if path.is_file():
            return netrc.netrc(path).authenticators(urlsplit(settings.base_url).netloc) is not None
    return False
