"""One domain's ratings as arrays, and the two steps that clean them: duplicates and k-core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from scdr._native import _C
from scdr.data.coding import code_ids
from scdr.data.frames import id_strings

Rows = NDArray[np.bool_] | NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Interactions:
    """The ratings of one domain, a row each.

    Attributes:
        users: int32 [n], index into ``user_ids``.
        items: int32 [n], index into ``item_ids``.
        ratings: float32 [n], on the scale of the file.
        times: int64 [n], in the unit of the file; 0 where missing.
        user_ids: str objects [U], sorted by code point, unique.
        item_ids: str objects [I], sorted by code point, unique.
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    ratings: NDArray[np.float32]
    times: NDArray[np.int64]
    user_ids: NDArray[np.object_]
    item_ids: NDArray[np.object_]

    def __post_init__(self) -> None:
        """Refuse columns of different lengths or other dtypes than documented.

        Raises:
            ValueError: a column has another length or dtype.
        """
        dtypes = {"users": np.int32, "items": np.int32, "ratings": np.float32, "times": np.int64}
        for name, dtype in dtypes.items():
            column = getattr(self, name)
            if column.dtype != dtype or column.shape != self.users.shape:
                raise ValueError(
                    f"{name} is {column.dtype} {column.shape}, not {np.dtype(dtype)} "
                    f"{self.users.shape}"
                )

    @property
    def n_users(self) -> int:
        """Length of the user vocabulary."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Length of the item vocabulary."""
        return len(self.item_ids)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.users)

    def take(self, rows: Rows) -> Interactions:
        """Return some rows, in the given order, over the same vocabularies.

        Args:
            rows: a mask, bool [n], or indices, integers [m].
        """
        return replace(
            self,
            users=self.users[rows],
            items=self.items[rows],
            ratings=self.ratings[rows],
            times=self.times[rows],
        )


def from_columns(
    users: Sequence[Any] | NDArray[Any] | pl.Series,
    items: Sequence[Any] | NDArray[Any] | pl.Series,
    ratings: Sequence[float] | NDArray[Any] | pl.Series,
    times: Sequence[int] | NDArray[Any] | pl.Series | None = None,
) -> Interactions:
    """Code the columns of one domain; nothing is dropped or reordered.

    Args:
        users: [n] ids: strings, kept as they are, or integers, taken as decimals.
        items: [n] ids, likewise.
        ratings: [n] numbers.
        times: [n] integers, or None where there are none.

    Raises:
        ValueError: an id is missing or empty, or the columns differ in length.
    """
    coded = []
    for name, column in (("users", users), ("items", items)):
        ids = id_strings(column)
        if ids.null_count() or (ids == "").any():
            raise ValueError(f"{name} holds a missing or empty id")
        coded.append(code_ids(ids))
    (user_codes, user_ids), (item_codes, item_ids) = coded
    return Interactions(
        users=user_codes,
        items=item_codes,
        ratings=np.asarray(ratings, dtype=np.float32),
        times=np.zeros(len(user_codes), np.int64) if times is None else np.asarray(times, np.int64),
        user_ids=user_ids,
        item_ids=item_ids,
    )


def deduplicate(interactions: Interactions) -> Interactions:
    """Put rows in order of time and keep the last of each (user, item) pair.

    The sort is stable, so rows of equal time keep the order they came in.
    """
    if np.all(interactions.times[1:] >= interactions.times[:-1]):
        ordered = interactions
    else:
        ordered = interactions.take(_C.stable_order(np.ascontiguousarray(interactions.times)))
    last = _C.last_of_pairs(ordered.users, ordered.items, ordered.n_users, ordered.n_items)
    return ordered if last.all() else ordered.take(last)


def restrict(interactions: Interactions, rows: Rows) -> Interactions:
    """Return some rows, with vocabularies that hold only the users and items of these rows."""
    everything = rows.dtype == bool and rows.all()
    kept = interactions if everything else interactions.take(rows)
    user_used = np.bincount(kept.users, minlength=kept.n_users) > 0
    item_used = np.bincount(kept.items, minlength=kept.n_items) > 0
    if user_used.all() and item_used.all():
        return kept
    return replace(
        kept,
        users=(np.cumsum(user_used, dtype=np.int32) - np.int32(1))[kept.users],
        items=(np.cumsum(item_used, dtype=np.int32) - np.int32(1))[kept.items],
        user_ids=kept.user_ids[user_used],
        item_ids=kept.item_ids[item_used],
    )


def core_rows(interactions: Interactions, k: int = 5) -> NDArray[np.bool_]:
    """Mask of the rows in the k-core, bool [n]; see :func:`k_core`."""
    mask: NDArray[np.bool_] = _C.k_core(
        interactions.users, interactions.items, interactions.n_users, interactions.n_items, k
    )
    return mask


def k_core(interactions: Interactions, k: int = 5) -> Interactions:
    """Keep the largest set of rows in which every user and every item has at least k rows.

    Users and items with fewer rows are removed until none is left to remove. The vocabularies
    of the result hold only who remains.
    """
    return restrict(interactions, core_rows(interactions, k))
