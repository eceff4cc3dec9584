"""Plain containers read into dataclasses by their annotations, with all that is wrong noted.

Understood are bool, int, float, str, Path, Literal, optional values, a word or else a value, tuples, nested
dataclasses, and `Annotated[…, Range]` (`o2o.types`). A whole number will do for a float, and 2e5 for an integer;
nothing else is converted.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from o2o.types import Range

BROKEN: Any = object()
"""Stands for a value that could not be read; why is noted."""

MISSING = "???"
"""Stands in a container for a value that is still to be set."""

LARGEST_INTEGER = 2**31 - 1  # what counters and seeds on a device hold
SHOWN_CHARACTERS = 100
KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    Path: "a path",
}


def suggestion(word: object, options: Iterable[str]) -> str:
    """` (did you mean …?)` if one of the options is near, else nothing."""
    near = difflib.get_close_matches(str(word), list(options), n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


def shown(value: Any) -> str:
    """A value as it is written in YAML, cut where it is long."""
    if value is None:
        return "null"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


@functools.cache
def hints_of(cls: type) -> dict[str, Any]:
    """The annotations of a dataclass, evaluated, with their ranges."""
    return typing.get_type_hints(cls, include_extras=True)


class Reader:
    """Reads values and notes what is wrong in `problems`.

    Names, missing keys and types that are wrong make a value `BROKEN`; a number out of its range
    is only noted.
    """

    def __init__(self) -> None:
        """A reader that has found no problems yet."""
        self.problems: list[str] = []

    def dataclass(self, cls: type, tree: Any, key: str, given: Mapping[str, Any], file: str = "") -> Any:
        """An instance of `cls` from the mapping `tree` that stands at `key`, with `given` fields.

        `file` is where the values stand that should not be missing.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(tree, Mapping):
            return self.note(f"{key}={shown(tree)} should be a group of keys: {', '.join(names)}")
        unknown = [str(name) for name in tree if name not in names or name in given]
        for name in unknown:
            if name in given:
                self.note(f"{_join(key, name)} is not a key: {name} stands once, at the top; set {name}=…")
                continue
            absent = [option for option in names if option not in tree and option not in given]
            near = suggestion(name, absent) or suggestion(name, names) or f"; known are {', '.join(names)}"
            self.note(f"{_join(key, name)} is not a key{near}")
        hints = hints_of(cls)
        values = dict(given)
        for field in dataclasses.fields(cls):
            optional = field.default is not dataclasses.MISSING
            if field.name not in given and (field.name in tree or not optional):
                value, place = tree.get(field.name, MISSING), _join(key, field.name)
                if value == MISSING and file:
                    values[field.name] = self.note(
                        f"{place} is missing: give it a value in {file}, or set {place}=…"
                    )
                else:
                    values[field.name] = self.value(hints[field.name], value, place)
        return BROKEN if unknown or any(value is BROKEN for value in values.values()) else cls(**values)

    def value(self, annotation: Any, value: Any, key: str) -> Any:
        """The value as the annotation wants it."""
        if isinstance(value, str) and value == MISSING:
            return self.note(f"{key} is missing: set {key}=…")
        if dataclasses.is_dataclass(annotation):
            return self.dataclass(typing.cast("type", annotation), value, key, {})
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return self._ranged(arguments[0], arguments[1:], value, key)
        if origin in (typing.Union, types.UnionType):
            if value is None and types.NoneType in arguments:
                return None
            words = [option for option in arguments if get_origin(option) is Literal]
            if any(value in get_args(option) for option in words):
                return value
            (inner,) = (option for option in arguments if option not in (types.NoneType, *words))
            return self.value(inner, value, key)
        if origin is Literal:
            near = suggestion(value, arguments)
            problem = f"{key}={shown(value)} is not one of {', '.join(arguments)}{near}"
            return value if value in arguments else self.note(problem)
        if origin is tuple:
            return self._tuple(arguments, value, key)
        return self._scalar(annotation, value, key)

    def note(self, problem: str) -> Any:
        """Notes a problem that leaves no value."""
        self.problems.append(problem)
        return BROKEN

    def _ranged(self, annotation: Any, limits: tuple[Any, ...], value: Any, key: str) -> Any:
        result = self.value(annotation, value, key)
        for limit in limits:
            if isinstance(limit, Range) and isinstance(result, int | float) and result not in limit:
                self.problems.append(f"{key}={shown(value)} is out of range: it must be {limit}")
        return result

    def _tuple(self, items: tuple[Any, ...], value: Any, key: str) -> Any:
        if isinstance(value, Mapping) and get_origin(items[0]) is tuple:
            value = sorted(value.items())  # pairs, as {medium: 0.5} for [[medium, 0.5]]
        if not isinstance(value, list | tuple):
            return self.note(f"{key}={shown(value)} should be a list, as in '{key}=[…]'")
        if items[-1] is Ellipsis:
            items = (items[0],) * len(value)
        if len(items) != len(value):
            return self.note(f"{key}={shown(value)} should have {len(items)} items")
        pairs = zip(items, value, strict=True)
        read = tuple(self.value(item, entry, f"{key}[{i}]") for i, (item, entry) in enumerate(pairs))
        return BROKEN if any(entry is BROKEN for entry in read) else read

    def _scalar(self, kind: type, value: Any, key: str) -> Any:
        # Not isfinite, which fails for an integer that no float is as large as.
        number = (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and abs(value) <= sys.float_info.max
        )
        if kind is int and number and value == int(value):
            if abs(value) > LARGEST_INTEGER:
                return self.note(f"{key}={shown(value)} is too large: at most {LARGEST_INTEGER}")
            return int(value)
        if kind is float and number:
            return float(value) + 0.0  # no negative zero: it equals zero, and so should its hash
        if kind is bool and isinstance(value, bool):
            return value
        if kind in (str, Path) and value == "":
            return self.note(f"{key} is empty; say {key}=…")
        if kind in (str, Path) and isinstance(value, str) and not value.isprintable():
            return self.note(f"{key}={shown(value)!a} holds a character that cannot be printed")
        if kind is str and isinstance(value, str):
            return value
        if kind is Path and isinstance(value, str):
            try:
                return Path(value).expanduser()
            except RuntimeError:  # nobody of that name, or no HOME and no entry in /etc/passwd
                return self.note(
                    f"{key}={shown(value)}: no home directory is known for it; write the path in full"
                )
        if kind not in KINDS:
            return self.note(
                f"{key} is declared as {kind}, which no key can be; as {', '.join(map(_named, KINDS))} it can"
            )
        return self.note(f"{key}={shown(value)} should be {KINDS[kind]}")


def _named(kind: type) -> str:
    return kind.__name__


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
