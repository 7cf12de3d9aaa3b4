"""Safetensors files that notice any change to any of their bytes.

The metadata have one entry, `scdr`: a header as JSON, and in it `checksum`, the SHA-256 of the file
with zeros for its own digits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import save as serialise
from safetensors.torch import load as deserialise
from torch import Tensor

from scdr.checksum import UNSEALED, seal, why_damaged
from scdr.whole_file import whole_file

_LENGTH_BYTES = 8
"""In which a safetensors file gives the length of its metadata."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Any) -> None:
    """Write tensors and a header that JSON holds; the file appears whole or not at all.

    Raises:
        OSError: it can't be written; a file that was there before is as it was.
    """
    arrays = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in tensors.items()}
    text = json.dumps({"checksum": UNSEALED, "header": header})
    data = bytearray(serialise(arrays, metadata={"scdr": text}))
    seal(data, last=_end_of_metadata(data))
    with whole_file(path) as partial:
        partial.write_bytes(data)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Tensors and header as they were written.

    Raises:
        OSError: the file can't be read.
        ValueError: any bit of it differs from what was written.
    """
    data = path.read_bytes()
    end = _end_of_metadata(data)
    why = why_damaged(data, last=end)
    if why:
        raise ValueError(why)
    metadata = json.loads(data[_LENGTH_BYTES:end])["__metadata__"]
    return deserialise(data), json.loads(metadata["scdr"])["header"]


def _end_of_metadata(data: bytes | bytearray) -> int:
    """Where the tensors begin; in a file that is too short, its end."""
    return min(_LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little"), len(data))
