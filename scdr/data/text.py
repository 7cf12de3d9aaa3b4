"""Text files in blocks of whole lines, decompressed on the way."""

from __future__ import annotations

import gzip
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import IO, Protocol, TypeVar, cast

import numpy as np
from isal import igzip, isal_zlib

from scdr.errors import InputError

BLOCK_BYTES = 1 << 20
"""Small enough for a processor's cache with those read ahead."""
BLOCKS_AHEAD = 4
LONGEST_LINE = 1 << 26
GZIP_MAGIC = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"
Progress = Callable[[int, int], None]
T = TypeVar("T")

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
        data: bytes that end with a newline; of :func:`read_blocks` until the next block is asked
            for, which may come to stand in the same memory.
        first_line: the number of the first line in the file, from 1.
        lines: how many there are.
    """

    data: memoryview
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

    A byte order mark is dropped and a missing newline at the end of the file is added. The file is
    read and decompressed in a thread of its own, some blocks ahead.

    Args:
        path: the file; gzip is recognised by its first bytes, not by its name.
        progress: called after each block with the bytes read of the file and its size.

    Raises:
        InputError: the gzip stream is truncated or damaged, or a line is longer than 64 MiB.
    """
    packed = check_file(path)[:2] == GZIP_MAGIC
    size = path.stat().st_size
    line = 1
    with path.open("rb") as raw:
        # what GzipFile reads by, whose own readinto copies everything twice
        stream = cast(_Stream, isal_zlib._GzipReader(raw, BLOCK_BYTES) if packed else raw)
        chunks = _ahead(_whole_lines(stream, raw))
        while True:
            try:
                chunk = next(chunks, None)
            except (EOFError, OSError, _LineTooLongError, *_DAMAGED) as error:
                raise _unreadable(error, path, line, raw.tell(), size) from error
            if chunk is None:
                break
            data = memoryview(chunk.buffer)[chunk.start : chunk.end]
            # bytes.count looks at one byte after the other
            lines = int(np.count_nonzero(np.frombuffer(data, np.uint8) == ord("\n")))
            yield Block(data, line, lines)
            line += lines
            if progress:
                progress(min(chunk.position, size), size)
    if progress:
        progress(size, size)


def unpack(path: Path) -> bytes:
    """Return all that a gzip file holds.

    Raises:
        InputError: the gzip stream is truncated or damaged.
    """
    with path.open("rb") as raw:
        try:
            return igzip.GzipFile(fileobj=raw, mode="rb").read()
        except (EOFError, OSError, *_DAMAGED) as error:
            raise _unreadable(error, path, 1, raw.tell(), path.stat().st_size) from error


class _LineTooLongError(Exception):
    pass


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Whole lines from ``start`` to ``end`` of a buffer, and the bytes of the file read so far."""

    buffer: bytearray
    start: int
    end: int
    position: int


class _Stream(Protocol):
    def readinto(self, buffer: memoryview) -> int: ...


def _fill(buffer: memoryview, stream: _Stream) -> int:
    """Read until a buffer is full or the stream ends; returns the bytes read."""
    filled = 0
    while filled < len(buffer) and (read := stream.readinto(buffer[filled:])):
        filled += read
    return filled


def _whole_lines(stream: _Stream, raw: IO[bytes]) -> Iterator[_Chunk]:
    """Yield whole lines, some MiB at a time.

    A chunk is good until ``BLOCKS_AHEAD`` more and another are asked for: its buffer is used again,
    as fresh memory costs more than half of what decompressing does.
    """
    buffers = deque(bytearray() for _ in range(BLOCKS_AHEAD + 1))
    rest = memoryview(b"")
    at_start = True  # of the file
    while True:
        size = len(rest) + max(BLOCK_BYTES, len(rest))
        if len(buffers[0]) < size:
            buffers[0] = bytearray(size + size // 8)
        buffer = buffers[0]
        buffer[: len(rest)] = rest
        with memoryview(buffer) as view:
            read = _fill(view[len(rest) : size], stream)
        start, end = 0, len(rest) + read
        if not read:
            last = buffer[:end]
            break
        if at_start and end >= len(BOM):
            while buffer.startswith(BOM, start, end):  # files put together can begin with several
                start += len(BOM)
            at_start = False
        cut = buffer.rfind(b"\n", start, end) + 1
        rest = memoryview(buffer)[max(cut, start) : end]
        if len(rest) > LONGEST_LINE:
            raise _LineTooLongError
        if cut:
            buffers.rotate(-1)
            yield _Chunk(buffer, start, cut, raw.tell())
    if at_start:
        last = last.removeprefix(BOM)
    if last:
        last += b"\n"
        yield _Chunk(last, 0, len(last), raw.tell())


def _ahead(chunks: Iterator[T]) -> Iterator[T]:
    """Yield the same, worked out in a thread of its own some chunks ahead."""
    # Not a ThreadPoolExecutor: where the garbage collector ends this generator, in whatever thread,
    # an executor would wait for a lock that the start of another one holds.
    asked, ready = SimpleQueue[bool](), SimpleQueue[T | Exception | None]()

    def work() -> None:
        while asked.get() and not left.is_set():
            try:
                ready.put(next(chunks, None))
            except Exception as error:
                ready.put(error)

    left = Event()
    for _ in range(BLOCKS_AHEAD):
        asked.put(True)
    Thread(target=work, daemon=True).start()
    try:
        while (chunk := ready.get()) is not None:
            if isinstance(chunk, Exception):
                raise chunk
            asked.put(True)
            yield chunk
    finally:
        left.set()
        asked.put(False)


def _unreadable(error: Exception, path: Path, line: int, read: int, size: int) -> InputError:
    """Return what a user is told of an error met while reading near a line."""
    fix = "download or copy the file again"
    if isinstance(error, _LineTooLongError):
        what = f"no line ends within {LONGEST_LINE >> 20} MiB: not a text file"
        fix = "give a CSV, TSV, JSON-lines or Parquet file"
    elif isinstance(error, EOFError):
        what = f"the gzip file ends early: all its {size} bytes read, near line {line}"
    elif isinstance(error, _DAMAGED):
        what = f"the gzip file is damaged near byte {read} of {size}: {error}"
    else:
        what = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    return InputError(what, where=f"{path}:{line}", fix=fix)
