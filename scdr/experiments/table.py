"""A table of texts, and its three forms: Markdown, LaTeX and the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import rich.table
from rich.text import Text

_LATEX = {
    "\\": r"\textbackslash{}",
    **{mark: "\\" + mark for mark in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": "$<$",
    ">": "$>$",
}


@dataclass(frozen=True)
class Cell:
    """A text, bold where it is the best of its column."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Row:
    """A row; `ruled` draws a line above it."""

    label: str
    cells: tuple[Cell, ...]
    ruled: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: what it shows.
        head: heads of the columns, that of the labels first.
        rows: each with as many cells as there are further columns.
        notes: lines below it.
        together: columns that a narrow terminal must not tear apart, as MAE and RMSE of one beta.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    together: int = 1


def to_markdown(table: Table) -> str:
    """The table as GitHub-flavoured Markdown under a heading of the second level."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    lines = [f"## {table.title}", "", line(table.head)]
    lines.append(line(["---", *("---:" for _ in table.head[1:])]))
    for row in table.rows:
        cells = (f"**{cell.text}**" if cell.bold else cell.text for cell in row.cells)
        lines.append(line([row.label, *cells]))
    for note in table.notes:
        lines += ["", note]
    return "\n".join(lines) + "\n"


def to_latex(table: Table) -> str:
    """The table as a LaTeX table environment; needs the package booktabs."""
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escaped(' '.join([table.title + '.', *table.notes]))}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}",
        r"\toprule",
        " & ".join(map(_escaped, table.head)) + r" \\",
        r"\midrule",
    ]
    for row in table.rows:
        if row.ruled:
            lines.append(r"\midrule")
        cells = (
            rf"\textbf{{{_escaped(cell.text)}}}" if cell.bold else _escaped(cell.text)
            for cell in row.cells
        )
        lines.append(" & ".join([_escaped(row.label), *cells]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def to_terminal(table: Table, width: int) -> list[rich.table.Table]:
    """The table for a terminal `width` characters wide, in as many parts as it takes."""
    columns = [[cells] for cells in zip(*(row.cells for row in table.rows), strict=True)]
    widths = [
        3 + max(len(head), *(len(cell.text) for cell in column[0]))
        for head, column in zip(table.head[1:], columns, strict=True)
    ]
    label = 4 + max(len(table.head[0]), *(len(row.label) for row in table.rows))
    parts: list[list[int]] = [[]]
    for start in range(0, len(widths), table.together):
        group = list(range(start, min(start + table.together, len(widths))))
        if parts[-1] and label + sum(widths[k] for k in (*parts[-1], *group)) > width:
            parts.append([])
        parts[-1] += group
    return [
        _part(table, part, first=k == 0, last=k + 1 == len(parts)) for k, part in enumerate(parts)
    ]


def _part(table: Table, columns: Sequence[int], *, first: bool, last: bool) -> rich.table.Table:
    made = rich.table.Table(
        title=Text(table.title) if first else None,
        caption=Text("\n".join(table.notes)) if last and table.notes else None,
        title_justify="left",
        caption_justify="left",
    )
    made.add_column(Text(table.head[0]))
    for column in columns:
        made.add_column(Text(table.head[column + 1]), justify="right")
    for row in table.rows:
        if row.ruled:
            made.add_section()
        cells = (row.cells[column] for column in columns)
        styled = (Text(cell.text, style="bold" if cell.bold else "") for cell in cells)
        made.add_row(Text(row.label), *styled)
    return made


def _escaped(text: str) -> str:
    escaped = re.sub(r"[\\&%$#_{}~^±<>]", lambda found: _LATEX[found[0]], text)
    return re.sub(r"^-(?=\d)", "$-$", escaped)
