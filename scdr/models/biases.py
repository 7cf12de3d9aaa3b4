"""The model of biases alone: rating = mean + user bias + item bias."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scdr.data import Interactions


@dataclass(frozen=True, slots=True)
class Biases:
    """Biases of one domain, in units of the rating scale.

    Attributes:
        mean: mean rating.
        user: user biases `[U]` float64, 0 for a user without a rating.
        item: item biases `[I]` float64, 0 for an item without a rating.
    """

    mean: float
    user: NDArray[np.float64]
    item: NDArray[np.float64]


def fit_biases(
    interactions: Interactions,
    *,
    user_penalty: float = 5.0,
    item_penalty: float = 1.5,
    sweeps: int = 15,
) -> Biases:
    """Alternating ridge regression of `r - mean` on user and item indicators.

    Each sweep solves all item biases given the user biases, then the reverse, each in closed form:
    the sum of a row's residuals over its count plus the penalty.

    Args:
        interactions: the ratings of one domain.
        user_penalty: ridge penalty on a user bias, in ratings.
        item_penalty: ridge penalty on an item bias, in ratings.
        sweeps: alternations.
    """
    users, items = interactions.users, interactions.items
    mean = float(interactions.ratings.mean(dtype=np.float64))
    centred = interactions.ratings.astype(np.float64) - mean  # [n]
    user_weight = np.bincount(users, minlength=interactions.n_users) + user_penalty  # [U]
    item_weight = np.bincount(items, minlength=interactions.n_items) + item_penalty  # [I]
    user, item = np.zeros(len(user_weight)), np.zeros(len(item_weight))
    for _ in range(sweeps):
        item = np.bincount(items, centred - user[users], len(item)) / item_weight
        user = np.bincount(users, centred - item[items], len(user)) / user_weight
    return Biases(mean=mean, user=user, item=item)
