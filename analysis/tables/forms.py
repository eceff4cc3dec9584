"""A table as data, and its forms: Markdown, CSV, LaTeX and the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Num
from rich import box
from rich.markup import escape
from rich.table import Table as RichTable

from analysis.data.runs import Finetuning

NOTHING = "–"


@dataclass(frozen=True)
class Entry:
    """The content of one place of a table."""

    text: str
    value: float | None = None
    """The number, or truth, to sort by and to write into a CSV; None for words and where there is nothing."""
    spread: float | None = None
    """Its standard deviation over seeds."""
    bold: bool = False
    runs: tuple[Path, ...] = field(default=())
    """The run directories it was made from."""


@dataclass(frozen=True)
class Table:
    """Rows of entries, with what a reader must know below them."""

    name: str
    """The stem of its files."""
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    notes: tuple[str, ...] = field(default=())
    idle: frozenset[int] = field(default=frozenset())
    """The rows that rest on no runs, which a page folds away."""


def words(text: object) -> Entry:
    """An entry that is no number."""
    return Entry(str(text))


def number(value: float | None, decimals: int = 1, sign: str = "", runs: Iterable[Path] = ()) -> Entry:
    """A number; a dash where there is none."""
    if value is None or np.isnan(value):
        return Entry(NOTHING)
    return Entry(_minus(f"{value:{sign}.{decimals}f}"), float(value), runs=tuple(runs))


def mean(
    values: Num[np.ndarray, " N"] | Sequence[float],
    runs: Sequence[Finetuning] = (),
    sign: str = "",
    decimals: int = 1,
) -> Entry:
    """Mean ± sample standard deviation over the seeds that have a value, saying how many where some have none."""
    every = np.asarray(values, dtype=np.float64)
    present = every[~np.isnan(every)]
    paths = tuple(run.path for run in runs)
    if not len(present):
        return Entry(NOTHING, runs=paths)
    text = f"{present.mean():{sign}.{decimals}f}"
    spread = float(present.std(ddof=1)) if len(present) > 1 else None
    if spread is not None:
        text += f" ± {spread:.{decimals}f}"
    if len(present) < len(every):
        text += f" ({len(present)} of {len(every)})"
    return Entry(_minus(text), float(present.mean()), spread, runs=paths)


def whole(value: int | None, runs: Iterable[Path] = ()) -> Entry:
    """A whole number; a dash where there is none."""
    return Entry(NOTHING) if value is None else Entry(thousands(value), value, runs=tuple(runs))


def truth(value: bool, runs: Iterable[Path] = ()) -> Entry:
    """Yes or no."""
    return Entry("yes" if value else "no", value, runs=tuple(runs))


def thousands(count: float) -> str:
    """A whole number with its thousands apart."""
    return f"{count:,.0f}".replace(",", "\u202f")


def interval(value: float, low: float, high: float, decimals: int = 1, sign: str = "") -> Entry:
    """A number with its 95 % interval in brackets; without one where it is not known."""
    if np.isnan(value):
        return Entry(NOTHING)
    text = f"{value:{sign}.{decimals}f}"
    if not np.isnan(low + high):
        text += f" [{low:{sign}.{decimals}f}, {high:{sign}.{decimals}f}]"
    return Entry(_minus(text), float(value))


def p_value(value: float) -> Entry:
    """A p-value, with two digits or as below a thousandth."""
    if np.isnan(value):
        return Entry(NOTHING)
    return Entry("< 0.001" if value < 0.001 else f"{value:.2g}", float(value))


def to_markdown(table: Table) -> str:
    """A GitHub table below its title, with the notes as a list."""
    lines = [f"### {table.title}", "", _pipe(table.columns), _pipe(_rule(table))]
    lines += [_pipe([f"**{e.text}**" if e.bold else e.text for e in row]) for row in table.rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes)]).rstrip() + "\n"


def to_csv(table: Table) -> str:
    """Numbers with all their digits, their standard deviations in columns of their own, words as they are."""
    spreads = [any(row[i].spread is not None for row in table.rows) for i in range(len(table.columns))]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    header = []
    for column, spread in zip(table.columns, spreads, strict=True):
        header += [column, f"{column} std"] if spread else [column]
    writer.writerow(header)
    for row in table.rows:
        written: list[str] = []
        for entry, spread in zip(row, spreads, strict=True):
            missing = "" if entry.text == NOTHING else entry.text
            written.append(missing if entry.value is None else _exact(entry.value))
            if spread:
                written.append("" if entry.spread is None else repr(entry.spread))
        writer.writerow(written)
    return stream.getvalue()


def _exact(value: float) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def to_latex(table: Table) -> str:
    """A booktabs tabular; title and notes are comments."""
    align = "".join("r" if rule.endswith(":") else "l" for rule in _rule(table))
    lines = [f"% {_ascii(table.title)}", *(f"% {_ascii(note)}" for note in table.notes)]
    lines += [f"\\begin{{tabular}}{{{align}}}", "\\toprule", _tex_row(map(_tex, table.columns)), "\\midrule"]
    lines += [
        _tex_row(f"\\textbf{{{_tex(e.text)}}}" if e.bold else _tex(e.text) for e in row) for row in table.rows
    ]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"


def to_terminal(table: Table) -> RichTable:
    """The table for the terminal, without its notes."""
    made = RichTable(title=escape(table.title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for column, rule in zip(table.columns, _rule(table), strict=True):
        numeric = rule.endswith(":")
        made.add_column(column, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for row in table.rows:
        made.add_row(*(f"[bold]{escape(e.text)}[/bold]" if e.bold else escape(e.text) for e in row))
    return made


def write(tables: Iterable[Table], directory: Path) -> list[Path]:
    """Writes every table as Markdown, CSV and LaTeX, and returns the paths."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for table in tables:
        for suffix, form in ((".md", to_markdown), (".csv", to_csv), (".tex", to_latex)):
            path = directory / f"{table.name}{suffix}"
            path.write_text(form(table), encoding="utf-8")
            written.append(path)
    return written


def _minus(text: str) -> str:
    """A true minus sign before numbers."""
    return text.replace("-", "−")


def _pipe(texts: Iterable[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def _rule(table: Table) -> list[str]:
    """A column with numbers is aligned to the right."""
    numeric = [any(row[i].value is not None for row in table.rows) for i in range(len(table.columns))]
    return ["---:" if one else "---" for one in numeric]


_TEX = {
    "\\": "\\textbackslash{}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_", "{": "\\{", "}": "\\}",
    "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "−": "$-$", "–": "--", "δ": "$\\delta$",
    "Δ": "$\\Delta$", "≥": "$\\geq$", "≤": "$\\leq$", "<": "$<$", ">": "$>$", "\u202f": "\\,", "·": "$\\cdot$",
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)


def _tex_row(texts: Iterable[str]) -> str:
    return " & ".join(texts) + " \\\\"


def _ascii(text: str) -> str:
    return text.replace("\n", " ")
