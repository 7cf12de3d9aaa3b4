"""The best items of a few users without looking at all items.

With any vector m, `<u, v> <= <u, m> + ||u|| ||v - m||`. Items are put in order of
`offset + c ||v - m||`, falling, m their mean and c a typical length of a user vector. The k-th best
score among the first few thousand then says how many more an item that belongs to the best k can be
among, and the op runs over those. The result is always that of the op over all items, to the bit.

`recommend_topk` does the same by itself for many users at once, where making the order pays within
one call.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scdr.ops import recommend_topk

_FIRST = 8_192
"""Items that are looked at in any case."""
_BLOCK = 2_048
"""Items are left out by so many."""
_NORMS = 16
"""Lengths of a user vector for which it is known what the items from a block on can reach."""
_FEW_USERS = 32
"""From so many users on the op puts the items in order itself."""

Exclusions = Sequence[NDArray[np.int64]]
Result = tuple[NDArray[np.float32], NDArray[np.int64]]


class ItemIndex:
    """The items of a model, ready to be recommended."""

    def __init__(self, vectors: Tensor, offsets: Tensor, *, user_norm: float) -> None:
        """Put the items in order; as much memory again as they take.

        Args:
            vectors: float32 `[I, d]`, I > 0, on the CPU.
            offsets: float32 `[I]`.
            user_norm: a typical length of a user vector. It decides how soon a result is found, not
                which.
        """
        self._vectors, self._offsets = vectors.contiguous(), offsets.contiguous()
        wide = vectors.numpy().astype(np.float64)
        offset = offsets.numpy().astype(np.float64)
        self._mean = wide.mean(0)
        away = np.linalg.norm(wide - self._mean, axis=1)
        order = np.argsort(-(offset + user_norm * away), kind="stable")
        self._order = order
        self._place = np.empty_like(order)
        self._place[order] = np.arange(len(order))
        chosen = torch.from_numpy(order)
        self._ordered_vectors, self._ordered_offsets = vectors[chosen], offsets[chosen]

        # [J, G]: the most that offset + norm ||v - m|| is from a block on. It is convex in the
        # norm, so between two norms the chord bounds it; the last column is the slope beyond them.
        self._norms = user_norm * np.linspace(0, 2, _NORMS)
        reach = offset[order, None] + away[order, None] * self._norms
        reach = np.concatenate([reach, away[order, None]], axis=1)
        blocks = np.maximum.reduceat(reach, np.arange(0, len(order), _BLOCK))
        self._reach = np.maximum.accumulate(blocks[::-1])[::-1]
        # What rounding adds to a score at most, four times over.
        rounding = (vectors.shape[1] + 8) * 2.0**-22
        self._rounding = rounding * float(away.max() + np.linalg.norm(self._mean))
        self._least = rounding * float(np.abs(offset).max()) + 1e-30

    @property
    def count(self) -> int:
        """How many items there are."""
        return len(self._offsets)

    def topk(self, users: Tensor, k: int, exclude: Exclusions | None = None) -> Result:
        """What `recommend_topk` gives over all items, scores and items `[B, k]`.

        Args:
            users: float32 `[B, d]`.
            k: items for each user.
            exclude: B arrays of items that a user is not to get, or None for none.
        """
        if len(users) >= _FEW_USERS or self.count <= _FIRST:
            return self._over_all(users, k, exclude)
        found = [
            self._topk(users[b : b + 1], k, None if exclude is None else exclude[b])
            for b in range(len(users))
        ]
        if not found:
            return np.zeros((0, k), dtype=np.float32), np.zeros((0, k), dtype=np.int64)
        scores, best = zip(*found, strict=True)
        return np.concatenate(scores), np.concatenate(best)

    def _topk(self, user: Tensor, k: int, exclude: NDArray[np.int64] | None) -> Result:
        places = None if exclude is None else self._place[exclude]
        # One item more than asked for tells whether the k-th best has an equal that is left out.
        scores, found = self._over_first(_FIRST, user, k + 1, places)
        needed = self._needed(user, scores[0, k - 1])
        if needed > _FIRST:
            scores, found = self._over_first(needed, user, k + 1, places)
        if not scores[0, k - 1] > scores[0, k]:
            return self._over_all(user, k, None if exclude is None else [exclude])
        scores, best = scores[:, :k], self._order[found[:, :k]]
        ranked = np.lexsort((best[0], -scores[0]))
        return scores, best[:, ranked]

    def _needed(self, user: Tensor, threshold: np.float32) -> int:
        """How many items must be looked at where the k-th best score is at least the threshold."""
        wide = user[0].numpy().astype(np.float64)
        norm = float(np.linalg.norm(wide))
        above = min(max(int(np.searchsorted(self._norms, norm)), 1), _NORMS - 1)
        low, high = self._norms[above - 1 : above + 1]
        if norm <= high:
            share = (norm - low) / (high - low) if high > low else 0.0
            reach = (1 - share) * self._reach[:, above - 1] + share * self._reach[:, above]
        else:
            reach = self._reach[:, _NORMS - 1] + (norm - high) * self._reach[:, _NORMS]
        slack = self._least + norm * self._rounding
        bound = float(wide @ self._mean) + reach + slack  # [J], falling
        blocks = len(bound) - int(np.searchsorted(bound[::-1], threshold))
        return min(blocks * _BLOCK, self.count)

    def _over_first(self, n: int, user: Tensor, k: int, places: NDArray[np.int64] | None) -> Result:
        exclude = None if places is None else [places[places < n]]
        return _run(user, self._ordered_vectors[:n], self._ordered_offsets[:n], k, exclude)

    def _over_all(self, users: Tensor, k: int, exclude: Exclusions | None) -> Result:
        return _run(users, self._vectors, self._offsets, k, exclude)


def _run(
    users: Tensor, vectors: Tensor, offsets: Tensor, k: int, exclude: Exclusions | None
) -> Result:
    starts = items = None
    if exclude is not None and any(map(len, exclude)):
        starts = torch.from_numpy(np.cumsum([0, *map(len, exclude)]))
        items = torch.from_numpy(np.concatenate(exclude))
    scores, best = recommend_topk(
        users, vectors, k, offsets=offsets, exclude_offsets=starts, exclude_items=items
    )
    return scores.numpy(), best.numpy()
