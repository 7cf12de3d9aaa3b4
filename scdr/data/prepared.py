"""A prepared domain: the Parquet file that scdr.prepare writes and read_domain loads as it is.

Its columns are named as those of :class:`scdr.data.interactions.Interactions`; the two vocabularies
stand in the first rows of theirs and nulls follow. The footer holds the report of the reading and
a SHA-256 of the whole file, taken with the digest's own place filled with zeros.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from scdr.checksum import seal as seal_data
from scdr.checksum import why_damaged
from scdr.data.checking import ReadReport
from scdr.data.formats import AUTO
from scdr.data.interactions import Interactions
from scdr.data.text import check_file
from scdr.errors import InputError

FORMAT = "prepared"
REPORT_KEY = "scdr.domain"
DIGEST_KEY = "scdr.sha256"
COLUMNS = ("users", "items", "ratings", "times", "user_ids", "item_ids")

_FOOTER_BYTES = 1 << 20


def seal(path: Path) -> None:
    """Write a file's digest over ``UNSEALED`` in its footer, and all of it to the disk."""
    with path.open("r+b") as file:
        with mmap.mmap(file.fileno(), 0) as data:
            seal_data(data, max(0, len(data) - _FOOTER_BYTES))
            data.flush()
        os.fsync(file.fileno())


def is_prepared(path: Path, format: str = AUTO) -> bool:
    """Tell whether a file is a prepared domain, sound or not.

    Either of its two keys decides, so that damage to one does not make it another file.

    Raises:
        InputError: the file is missing, empty or unreadable.
    """
    check_file(path)
    if format not in (AUTO, "parquet"):
        return format == FORMAT
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _FOOTER_BYTES))
        footer = file.read()
    return REPORT_KEY.encode() in footer or DIGEST_KEY.encode() in footer


def write_prepared(path: Path, domain: Interactions, metadata: Mapping[str, str]) -> None:
    """Write a domain, of whose ids each has a rating, unsealed.

    Args:
        path: the file.
        domain: what to write.
        metadata: of the footer.
    """

    def vocabulary(ids: NDArray[np.object_]) -> pl.Series:
        return pl.Series(ids, dtype=pl.String).extend_constant(None, len(domain) - len(ids))

    pl.DataFrame(
        {
            "users": domain.users,
            "items": domain.items,
            "ratings": domain.ratings,
            "times": domain.times,
            "user_ids": vocabulary(domain.user_ids),
            "item_ids": vocabulary(domain.item_ids),
        }
    ).write_parquet(path, compression="zstd", statistics=False, metadata=dict(metadata))


def load_prepared(path: Path) -> tuple[Interactions, ReadReport]:
    """Load a prepared domain.

    Raises:
        InputError: it can't be read, or any bit of it differs from what was written.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            why = why_damaged(data, max(0, len(data) - _FOOTER_BYTES))
        if why:
            raise _damaged(path, why)
        report = orjson.loads(pl.read_parquet_metadata(path)[REPORT_KEY])
        table = pl.read_parquet(path, columns=list(COLUMNS)).rechunk()
    except (OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
        raise _damaged(path, str(error).splitlines()[0]) from error
    examples = tuple((line, reason) for line, reason in report.pop("rejected_examples"))
    return Interactions(
        users=table["users"].to_numpy(writable=True),
        items=table["items"].to_numpy(writable=True),
        ratings=table["ratings"].to_numpy(writable=True),
        times=table["times"].to_numpy(writable=True),
        user_ids=_vocabulary(table["user_ids"]),
        item_ids=_vocabulary(table["item_ids"]),
    ), ReadReport(**report, path=str(path), rejected_examples=examples)


def _vocabulary(column: pl.Series) -> np.ndarray:
    return column.drop_nulls().to_numpy().astype(object, copy=False)


def _damaged(path: Path, why: str) -> InputError:
    return InputError(
        f"the prepared domain is damaged: {why}",
        where=str(path),
        fix="copy it again, or prepare it again from the dump",
    )
