"""Templates of runs' names: `{algorithm} - {dataset} - seed {seed}` reads `TD3 - hopper - seed 3`.

`{}` stands for anything that is not wanted, and `{dataset=hopper-medium-v2,ant-medium-v2}` for one of these. A name
that a template reads in two ways is refused: which is meant is for the user to say.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from analysis.importing.foreign import FIELDS

_PLACE = re.compile(r"\{(\w*)(?:=([^{}]*))?\}")


class Template:
    """A pattern of names, and what it says of each."""

    def __init__(self, text: str) -> None:
        """Reads the template.

        Raises:
            ValueError: it is none; the text says why.
        """
        self.text = text
        self.fields = [match[1] for match in _PLACE.finditer(text) if match[1]]
        example = "such as --name '{algorithm} - {dataset} - seed {seed}'"
        if unknown := [field for field in self.fields if field not in FIELDS]:
            raise ValueError(
                f"--name {shlex.quote(text)}: {{{unknown[0]}}} is none of {_in_braces(FIELDS)}, {example}"
            )
        if len(set(self.fields)) < len(self.fields):
            raise ValueError(
                f"--name {shlex.quote(text)} names a field twice; {{}} stands for what is not wanted"
            )
        if not self.fields or set("{}") & set(_PLACE.sub("", text)):
            raise ValueError(
                f"--name {shlex.quote(text)} is no template: write {_in_braces(FIELDS)} where they stand, {example}"
            )
        self._shortest, self._longest = self._pattern(shortest=True), self._pattern(shortest=False)

    def read(self, name: str) -> dict[str, str] | None:
        """The fields that the name has; None where it does not fit.

        Raises:
            ValueError: it fits in more than one way.
        """
        one, other = self._shortest.fullmatch(name), self._longest.fullmatch(name)
        if one is None or other is None:
            return None
        # Of all ways to read it, one takes the earlier places as short, the other as long as they can be.
        if one.groups() != other.groups():
            ways = (
                ", ".join(f"{key} {value!r}" for key, value in way.groupdict().items())
                for way in (one, other)
            )
            raise ValueError(
                f"{name!r} can be read in two ways by --name {shlex.quote(self.text)}: {' or '.join(ways)}. "
                f"Say which names there are, as in {{{self.fields[0]}=one,two}}"
            )
        return one.groupdict()

    def read_path(self, path: Path) -> dict[str, str] | None:
        """Reads the end of a file's path: as many folders as the template has, with or without its suffix."""
        name = "/".join(path.absolute().parts[-1 - self.text.count("/") :])
        return self.read(name if self.text.endswith(path.suffix) else name.removesuffix(path.suffix))

    def _pattern(self, shortest: bool) -> re.Pattern[str]:
        pieces, end = [], 0
        for match in _PLACE.finditer(self.text):
            field, options = match[1], match[2]
            if options is not None:
                words = sorted(options.split(","), key=len, reverse=not shortest)
                what = "|".join(map(re.escape, words))
            else:
                what = (r"[0-9]+" if field == "seed" else ".+") + ("?" if shortest else "")
            pieces += [
                re.escape(self.text[end : match.start()]),
                f"(?P<{field}>{what})" if field else f"({what})",
            ]
            end = match.end()
        return re.compile("".join([*pieces, re.escape(self.text[end:])]), re.DOTALL)


def for_runs(names: Sequence[str]) -> str:
    """A template that these names of runs may have been made by, to be shown and not to be trusted."""
    found = [re.fullmatch(r"(.+?)([\s_/=-]*seed[\s_=-]*|[\s_/=-]+)[0-9]+", name) for name in names]
    ends = {match[2] if match else "" for match in found}
    arms, end = list(names), ""
    if len(ends) == 1 and (separator := ends.pop()):
        arms, end = [match[1] for match in found if match], f"{separator}{{seed}}"
    return ("{algorithm} - {dataset}" if all(arm.count(" - ") == 1 for arm in arms) else "{algorithm}") + end


def for_files(paths: Sequence[Path]) -> str:
    """A template by the one number in which the files' paths differ; with a placeholder where there is none."""
    parts = [path.absolute().parts for path in paths]
    depth = max(
        (depth for depth in range(1, min(map(len, parts)) + 1) if len({p[-depth] for p in parts}) > 1),
        default=1,
    )
    pieces = [re.split(r"([0-9]+)", "/".join(part[-depth:])) for part in parts]
    differ = [i for i, own in enumerate(zip(*pieces, strict=False)) if len(set(own)) > 1]
    if len({len(own) for own in pieces}) > 1 or len(differ) != 1 or differ[0] % 2 == 0:
        return "…{seed}…"
    return "".join([*pieces[0][: differ[0]], "{seed}", *pieces[0][differ[0] + 1 :]])


def _in_braces(fields: Sequence[str]) -> str:
    return ", ".join(f"{{{field}}}" for field in fields)
