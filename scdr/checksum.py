"""A SHA-256 that a file holds of itself, taken with zeros for its own 64 digits."""

from __future__ import annotations

import hashlib
import mmap
import re

UNSEALED = "sha256=" + 64 * "0"
"""What to write where the checksum is to stand."""

_DIGEST = re.compile(rb"sha256=([0-9a-f]{64})")
_HASHED_AT_ONCE = 1 << 24

Data = bytes | bytearray | mmap.mmap


def seal(data: bytearray | mmap.mmap, first: int = 0, last: int | None = None) -> None:
    """Write the checksum of all data over the only `UNSEALED` between two places of them."""
    place = _DIGEST.search(data, first, len(data) if last is None else last)
    assert place is not None
    data[place.start(1) : place.end(1)] = _digest(data, place.start(1)).encode()


def why_damaged(data: Data, first: int = 0, last: int | None = None) -> str | None:
    """What is wrong with data whose checksum stands between two places of them; None: nothing."""
    found = list(_DIGEST.finditer(data, first, len(data) if last is None else last))
    if not found:
        return "it holds no checksum"
    if len(found) > 1 or found[0][1].decode() != _digest(data, found[0].start(1)):
        return "its checksum does not match"
    return None


def _digest(data: Data, place: int) -> str:
    """SHA-256 with zeros for the 64 digits at a place."""
    digest = hashlib.sha256()
    with memoryview(data) as view:
        for first, last in ((0, place), (place + 64, len(view))):
            for start in range(first, last, _HASHED_AT_ONCE):
                digest.update(view[start : min(start + _HASHED_AT_ONCE, last)])
            if first == 0:
                digest.update(64 * b"0")
    return digest.hexdigest()
