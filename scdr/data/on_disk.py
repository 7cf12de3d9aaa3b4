"""The rows of a dump that memory does not hold, made a domain by DuckDB."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

from scdr._native import _C
from scdr.data.database import ROWS_PER_PART, database, quoted
from scdr.data.prepared import COLUMNS
from scdr.data.writing import writing_domain

CORE_ROWS_IN_MEMORY = 1 << 25
"""From how many rows down the k-core runs in memory, at some 20 bytes a row."""

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


def write_parts(frames: Iterable[pl.DataFrame], work: Path, out: Path) -> None:
    """Write sound rows to numbered Parquet parts, and with each its number among all rows.

    Raises:
        InputError: naming ``out``, where the disk of ``work`` takes no more.
    """
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


@contextmanager
def rows_on_disk(work: Path) -> Iterator[RowsOnDisk]:
    """The rows of a folder's parts."""
    with database(work) as connection:
        yield RowsOnDisk(connection, work)


class RowsOnDisk:
    """Rows in DuckDB, on their way to a prepared domain; see `scdr.data.preparing.Rows`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, work: Path) -> None:
        """Take the parts of a database, and a folder for what goes between it and NumPy."""
        self._database = connection
        self._work = work

    def drop_replaced(self) -> tuple[int, int]:
        """Code the ids, and keep the last row of each pair."""
        self._database.execute(_CODE)
        total = self._count("rows")
        self._database.execute(_FIND_REPLACED)
        replaced = self._count("replaced")
        if replaced:
            self._database.execute(_DROP_REPLACED)
        return total, total - replaced

    def take_core(self, core: int) -> int:
        """Reduce to the k-core.

        Rows of users and items with too few are taken off round by round until all fit into
        memory, where the native k-core ends it.
        """
        before, left = None, self._count("rows")
        while core and left > CORE_ROWS_IN_MEMORY and left != before:
            self._database.execute(_PEEL.format(core=core))
            before, left = left, self._count("rows")
        if not core or left == before or not left:
            return left
        codes = self._database.execute("SELECT u, i FROM rows").fetchnumpy()
        users, items = (np.asarray(codes[name], dtype=np.int32) for name in ("u", "i"))
        kept = _C.k_core(users, items, int(users.max()) + 1, int(items.max()) + 1, core)
        if kept.all():
            return left
        # a row leaves if and only if its user or its item leaves
        paths = {name: self._work / f"core-{name}.parquet" for name in ("u", "i")}
        for name, column in (("u", users), ("i", items)):
            pl.DataFrame({name: np.unique(column[kept])}).write_parquet(paths[name])
        self._database.execute(
            f"""
            CREATE OR REPLACE TABLE rows AS SELECT * FROM rows
            SEMI JOIN read_parquet('{quoted(paths["u"])}') AS users USING (u)
            SEMI JOIN read_parquet('{quoted(paths["i"])}') AS items USING (i)
            """
        )
        return int(kept.sum())

    def write(self, path: Path, metadata: Mapping[str, str]) -> tuple[int, int, int]:
        """Sort rows and ids, and write them."""
        pairs = ", ".join(f"'{key}': '{quoted(value)}'" for key, value in metadata.items())
        self._database.execute(_SORT)
        self._database.execute(
            _WRITE.format(columns=", ".join(COLUMNS), path=quoted(path), metadata=f"{{{pairs}}}")
        )
        return self._count("users"), self._count("items"), self._count("ratings")

    def _count(self, table: str) -> int:
        rows = self._database.execute(f"SELECT count(*) FROM {table}").fetchall()
        return int(rows[0][0])
