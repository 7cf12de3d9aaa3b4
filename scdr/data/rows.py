"""Blocks of text to batches of user, item, rating and time: delimited rows and JSON lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import orjson
import polars as pl

from scdr.data.columns import ROLES, Batch
from scdr.data.formats import Layout
from scdr.data.text import Block

Fields = list[str | None]


def parse(block: Block, layout: Layout) -> Batch:
    """Parse one block; a row that can't be split or decoded comes back with a reason."""
    if block.first_line <= layout.skip_lines:
        block = _without_header(block, layout.skip_lines)
    fast, slow = (_delimited, _delimited_line) if layout.delimiter else (_json_lines, _json_object)
    try:
        frame = fast(block.data, layout)
    except pl.exceptions.PolarsError:
        return _by_line(block, lambda line: slow(line, layout))
    # A quote that is never closed swallows lines, and some readers drop blank ones: where the
    # count is off, only line by line is it clear which row stands on which line.
    if frame.height != block.lines:
        return _by_line(block, lambda line: slow(line, layout))
    lines = np.arange(block.first_line, block.first_line + frame.height)
    return _without_blank_lines(Batch(frame, lines), block)


def _without_header(block: Block, skip_lines: int) -> Block:
    start, skipped = 0, skip_lines - block.first_line + 1
    for _ in range(skipped):
        start = block.data.index(b"\n", start) + 1
    return Block(block.data[start:], skip_lines + 1, block.lines - skipped)


def _delimited(data: bytes, layout: Layout) -> pl.DataFrame:
    """Parse delimited rows, all columns as strings."""
    names = {int(position): role for role, position in layout.columns.items()}
    width = max(names) + 1
    frame = pl.read_csv(
        data,
        has_header=False,
        schema={names.get(place, f"ignored {place}"): pl.String for place in range(width)},
        separator=layout.delimiter,
        quote_char='"' if b'"' in data else None,
        truncate_ragged_lines=True,
    )
    if "time" not in frame.columns:
        frame = frame.with_columns(time=pl.lit(None, dtype=pl.String))
    return frame.select(ROLES)


def _json_lines(data: bytes, layout: Layout) -> pl.DataFrame:
    """Parse JSON objects; fields that are not asked for are skipped unread."""
    types = {"user": pl.String, "item": pl.String, "rating": pl.Float64, "time": pl.Float64}
    schema = {str(key): types[role] for role, key in layout.columns.items()}
    frame = pl.read_ndjson(io.BytesIO(data), schema=schema)
    frame = frame.rename({str(key): role for role, key in layout.columns.items()})
    if "time" not in frame.columns:
        frame = frame.with_columns(time=pl.lit(None, dtype=pl.Float64))
    return frame.select(ROLES)


def _without_blank_lines(batch: Batch, block: Block) -> Batch:
    # blanks on a line count as a first column
    empty = batch.frame.select(pl.sum_horizontal(pl.all().is_null()) >= len(ROLES) - 1).to_series()
    if not empty.any():
        return batch
    text = block.data.split(b"\n")
    keep = np.ones(batch.frame.height, dtype=bool)
    keep[[row for row in empty.arg_true().to_list() if not text[row].strip()]] = False
    return Batch(batch.frame.filter(pl.Series(keep)), batch.lines[keep])


def _by_line(block: Block, fields_of: Callable[[bytes], Fields]) -> Batch:
    """Parse line by line what the fast way refuses: broken quotes, JSON or UTF-8."""
    rows: list[Fields] = []
    lines: list[int] = []
    reasons: dict[int, str] = {}
    for number, line in enumerate(block.data.split(b"\n")[:-1], block.first_line):
        if not line.strip():
            continue
        try:
            fields = fields_of(line)
        except UnicodeDecodeError:
            reasons[len(rows)], fields = "not UTF-8", [None] * len(ROLES)
        except ValueError as error:  # also orjson.JSONDecodeError
            reasons[len(rows)], fields = str(error), [None] * len(ROLES)
        rows.append(fields)
        lines.append(number)
    schema = dict.fromkeys(ROLES, pl.String)
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return Batch(frame, np.array(lines, dtype=np.int64), reasons)


def _delimited_line(line: bytes, layout: Layout) -> Fields:
    """Return the four columns of one delimited row, None where missing.

    Raises:
        ValueError: a quote is not closed, or the bytes are no UTF-8.
    """
    text = line.decode().rstrip("\r")
    try:
        values = next(csv.reader([text], delimiter=layout.delimiter, strict=True))
    except csv.Error as error:
        raise ValueError(f"broken quotes: {error}") from None
    places = [layout.columns.get(role, len(values)) for role in ROLES]
    return [(values[int(place)] or None) if int(place) < len(values) else None for place in places]


def _json_object(line: bytes, layout: Layout) -> Fields:
    """Return the four fields of one JSON object, None where missing.

    Raises:
        ValueError: not JSON, or not an object.
    """
    try:
        value: Any = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(value, Mapping):
        raise ValueError("not a JSON object")
    found = [value.get(layout.columns.get(role)) for role in ROLES]
    return [_text(field) for field in found]


def _text(value: Any) -> str | None:
    """Write a JSON value as the fast way does: 1.0 as "1"."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if number else orjson.dumps(value).decode()
