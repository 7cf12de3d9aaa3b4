"""What a user is told where a file can't be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import polars as pl

from scdr.errors import InputError


def writing_domain(out: Path) -> AbstractContextManager[None]:
    """`writing_file` for a domain."""
    return writing_file(out, "domain", space="the unpacked ratings")


@contextmanager
def writing_file(out: Path, what: str, *, space: str = "as much as is read") -> Iterator[None]:
    """Turn what the disk says while ``out`` is written into one line.

    Raises:
        InputError: in place of an error of the disk.
    """
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(
            f"the {what} can't be written: {reason}",
            where=str(out),
            fix=f"give a place that can be written to, with space for {space}",
        ) from error
