"""Id strings to indices: the vocabulary of a column, sorted by code point."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray


def id_dtype() -> pl.Categorical:
    """Return a fresh dtype in which equal id strings share one integer across series."""
    return pl.Categorical(pl.Categories.random())


def code_ids(ids: pl.Series) -> tuple[NDArray[np.int32], NDArray[np.object_]]:
    """Replace id strings by their rank among the distinct ones.

    Args:
        ids: [n], strings or a categorical of :func:`id_dtype`; no nulls.

    Returns:
        The codes, int32 [n], and the vocabulary, str [V], sorted by code point and unique.
    """
    column = ids if isinstance(ids.dtype, pl.Categorical) else ids.cast(id_dtype())
    distinct = column.unique()
    names = distinct.cast(pl.String)
    # polars compares strings by their UTF-8 bytes, which is the order of code points
    order = names.arg_sort().to_numpy()
    physical = distinct.to_physical().to_numpy()
    rank = np.zeros(int(physical.max(initial=0)) + 1, dtype=np.int32)
    rank[physical[order]] = np.arange(len(order), dtype=np.int32)
    codes = rank[column.to_physical().to_numpy()]
    return codes, names.gather(order).to_numpy().astype(object, copy=False)
