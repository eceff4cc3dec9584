"""Composing a thousand cells without composing a thousand times: most of them differ in plain values only."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf

REFERENCE = re.compile(r"\$\{(?!oc\.env:)([^}]*)")


class Composer:
    """Composes once for each choice of groups, and puts plain values (`discount=0.9`) into copies of what that gave.

    What that gives is what Hydra would compose, for no other key refers to one that is put in. Where one does, Hydra
    composes every cell.
    """

    def __init__(self, load: Callable[[list[str]], DictConfig], options: Callable[[str], list[str]]) -> None:
        """A composer by `load`, which composes a list of overrides; `options` are those of a group."""
        self._load, self._options = load, options
        self._composed: dict[tuple[str, ...], tuple[dict[str, Any], list[str]]] = {}
        self._parsed: dict[str, Override] = {}

    def __call__(self, words: list[str]) -> dict[str, Any]:
        """The plain tree of a cell. A key that refers to the seed is an error, for seeds are put in afterwards."""
        overrides = [self._parse(word) for word in words]
        values = [override for override in overrides if self._is_plain_value(override)]
        rest = tuple(override.input_line or "" for override in overrides if override not in values)
        tree, referred = self._compose(rest)
        patched = copy.deepcopy(tree)
        if not all(_put(patched, override, referred) for override in values):
            return copy.deepcopy(self._compose(tuple(words))[0])
        return patched

    def _compose(self, words: tuple[str, ...]) -> tuple[dict[str, Any], list[str]]:
        from o2o.config.build import plain  # not above: Hydra imports its plugins' modules for --help too
        from o2o.config.parsing import MISSING

        if words not in self._composed:
            composed = self._load(list(words))
            own = [str(key) for key in composed if key != "hydra"]
            written = OmegaConf.to_container(OmegaConf.masked_copy(composed, own))
            default, composed.seed = composed.seed, MISSING
            self._composed[words] = {**plain(composed), "seed": default}, REFERENCE.findall(str(written))
        return self._composed[words]

    def _parse(self, word: str) -> Override:
        if word not in self._parsed:
            self._parsed[word] = OverridesParser.create().parse_override(word)
        return self._parsed[word]

    def _is_plain_value(self, override: Override) -> bool:
        key, value = override.key_or_group, override.value()
        return (
            override.type is OverrideType.CHANGE
            and override.package is None
            and not isinstance(value, dict)
            and "${" not in str(value)
            and not (self._options(key) or self._options(key.replace(".", "/")))
        )


def _put(tree: dict[str, Any], override: Override, referred: list[str]) -> bool:
    """Whether the key was there to be set, and none refers to it."""
    key = override.key_or_group
    if any(
        re.search(r"[^\w.]", name) or name.startswith((".", key)) or key.startswith(name) for name in referred
    ):
        return False
    *groups, last = key.split(".")
    for group in groups:
        tree = tree.get(group, {})
        if not isinstance(tree, dict):
            return False
    if last not in tree or isinstance(tree[last], dict):
        return False
    tree[last] = override.value()
    return True
