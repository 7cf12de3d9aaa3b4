"""From a dump of any size to a prepared domain, in bounded memory.

The rows go to Parquet parts as they are read; DuckDB, which spills what its memory limit does not
hold, codes the ids, drops duplicates and sorts. The result is what
:func:`scdr.data.reading.read_domain` makes of the dump itself.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import orjson
import polars as pl

from scdr._native import _C
from scdr.checksum import UNSEALED
from scdr.data.checking import ReadReport, RowCheck
from scdr.data.columns import Columns
from scdr.data.formats import AUTO, check_format
from scdr.data.prepared import COLUMNS, DIGEST_KEY, REPORT_KEY, is_prepared, seal
from scdr.data.reading import EXAMPLES, empty_core, file_batches
from scdr.data.text import Progress
from scdr.device import available_threads
from scdr.errors import InputError

if TYPE_CHECKING:
    import duckdb

ROWS_PER_PART = 1 << 20
ROWS_IN_MEMORY = 1 << 25
"""From how many rows down the k-core runs in memory, at some 20 bytes a row."""
DUCKDB_MEMORY = "800MB"
DUCKDB_THREADS = 4
"""More threads hold more memory each."""
STEPS = 3
REJECTED_LISTED = 10_000
"""Malformed rows that are listed; all are counted."""

_CODE = """
CREATE TABLE user_codes AS
    SELECT user AS id, CAST(row_number() OVER () - 1 AS INTEGER) AS u
    FROM (SELECT DISTINCT user FROM parts);
CREATE TABLE item_codes AS
    SELECT item AS id, CAST(row_number() OVER () - 1 AS INTEGER) AS i
    FROM (SELECT DISTINCT item FROM parts);
CREATE TABLE rows AS
    SELECT u, i, rating, time, row FROM parts
    JOIN user_codes ON parts.user = user_codes.id
    JOIN item_codes ON parts.item = item_codes.id;
"""
# Of a (user, item) pair the last row in time stays, and of one time the last in the file. Few pairs
# are there twice, so that only their rows are sorted.
_FIND_REPLACED = """
CREATE TABLE replaced AS
    SELECT row FROM (
        SELECT row, row_number() OVER (PARTITION BY u, i ORDER BY time DESC, row DESC) AS place
        FROM rows SEMI JOIN (SELECT u, i FROM rows GROUP BY u, i HAVING count(*) > 1) AS repeated
        USING (u, i))
    WHERE place > 1;
"""
_DROP_REPLACED = "CREATE OR REPLACE TABLE rows AS SELECT * FROM rows ANTI JOIN replaced USING (row)"
_PEEL = """
CREATE OR REPLACE TABLE rows AS
    SELECT * FROM rows
    SEMI JOIN (SELECT u FROM rows GROUP BY u HAVING count(*) >= {core}) AS heavy USING (u)
    SEMI JOIN (SELECT i FROM rows GROUP BY i HAVING count(*) >= {core}) AS known USING (i);
"""
_SORT = """
CREATE TABLE users AS
    SELECT u, id, CAST(row_number() OVER (ORDER BY id) - 1 AS INTEGER) AS code
    FROM user_codes SEMI JOIN rows USING (u) ORDER BY id;
CREATE TABLE items AS
    SELECT i, id, CAST(row_number() OVER (ORDER BY id) - 1 AS INTEGER) AS code
    FROM item_codes SEMI JOIN rows USING (i) ORDER BY id;
CREATE TABLE ratings AS
    SELECT users.code AS users, items.code AS items, rating AS ratings, time AS times
    FROM rows JOIN users USING (u) JOIN items USING (i) ORDER BY time, row;
"""
_WRITE = """
COPY (SELECT {columns} FROM ratings
    POSITIONAL JOIN (SELECT id AS user_ids FROM users ORDER BY code) AS all_users
    POSITIONAL JOIN (SELECT id AS item_ids FROM items ORDER BY code) AS all_items)
