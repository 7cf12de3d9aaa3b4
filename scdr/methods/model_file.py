"""The model file: what a predictor is made of, as a `scdr.tensor_file`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import safetensors
import torch
from numpy.typing import NDArray
from torch import Tensor

from scdr.errors import InputError
from scdr.tensor_file import read_tensors, write_tensors

SCHEMA = 2


def write_model(path: Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a model.

    Args:
        path: file to write.
        header: what JSON holds; NumPy arrays and dataclasses are written as JSON too.
        tensors: by name.
    """
    plain = orjson.dumps({"schema": SCHEMA, **header}, option=orjson.OPT_SERIALIZE_NUMPY)
    write_tensors(path, tensors, orjson.loads(plain))


def read_model(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `write_model` wrote.

    Returns:
        The header and the tensors by name.

    Raises:
        InputError: the file is missing, no model of this version, or any bit of it differs from
            what was written.
    """
    try:
        tensors, header = read_tensors(path)
        if header["schema"] != SCHEMA:
            raise ValueError(f"it is of version {header['schema']}, not {SCHEMA}")
        return header, tensors
    except (OSError, KeyError, ValueError, TypeError, safetensors.SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"not a readable scdr model: {reason}",
            where=str(path),
            fix="give the model.safetensors of a finished run, copied completely",
        ) from error


def ids_to_tensor(ids: NDArray[np.object_]) -> Tensor:
    """Ids as the bytes of a JSON list, the one form that keeps any string in a tensor file."""
    return torch.frombuffer(bytearray(orjson.dumps(ids.tolist())), dtype=torch.uint8)


def ids_from_tensor(data: Tensor) -> NDArray[np.object_]:
    """The ids that `ids_to_tensor` took."""
    return np.array(orjson.loads(data.numpy().tobytes()), dtype=object)
