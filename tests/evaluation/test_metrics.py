from __future__ import annotations

import numpy as np
import pytest

from scdr.evaluation import rating_metrics


def test_by_hand() -> None:
    users = np.array([7, 7, 7, 2])
    ratings = np.array([1.0, 2.0, 3.0, 5.0])
    predictions = np.array([2.0, 2.0, 5.0, 1.0])  # errors 1, 0, 2 and -4
    metrics = rating_metrics(users, ratings, predictions)
    assert metrics.mae == pytest.approx(7 / 4)
    assert metrics.rmse == pytest.approx((21 / 4) ** 0.5)
    assert metrics.user_mae == pytest.approx((1 + 4) / 2)
    assert metrics.user_rmse == pytest.approx(((5 / 3) ** 0.5 + 4) / 2)
    low, high = metrics.mae_ci95
    assert (low, high) == pytest.approx((1.0, 4.0))  # both draws the same user, or one each


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Users differ in how wrong predictions for them are; the interval must know that."""
    truth, covered, trials = 1.0, 0, 300
    for trial in range(trials):
        generator = np.random.default_rng(trial)
        scale = generator.gamma(4.0, truth / 4.0, size=80)  # mean absolute error of each user
        users = np.repeat(np.arange(80), 10)
        errors = np.repeat(scale, 10)
        low, high = rating_metrics(users, np.zeros(800), errors, resamples=200).mae_ci95
        covered += low <= truth <= high
    # Binomial deviation over 300 trials is 1.3 %; the percentile bootstrap is a little short.
    assert 0.89 < covered / trials < 0.99


@pytest.mark.parametrize(
    ("users", "ratings", "predictions", "message"),
    [
        ([0], [1.0], [np.nan], "predictions holds 1 values"),
        ([], [], [], "ratings is empty"),
        ([0, 1], [1.0], [1.0], "must agree"),
    ],
)
def test_missing_predictions_are_errors(
    users: list[int], ratings: list[float], predictions: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rating_metrics(np.array(users), np.array(ratings), np.array(predictions))
