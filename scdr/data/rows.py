"""Blocks of text to batches of user, item, rating and time: delimited rows and JSON lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import orjson
import polars as pl

from scdr._native import _C
from scdr.data.columns import ROLES, Batch
from scdr.data.formats import Layout
from scdr.data.text import Block

JSON_ROWS_AT_ONCE = 1 << 16
"""Fewer make polars' own work the larger part."""
Fields = list[str | None]


def parse(blocks: Iterable[Block], layout: Layout) -> Iterator[Batch]:
    """Parse text; a row that can't be split or decoded comes back with a reason.

    Args:
        blocks: of a whole file; each is done with when the next is asked for.
        layout: what the file is.
    """
    if not layout.delimiter:
        return _json_batches(blocks, layout)
    return (_delimited_batch(block, layout) for block in blocks)


def _delimited_batch(block: Block, layout: Layout) -> Batch:
    if block.first_line <= layout.skip_lines:
        block = _without_header(block, layout.skip_lines)
    data = bytes(block.data)
    try:
        frame = None if _has_loose_quote(data, layout) else _delimited(data, layout)
    except pl.exceptions.PolarsError:
        frame = None
    # A quote that is never closed swallows lines, and some readers drop blank ones: where the
    # count is off, only line by line is it clear which row stands on which line.
    if frame is None or frame.height != block.lines:
        numbered = enumerate(data.split(b"\n")[:-1], block.first_line)
        return _by_line(numbered, lambda line: _delimited_line(line, layout))
    lines = np.arange(block.first_line, block.first_line + frame.height)
    return _without_blank_lines(Batch(frame, lines), data)


def _has_loose_quote(data: bytes, layout: Layout) -> bool:
    """Whether a quote stands within a column: the fast way drops it, whatever it opens or ends."""
    return b'"' in data and _quoted_whole(layout.delimiter).fullmatch(data) is None


@cache
def _quoted_whole(delimiter: str) -> re.Pattern[bytes]:
    """Lines whose columns are each without a quote, or quoted from end to end."""
    edge = re.escape(delimiter.encode())
    quoted, plain = rb'"(?:[^"\n]++|"")*+"(?:%b|\r?\n)' % edge, rb'[^"\n%b]*+[%b\n]' % (edge, edge)
    return re.compile(b"(?:%b|%b)*+" % (quoted, plain))


def _without_header(block: Block, skip_lines: int) -> Block:
    skipped = skip_lines - block.first_line + 1
    start = sum(len(line) + 1 for line in bytes(block.data).split(b"\n", skipped)[:skipped])
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
        extra_columns="ignore",
        missing_columns="insert",
    )
    if "time" not in frame.columns:
        frame = frame.with_columns(time=pl.lit(None, dtype=pl.String))
    return frame.select(ROLES)


def _json_batches(blocks: Iterable[Block], layout: Layout) -> Iterator[Batch]:
    """Parse JSON objects; the lines that the native side leaves, one by one."""
    keys = [str(layout.columns.get(role, "")) for role in ROLES]
    first, count = 1, 0
    rows: list[bytes] = []
    others: list[tuple[int, bytes]] = []  # the lines left, by their numbers in the file
    for block in blocks:
        taken, left = _C.take_json_fields(block.data, keys, 2)
        rows.append(taken)
        if left:
            text = bytes(block.data).split(b"\n")
            others += [(block.first_line + place, text[place]) for place in left]
        count += block.lines
        if count >= JSON_ROWS_AT_ONCE:
            yield _json_batch(b"".join(rows), first, others, layout)
            first, count, rows, others = first + count, 0, [], []
    if count:
        yield _json_batch(b"".join(rows), first, others, layout)


def _json_batch(
    rows: bytes, first_line: int, left: list[tuple[int, bytes]], layout: Layout
) -> Batch:
    """Return rows, a line each, in which those left stand empty, with these parsed in place."""
    frame = pl.read_csv(
        rows,
        has_header=False,
        schema=dict.fromkeys(ROLES, pl.String),
        separator="\t",
        quote_char=None,
    )
    lines = np.arange(first_line, first_line + frame.height)
    if not left:
        return Batch(frame, lines)
    others = _by_line(left, lambda line: _json_object(line, layout))
    taken = np.ones(frame.height, dtype=bool)
    taken[[number - first_line for number, _ in left]] = False
    lines = np.concatenate([lines[taken], others.lines])
    order = np.argsort(lines)
    place = np.argsort(order)[int(taken.sum()) :].tolist()  # of the others among all
    both = pl.concat([frame.filter(pl.Series(taken)), others.frame])
    reasons = {place[row]: reason for row, reason in others.reasons.items()}
    return Batch(both[order], lines[order], reasons)


def _without_blank_lines(batch: Batch, data: bytes) -> Batch:
    # blanks on a line count as a first column
    empty = batch.frame.select(pl.sum_horizontal(pl.all().is_null()) >= len(ROLES) - 1).to_series()
    if not empty.any():
        return batch
    text = data.split(b"\n")
    keep = np.ones(batch.frame.height, dtype=bool)
    keep[[row for row in empty.arg_true().to_list() if not text[row].strip()]] = False
    return Batch(batch.frame.filter(pl.Series(keep)), batch.lines[keep])


def _by_line(numbered: Iterable[tuple[int, bytes]], fields_of: Callable[[bytes], Fields]) -> Batch:
    """Parse line by line what the fast way refuses: broken quotes, JSON or UTF-8."""
    rows: list[Fields] = []
    lines: list[int] = []
    reasons: dict[int, str] = {}
    for number, line in numbered:
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
        ValueError: quotes of a column up to the last of the four are broken, or the bytes are no
            UTF-8.
    """
    text = line.decode().removesuffix("\r")
    width = max(int(place) for place in layout.columns.values()) + 1
    values = _split(text, layout.delimiter, width) if '"' in text else text.split(layout.delimiter)
    places = [layout.columns.get(role, len(values)) for role in ROLES]
    return [(values[int(place)] or None) if int(place) < len(values) else None for place in places]


def _split(text: str, delimiter: str, width: int) -> list[str]:
    """Split the first columns of a row off it; what follows may be anything."""
    values: list[str] = []
    start = 0
    while len(values) < width and start <= len(text):
        if text.startswith('"', start):
            end = start + 1
            while (end := text.find('"', end)) >= 0 and text.startswith('"', end + 1):
                end += 2
            if end < 0:
                raise ValueError("broken quotes: one is not closed")
            value, end = text[start + 1 : end].replace('""', '"'), end + 1
            if end < len(text) and not text.startswith(delimiter, end):
                raise ValueError("broken quotes: more than a separator follows one that closes")
        else:
            end = text.find(delimiter, start)
            end = len(text) if end < 0 else end
            value = text[start:end]
        values.append(value)
        start = end + 1
    return values


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
    """Write a JSON value: numbers that are whole as integers, 1.0 as "1"."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if number else orjson.dumps(value).decode()
