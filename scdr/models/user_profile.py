"""What a source user's ratings say of the user beside the bias: numbers that hold in any domain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

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
"""Columns of profiles."""


@dataclass(frozen=True, slots=True)
class UserProfiles:
    """What makes profiles of ratings, all of it facts of one domain.

    The bias is the model's posterior mean; shares of the highest and the lowest rating, the root
    mean square of residuals, the mean log count of the items rated and the slope of the residuals
    on the item bias are each shrunk by five pseudo-counts. A continuous scale has its top and
    bottom tenth for the highest and the lowest rating.

    Attributes:
        mean: mean rating.
        noise: variance of a rating around its expectation.
        extremes: the lowest and the highest rating.
        item_bias: `[I]`.
        log_count: `[I]`, `log(1 + ratings of the item)`.
        average: `[4]`, over all ratings: shares of the highest and of the lowest, mean square of
            residuals, mean log count.
        centre: `[7]`, taken off the columns.
        deviation: `[7]`, what they are divided by; infinity for a column that does not vary.
    """

    mean: float
    noise: float
    extremes: tuple[float, float]
    item_bias: NDArray[np.float64]
    log_count: NDArray[np.float64]
    average: NDArray[np.float64]
    centre: NDArray[np.float64]
    deviation: NDArray[np.float64]

    @classmethod
    def of(
        cls, ratings: Interactions, model: EmpiricalBayes, reference: NDArray[np.integer]
    ) -> tuple[UserProfiles, NDArray[np.float64]]:
        """Learn the facts of a domain.

        Args:
            ratings: the domain.
            model: its factor model; of it, only the biases are used.
            reference: users over whom each column is scaled to mean 0 and deviation 1.

        Returns:
            Them, and the profiles of all users of the domain, `[U, 7]`, the columns those of
            `PROFILE`.
        """
        plain = cls(
            mean=model.mean,
            noise=model.noise,
            extremes=_extremes(ratings.ratings),
            item_bias=model.items.mean[:, 0].astype(np.float64),
            log_count=np.log1p(np.bincount(ratings.items, minlength=ratings.n_items)),
            average=np.zeros(4),
            centre=np.zeros(len(PROFILE)),
            deviation=np.ones(len(PROFILE)),
        )
        user, item, value = ratings.users, ratings.items, ratings.ratings.astype(np.float64)
        user_bias = model.users.mean[:, 0].astype(np.float64)  # [U]
        columns = islice(plain._of_ratings(user_bias[user], item, value), 4)
        learned = replace(plain, average=np.array([column.mean() for column in columns]))
        profiles = learned.profiles(user_bias, user, item, value)
        chosen = profiles[reference]
        deviation = chosen.std(0)
        varies = deviation > 1e-9 * np.abs(chosen).max(0, initial=1e-30)
        learned = replace(
            learned, centre=chosen.mean(0), deviation=np.where(varies, deviation, np.inf)
        )
        return learned, (profiles - learned.centre) / learned.deviation

    def profiles(
        self,
        user_bias: NDArray[np.float64],
        user: NDArray[np.integer],
        item: NDArray[np.integer],
        value: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Profiles `[U, 7]`.

        Args:
            user_bias: `[U]`.
            user: `[n]`, the user of each rating.
            item: `[n]`, its item.
            value: `[n]`, the rating.
        """
        count = np.bincount(user, minlength=len(user_bias))

        def total(of_rating: NDArray[np.float64] | NDArray[np.bool_]) -> NDArray[np.float64]:
            return np.bincount(user, of_rating, len(user_bias)).astype(np.float64)

        totals = [total(column) for column in self._of_ratings(user_bias[user], item, value)]
        shares = [
            (of_user + PSEUDO_COUNT * average) / (count + PSEUDO_COUNT)
            for of_user, average in zip(totals[:4], self.average, strict=True)
        ]
        columns = (
            user_bias,
            shares[0],
            shares[1],
            np.log1p(count),
            np.sqrt(shares[2]),
            shares[3],
            totals[4] / (totals[5] + PSEUDO_COUNT * self.noise),
        )
        return (np.stack(columns, axis=1) - self.centre) / self.deviation

    def _of_ratings(
        self,
        user_bias: NDArray[np.float64],
        item: NDArray[np.integer],
        value: NDArray[np.float64],
    ) -> Iterator[NDArray[Any]]:
        """What is summed over a user's ratings, a column after the other to save memory.

        The first four as in `average`, then residual times item bias, and its square.
        """
        yield value >= self.extremes[1]
        yield value <= self.extremes[0]
        item_bias = self.item_bias[item]
        residual = value - self.mean - user_bias - item_bias
        yield residual**2
        yield self.log_count[item]
        yield residual * item_bias
        yield item_bias**2


def _extremes(ratings: NDArray[np.float32]) -> tuple[float, float]:
    levels = np.unique(ratings)
    if len(levels) <= MOST_LEVELS:
        return float(levels[0]), float(levels[-1])
    low, high = np.quantile(ratings, [0.1, 0.9])
    return float(low), float(high)
