"""Id strings to indices: the vocabulary of a column, sorted by code point."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from scdr._native import _C


def code_ids(ids: pl.Series) -> tuple[NDArray[np.int32], NDArray[np.object_]]:
    """Replace id strings by their rank among the distinct ones.

    Args:
        ids: [n], strings; no nulls.

    Returns:
        The codes, int32 [n], and the vocabulary, str [V], sorted by code point and unique.
    """
    table = _C.IdTable()
    codes = table.code(ids)
    return sort_codes(codes, table)


def sort_codes(
    codes: NDArray[np.int32], table: _C.IdTable
) -> tuple[NDArray[np.int32], NDArray[np.object_]]:
    """The same for what a table made of them."""
    ranks = table.ranks()
    names = np.empty(len(table), dtype=object)
    names[ranks] = table.ids()
    return ranks[codes], names
