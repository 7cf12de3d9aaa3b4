"""A fitted method on the users it was not fitted on."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdr.data import ColdStartSplit, Interactions, TrainingData, source_users
from scdr.evaluation import RatingMetrics, rating_metrics
from scdr.methods import FactorPredictor
from scdr.models.rating_distribution import POINTS, Optimise

_COVERAGES = (0.5, 0.8, 0.9)
"""Nominal probabilities of the intervals whose coverage is reported."""
_QUINTILES = (0.2, 0.4, 0.6, 0.8)
_GROUPS = 10
"""Points of a calibration curve."""


def predict_test(
    predictor: FactorPredictor,
    split: ColdStartSplit,
    *,
    clip: bool,
    optimise: Optimise | None = None,
) -> NDArray[np.float32]:
    """Predictions of the test ratings, float32 [n] in the order of `split.test`.

    Args:
        predictor: fitted on `split.training`.
        split: the split.
        clip: to the range of the target's training ratings.
        optimise: another point of the distribution than the predictor's own.
    """
    return _predict(predictor, split.training, split.test_pairs, split.test, clip, optimise)


def predict_validation(
    predictor: FactorPredictor, data: TrainingData, *, clip: bool
) -> NDArray[np.float32]:
    """Predictions of the validation users' target ratings, float32 [m] as in `data.validation`."""
    return _predict(predictor, data, data.validation_pairs, data.validation, clip)


def judge_distribution(
    predictor: FactorPredictor, split: ColdStartSplit, *, clip: bool
) -> dict[str, Any] | None:
    """What a method's distribution of ratings is worth on test users; None where it has none.

    Beside the share of test ratings in an interval stands what the distribution promises for it:
    the mean over test ratings of its probability. On a scale of few levels that is more than the
    interval was asked to hold, since it ends at levels.

    Returns:
        As JSON: the metrics of each point that it can predict; `within_one_deviation` of the mean
        and `intervals`, with the shares of test ratings `inside` and `promised`;
        `standardised_rms`, the root mean square of `(r - mean) / deviation`, 1 where the deviations
        are right; and `calibration`, as `_calibration` has it.
    """
    if predictor.distribution is None:
        return None
    rows, users = split.test, source_users(split.test_pairs, split.test)
    points = {point: predict_test(predictor, split, clip=clip, optimise=point) for point in POINTS}
    mean, deviation = points["rmse"], predictor.deviation(users, rows.items)

    def coverage(low: NDArray[np.float32], high: NDArray[np.float32]) -> dict[str, float]:
        inside = (low <= rows.ratings) & (rows.ratings <= high)
        promised = predictor.probability(users, rows.items, low, high)
        return {"inside": float(inside.mean()), "promised": float(promised.mean())}

    intervals = {}
    for nominal in _COVERAGES:
        low, high = predictor.interval(users, rows.items, nominal)
        width = float((high - low).mean(dtype=np.float64))
        intervals[f"{nominal:.0%}"] = coverage(low, high) | {"width": width}
    uncertain = deviation > 0
    scaled = (rows.ratings - mean)[uncertain].astype(np.float64) / deviation[uncertain]
    return {
        "optimise": predictor.optimise,
        "points": {
            point: dataclasses.asdict(metrics_of(rows, found)) for point, found in points.items()
        },
        "mean_deviation": float(deviation.mean(dtype=np.float64)),
        "within_one_deviation": coverage(mean - deviation, mean + deviation),
        "standardised_rms": float(np.sqrt((scaled**2).mean())) if len(scaled) else None,
        "intervals": intervals,
        "calibration": _calibration(predictor, split),
    }


def _calibration(predictor: FactorPredictor, split: ColdStartSplit) -> list[dict[str, Any]]:
    """Reliability of the probability that a rating reaches a level.

    Returns:
        For up to four levels, in as many groups of test ratings as `_GROUPS`, from those with the
        lowest probability to those with the highest: the mean probability `promised`, and the share
        `observed` of ratings at the level or above.
    """
    rows, users = split.test, source_users(split.test_pairs, split.test)
    curves = []
    for level in _levels_between(split.training.target.ratings):
        above = np.full(len(rows), np.inf)
        promised = predictor.probability(users, rows.items, np.full(len(rows), level), above)
        groups = np.array_split(np.argsort(promised, kind="stable"), min(_GROUPS, len(rows)))
        reached = rows.ratings >= level
        curves.append(
            {
                "level": float(level),
                "promised": [float(promised[group].mean()) for group in groups],
                "observed": [float(reached[group].mean()) for group in groups],
            }
        )
    return curves


def _levels_between(ratings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Levels above the lowest rating: all of a scale of five, else the quintiles of the ratings."""
    levels = np.unique(ratings)
    if len(levels) > len(_QUINTILES) + 1:
        levels = np.unique(np.quantile(ratings, (0, *_QUINTILES), method="inverted_cdf"))
    return levels[1:]


def other_points(title: str, judged: dict[str, Any] | None) -> list[tuple[str, dict[str, Any]]]:
    """Labels and metrics of the points that a run does not predict but could.

    Args:
        title: of the method.
        judged: as `judge_distribution` has it.
    """
    if judged is None:
        return []
    return [
        (f"{title}, {name}" + ("" if name == point else f" ({point})"), judged["points"][point])
        for point, name in POINTS.items()
        if point != judged["optimise"]
    ]


def calibration_lines(judged: dict[str, Any] | None) -> list[str]:
    """What `judge_distribution` found of intervals and deviations, in words."""
    if judged is None:
        return []

    def share(found: dict[str, float], unit: str = "") -> str:
        return f"{100 * found['inside']:.1f} % ({100 * found['promised']:.1f} %{unit})"

    first, *others = (
        (nominal.rstrip("%"), found) for nominal, found in judged["intervals"].items()
    )
    intervals = [
        f"Test ratings in {first[0]} % intervals: {share(first[1], ' promised')}",
        *(f"in {nominal} %: {share(found)}" for nominal, found in others),
    ]
    within = share(judged["within_one_deviation"], " promised")
    scaled = judged["standardised_rms"]
    size = "" if scaled is None else f"; root mean square of error / deviation: {scaled:.2f}"
    return ["; ".join(intervals) + ".", f"Within one standard deviation: {within}{size}."]


def metrics_of(rows: Interactions, predictions: NDArray[np.float32]) -> RatingMetrics:
    """Compare predictions with the ratings of the rows they were made for."""
    return rating_metrics(rows.users, rows.ratings, predictions)


def _predict(
    predictor: FactorPredictor,
    data: TrainingData,
    pairs: NDArray[np.int32],
    rows: Interactions,
    clip: bool,
    optimise: Optimise | None = None,
) -> NDArray[np.float32]:
    users = source_users(pairs, rows)
    predictions = predictor.predict(users, rows.items, optimise=optimise)
    known = data.target.ratings
    return np.clip(predictions, known.min(), known.max()) if clip else predictions
