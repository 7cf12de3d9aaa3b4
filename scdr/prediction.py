"""A fitted method on the users it was not fitted on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scdr.data import ColdStartSplit, Interactions, TrainingData, source_users
from scdr.evaluation import RatingMetrics, rating_metrics
from scdr.methods import FactorPredictor


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
