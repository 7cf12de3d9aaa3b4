"""Two domains and the users they share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from scdr.data.interactions import Interactions


@dataclass(frozen=True, slots=True, eq=False)
class CrossDomain:
    """A source and a target domain.

    Attributes:
        source: ratings of the source domain.
        target: ratings of the target domain.
        overlap: int32 [O, 2], (source user, target user) of those with the same id in both,
            ordered by id (code point).
        name: how reports call the pair.
    """

    source: Interactions
    target: Interactions
    overlap: NDArray[np.int32]
    name: str

    @property
    def overlap_ids(self) -> NDArray[np.object_]:
        """Ids of the overlap users, str [O], sorted by code point."""
        return self.source.user_ids[self.overlap[:, 0]]


def cross_domain(
    source: Interactions, target: Interactions, name: str = "source to target"
) -> CrossDomain:
    """Find the overlap users of two domains."""
    return CrossDomain(source, target, common(source.user_ids, target.user_ids), name)


def common(first: NDArray[np.object_], second: NDArray[np.object_]) -> NDArray[np.int32]:
    """Positions of the ids that two vocabularies share, int32 [n, 2], in the order of the first."""
    left = pl.DataFrame({"id": pl.Series(first, dtype=pl.String)}).with_row_index("first")
    right = pl.DataFrame({"id": pl.Series(second, dtype=pl.String)}).with_row_index("second")
    both = left.join(right, on="id").sort("first").select("first", "second")
    return both.to_numpy().astype(np.int32)