TO '{path}' (FORMAT parquet, COMPRESSION zstd, KV_METADATA {metadata});
"""


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
        _write_parts((check.sound(batch) for batch in batches), work, out)
        check.finish()
        with writing_domain(out), database(work) as connection:
            step = advance or (lambda: None)
            total, clean = _clean(connection)
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
            if not _take_core(connection, core, work):
                raise empty_core(core, clean, str(source))
            step()
            _write_domain(connection, report, work / "domain")
            users, items, ratings = (_count(connection, t) for t in ("users", "items", "ratings"))
            rejected = out.with_suffix(".rejected.csv")
            rejected.unlink(missing_ok=True)
            if check.rejected:
                listing = pl.DataFrame(check.examples, ("line", "reason"), orient="row")
                listing.write_csv(work / "rejected")
                (work / "rejected").replace(rejected)
            (work / "domain").replace(out)
            step()
    return PreparedDomain(report, users, items, ratings)


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


def writing_domain(out: Path) -> AbstractContextManager[None]:
    """`writing_file` for a domain."""
    return writing_file(out, "domain", space="the unpacked ratings")


@contextmanager
def writing_file(out: Path, what: str, *, space: str = "as much as is read") -> Iterator[None]:
    """Turn what the disk or DuckDB says while ``out`` is written into one line.

    Raises:
        InputError: in place of an error of the disk or DuckDB.
    """
    import duckdb

    try:
        yield
    except (OSError, duckdb.Error, pl.exceptions.PolarsError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(
            f"the {what} can't be written: {reason}",
            where=str(out),
            fix=f"give a place that can be written to, with space for {space}",
        ) from error


@contextmanager
def database(work: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database over the parts, within its memory limit."""
    import duckdb

    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": DUCKDB_MEMORY,
        "temp_directory": str(work / "spill"),
        "threads": min(available_threads(), DUCKDB_THREADS),
    }
    with duckdb.connect(str(work / "database"), config=settings) as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.read_parquet(str(work / "part-*.parquet")).create_view("parts")
        yield connection


def _write_parts(frames: Iterator[pl.DataFrame], work: Path, out: Path) -> None:
    """Write rows to numbered Parquet parts, and with each its number among all rows."""
    first, count, gathered = 0, 0, list[pl.DataFrame]()

    def flush() -> None:
        table = pl.concat(gathered).with_row_index("row", first)
        with writing_domain(out):
            table.cast({"row": pl.Int64}).write_parquet(
                work / f"part-{first}.parquet", compression="lz4", statistics=False
            )

    for frame in frames:
        gathered.append(frame)
        count += frame.height
        if count >= ROWS_PER_PART:
            flush()
            first, count, gathered = first + count, 0, []
    if gathered:
        flush()


def _clean(database: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    """Code the ids and drop duplicates; returns the rows before and after."""
    database.execute(_CODE)
    total = _count(database, "rows")
    database.execute(_FIND_REPLACED)
    replaced = _count(database, "replaced")
    if replaced:
        database.execute(_DROP_REPLACED)
    return total, total - replaced


def _take_core(database: duckdb.DuckDBPyConnection, core: int, work: Path) -> int:
    """Reduce the rows to the k-core; returns how many are left.

    Rows of users and items with too few are taken off round by round until all fit into memory,
    where the native k-core ends it.
    """
    before, left = None, _count(database, "rows")
    while core and left > ROWS_IN_MEMORY and left != before:
        database.execute(_PEEL.format(core=core))
        before, left = left, _count(database, "rows")
    if not core or left == before or not left:
        return left
    codes = database.execute("SELECT u, i FROM rows").fetchnumpy()
    users, items = (np.asarray(codes[name], dtype=np.int32) for name in ("u", "i"))
    kept = _C.k_core(users, items, int(users.max()) + 1, int(items.max()) + 1, core)
    if kept.all():
        return left
    # a row leaves if and only if its user or its item leaves
    for name, column in (("u", users), ("i", items)):
        pl.DataFrame({name: np.unique(column[kept])}).write_parquet(work / f"core-{name}.parquet")
    database.execute(
        f"""
        CREATE OR REPLACE TABLE rows AS SELECT * FROM rows
        SEMI JOIN read_parquet('{_quoted(work / "core-u.parquet")}') AS users USING (u)
        SEMI JOIN read_parquet('{_quoted(work / "core-i.parquet")}') AS items USING (i)
        """
    )
    return int(kept.sum())


def _write_domain(database: duckdb.DuckDBPyConnection, report: ReadReport, path: Path) -> None:
    """Sort rows and ids, write the Parquet file and seal it."""
    known = {key: value for key, value in asdict(report).items() if key != "path"}
    metadata = {REPORT_KEY: orjson.dumps(known).decode(), DIGEST_KEY: UNSEALED}
    pairs = ", ".join(f"'{key}': '{_quoted(value)}'" for key, value in metadata.items())
    database.execute(_SORT)
    database.execute(
        _WRITE.format(columns=", ".join(COLUMNS), path=_quoted(path), metadata=f"{{{pairs}}}")
    )
    seal(path)


def _count(database: duckdb.DuckDBPyConnection, table: str) -> int:
    rows = database.execute(f"SELECT count(*) FROM {table}").fetchall()
    return int(rows[0][0])


def _quoted(text: object) -> str:
    """Inside the quotes of an SQL string."""
    return str(text).replace("'", "''")
