"""Names that others take: of folders, of SLURM's jobs, in wandb; and commands as a shell takes them."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from pathlib import Path

LONGEST = 100
LONGEST_PROJECT, LONGEST_TAG, LONGEST_TITLE = 128, 64, 128
"""wandb's limits: of a project, of a tag, of a run's name or group."""
NOT_IN_PROJECTS = r"/\#?%:"


def is_plain(name: str) -> bool:
    """Whether a name can be a folder, a SLURM job's name, one of a list with commas, and a word of a command."""
    return bool(re.fullmatch(r"\w[\w.+-]*", name)) and len(os.fsencode(name)) <= LONGEST


_LISTED = re.compile(r"[\[{]|(range|choice|glob|interval|shuffle|sort|tag)\(")

PLAIN = f"use at most {LONGEST} letters, digits and . _ + -, of which the first is a letter or digit"
"""The way out where a name is not plain."""


def project_problem(key: str, project: str) -> str | None:
    """Says why wandb would not take a project's name; None if it would."""
    bad = sorted(set(project) & set(NOT_IN_PROJECTS))
    if not bad and len(project) <= LONGEST_PROJECT:
        return None
    what = f"holds {', '.join(map(repr, bad))}" if bad else f"has {len(project)} characters"
    return (
        f"{key}={project[:LONGEST]} {what}: a project of wandb has at most {LONGEST_PROJECT} characters, "
        f"none of them {' '.join(NOT_IN_PROJECTS)}"
    )


def shortened(text: str, most: int) -> str:
    """The text, or its beginning with a hash of all of it, so that it still differs from others that begin alike."""
    if len(text) <= most:
        return text
    return f"{text[: most - 7]}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def quoting(override: str) -> str | None:
    """Says what to type instead of a `key=value` that Hydra does not take, where all that it lacks is quotes."""
    key, _, value = override.partition("=")
    strange = re.compile(r"[^\w\s/+.$%*@?|:-]", re.ASCII)  # what Hydra does not take without quotes
    found = sorted(set(strange.findall(value)) - {","})
    if not found or set(found) & set("'\"\\") or not re.fullmatch(r"[+]{0,2}[\w./@:-]+", key):
        return None
    if "${" in value or _LISTED.match(value):
        return None
    items = ",".join(f'"{item}"' if strange.search(item) else item for item in value.split(","))
    return (
        f"{override}: a value with {' '.join(found)} in it needs quotes of Hydra's inside the shell's; type "
        f"{shlex.quote(f'{key}={items}')}"
    )


def pairing(override: str) -> str | None:
    """Says which brackets of a list or a sweep, `key=value`, do not pair; None if all do."""
    key, _, value = override.partition("=")
    if not _LISTED.match(value):
        return None
    for opening, closing in ("[]", "()", "{}"):
        if value.count(opening) != value.count(closing):
            return (
                f"{override}: {opening} and {closing} do not pair; write a list as {key}=[8,8], "
                f"a sweep as {key}=1,2 or {shlex.quote(f'{key}=range(10)')}"
            )
    return None


def sweep_command(root: Path, *words: str) -> str:
    """`python -m o2o.sweep …` as it is to be typed here, for the directory of runs `root`."""
    usual = Path(os.environ.get("O2O_RUNS") or "runs")
    told = [] if root.absolute() == usual.absolute() else ["--runs", str(root)]
    return shlex.join(["python", "-m", "o2o.sweep", *words, *told])
