"""Text files in blocks of whole lines, decompressed on the way."""

from __future__ import annotations

import gzip
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from isal import igzip, isal_zlib

from scdr.errors import InputError

BLOCK_BYTES = 1 << 23
BLOCKS_AHEAD = 4
LONGEST_LINE = 1 << 26
GZIP_MAGIC = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"
Progress = Callable[[int, int], None]

# isal's stub declares its error as an instance, not a class
_DAMAGED = (gzip.BadGzipFile, zlib.error, cast(type[Exception], isal_zlib.error))
_OTHER_MAGICS = {
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"\xfd7zXZ": "xz",
    b"PK\x03\x04": "zip",
}


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of a file.

    Attributes:
        data: bytes that end with a newline.
        first_line: the number of the first line in the file, from 1.
        lines: how many there are.
    """

    data: bytes
    first_line: int
    lines: int


def check_file(path: Path) -> bytes:
    """Return the first bytes of a file that exists and is not empty.

    Raises:
        InputError: missing, not a file, not readable, empty, or packed by anything but gzip.
    """
    where = str(path)
    try:
        if path.is_dir():
            raise InputError("is a directory", where=where, fix="name the rating file in it")
        if path.exists() and not path.is_file():
            raise InputError("is not a regular file", where=where, fix="write it to a file first")
        with path.open("rb") as file:
            head = file.read(8)
    except FileNotFoundError:
        raise InputError("no such file", where=where, fix="check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a path that no system takes
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot be read: {reason}", where=where, fix="check the path") from error
    if not head:
        raise InputError("the file is empty", where=where, fix="download or export it again")
    for magic, name in _OTHER_MAGICS.items():
        if head.startswith(magic):
            raise InputError(
                f"packed by {name}", where=where, fix="unpack it first, or pack it by gzip"
            )
    return head


def read_blocks(path: Path, progress: Progress | None = None) -> Iterator[Block]:
    """Yield a text file, gzipped or not, in blocks of some MiB that end at a line's end.

    A byte order mark is dropped and a missing newline at the end of the file is added.

    Args:
        path: the file; gzip is recognised by its first bytes, not by its name.
        progress: called after each block with the bytes read of the file and its size.

    Raises:
        InputError: the gzip stream is truncated or damaged, or a line is longer than 64 MiB.
    """
    packed = check_file(path)[:2] == GZIP_MAGIC
    size = path.stat().st_size
    line, rest = 1, b""
    with path.open("rb") as raw:
        stream = cast(IO[bytes], igzip.GzipFile(fileobj=raw, mode="rb") if packed else raw)
        while True:
            data = _read(stream, raw, path, line, size)
            if line == 1 and not rest:
                data = data.removeprefix(BOM)
            if not data:
                break
            cut = data.rfind(b"\n") + 1
            if cut:
                whole = b"".join((rest, memoryview(data)[:cut]))
                block = Block(whole, line, whole.count(b"\n"))
                rest = data[cut:]
                line += block.lines
                yield block
            else:
                rest += data
                _check_length(rest, path, line)
            if progress:
                progress(min(raw.tell(), size), size)
    if rest:
        yield Block(rest + b"\n", line, 1)
    if progress:
        progress(size, size)


def read_ahead(blocks: Iterator[Block]) -> Iterator[Block]:
    """Yield the same blocks, read and decompressed in a thread of its own some blocks ahead."""
    with ThreadPoolExecutor(1) as pool:
        pending = deque(pool.submit(next, blocks, None) for _ in range(BLOCKS_AHEAD))
        while (block := pending.popleft().result()) is not None:
            pending.append(pool.submit(next, blocks, None))
            yield block


def unpack(path: Path) -> bytes:
    """Return all that a gzip file holds.

    Raises:
        InputError: the gzip stream is truncated or damaged.
    """
    parts = []
    with path.open("rb") as raw:
        stream = cast(IO[bytes], igzip.GzipFile(fileobj=raw, mode="rb"))
        while data := _read(stream, raw, path, 1, path.stat().st_size):
            parts.append(data)
    return b"".join(parts)


def _read(stream: IO[bytes], raw: IO[bytes], path: Path, line: int, size: int) -> bytes:
    """Read one block's bytes; a gzip that ends early or is damaged is an InputError."""
    try:
        return stream.read(BLOCK_BYTES)
    except EOFError:
        what = f"the gzip file ends early: all its {size} bytes read, near line {line}"
    except _DAMAGED as error:
        what = f"the gzip file is damaged near byte {raw.tell()} of {size}: {error}"
    raise InputError(what, where=f"{path}:{line}", fix="download or copy the file again")


def _check_length(rest: bytes, path: Path, line: int) -> None:
    """Refuse what is surely no text file."""
    if len(rest) > LONGEST_LINE:
        raise InputError(
            f"no line ends within {LONGEST_LINE >> 20} MiB: not a text file",
            where=f"{path}:{line}",
            fix="give a CSV, TSV, JSON-lines or Parquet file",
        )
