from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

Row = tuple[Any, ...]
Writer = Callable[[Path, Sequence[Row]], Path]


def _delimited(
    delimiter: str, header: Sequence[str] | None = None, order: Sequence[int] = (0, 1, 2, 3)
) -> Writer:
    def write(path: Path, rows: Sequence[Row]) -> Path:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter=delimiter)
            if header:
                writer.writerow(header)
            writer.writerows([row[column] for column in order] for row in rows)
        return path

    return write


def _json_lines(keys: Sequence[str], **others: Any) -> Writer:
    def write(path: Path, rows: Sequence[Row]) -> Path:
        objects = [others | dict(zip(keys, row, strict=True)) for row in rows]
        path.write_bytes(b"".join(orjson.dumps(value) + b"\n" for value in objects))
        return path

    return write


_REVIEW = ("reviewerID", "asin", "overall", "unixReviewTime")

WRITERS: dict[str, Writer] = {
    "amazon-2014-json": _json_lines(_REVIEW, helpful=[1, 2], reviewText='a "b"\n, c'),
    "amazon-2014-csv": _delimited(","),
    "amazon-2018-csv": _delimited(",", order=(1, 0, 2, 3)),
    "amazon-2018-json": _json_lines(_REVIEW, verified=True, style={"Format:": "Kindle"}),
    "amazon-2023": _delimited(",", ("user_id", "parent_asin", "rating", "timestamp")),
    "recbole": _delimited(
        "\t", ("user_id:token", "item_id:token", "rating:float", "timestamp:float")
    ),
    "csv": _delimited(","),
    "tsv": _delimited("\t", ("userId", "movieId", "rating", "timestamp")),
}


@pytest.fixture(params=sorted(WRITERS))
def text_format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def write() -> Callable[[str, Path, Sequence[Row]], Path]:
    """Write rows (user, item, rating, time) in a named text format."""
    return lambda name, path, rows: WRITERS[name](path, rows)


@pytest.fixture
def pack() -> Callable[[Path], Path]:
    """Gzip a file in place: the name stays, so that only the content tells."""

    def in_place(path: Path) -> Path:
        path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        return path

    return in_place
