"""Composing a thousand cells without composing a thousand times: most of them differ in plain values only."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf

REFERENCE = re.compile(r"\$\{(?!oc\.env:)([^}]*)")


class Composer:
    """Composes once for each option of a group, and puts plain values (`discount=0.9`) into copies of what that gave.

    What that gives is what Hydra would compose: the options of a group that is `confined` say nothing outside of it,
    and no other key refers to what is put in. Where one does, Hydra composes every cell.
    """

    def __init__(
        self,
        load: Callable[[list[str]], DictConfig],
        options: Callable[[str], list[str]],
        confined: Callable[[str, str], bool] = lambda group, option: False,
    ) -> None:
        """A composer by `load`, which composes a list of overrides.

        Args:
            load: composes.
            options: the options of a group; none where there is no such group.
            confined: whether an option of a group sets keys of that group only.
        """
        self._load, self._options = load, functools.cache(options)
        self._confined = functools.cache(confined)
        self._composed: dict[tuple[str, ...], tuple[dict[str, Any], list[str]]] = {}
        self._bases: dict[tuple[str, ...], tuple[dict[str, Any], list[str], set[str]]] = {}
        self._parts: dict[tuple[str, ...], dict[str, tuple[Any, list[str]]]] = {}
        self._parsed: dict[str, Override] = {}

    def __call__(self, words: list[str]) -> dict[str, Any]:
        """The plain tree of a cell. A key that refers to the seed is an error, for seeds are put in afterwards."""
        overrides = [self._parse(word) for word in words]
        values = [override for override in overrides if self._is_plain_value(override)]
        tree, referred = self._joined([override for override in overrides if override not in values])
        patched = copy.deepcopy(tree)
        if not all(_put(patched, override, referred) for override in values):
            return copy.deepcopy(self._compose(tuple(words))[0])
        return patched

    def _joined(self, overrides: list[Override]) -> tuple[dict[str, Any], list[str]]:
        """The tree of some choices, joined from parts where all were composed before, and the keys referred to."""
        words = _words(overrides)
        alone = {override.key_or_group: override for override in overrides if self._is_alone(override)}
        rest = _words(override for override in overrides if override not in alone.values())
        parts = self._parts.setdefault(rest, {})
        tree, referred, others = self._bases.get(rest, ({}, [], set()))
        chosen = {group: parts.get(override.input_line or "") for group, override in alone.items()}
        if not tree or not others <= alone.keys() or None in chosen.values():
            tree, referred = self._compose(words)
            self._bases.setdefault(rest, (tree, referred, set(alone)))
            parts |= {each.input_line or "": (tree[group], referred) for group, each in alone.items()}
            return tree, referred
        found = {group: part for group, part in chosen.items() if part is not None}
        referred = sorted({*referred, *(name for _, names in found.values() for name in names)})
        if any(_refers(name, group) for name in referred for group in alone):
            return self._compose(words)
        return tree | {group: part for group, (part, _) in found.items()}, referred

    def _is_alone(self, override: Override) -> bool:
        group, option = override.key_or_group, override.value()
        return (
            override.type is OverrideType.CHANGE
            and override.package is None
            and isinstance(option, str)
            and option in self._options(group)
            and self._confined(group, option)
        )

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


def is_confined(folders: Sequence[Path], group: str, option: str) -> bool:
    """Whether the file of an option, and those that it is based on, set keys of its group only.

    Args:
        folders: where configurations are searched for.
        group: the group.
        option: one of its options.
    """
    files = [folder / group / f"{option}.yaml" for folder in folders]
    texts = [path.read_text(encoding="utf-8") for path in files if path.is_file()]
    if "/" in group or len(texts) != 1 or "@package" in texts[0]:
        return False
    content = yaml.safe_load(texts[0])
    based_on = content.get("defaults", []) if isinstance(content, dict) else [None]
    plain = all(isinstance(name, str) and re.fullmatch(r"[\w.-]+", name) for name in based_on)
    return plain and all(is_confined(folders, group, str(name)) for name in based_on if name != "_self_")


def _put(tree: dict[str, Any], override: Override, referred: list[str]) -> bool:
    """Whether the key was there to be set, and none refers to it."""
    key = override.key_or_group
    if any(_refers(name, key) for name in referred):
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


def _refers(name: str, key: str) -> bool:
    """Whether what is referred to by `name` may be at `key`."""
    return bool(re.search(r"[^\w.]", name)) or name.startswith((".", key)) or key.startswith(name)


def _words(overrides: Iterable[Override]) -> tuple[str, ...]:
    return tuple(override.input_line or "" for override in overrides)
