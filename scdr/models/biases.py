"""The model of biases alone: rating = mean + user bias + item bias."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

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
    shape = (interactions.n_users, interactions.n_items)
    mean = float(interactions.ratings.mean(dtype=np.float64))
    centred = interactions.ratings.astype(np.float64) - mean  # [n]
    rated = (np.ones_like(centred), (interactions.users, interactions.items))
    by_user: csr_array = csr_array(rated, shape=shape)
    by_item = by_user.T.tocsr()
    user_sum = np.bincount(interactions.users, centred, shape[0])
    item_sum = np.bincount(interactions.items, centred, shape[1])
    user_weight = np.bincount(interactions.users, minlength=shape[0]) + user_penalty  # [U]
    item_weight = np.bincount(interactions.items, minlength=shape[1]) + item_penalty  # [I]
    user, item = np.zeros(shape[0]), np.zeros(shape[1])
    for _ in range(sweeps):
        item = (item_sum - by_item @ user) / item_weight
        user = (user_sum - by_user @ item) / user_weight
    return Biases(mean=mean, user=user, item=item)
