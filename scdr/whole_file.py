"""Files that are whole or not there, whenever the process or the machine ends."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scdr.errors import InputError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place at the end; on failure it is removed.

    Raises:
        OSError: it can't be written; a file that was at `path` before is still there then.
    """
    if path.exists() and not path.is_file():  # a rename would put a file in a device's place
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_whole(path: Path, data: bytes | bytearray) -> None:
    """Write a file that is whole or not there, whenever the process or the machine ends.

    Raises:
        InputError: it can't be written.
    """
    try:
        with whole_file(path) as partial:
            partial.write_bytes(data)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise InputError(
            f"can't be written: {error.strerror}",
            where=str(path),
            fix="free some space and run the same command again" if full else "give another --out",
        ) from error


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, written to the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
