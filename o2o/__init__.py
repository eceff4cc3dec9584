"""Offline-to-online reinforcement learning: pretrain on logged data, finetune online, watch for collapse.

    runs = o2o.load_runs("runs")              # data frames of all runs
    figure = o2o.plot(runs)                   # a matplotlib figure
    policy = o2o.load_policy("runs/…/seed-0") # observation -> action

Each is imported when it is first asked for: `import o2o` by itself loads nothing.
"""

import importlib
from typing import Any

__version__ = "0.2.0"

_PLACES = {
    "load_runs": "analysis.data.frames",
    "load_policy": "o2o.runs.trained.policy",
    "plot": "analysis.figures",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
