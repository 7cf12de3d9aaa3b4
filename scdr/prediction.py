"""A fitted method on the users it was not fitted on."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from scdr.data import ColdStartSplit, Interactions, TrainingData, source_users
from scdr.evaluation import RatingMetrics, rating_metrics
from scdr.methods import FactorPredictor
from scdr.models.rating_distribution import Optimise

_COVERAGES = (0.5, 0.8, 0.9)
"""Nominal probabilities of the intervals whose coverage is reported."""


def predict_test(
    predictor: FactorPredictor, split: ColdStartSplit, *, clip: bool
) -> NDArray[np.float32]:
    """Predictions of the test ratings, float32 [n] in the order of `split.test`.

    Args:
        predictor: fitted on `split.training`.
        split: the split.
        clip: to the range of the target's training ratings.
    """
    return _predict(predictor, split.training, split.test_pairs, split.test, clip)


def predict_validation(
    predictor: FactorPredictor, data: TrainingData, *, clip: bool
) -> NDArray[np.float32]:
    """Predictions of the validation users' target ratings, float32 [m] as in `data.validation`."""
    return _predict(predictor, data, data.validation_pairs, data.validation, clip)


def judge_distribution(
    predictor: FactorPredictor, split: ColdStartSplit, *, clip: bool
) -> dict[str, Any] | None:
    """What a method's distribution of ratings is worth on test users; None where it has none.

    Returns:
        As JSON: the metrics of each point that it can predict, the share of test ratings within one
        standard deviation of the mean, and the share that intervals hold.
    """
    if predictor.distribution is None:
        return None
    rows, users = split.test, source_users(split.test_pairs, split.test)
    points = {
        point: predict_test(dataclasses.replace(predictor, optimise=point), split, clip=clip)
        for point in get_args(Optimise)
    }
    deviation = predictor.deviation(users, rows.items)
    intervals = {}
    for nominal in _COVERAGES:
        low, high = predictor.interval(users, rows.items, nominal)
        intervals[f"{nominal:.0%}"] = {
            "inside": float(((low <= rows.ratings) & (rows.ratings <= high)).mean()),
            "width": float((high - low).mean(dtype=np.float64)),
        }
    return {
        "optimise": predictor.optimise,
        "points": {
            point: dataclasses.asdict(metrics_of(rows, found)) for point, found in points.items()
        },
        "mean_deviation": float(deviation.mean(dtype=np.float64)),
        "within_one_deviation": float((np.abs(rows.ratings - points["rmse"]) <= deviation).mean()),
        "intervals": intervals,
    }


def metrics_of(rows: Interactions, predictions: NDArray[np.float32]) -> RatingMetrics:
    """Compare predictions with the ratings of the rows they were made for."""
    return rating_metrics(rows.users, rows.ratings, predictions)


def _predict(
    predictor: FactorPredictor,
    data: TrainingData,
    pairs: NDArray[np.int32],
    rows: Interactions,
    clip: bool,
) -> NDArray[np.float32]:
    predictions = predictor.predict(source_users(pairs, rows), rows.items)
    known = data.target.ratings
    return np.clip(predictions, known.min(), known.max()) if clip else predictions
