"""From a dump of any size to a prepared domain, in bounded memory.

The result is what :func:`scdr.data.reading.read_domain` makes of the dump itself. Rows that fit
into memory go the same way; more go to Parquet parts as they are read, and DuckDB does the rest.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

import orjson
import polars as pl

from scdr.checksum import UNSEALED
from scdr.data.checking import ReadReport, RowCheck
from scdr.data.columns import Columns
from scdr.data.formats import AUTO, check_format
from scdr.data.interactions import Interactions, deduplicate, k_core
from scdr.data.prepared import DIGEST_KEY, REPORT_KEY, is_prepared, seal, write_prepared
from scdr.data.reading import EXAMPLES, RowTable, empty_core, file_batches
from scdr.data.text import Progress
from scdr.data.writing import writing_domain
from scdr.errors import InputError

STEPS = 3
REJECTED_LISTED = 10_000
"""Malformed rows that are listed; all are counted."""

ROWS_IN_MEMORY = 1 << 24
"""With what follows at some 60 bytes a row."""
IDS_IN_MEMORY = 1 << 28
"""Bytes of the different ids, which take up to three times as much with what follows."""


@dataclass(frozen=True, slots=True)
class PreparedDomain:
    """What a dump came to.

    Attributes:
        report: as :func:`scdr.data.read_domain` gives it for the prepared file.
        users: users with a rating.
        items: items with a rating.
        ratings: rows, after duplicates and the k-core.
    """

    report: ReadReport
    users: int
    items: int
    ratings: int


def prepare_domain(
    source: str | Path,
    out: str | Path,
    *,
    format: str = AUTO,
    columns: Columns | None = None,
    core: int = 5,
    strict: bool = False,
    progress: Progress | None = None,
    advance: Callable[[], None] | None = None,
) -> PreparedDomain:
    """Turn a dump into a Parquet file that :func:`scdr.data.read_domain` loads in seconds.

    Memory is bounded whatever the size of the dump; the disk of ``out`` needs about as much as the
    unpacked ids, ratings and times while this runs. Malformed rows, where there are any, are listed
    in ``<out without its ending>.rejected.csv``: line and reason, the first 10,000.

    Args:
        source: a file as :func:`scdr.data.read_domain` takes it.
        out: the file to write; it appears whole or not at all, and replaces one of that name.
        format: as there.
        columns: as there.
        core: as there.
        strict: as there.
        progress: as there.
        advance: called after each of the ``STEPS`` that follow the reading.

    Returns:
        What was found in the dump, and the size of the domain.

    Raises:
        InputError: as there, or ``out`` can't be written.
    """
    source, out = Path(source), Path(out)
    check_format(format)
    if is_prepared(source, format):
        raise InputError("is prepared already", where=str(source), fix="train on it as it is")
    check = RowCheck(str(source), strict, listed=REJECTED_LISTED)
    with _workspace(out) as work:
        format, batches = file_batches(source, format, columns, progress)
        with _rows((check.sound(batch) for batch in batches), work, out) as rows:
            check.finish()
            with writing_domain(out):
                step = advance or (lambda: None)
                total, clean = rows.drop_replaced()
                step()
                report = ReadReport(
                    path=str(out),
                    format=format,
                    rows=check.rows,
                    rejected=check.rejected,
                    rejected_examples=tuple(check.examples[:EXAMPLES]),
                    duplicates=total - clean,
                    interactions_before_core=clean,
                    core=core,
                )
                if not rows.take_core(core):
                    raise empty_core(core, clean, str(source))
                step()
                users, items, ratings = rows.write(work / "domain", _metadata(report))
                seal(work / "domain")
                _list_rejected(check, work, out)
                (work / "domain").replace(out)
                step()
    return PreparedDomain(report, users, items, ratings)


class Rows(Protocol):
    """The sound rows of a dump on their way to a prepared domain; to be called in this order."""

    def drop_replaced(self) -> tuple[int, int]:
        """Keep the last row in time of each (user, item); returns the rows before and after."""

    def take_core(self, core: int) -> int:
        """Reduce to the k-core, of k 0 all; returns the rows left."""

    def write(self, path: Path, metadata: Mapping[str, str]) -> tuple[int, int, int]:
        """Write the Parquet file, unsealed; returns its users, items and ratings."""


class _RowsInMemory:
    """Rows of which all that follows fits into memory."""

    def __init__(self, table: RowTable) -> None:
        self._table = table
        self._domain: Interactions

    def drop_replaced(self) -> tuple[int, int]:
        total = self._table.rows
        self._domain = deduplicate(self._table.interactions())
        return total, len(self._domain)

    def take_core(self, core: int) -> int:
        if core:
            self._domain = k_core(self._domain, core)
        return len(self._domain)

    def write(self, path: Path, metadata: Mapping[str, str]) -> tuple[int, int, int]:
        domain = self._domain
        write_prepared(path, domain, metadata)
        return domain.n_users, domain.n_items, len(domain)


@contextmanager
def _rows(frames: Iterator[pl.DataFrame], work: Path, out: Path) -> Iterator[Rows]:
    """Read all rows, to where they fit."""
    table = RowTable()
    for frame in frames:
        table.add(frame)
        if table.rows > ROWS_IN_MEMORY or table.id_bytes > IDS_IN_MEMORY:
            break
    else:
        yield _RowsInMemory(table)
        return
    from scdr.data.on_disk import rows_on_disk, write_parts  # with torch and DuckDB

    write_parts(chain(table.frames(), frames), work, out)
    with writing_domain(out), rows_on_disk(work) as rows:
        yield rows


def _metadata(report: ReadReport) -> dict[str, str]:
    """What stands in the footer of a prepared domain."""
    known = {key: value for key, value in asdict(report).items() if key != "path"}
    return {REPORT_KEY: orjson.dumps(known).decode(), DIGEST_KEY: UNSEALED}


def _list_rejected(check: RowCheck, work: Path, out: Path) -> None:
    """Write the listing of malformed rows beside a domain, or take an old one away."""
    listing = out.with_suffix(".rejected.csv")
    listing.unlink(missing_ok=True)
    if check.rejected:
        table = pl.DataFrame(check.examples, ("line", "reason"), orient="row")
        table.write_csv(work / "rejected")
        (work / "rejected").replace(listing)


@contextmanager
def _workspace(out: Path) -> Iterator[Path]:
    """A folder beside ``out``, on its disk, that is gone at the end whatever happens."""
    work = out.with_name(f".{out.name}.partial-{os.getpid()}")
    with writing_domain(out):
        if out.is_dir():
            raise InputError("is a directory", where=str(out), fix="name the file to write")
        work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
