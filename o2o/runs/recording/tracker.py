"""wandb's door: it mirrors rows of the run directory to a tracker, and its failure never stops training.

Modes: `none`; `offline` (files beside the run, to be synced later); `wandb` (online); `auto` (what `WANDB_MODE` says,
else online where an API key is configured, else offline). Nothing ever prompts: online without a key, without a
network, or refused by the server within a bounded time becomes offline, said in one line.

Every attempt at a run tells it from its beginning, under the same id: what the run directory holds already first
(`Tracker.retell`), then what is new. wandb cannot go on with an offline run: each attempt is a file of its own, and
syncing a later one replaces what an earlier one of the same id had uploaded, row by row. A file that holds the whole
run is right in both cases, and so is an online run that is told again; rows of the future that a checkpoint took back
are told once, and none is lost that a killed process had not flushed.

All that was recorded at one step is one row of wandb's history and carries its `step` (pretraining updates +
env_steps), which is declared as the x axis of every metric: wandb's internal step counts rows, and drops those that
arrive out of order.
"""

from __future__ import annotations

import json
import logging
import netrc
import operator
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from o2o.machine.names import LONGEST_TAG, LONGEST_TITLE, shortened
from o2o.runs.directory.layout import EVAL, TRAIN

Mode = Literal["none", "offline", "wandb", "auto"]

INIT_SECONDS = 20
FINISH_SECONDS = 60
FREE_SECONDS = 20
SERVICE_SECONDS = 120
"""For wandb's own process to start: more than its 30, for a node that is busy compiling or evaluating."""

logger = logging.getLogger(__name__)

# Set once a server did not answer, so that the members of a job do not wait for it one after the other.
_unreachable = False


class Tracker:
    """Mirrors rows to one wandb run, or to nothing."""

    def __init__(self, run: Any | None = None, earlier: Sequence[Path] = ()) -> None:
        """Wraps a wandb run; None tracks nothing. `earlier` are the offline folders of the run's other attempts."""
        self._run = run
        self._earlier = list(earlier)
        self._row: dict[str, Any] = {}

    def retell(self, directory: Path) -> None:
        """Says first what the run directory holds already, and then removes the files of earlier attempts."""

        def tell(run: Any) -> None:
            rows = [row for file in (TRAIN, EVAL) for row in _read_rows(directory / file)]
            for row in sorted(rows, key=operator.itemgetter("step")):
                self.log(row)
            for folder in self._earlier:
                shutil.rmtree(folder)

        self._attempt("retell", tell)

    def log(self, row: Mapping[str, Any]) -> None:
        """Mirrors one row of metrics; it holds its own `step`. Names become `<phase>/<name>` if it has a `phase`."""
        if self._row and self._row["step"] != row["step"]:
            self._send()
        prefix = f"{row['phase']}/" if "phase" in row else ""
        self._row |= {
            name if name == "step" else prefix + name: value for name, value in row.items() if name != "phase"
        }

    def summarise(self, result: Mapping[str, Any]) -> None:
        """Mirrors the run's result: wandb's summary, by which its tables sort and filter."""
        self._send()  # or the last row would overwrite it
        self._attempt("summarise", lambda run: run.summary.update(dict(result)))

    def finish(self, failed: bool = False, interrupted: bool = False) -> None:
        """Ends the tracked run, marked as finished, failed, or to be gone on with; further rows go nowhere."""
        self._send()
        if interrupted:
            self._attempt("finish", lambda run: run.mark_preempting())
        self._attempt("finish", lambda run: run.finish(exit_code=int(failed or interrupted)))
        self._run = None

    def _send(self) -> None:
        row, self._row = self._row, {}
        if row:
            self._attempt("log", lambda run: run.log(row))

    def _attempt(self, what: str, action: Callable[[Any], object]) -> None:
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
    job_type: str | None = None,
    name: str | None = None,
) -> Tracker:
    """A tracker for the run `run_id`, which is the same for every attempt of a run.

    Args:
        mode: see the module.
        project: wandb's project.
        run_id: unique within the project; the run's identity.
        group: what the seeds of one setting share.
        tags: words to filter by.
        config: the run's configuration, plain values.
        directory: where wandb keeps its files.
        job_type: the phase.
        name: what wandb's lists call the run, the id if not given.
    """
    global _unreachable
    if mode == "auto" and os.environ.get("WANDB_MODE") in ("disabled", "offline", "dryrun"):
        mode = "none" if os.environ["WANDB_MODE"] == "disabled" else "offline"
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

        service = _service(wandb.Settings(x_service_wait=SERVICE_SECONDS))
        online = mode in ("wandb", "auto") and _has_key(service.settings)
        if mode == "wandb" and not online:
            logger.warning("tracker: no wandb API key is configured; tracking offline")
        Path(directory).mkdir(parents=True, exist_ok=True)
        earlier = sorted(Path(directory).glob(f"wandb/offline-run-*-{run_id}*"))

        def init(wandb_mode: Literal["online", "offline"]) -> Any:
            return wandb.init(
                mode=wandb_mode,
                project=project,
                id=run_id,
                name=shortened(name or run_id, LONGEST_TITLE),
                group=shortened(group, LONGEST_TITLE),
                job_type=job_type,
                tags=[shortened(tag, LONGEST_TAG) for tag in tags],
                config=dict(config),
                dir=str(directory),
                reinit="create_new",  # a job has many members, each a run of its own
                settings=settings,
            )

        run = None
        if online and not _unreachable:
            try:
                run = _when_free(lambda: init("online"))
            except wandb.Error as error:
                _unreachable = True
                reason = " ".join(str(error).split())
                logger.warning("tracker: wandb is not reachable (%s); tracking offline", reason)
                wandb.teardown()  # it still holds the run's id
        run = run or _when_free(lambda: init("offline"))
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
    except Exception as error:  # whatever a tracker does, training goes on
        logger.warning("tracker: wandb did not start (%s); nothing is tracked", error)
        return Tracker()
    return Tracker(run, earlier)


def _when_free(init: Callable[[], Any]) -> Any:
    """Calls `init` until it succeeds: wandb frees the id of a run that was finished here only some time afterwards."""
    deadline = time.monotonic() + FREE_SECONDS
    while True:
        try:
            return init()
        except Exception as error:
            if "is in use" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows as they were logged: non-finite numbers, which JSON writes as text, and without columns of lists."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []
    return [
        {
            name: float(value) if isinstance(value, str) and name != "phase" else value
            for name, value in row.items()
            if not isinstance(value, list)
        }
        for row in rows
    ]


def logged_in() -> bool:
    """Whether wandb would find an API key here."""
    return _has_key(_service().settings)


def _service(settings: Any = None) -> Any:
    """Returns wandb's service of the whole process, started."""
    import wandb

    if not Path(
        os.path.expanduser("~")
    ).is_absolute():  # wandb wants a home directory, for a file that may be absent
        os.environ.setdefault("WANDB_CONFIG_DIR", os.devnull)
    return wandb.setup(settings)


def _has_key(settings: Any) -> bool:
    """Whether wandb would find an API key for its server, asked without wandb's prompt."""
    if settings.api_key:
        return True
    paths = [os.environ.get("NETRC", ""), "~/.netrc", "~/_netrc"]
    # Not by pathlib, which raises an error where there is no home.
    for path in (Path(os.path.expanduser(name)) for name in paths if name):
        if path.is_file():
            try:
                return netrc.netrc(path).authenticators(urlsplit(settings.base_url).netloc) is not None
            except (netrc.NetrcParseError, OSError):
                return False
    return False
