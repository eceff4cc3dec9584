"""Learning curves in CSV files, in three forms, told apart by their columns.

- A table, one row an evaluation, with a column of scores. Columns `dataset`, `algorithm`, `seed` and `replay` say whose
  a row is; of what has no column the command line or the file's name says it.
- A wandb run's history: such a table without any of these columns.
- A wandb chart's export: columns named `<run> - <metric>`. Whose a column is, a template of the runs' names says.
"""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.importing import foreign, naming
from analysis.importing.foreign import FIELDS, ForeignCurve, Given
from analysis.importing.naming import Template

STEPS = ("env_steps", "env_step", "step", "Step", "_step", "global_step", "trainer/global_step")
SCORES = ("score", "normalized_score", "d4rl_normalized_score", "eval/score", "finetune/score")
SEPARATOR = " - "
"""Between the run and the metric in a column of a chart."""

LISTED = 8


@dataclass(frozen=True)
class Sheet:
    """A CSV file."""

    path: Path
    columns: list[str]
    rows: list[tuple[int, list[str]]]
    """With their numbers as a spreadsheet counts them: the names of the columns are row 1."""

    def place(self, row: int, column: int) -> str:
        """Returns the place of a cell in words."""
        return f"{self.path}, row {row}, column {self.columns[column]}"

    def column(self, name: str) -> int:
        """Returns the index of the column of that name.

        Raises:
            ValueError: there are two.
        """
        if self.columns.count(name) > 1:
            first, second, *_ = (i + 1 for i, own in enumerate(self.columns) if own == name)
            raise ValueError(
                f"{self.path}: columns {first} and {second} are both called {name!r}; rename one of them"
            )
        return self.columns.index(name)


def read_curves(source: Path, given: Given) -> tuple[list[ForeignCurve], str]:
    """The curves of a CSV file, and how it was read.

    Raises:
        ValueError: something is missing or wrong in it; the text names the place, and what to give.
    """
    if given.interval is not None:
        raise ValueError(f"{source}: --interval is for pickles; a CSV file has its steps in a column")
    sheet = read_sheet(source)
    template = Template(given.name) if given.name is not None else None
    charted = [
        name
        for name in sheet.columns
        if SEPARATOR in name and not name.endswith(("__MIN", "__MAX", f"{SEPARATOR}_step"))
    ]
    is_table = given.score_column in sheet.columns or any(name in sheet.columns for name in SCORES)
    if given.score_column in charted or (charted and not is_table):
        return _chart(sheet, charted, template, given)
    return _table(sheet, template, given)


