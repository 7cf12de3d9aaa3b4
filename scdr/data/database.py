"""DuckDB over rows on the disk, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from scdr.device import available_threads

ROWS_PER_PART = 1 << 20
MEMORY = "800MB"
THREADS = 4
"""More threads hold more memory each."""


@contextmanager
def database(work: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database within its memory limit; its view `parts` are the files `part-*` of a folder.

    Raises:
        OSError: what DuckDB says of the disk, or anything else that it can't do.
    """
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY,
        "temp_directory": str(work / "spill"),
        "threads": min(available_threads(), THREADS),
    }
    try:
        with duckdb.connect(str(work / "database"), config=settings) as connection:
            connection.execute("SET enable_progress_bar = false")
            connection.read_parquet(str(work / "part-*.parquet")).create_view("parts")
            yield connection
    except duckdb.Error as error:
        raise OSError(str(error)) from error


def quoted(text: object) -> str:
    """Inside the quotes of an SQL string."""
    return str(text).replace("'", "''")
