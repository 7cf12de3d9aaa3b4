"""What the readers must give: ratings read a line at a time by Python's own gzip, csv and json.

Which column is what comes from :func:`scdr.data.formats.detect`; all else is done independently.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import numpy as np

from scdr.data.columns import Columns
from scdr.data.formats import Layout, detect
from scdr.errors import InputError

Rating = tuple[str, str, float, int]  # user, item, rating, time
UNPACKING = (EOFError, OSError, zlib.error)

_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_BLANKS = "".join(c for c in map(chr, range(0x3001)) if c.isspace() and c not in "\x1c\x1d\x1e\x1f")
"""Unicode's white space; Python's has four separators more."""
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d:\d\d(\.\d+)?)?", re.ASCII)


@dataclass
class Reading:
    """What a file holds: sound ratings in the order of the file, and the lines rejected."""

    ratings: list[Rating]
    rejected: list[int]

    @property
    def refused(self) -> bool:
        rows = len(self.ratings) + len(self.rejected)
        return not self.ratings or len(self.rejected) > 0.01 * rows


def unpacked(data: bytes) -> bytes:
    """The text of a file.

    Raises:
        EOFError, OSError, zlib.error: of a gzip file that is cut short or damaged.
    """
    return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data


def read(
    text: bytes, format: str, block: int, columns: Columns | None = None
) -> tuple[str, Reading]:
    """The format found, from the lines that end in the first block, and the ratings.

    Raises:
        InputError: of a format that can't be told.
    """
    mark = 0
    while text.startswith(b"\xef\xbb\xbf", mark):
        mark += 3
    first = block
    while b"\n" not in text[:first] and first < len(text):
        first += max(block, first - mark)
    lines = text[mark:].split(b"\n")
    known = max(1, text[:first].count(b"\n"))  # a last line without an end comes after
    sample = [line.decode(errors="replace").rstrip("\r") for line in lines[: min(known, 5000)]]
    layout = detect(sample, format, columns, "text")
    reading = Reading([], [])
    for number, line in enumerate(lines, 1):
        if number <= layout.skip_lines or not line.strip():
            continue
        try:
            reading.ratings.append(_rating(line, layout))
        except ValueError:
            reading.rejected.append(number)
    return layout.format, reading


def expected(data: bytes, format: str, block: int) -> tuple[str, Reading] | None:
    """The format and the ratings of a file; None where it is to be refused."""
    try:
        format, reading = read(unpacked(data), format, block)
    except (InputError, *UNPACKING):
        return None
    return None if reading.refused else (format, reading)


def in_order(ratings: list[Rating]) -> list[Rating]:
    """In order of time, the last of each user and item alone."""
    ordered = sorted(ratings, key=lambda rating: rating[3])  # stable
    last = {(user, item): row for row, (user, item, _, _) in enumerate(ordered)}
    return [rating for row, rating in enumerate(ordered) if last[rating[:2]] == row]


def _rating(line: bytes, layout: Layout) -> Rating:
    text = line.decode()
    fields = _delimited(text, layout) if layout.delimiter else _json(text, layout)
    user, item, rating, time = fields
    if not user or not item:
        raise ValueError("no id")
    return user, item, _float32(rating), _time(time)


def _delimited(text: str, layout: Layout) -> list[str | None]:
    width = max(int(place) for place in layout.columns.values()) + 1
    values = _columns(text.removesuffix("\r"), layout.delimiter)[:width]
    if None in values:
        raise ValueError("broken quotes")
    places = [layout.columns.get(role, len(values)) for role in ("user", "item", "rating", "time")]
    return [values[int(place)] if int(place) < len(values) else None for place in places]


def _columns(text: str, delimiter: str) -> list[str | None]:
    """The columns of a row, by Python's csv from one quoted column to the next; None if broken."""
    values: list[str | None] = []
    while True:
        if text.startswith('"'):
            # the shortest beginning that csv takes as a whole column
            ends = [place + 1 for place, c in enumerate(text) if c == '"' and place]
            for end in ends:
                try:
                    row = next(csv.reader([text[:end]], delimiter=delimiter, strict=True))
                except csv.Error:
                    continue
                if len(row) == 1 and text[end : end + 1] != '"':
                    break
            else:
                return [*values, None]
            values.append(row[0])
            if text[end : end + 1] not in ("", delimiter):
                return [*values[:-1], None]
            text, rest = text[end + 1 :], end < len(text)
        else:
            value, found, text = text.partition(delimiter)
            values.append(value)
            rest = bool(found)
        if not rest:
            return values


def _json(text: str, layout: Layout) -> list[str | None]:
    def refuse(constant: str) -> float:
        raise ValueError(constant)

    try:
        value = json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("too deep") from None
    if not isinstance(value, dict):
        raise ValueError("no object")
    json.dumps(value, ensure_ascii=False).encode()  # UnicodeEncodeError: a lone surrogate
    roles = ("user", "item", "rating", "time")
    return [_text(value.get(layout.columns.get(role))) for role in roles]


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool | list | dict):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return str(value)


def _float32(text: str | None) -> float:
    """The float32 next to a decimal number, of two that are as near the even one."""
    if text is None or not _DECIMAL.fullmatch(text := text.strip(_BLANKS)):
        raise ValueError("no number")
    near = np.float32(float(text))
    if not np.isfinite(near):
        raise ValueError("not finite")
    exact = Fraction(text) if abs(float(text)) > 1e-50 else Fraction(0)
    below, above = (np.nextafter(near, np.float32(to)) for to in (-np.inf, np.inf))
    finite = [c for c in (near, below, above) if np.isfinite(c)]
    return float(
        min(finite, key=lambda c: (abs(Fraction(float(c)) - exact), int(c.view("i4")) & 1))
    )


def _time(text: str | None) -> int:
    text = (text or "").strip(_BLANKS)
    if not text or text.lower() in ("nan", "+nan", "-nan"):
        return 0
    if _INTEGER.fullmatch(text) and -(2**63) <= int(text) < 2**63:
        return int(text)
    if _DECIMAL.fullmatch(text) and -(2.0**63) <= float(text) < 2.0**63:
        return int(float(text))
    text = text.removesuffix("Z")
    if _DATE.fullmatch(text):
        moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
        return int(moment.timestamp() // 1)
    raise ValueError("no time")
