"""What a source user's ratings say of the user beside the bias: numbers that hold in any domain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scdr.data import Interactions
from scdr.models.empirical_bayes import EmpiricalBayes
from scdr.models.rating_distribution import MOST_LEVELS

PSEUDO_COUNT = 5.0
"""Ratings of an average user that are added to each user's own."""
PROFILE = (
    "bias",
    "share_of_top_ratings",
    "share_of_bottom_ratings",
    "log_count",
    "residual_deviation",
    "popularity",
    "slope_on_item_bias",
)
"""Columns of `user_profiles`."""


def user_profiles(
    ratings: Interactions, model: EmpiricalBayes, reference: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Profiles of all users of a domain, `[U, 7]`, the columns those of `PROFILE`.

    The bias is the model's posterior mean; shares of the highest and the lowest rating, the root
    mean square of residuals, the mean log count of the items rated and the slope of the residuals
    on the item bias are each shrunk by five pseudo-counts. A continuous scale has its top and
    bottom tenth for the highest and the lowest rating.

    Args:
        ratings: the domain.
        model: its factor model; of it, only the biases are used.
        reference: users over whom each column is scaled to mean 0 and deviation 1.
    """
    user, value = ratings.users, ratings.ratings.astype(np.float64)
    user_bias = model.users.mean[:, 0].astype(np.float64)  # [U]
    item_bias = model.items.mean[ratings.items, 0].astype(np.float64)  # [n]
    residual = value - model.mean - user_bias[user] - item_bias
    log_count = np.log1p(np.bincount(ratings.items, minlength=ratings.n_items))[ratings.items]
    lowest, highest = _extremes(ratings.ratings)

    def total(of_rating: NDArray[np.float64] | NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.bincount(user, of_rating, ratings.n_users).astype(np.float64)

    count = np.bincount(user, minlength=ratings.n_users)

    def shrunk_mean(of_rating: NDArray[np.float64] | NDArray[np.bool_]) -> NDArray[np.float64]:
        mean: NDArray[np.float64] = total(of_rating) + PSEUDO_COUNT * of_rating.mean()
        return mean / (count + PSEUDO_COUNT)

    columns = (
        user_bias,
        shrunk_mean(value >= highest),
        shrunk_mean(value <= lowest),
        np.log1p(count),
        np.sqrt(shrunk_mean(residual**2)),
        shrunk_mean(log_count),
        total(residual * item_bias) / (total(item_bias**2) + PSEUDO_COUNT * model.noise),
    )
    profiles = np.stack(columns, axis=1)
    chosen = profiles[reference]
    deviation = chosen.std(0)
    varies = deviation > 1e-9 * np.abs(chosen).max(0, initial=1e-30)
    return np.where(varies, (profiles - chosen.mean(0)) / np.where(varies, deviation, 1.0), 0.0)


def _extremes(ratings: NDArray[np.float32]) -> tuple[float, float]:
    levels = np.unique(ratings)
    if len(levels) <= MOST_LEVELS:
        return float(levels[0]), float(levels[-1])
    low, high = np.quantile(ratings, [0.1, 0.9])
    return float(low), float(high)
