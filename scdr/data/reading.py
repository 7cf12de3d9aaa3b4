"""From a dump file or a DataFrame to the clean ratings of one domain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from scdr._native import _C
from scdr.data.checking import ReadReport, RowCheck
from scdr.data.coding import sort_codes
from scdr.data.columns import Batch, Columns
from scdr.data.formats import AUTO, check_format, detect
from scdr.data.frames import dataframe_batches, parquet_batches
from scdr.data.interactions import Interactions, deduplicate, k_core
from scdr.data.prepared import is_prepared, load_prepared
from scdr.data.rows import parse
from scdr.data.text import GZIP_MAGIC, Progress, check_file, read_blocks, unpack
from scdr.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

PARQUET_MAGIC = b"PAR1"
DATAFRAME = "DataFrame"
SAMPLE_LINES = 5000
EXAMPLES = 20


def read_domain(
    source: str | Path | pd.DataFrame | pl.DataFrame,
    *,
    format: str = AUTO,
    columns: Columns | None = None,
    core: int = 5,
    strict: bool = False,
    progress: Progress | None = None,
) -> tuple[Interactions, ReadReport]:
    """Read one domain: rows, then the last of each (user, item) in time, then the k-core.

    Ids stay the strings they are. Malformed rows (too few columns, an empty id, a rating that is
    not a finite number, broken JSON) are left out and counted, unless they are more than one in
    a hundred.

    Args:
        source: a file in one of ``FORMATS``, gzipped or not, or a pandas or polars DataFrame.
        format: a name of ``FORMATS``; ``auto`` recognises it by the content.
        columns: user, item, rating and time by name or by position from 0, where they are not
            recognised; ``{"time": None}`` ignores times.
        core: k of the k-core; 0 keeps all.
        strict: make the first malformed row an error.
        progress: called with the bytes read so far and the size of the file.

    Raises:
        InputError: the file is missing, empty, damaged or of unknown format, a column is
            missing, too many rows are malformed, or none is left.
    """
    check_format(format)
    if isinstance(source, str | Path):
        path = Path(source)
        where = str(path)
        if is_prepared(path, format):
            return _from_prepared(path, columns, core, strict, progress)
        format, batches = file_batches(path, format, columns, progress)
    else:
        where, format = DATAFRAME, DATAFRAME
        batches = dataframe_batches(source, columns)
    check = RowCheck(where, strict, listed=EXAMPLES)
    table = RowTable()
    for batch in batches:
        table.add(check.sound(batch))
    check.finish()
    interactions = table.interactions()
    clean = deduplicate(interactions)
    report = ReadReport(
        path=where,
        format=format,
        rows=check.rows,
        rejected=check.rejected,
        rejected_examples=tuple(check.examples),
        duplicates=len(interactions) - len(clean),
        interactions_before_core=len(clean),
        core=core,
    )
    return _core(clean, core, where), report


def _from_prepared(
    path: Path, columns: Columns | None, core: int, strict: bool, progress: Progress | None
) -> tuple[Interactions, ReadReport]:
    """Load what scdr.prepare wrote; what its k-core left out can't be had back."""
    where = str(path)
    if columns:
        raise InputError(
            "columns of a prepared domain", where=where, fix="leave them out: it knows its own"
        )
    interactions, report = load_prepared(path)
    if report.core > core:
        raise InputError(
            f"prepared with core {report.core}, and core {core} is asked for",
            where=where,
            fix=f"prepare the dump again with --core {core}",
        )
    if strict and report.rejected:
        line, reason = report.rejected_examples[0]
        raise InputError(
            f"{report.rejected} malformed rows of the dump were left out, the first: {reason}",
            where=f"{where}, line {line} of the dump",
            fix="correct the dump and prepare it again, or leave strict off",
        )
    if progress:
        size = path.stat().st_size
        progress(size, size)
    if report.core == core:
        return interactions, report
    return _core(interactions, core, where), replace(report, core=core)


def _core(clean: Interactions, core: int, where: str) -> Interactions:
    left = k_core(clean, core) if core else clean
    if not len(left):
        raise empty_core(core, len(clean), where)
    return left


def empty_core(core: int, ratings: int, where: str) -> InputError:
    """Return the error for ratings of which the k-core leaves none."""
    return InputError(
        f"the {core}-core removes all {ratings} ratings: no group of users and items has "
        f"{core} ratings each",
        where=where,
        fix="give more data or take a smaller core",
    )


def file_batches(
    path: Path, format: str, columns: Columns | None, progress: Progress | None
) -> tuple[str, Iterator[Batch]]:
    """Return the format of a file and its rows, unchecked; arguments as of :func:`read_domain`."""
    head = check_file(path)
    packed = head.startswith(GZIP_MAGIC)
    if format == "parquet" or (format == AUTO and head.startswith(PARQUET_MAGIC)):
        data = unpack(path) if packed else None
        return "parquet", parquet_batches(path, columns, progress, data=data)
    blocks = read_blocks(path, progress)
    first = next(blocks, None)
    if first is None:
        raise InputError("the file is empty", where=str(path), fix="download or export it again")
    if format == AUTO and first.data[: len(PARQUET_MAGIC)] == PARQUET_MAGIC:
        return "parquet", parquet_batches(path, columns, progress, data=unpack(path))
    lines = bytes(first.data).decode(errors="replace").split("\n", SAMPLE_LINES)[:SAMPLE_LINES]
    layout = detect([line.rstrip("\r") for line in lines], format, columns, str(path))
    return layout.format, parse(chain([first], blocks), layout)


class RowTable:
    """Sound rows as they are read, with integers for their ids.

    Attributes:
        rows: how many there are.
    """

    def __init__(self) -> None:
        """Begin without rows."""
        self.rows = 0
        self._ids = {"user": _C.IdTable(), "item": _C.IdTable()}
        self._frames: list[pl.DataFrame] = []

    @property
    def id_bytes(self) -> int:
        """Bytes of memory that the different ids take."""
        return sum(table.bytes for table in self._ids.values())

    def add(self, frame: pl.DataFrame) -> None:
        """Add rows of the columns user, item (strings), rating and time."""
        self.rows += frame.height
        self._frames.append(
            frame.with_columns(
                pl.Series(role, table.code(frame[role])) for role, table in self._ids.items()
            )
        )

    def frames(self) -> Iterator[pl.DataFrame]:
        """Yield the rows as they came, and lose them."""
        names = {role: pl.Series(t.ids(), dtype=pl.String) for role, t in self._ids.items()}
        self._ids.clear()
        self._frames.reverse()
        while self._frames:
            frame = self._frames.pop()
            yield frame.with_columns(
                column.gather(frame[role]).alias(role) for role, column in names.items()
            )

    def interactions(self) -> Interactions:
        """Return the rows as they came, and lose them."""
        table = pl.concat(self._frames)
        self._frames.clear()
        users, user_ids = sort_codes(table["user"].to_numpy(), self._ids.pop("user"))
        items, item_ids = sort_codes(table["item"].to_numpy(), self._ids.pop("item"))
        return Interactions(
            users=users,
            items=items,
            ratings=table["rating"].to_numpy(),
            times=table["time"].to_numpy(),
            user_ids=user_ids,
            item_ids=item_ids,
        )
