"""YAML that a run directory holds, read with suspicion: plain values alone, each key once, nothing that refers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def read(path: Path) -> Any:
    """The dictionaries, lists and scalars in a file.

    Raises:
        ValueError: in one line, if the file cannot be read, is no YAML, or holds more than plain values: Python tags,
            aliases (which a few lines can multiply to any size), a key twice.
    """
    try:
        with path.open("rb") as stream:
            return yaml.load(stream, _Loader)
    except RecursionError:
        raise ValueError(f"{path} is damaged: it is nested too deep") from None
    except (yaml.YAMLError, OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from None


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds an alias")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        pairs = [(self.construct_object(key, deep=True), value) for key, value in node.value]
        names = [str(key) for key, _ in pairs]
        if len(set(names)) < len(names):
            raise yaml.YAMLError(f"a key stands twice among {', '.join(names)[:100]}")
        return {key: self.construct_object(value, deep=deep) for key, value in pairs}
