"""The dump formats: their names, and how a text file's is recognised."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from scdr.data.columns import (
    ROLES,
    Columns,
    check_distinct,
    check_roles,
    columns_by_name,
    is_known,
    normalise,
)
from scdr.errors import InputError

FORMATS = {
    "amazon-2014-json": "5-core reviews of 2014, JSON lines: reviewerID, asin, overall",
    "amazon-2014-csv": "ratings of 2014, no header: user, item, rating, time",
    "amazon-2018-csv": "ratings of 2018, no header: item, user, rating, time",
    "amazon-2018-json": "5-core reviews of 2018, JSON lines as in 2014",
    "amazon-2023": "ratings of 2023, CSV with header user_id,parent_asin,rating,timestamp",
    "recbole": "RecBole's .inter, tab-separated, typed header user_id:token ...",
    "csv": "comma-separated, with or without a header",
    "tsv": "tab-separated, with or without a header",
    "parquet": "Parquet with named columns",
    "prepared": "a domain that scdr.prepare wrote",
}
AUTO = "auto"

_REVIEW_KEYS = ("reviewerID", "asin", "overall", "unixReviewTime")
_JSON_KEYS = {"amazon-2023": ("user_id", "parent_asin", "rating", "timestamp")}
JSON_SAMPLE = 100

_AMAZON_USER = re.compile(r"A[0-9A-Z]+")
_AMAZON_ITEM = re.compile(r"B[0-9A-Z]+|[0-9]{9}[0-9X]")
# Real dumps hold a few ids of other forms, so most rows decide and not all.
_AMAZON_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Layout:
    """How the rows of a text file are to be read.

    Attributes:
        format: a name of ``FORMATS``.
        columns: by role, the key of a JSON object or the position of a delimited column.
        delimiter: between the columns; empty for JSON lines.
        skip_lines: lines up to the end of the header.
    """

    format: str
    columns: dict[str, str] | dict[str, int]
    delimiter: str = ""
    skip_lines: int = 0


def check_format(name: str) -> None:
    """Refuse a name that is neither in ``FORMATS`` nor ``auto``.

    Raises:
        InputError: listing the names.
    """
    if name != AUTO and name not in FORMATS:
        raise InputError(
            f"unknown format {name!r}", fix=f"use {AUTO} or one of {', '.join(FORMATS)}"
        )


def detect(lines: Sequence[str], format: str, columns: Columns | None, where: str) -> Layout:
    """Find out how to read a text file.

    Args:
        lines: its first lines, many of them, without line ends.
        format: a name of ``FORMATS``, or ``auto``.
        columns: the user's choice by role.
        where: the file, for messages.

    Raises:
        InputError: no format fits, or a column is missing.
    """
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise InputError("no rows: blank lines only", where=where, fix="give a file with ratings")
    if any("\0" in line for line in lines):
        raise _unknown(where, "it is not UTF-8 text")
    if _is_json(lines[first:], format):
        return _json_layout(lines[first:], format, columns, f"{where}:{first + 1}")
    delimiter = _delimiter(lines[first:], format, where)
    rows = [split(line, delimiter) for line in lines[first:] if line.strip()]
    if format == AUTO:
        format = _delimited_format(rows, delimiter)
    here = f"{where}:{first + 1}"
    if format in ("amazon-2014-csv", "amazon-2018-csv"):
        order = (0, 1, 2, 3) if format == "amazon-2014-csv" else (1, 0, 2, 3)
        defaults = dict(zip(ROLES, order, strict=True))
        return Layout(format, _positions(rows, defaults, columns, here), delimiter)
    by_name = any(isinstance(choice, str) for choice in check_roles(columns).values())
    if by_name or format in ("amazon-2023", "recbole") or is_header(rows[0]):
        return Layout(format, _by_header(rows[0], columns, here), delimiter, first + 1)
    defaults = {role: position for position, role in enumerate(ROLES)}
    return Layout(format, _positions(rows, defaults, columns, here), delimiter)


def split(line: str, delimiter: str) -> list[str]:
    """Split one line into its columns, taking off quotes; an endless column is cut short."""
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return [line[:80]]


def is_header(fields: Sequence[str]) -> bool:
    """Tell whether a first line names columns.

    It does if it holds no number on its own, and either a known column name or no digit at all:
    a row of data has at least its rating, and where that is broken its ids have digits.
    """
    if any(_is_number(value) for value in fields):
        return False
    return any(is_known(value) for value in fields) or not re.search(r"\d", "".join(fields))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return normalise(text) not in ("nan", "inf", "infinity")


def _is_json(lines: Sequence[str], format: str) -> bool:
    if format in ("amazon-2014-json", "amazon-2018-json"):
        return True
    sample = [line.lstrip().startswith("{") for line in lines if line.strip()]
    return format in (AUTO, "amazon-2023") and 2 * sum(sample) > len(sample)


def _json_layout(lines: Sequence[str], format: str, columns: Columns | None, where: str) -> Layout:
    """Layout of JSON lines; the keys of the first objects decide."""
    keys = _json_keys(lines, where)
    if format == AUTO:
        if "reviewerID" in keys:
            format = "amazon-2018-json" if "verified" in keys else "amazon-2014-json"
        elif "parent_asin" in keys:
            format = "amazon-2023"
        else:
            raise _unknown(where, f"JSON with the keys {', '.join(keys)}")
    found = dict(zip(ROLES, _JSON_KEYS.get(format, _REVIEW_KEYS), strict=True))
    for role, choice in check_roles(columns).items():
        if choice is None:
            del found[role]
        else:
            found[role] = str(choice)
    for role, key in found.items():
        if key not in keys and role != "time":
            raise InputError(
                f"no {role} column: no object has the key {key!r}, they have {', '.join(keys)}",
                where=where,
                fix=f"name the key with columns, as in {role}=NAME",
            )
    check_distinct(found, where)
    return Layout(format, found)


def _json_keys(lines: Sequence[str], where: str) -> list[str]:
    """Keys of the first JSON objects, in order."""
    keys: dict[str, None] = {}
    error: Exception | None = None
    for line in filter(str.strip, lines[:JSON_SAMPLE]):
        try:
            keys |= dict.fromkeys(orjson.loads(line))
        except (orjson.JSONDecodeError, TypeError) as exception:
            error = error or exception
    if not keys:
        raise InputError(
            f"not JSON lines: {error}", where=where, fix="give one JSON object a line"
        ) from error
    return list(keys)


def _delimiter(lines: Sequence[str], format: str, where: str) -> str:
    if format in ("tsv", "recbole"):
        return "\t"
    if format != AUTO:
        return ","
    sample = [line for line in lines if line.strip()]
    for delimiter in ("\t", ","):
        if 2 * sum(delimiter in line for line in sample) >= len(sample):
            return delimiter
    raise _unknown(f"{where}:1", "neither JSON lines nor columns separated by commas or tabs")


def _delimited_format(rows: Sequence[Sequence[str]], delimiter: str) -> str:
    header = rows[0]
    if is_header(header) and any(":" in name for name in header):
        return "recbole"
    if delimiter == "\t":
        return "tsv"
    if {"user_id", "parent_asin", "rating"} <= set(header):
        return "amazon-2023"
    if is_header(header):
        return "csv"
    pairs = [(row[0], row[1]) for row in rows if len(row) >= 3]
    needed = _AMAZON_SHARE * len(pairs)
    user_first = sum(
        bool(_AMAZON_USER.fullmatch(a) and _AMAZON_ITEM.fullmatch(b)) for a, b in pairs
    )
    item_first = sum(
        bool(_AMAZON_ITEM.fullmatch(a) and _AMAZON_USER.fullmatch(b)) for a, b in pairs
    )
    if pairs and item_first >= needed:
        return "amazon-2018-csv"
    return "amazon-2014-csv" if pairs and user_first >= needed else "csv"


def _by_header(names: Sequence[str], columns: Columns | None, where: str) -> dict[str, int]:
    stripped = [name.strip() for name in names]
    chosen = columns_by_name(stripped, columns, where=where)
    return {role: stripped.index(name) for role, name in chosen.items()}


def _positions(
    rows: Sequence[Sequence[str]], defaults: dict[str, int], columns: Columns | None, where: str
) -> dict[str, int]:
    """Positions of the columns of a file without a header."""
    chosen = check_roles(columns)
    for role, choice in chosen.items():
        if isinstance(choice, str):
            raise InputError(
                f"no column {choice!r} for the {role}: the file has no header",
                where=where,
                fix="give positions from 0",
            )
    width = max(len(row) for row in rows)
    positions = {**defaults, **chosen}
    if "time" not in chosen and not _has_times(rows, defaults["time"]):
        positions["time"] = None
    found = {role: place for role, place in positions.items() if isinstance(place, int)}
    for role, place in found.items():
        if not 0 <= place < width:
            raise InputError(
                f"no column for the {role}: the file has {width} columns",
                where=where,
                fix="give user, item, rating and, where there is one, time",
            )
    check_distinct(found, where)
    return found


def _has_times(rows: Sequence[Sequence[str]], position: int) -> bool:
    """Tell whether a column of a file without header is one of times: numbers or nothing."""
    values = [row[position].strip() for row in rows if len(row) > position]
    numeric = sum(not value or _is_number(value) for value in values)
    return bool(values) and 2 * numeric >= len(values)


def _unknown(where: str, why: str) -> InputError:
    return InputError(
        f"unknown format, {why}", where=where, fix=f"name it: one of {', '.join(FORMATS)}"
    )
