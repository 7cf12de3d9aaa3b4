"""Errors by kind of test rating: how active the user is, whether the item has been seen."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdr.data import ColdStartSplit, source_users


def slice_errors(
    split: ColdStartSplit, predictions: NDArray[np.floating]
) -> dict[str, dict[str, dict[str, Any]]]:
    """MAE and RMSE of parts of the test set.

    Args:
        split: the split whose test set was predicted.
        predictions: `[n]`, in the order of `split.test`.

    Returns:
        By "source_ratings" (quartiles of the test users by their number of source ratings, named
        as in "5 to 9") and "item" ("seen" or "unseen" in the target's training rows): counts of
        `users` and `ratings`, and `mae` and `rmse` over these ratings. Empty parts are left out.
    """
    test, training = split.test, split.training
    active = np.bincount(training.source.users, minlength=training.source.n_users)
    count = active[source_users(split.test_pairs, test)]  # [n]
    edges = np.unique(np.quantile(active[split.test_pairs[:, 0]], (0, 0.25, 0.5, 0.75, 1)))
    edges = np.unique(np.floor(edges).astype(np.int64))
    lower = edges[:-1] if len(edges) > 1 else edges
    part = np.searchsorted(lower, count, side="right") - 1  # [n]
    seen = np.bincount(training.target.items, minlength=training.target.n_items) > 0
    known = seen[test.items]  # [n]

    names = {}
    for index, low in enumerate(lower):
        last = index + 1 == len(lower)
        high = int(edges[-1]) if last else int(lower[index + 1]) - 1
        names[f"{low} to {high}"] = part == index
    groups = {"source_ratings": names, "item": {"seen": known, "unseen": ~known}}
    error = predictions.astype(np.float64) - test.ratings
    return {
        group: {
            name: {
                "users": len(np.unique(test.users[mask])),
                "ratings": int(mask.sum()),
                "mae": float(np.abs(error[mask]).mean()),
                "rmse": float(np.sqrt((error[mask] ** 2).mean())),
            }
            for name, mask in parts.items()
            if mask.any()
        }
        for group, parts in groups.items()
    }
