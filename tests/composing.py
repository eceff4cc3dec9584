"""What a command line composes to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from o2o.config.build import plain

CONF = Path(__file__).resolve().parents[1] / "conf"


def composed(*overrides: str) -> dict[str, Any]:
    """The plain tree of these overrides, without sweeps."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return plain(compose("config", list(overrides)))
