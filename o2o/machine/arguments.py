"""Words of command lines: numbers, as types for argparse whose messages say what to write, and the version."""

from __future__ import annotations

import argparse
import re

import o2o

MOST_SECONDS = 30 * 24 * 3600
VERSION = f"o2o {o2o.__version__}"


def add_version(parser: argparse.ArgumentParser) -> None:
    """Adds `--version`, which prints the project's and ends."""
    parser.add_argument("--version", action="version", version=VERSION, help="print the version and end")


def whole_number(text: str) -> int:
    """A number without a fraction.

    Raises:
        ArgumentTypeError: it is none.
    """
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number; write one such as 3")
    return int(text)


def number(text: str) -> float:
    """Any number.

    Raises:
        ArgumentTypeError: it is none.
    """
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a number; write one such as 2.5") from None


def positive_whole_number(text: str) -> int:
    """A number without a fraction, from 1 on.

    Raises:
        ArgumentTypeError: it is none.
    """
    if (value := whole_number(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive; write 1 or more")
    return value


def seconds(text: str) -> float:
    """A positive number of seconds, up to a month's.

    Raises:
        ArgumentTypeError: it is none.
    """
    if not 0 < (value := number(text)) <= MOST_SECONDS:
        raise argparse.ArgumentTypeError(
            f"{text} is not above 0 and at most {MOST_SECONDS:,}; write one such as 2.5"
        )
    return value