def read_sheet(path: Path) -> Sheet:
    """A CSV file, all of whose rows have as many cells as there are columns.

    Raises:
        ValueError: it is not such a file; the text names the row.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, row {row}: it is not in UTF-8; save it as CSV in UTF-8") from None
    csv.field_size_limit(2**31 - 1)  # a history's cells may hold whole tables
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        records = [(i, cells) for i, cells in enumerate(reader, start=1) if cells]
    except csv.Error as error:
        raise ValueError(f"{path}, row {reader.line_num}: {error}") from None
    if not records:
        raise ValueError(f"{path} is empty")
    (_, columns), *rows = records
    if len(columns) == 1 and set(";\t") & set(columns[0]):
        raise ValueError(
            f"{path}, row 1: no commas between the columns; save it with commas, and points in numbers"
        )
    for number, cells in rows:
        if len(cells) != len(columns):
            raise ValueError(f"{path}, row {number}: {len(cells)} cells, but {len(columns)} columns")
    return Sheet(path, columns, rows)


def _table(sheet: Sheet, template: Template | None, given: Given) -> tuple[list[ForeignCurve], str]:
    step = _choice(sheet, "step", given.step_column, STEPS)
    score = _choice(sheet, "score", given.score_column, SCORES)
    said = _of_name(sheet, template)
    own = {field: sheet.column(field) for field in FIELDS if field in sheet.columns}
    _say_once(sheet.path, {"a column of the file": own, "--name": said, "an option": _options(given)})
    groups: dict[tuple[str, ...], list[tuple[int, list[str]]]] = {}
    for number, cells in sheet.rows:
        if cells[score].strip():  # wandb leaves cells empty between evaluations
            groups.setdefault(tuple(cells[i].strip() for i in own.values()), []).append((number, cells))
    found = []
    for rows in groups.values():
        number, cells = rows[0]
        whose = {field: (cells[i], sheet.place(number, i)) for field, i in own.items()}
        run = ", ".join(f"{field} {cells[i].strip()}" for field, i in own.items())
        owner = foreign.owner(str(sheet.path), given, said | whose)
        found.append(foreign.make(owner, _points(sheet, rows, step, score), given, sheet.path, run))
    how = (
        f"one row an evaluation; steps in column {sheet.columns[step]!r}, scores in {sheet.columns[score]!r}"
    )
    return found, how + (f", its name read by {template.text!r}" if template else "")


def _chart(
    sheet: Sheet, charted: Sequence[str], template: Template | None, given: Given
) -> tuple[list[ForeignCurve], str]:
    chosen = _chosen(sheet, charted, given.score_column)
    runs = {sheet.column(name): name.rpartition(SEPARATOR)[0] for name in chosen}
    if template is None and given.score_column not in charted:
        raise ValueError(_asked_for_template(sheet.path, list(runs.values()), given))
    read = {run: template.read(run) if template else {} for run in runs.values()}
    strangers = [run for run, said in read.items() if said is None]
    if template and strangers:
        listed = ", ".join(map(repr, strangers[:LISTED])) + (", …" if len(strangers) > LISTED else "")
        raise ValueError(
            f"{sheet.path}: {len(strangers)} of {len(runs)} runs do not fit --name {shlex.quote(template.text)}: "
            f"{listed}. Use another template, take their columns out of the file, or import one column at a time "
            "(--score, with its whole name)"
        )
    _say_once(sheet.path, {"--name": template.fields if template else (), "an option": _options(given)})
    step = 0 if given.step_column is None else _choice(sheet, "step", given.step_column, STEPS)
    found = []
    for i, run in runs.items():
        place = f"{sheet.path}, column {sheet.columns[i]}"
        said = {field: (text, place) for field, text in (read[run] or {}).items()}
        rows = [(number, cells) for number, cells in sheet.rows if cells[i].strip()]
        owner = foreign.owner(place, given, said)
        found.append(foreign.make(owner, _points(sheet, rows, step, i), given, sheet.path, run))
    scores = chosen[0] if len(chosen) == 1 else f"…{SEPARATOR}{chosen[0].rpartition(SEPARATOR)[2]}"
    how = f"a chart's export; steps in column {sheet.columns[step]!r}, scores in {scores!r}"
    how += f", runs' names read by {template.text!r}" if template else ""
    spread = [run for i, run in runs.items() if _is_mean(sheet, sheet.columns[i])]
    if spread:
        how += f"; {spread[0]!r} is a mean of several runs or steps, for its __MIN and __MAX differ"
    return found, how


def _chosen(sheet: Sheet, charted: Sequence[str], score: str | None) -> list[str]:
    """The columns of a chart that hold scores: one by its whole name, or those of one metric."""
    if score in charted:
        return [name for name in charted if name == score][:1]
    metrics = {name: name.rpartition(SEPARATOR)[2] for name in charted}
    there = list(dict.fromkeys(metrics.values()))
    if (score is None and len(there) > 1) or (score is not None and score not in there):
        listed = " or ".join(f"--score {shlex.quote(name)}" for name in there[:LISTED])
        asked = f"no column has {score!r}" if score else "several metrics"
        raise ValueError(f"{sheet.path}: {asked}: say {listed}, or the name of one column")
    return [name for name in charted if metrics[name] == (there[0] if score is None else score)]


def _is_mean(sheet: Sheet, name: str) -> bool:
    """Whether a column of a chart has one value for several: of grouped runs, or of steps that were thinned out."""
    ends = [sheet.columns.index(name + end) for end in ("__MIN", "__MAX") if name + end in sheet.columns]
    return any(len({cells[i].strip() for i in ends}) > 1 for _, cells in sheet.rows)


def _points(
    sheet: Sheet, rows: Sequence[tuple[int, list[str]]], step: int, score: int
) -> list[tuple[str, float, float]]:
    return [
        (
            f"{sheet.path}, row {number}",
            foreign.step(cells[step], sheet.place(number, step)),
            foreign.number(cells[score], sheet.place(number, score)),
        )
        for number, cells in rows
    ]


def _choice(sheet: Sheet, what: str, given: str | None, known: Sequence[str]) -> int:
    """The column of steps or of scores."""
    found = [name for name in ([given] if given is not None else known) if name in sheet.columns]
    if not found:
        raise ValueError(_no_column(sheet, what, given or " or ".join(known)))
    if len(found) > 1:
        options = " or ".join(f"--{what} {shlex.quote(name)}" for name in found)
        raise ValueError(f"{sheet.path} has several columns for the {what}: say {options}")
    return sheet.column(found[0])


def _no_column(sheet: Sheet, what: str, name: str) -> str:
    listed = ", ".join(sheet.columns[: 5 * LISTED])
    return f"{sheet.path} has no column {name}: name it with --{what}; there are {listed}"


def _of_name(sheet: Sheet, template: Template | None) -> dict[str, tuple[str, str]]:
    """Returns the fields that a template reads in a file's name."""
    if template is None:
        return {}
    read = template.read_path(sheet.path)
    if read is None:
        raise ValueError(
            f"{sheet.path} does not fit --name {shlex.quote(template.text)}, which for a table is a template of the "
            "file's name"
        )
    return {field: (text, f"{sheet.path} by --name") for field, text in read.items()}


def _options(given: Given) -> list[str]:
    return [field for field in FIELDS if getattr(given, field) is not None]


def _say_once(path: Path, by: dict[str, Sequence[str] | dict[str, int] | dict[str, tuple[str, str]]]) -> None:
    """Refuses what is said in two places, which may differ."""
    for field in FIELDS:
        places = [place for place, fields in by.items() if field in fields]
        if len(places) > 1:
            raise ValueError(f"{path}: {' and '.join(places)} both say the {field}: leave out one of them")


def _asked_for_template(path: Path, runs: Sequence[str], given: Given) -> str:
    """Returns the message where names of runs stand without a word on how to read them."""
    template = naming.for_runs(runs)
    words = [f"--name {shlex.quote(template)}"] + [
        f"--{field} …"
        for field in FIELDS[:3]
        if f"{{{field}}}" not in template and getattr(given, field) is None
    ]
    listed = [f"  {name}" for name in runs[:LISTED]] + (["  …"] if len(runs) > LISTED else [])
    return "\n".join(
        [
            f"{path}: whose are these runs? Nothing is guessed from their names:",
            *listed,
            "Say with a template what stands where in them, for example:",
            f"  {' '.join(words)}",
            "or import one column at a time: --score, with its whole name, --dataset, --algorithm and --seed",
        ]
    )
