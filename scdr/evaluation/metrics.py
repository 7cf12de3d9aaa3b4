"""MAE and RMSE, over ratings and over users, with bootstrap intervals over users."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class RatingMetrics:
    """How far predictions are from ratings, in units of the rating scale.

    Attributes:
        mae: mean absolute error over ratings (Eq. 17).
        rmse: root of the mean squared error over ratings (Eq. 18).
        user_mae: mean over users of each user's MAE.
        user_rmse: mean over users of each user's RMSE.
        mae_ci95: 95 % percentile interval of `mae`, by bootstrap over users.
        rmse_ci95: the same of `rmse`.
    """

    mae: float
    rmse: float
    user_mae: float
    user_rmse: float
    mae_ci95: tuple[float, float]
    rmse_ci95: tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class UserErrors:
    """Errors of K users, whose differences between two methods a paired test compares.

    Attributes:
        users: `[K]` labels of the users, sorted.
        ratings: `[K]` int64, number of ratings of each.
        mae: `[K]` float64, mean absolute error over a user's ratings.
        rmse: `[K]` float64, root of the mean squared error over a user's ratings.
    """

    users: NDArray[np.integer]
    ratings: NDArray[np.int64]
    mae: NDArray[np.float64]
    rmse: NDArray[np.float64]


def user_errors(
    users: NDArray[np.integer],
    ratings: NDArray[np.floating],
    predictions: NDArray[np.floating],
) -> UserErrors:
    """Compare predictions with ratings user by user; arguments as in `rating_metrics`.

    Raises:
        ValueError: no rating, lengths that differ, or a prediction that is missing (not finite).
    """
    labels, count, absolute, squared = _user_sums(users, ratings, predictions)
    return UserErrors(
        users=labels,
        ratings=count.astype(np.int64),
        mae=absolute / count,
        rmse=np.sqrt(squared / count),
    )


def rating_metrics(
    users: NDArray[np.integer],
    ratings: NDArray[np.floating],
    predictions: NDArray[np.floating],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> RatingMetrics:
    """Compare predictions with ratings.

    The bootstrap resamples users, not ratings: the ratings of one user are not independent.

    Args:
        users: `[n]` any integer label of the user of each rating.
        ratings: `[n]` ratings.
        predictions: `[n]` predictions, clipped or not, as the caller reports them.
        resamples: bootstrap samples.
        seed: of the bootstrap.

    Raises:
        ValueError: no rating, lengths that differ, or a prediction that is missing (not finite).
    """
    _, count, absolute, squared = _user_sums(users, ratings, predictions)  # [K] each
    generator = np.random.default_rng(seed)
    sums = np.stack([count, absolute, squared], axis=1)  # [K, 3]
    drawn = np.empty((resamples, 3))
    for sample in drawn:
        times = np.bincount(generator.integers(len(sums), size=len(sums)), minlength=len(sums))
        sample[:] = (times[:, None] * sums).sum(axis=0)
    return RatingMetrics(
        mae=float(absolute.sum() / count.sum()),
        rmse=float(np.sqrt(squared.sum() / count.sum())),
        user_mae=float((absolute / count).mean()),
        user_rmse=float(np.sqrt(squared / count).mean()),
        mae_ci95=_interval(drawn[:, 1] / drawn[:, 0]),
        rmse_ci95=_interval(np.sqrt(drawn[:, 2] / drawn[:, 0])),
    )


def _user_sums(
    users: NDArray[np.integer], ratings: NDArray[np.floating], predictions: NDArray[np.floating]
) -> tuple[NDArray[np.integer], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Labels `[K]`, and for each of them the count and the sums of absolute and squared errors."""
    if not len(users) == len(ratings) == len(predictions):
        raise ValueError(
            f"users, ratings and predictions have {len(users)}, {len(ratings)} and "
            f"{len(predictions)} entries; they must agree"
        )
    if len(ratings) == 0:
        raise ValueError("ratings is empty; there is nothing to compare")
    missing = int(np.count_nonzero(~np.isfinite(predictions)))
    if missing:
        raise ValueError(f"predictions holds {missing} values that are not finite")

    error = np.asarray(predictions, dtype=np.float64) - np.asarray(ratings, dtype=np.float64)
    labels, user = np.unique(users, return_inverse=True)

    def total(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(user, weights=values).astype(np.float64)  # [K]

    return labels, total(np.ones_like(error)), total(np.abs(error)), total(error * error)


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
