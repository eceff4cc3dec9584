"""The places of this project's own files.

A checkout has the configuration tree beside the package; `pyproject.toml` has it installed inside.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout, or the directory that o2o is installed in, with others."""
CONF_INSTALLED = Path("o2o", "conf")
"""Where it has the configuration tree in the second case."""
CONF = ROOT / CONF_INSTALLED if (ROOT / CONF_INSTALLED).is_dir() else ROOT / "conf"
"""The configuration tree."""
