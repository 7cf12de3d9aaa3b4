"""The distribution of a rating around its linear prediction p, which is its mean.

Fitted on predictions of users whose ratings the prediction has not seen, so that its spread is that
of cold-start users.

- On a scale of few levels, a cumulative logit model: `P(r <= level_k) = logistic(t_k - h)`, h such
  that the mean is p.
- On a scale of many: `r = p + q`, q one of the quantiles of the residuals with equal probability,
  kept within the rating range.

P. McCullagh, "Regression models for ordinal data", Journal of the Royal Statistical Society B,
1980.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

Column = NDArray[np.float64]
Optimise = Literal["both", "mae", "rmse"]
POINTS: Mapping[Optimise, str] = {"both": "both", "mae": "median", "rmse": "mean"}
"""What tables call the points of a distribution, by the option that chooses them."""

MOST_LEVELS = 20
"""Scales with more different ratings than this are treated as continuous."""
RMSE_TOLERANCE = 0.0007
"""Share of the RMSE that "both" is expected to give away for a lower MAE."""
_QUANTILES = 50
_GRID = 1025
_SLACK = 1e-6
"""Share of the range by which two equal ratings may differ by rounding."""
_MARGIN = 3.0
"""How far h goes beyond the outer thresholds: no rating is ever more certain than 95 %."""


@dataclass(frozen=True, slots=True)
class RatingDistribution:
    """What ratings to expect where the linear prediction says p.

    Attributes:
        levels: `[K]` ratings in ascending order; for a continuous scale the lowest and the highest.
        thresholds: `[K - 1]` t_k; empty for a continuous scale.
        quantiles: `[Q]` q; empty for a scale of levels.
        pull: how far "both" goes from the mean to the median, in rating units: it predicts the x
            that minimises `2 pull E|r - x| + E(r - x)^2`.
    """

    levels: Column
    thresholds: Column
    quantiles: Column
    pull: float = 0.0

    @classmethod
    def from_fields(cls, values: Mapping[str, Any]) -> RatingDistribution:
        """The distribution with these fields, arrays as the lists that JSON has of them."""
        arrays = {k: np.array(v, dtype=np.float64) for k, v in values.items() if k != "pull"}
        return cls(**dict(values) | arrays)

    def point(self, prediction: NDArray[np.floating], optimise: Optimise) -> Column:
        """The number to predict, `[n]`, for linear predictions `[n]`.

        "rmse" is the mean, "mae" the median; "both" lies between them, where the MAE is expected to
        be lowest for at most `RMSE_TOLERANCE` of the RMSE.
        """
        mean = self._mean(prediction)
        if optimise == "rmse":
            return mean
        support, below = self._support(mean)
        if optimise == "mae":
            return _quantile(support, below, 0.5)
        return _between(mean, support, below, self.pull)

    def deviation(self, prediction: NDArray[np.floating]) -> Column:
        """Standard deviation of the rating, `[n]`."""
        mean = self._mean(prediction)
        support, share = self._shares(mean)
        deviation: Column = np.sqrt((share * (support - mean[:, None]) ** 2).sum(1))
        return deviation

    def interval(self, prediction: NDArray[np.floating], coverage: float) -> tuple[Column, Column]:
        """Ends `[n]` with at most `(1 - coverage) / 2` of the probability beyond each.

        On a scale of levels they are levels, so that the interval holds `coverage` or more.
        """
        support, below = self._support(self._mean(prediction))
        tail = (1 - coverage) / 2
        return _quantile(support, below, tail), _quantile(support, below, 1 - tail)

    def probability(
        self,
        prediction: NDArray[np.floating],
        low: NDArray[np.floating],
        high: NDArray[np.floating],
    ) -> Column:
        """Probability `[n]` of a rating from low to high, both `[n]` and both included.

        On a continuous scale the i-th of Q quantiles of the residuals has `(i - 1/2) / Q` of them
        below, and between two quantiles they are spread evenly; the ends of the range hold all that
        lies beyond.
        """
        mean = self._mean(prediction)
        slack = _SLACK * (self.levels[-1] - self.levels[0])
        below = np.asarray(low, dtype=np.float64) - slack
        beyond = np.asarray(high, dtype=np.float64) + slack
        if not len(self.quantiles):
            support, share = self._shares(mean)
            inside = (below[:, None] <= support) & (support <= beyond[:, None])
            chance: Column = share.sum(1, where=inside)
            return chance
        steps = (np.arange(len(self.quantiles)) + 0.5) / len(self.quantiles)
        lowest, highest = self.levels

        def up_to(x: Column) -> Column:
            share = np.interp(x - mean, self.quantiles, steps, left=0.0, right=1.0)
            return np.where(x < lowest, 0.0, np.where(x < highest, share, 1.0))

        return up_to(beyond) - up_to(below)

    def _mean(self, prediction: NDArray[np.floating]) -> Column:
        wide = np.asarray(prediction, dtype=np.float64)
        return np.clip(wide, self.levels[0], self.levels[-1])

    def _support(self, mean: Column) -> tuple[Column, Column]:
        """Possible ratings and the probability of each or less, both `[n, K]`."""
        if len(self.thresholds):
            below = _below(self.thresholds, self._location(mean))
            return np.broadcast_to(self.levels, below.shape), below
        if len(self.quantiles):
            low, high = self.levels[0], self.levels[-1]
            support = np.clip(mean[:, None] + self.quantiles, low, high)
            steps = np.arange(1, len(self.quantiles) + 1) / len(self.quantiles)
            return support, np.broadcast_to(steps, support.shape)
        return mean[:, None], np.ones((len(mean), 1))

    def _shares(self, mean: Column) -> tuple[Column, Column]:
        """Possible ratings and the probability of each, both `[n, K]`."""
        support, below = self._support(mean)
        return support, np.diff(below, axis=1, prepend=0.0)

    def _location(self, mean: Column) -> Column:
        """Locations h `[n]` for means `[n]`."""
        low, high = self.thresholds[0] - _MARGIN, self.thresholds[-1] + _MARGIN
        grid = np.linspace(low, high, _GRID)
        share = np.diff(_below(self.thresholds, grid), axis=1, prepend=0.0)
        return np.interp(mean, (share * self.levels).sum(1), grid)


def fit_rating_distribution(
    prediction: Column, rating: Column, weight: Column, levels: Column
) -> RatingDistribution:
    """Maximum likelihood on a scale of levels, quantiles of the residuals on a continuous one.

    Args:
        prediction: `[n]` linear predictions, each made without the ratings of its user.
        rating: `[n]` the ratings.
        weight: `[n]` how much each counts.
        levels: `[K]` ratings that occur in the domain, ascending.
    """
    fitted = RatingDistribution(levels, np.zeros(0), np.zeros(0))
    if len(levels) > MOST_LEVELS:
        probabilities = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
        residual = rating - prediction
        quantiles = np.quantile(residual, probabilities, method="inverted_cdf", weights=weight)
        fitted = replace(fitted, levels=levels[[0, -1]], quantiles=quantiles - quantiles.mean())
    elif len(levels) > 1:
        level = np.searchsorted(levels, rating)
        fitted = replace(fitted, thresholds=_thresholds(prediction, level, weight, levels))
    return replace(fitted, pull=_pull(fitted, prediction))


def _pull(fitted: RatingDistribution, prediction: Column) -> float:
    """The greatest pull whose RMSE is expected within `RMSE_TOLERANCE` of the mean's.

    Expected by the distribution, `E(r - x)^2 = Var r + (x - mean)^2`, and not as the ratings have
    it: in the errors of a few dozen users chance is larger than the tolerance.
    """
    mean = fitted.point(prediction, "rmse")
    support, below = fitted._support(mean)
    allowed = ((1 + RMSE_TOLERANCE) ** 2 - 1) * (fitted.deviation(prediction) ** 2).mean()
    low, high = 0.0, float(fitted.levels[-1] - fitted.levels[0])
    for _ in range(30):
        pull = (low + high) / 2
        if ((_between(mean, support, below, pull) - mean) ** 2).mean() <= allowed:
            low = pull
        else:
            high = pull
    return low


def _between(mean: Column, support: Column, below: Column, pull: float) -> Column:
    """The x that minimises `2 pull E|r - x| + E(r - x)^2`.

    Half the derivative, `pull (2 F(x) - 1) + x - mean`, rises with x. Between two possible ratings
    F is constant, and there is a zero at `mean + pull (1 - 2 F)` where that lies between them.
    """
    if support.shape[1] == 1:
        return mean
    zero = mean[:, None] + pull * (1 - 2 * below[:, :-1])  # [n, K - 1]
    inside = np.minimum(zero, support[:, 1:])
    x: Column = np.where(zero > support[:, :-1], inside, support[:, :1]).max(1)
    return x


def _thresholds(
    prediction: Column, level: NDArray[np.integer], weight: Column, levels: Column
) -> Column:
    """Thresholds of greatest likelihood where h is linear in the prediction."""
    n, steps = len(level), len(levels) - 1
    x = (prediction - prediction.mean()) / (levels[-1] - levels[0])
    # One rating a level more: a level that no rating has must keep its place.
    count = np.bincount(level, weight, steps + 1) + 1.0
    share = np.cumsum(count)[:-1] / count.sum()
    first = np.log(share / (1 - share))
    start = np.concatenate([first[:1], np.log(np.diff(first)), [4.0]])
    top, bottom = level < steps, level > 0

    def unpack(values: Column) -> tuple[Column, Column]:
        width = np.exp(values[1:steps])
        return values[0] + np.concatenate([[0.0], np.cumsum(width)]), width

    def objective(values: Column) -> tuple[float, Column]:
        thresholds, width = unpack(values)
        upper, lower = np.ones(n), np.zeros(n)
        upper[top] = expit(thresholds[level[top]] - values[-1] * x[top])
        lower[bottom] = expit(thresholds[level[bottom] - 1] - values[-1] * x[bottom])
        chance = np.maximum(upper - lower, 1e-12)
        up = weight * upper * (1 - upper) / chance
        down = weight * lower * (1 - lower) / chance
        gradient = np.bincount(level[top], up[top], steps)
        gradient -= np.bincount(level[bottom] - 1, down[bottom], steps)
        later = np.cumsum(gradient[::-1])[::-1]
        slope = -((up - down) * x).sum()
        total = np.concatenate([later[:1], width * later[1:], [slope]])
        return -float((weight * np.log(chance)).sum()) / n, -total / n

    options = {"maxiter": 500}
    return unpack(minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x)[0]


def _below(thresholds: Column, location: Column) -> Column:
    """`P(r <= level_k)` `[n, K]` at locations h `[n]`."""
    below = np.ones((len(location), len(thresholds) + 1))
    below[:, :-1] = expit(thresholds - location[:, None])
    return below


def _quantile(support: Column, below: Column, level: float) -> Column:
    """The lowest possible rating with at least `level` of the probability at or below it."""
    position = (below >= level - 1e-12).argmax(1)
    quantile: Column = np.take_along_axis(support, position[:, None], axis=1)[:, 0]
    return quantile
