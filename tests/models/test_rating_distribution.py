from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from scdr.models.rating_distribution import (
    RMSE_TOLERANCE,
    Optimise,
    RatingDistribution,
    fit_rating_distribution,
)

OPTIMISE: tuple[Optimise, ...] = ("mae", "rmse", "both")


def drawn(levels: np.ndarray, n: int = 20_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Linear predictions and ratings of a cumulative logit model that is skewed to the top."""
    generator = np.random.default_rng(seed)
    location = generator.normal(0.0, 0.7, n)
    thresholds = np.linspace(-3.5, 0.3, len(levels) - 1)
    below = expit(thresholds - location[:, None])
    share = np.diff(below, axis=1, prepend=0.0, append=1.0)
    rating = levels[(below < generator.random((n, 1))).sum(1)]
    return (share * levels).sum(1), rating


@pytest.mark.parametrize(
    "levels", [np.arange(1.0, 6.0), np.arange(0.5, 5.1, 0.5), np.array([0, 1.0])]
)
def test_each_point_is_best_at_what_it_is_for(levels: np.ndarray) -> None:
    prediction, rating = drawn(levels)
    fitted = fit_rating_distribution(prediction, rating, np.ones(len(rating)), levels)
    error = {o: rating - fitted.point(prediction, o) for o in OPTIMISE}
    mae = {o: np.abs(e).mean() for o, e in error.items()}
    rmse = {o: np.sqrt((e**2).mean()) for o, e in error.items()}
    assert mae["mae"] < mae["both"] < mae["rmse"]
    assert rmse["rmse"] < rmse["both"] < rmse["mae"]
    assert rmse["both"] == pytest.approx((1 + RMSE_TOLERANCE) * rmse["rmse"], rel=4e-4)


def test_how_far_both_goes_is_no_matter_of_chance() -> None:
    """Of 300 ratings or of 20,000 it costs as much of the RMSE as it may, on fresh ratings."""
    levels = np.arange(1.0, 6.0)
    fresh, _ = drawn(levels, seed=9)
    for n, seed in ((300, 0), (300, 1), (300, 2), (20_000, 3)):
        prediction, rating = drawn(levels, n, seed)
        fitted = fit_rating_distribution(prediction, rating, np.ones(n), levels)
        squared = ((fitted.point(fresh, "both") - fitted.point(fresh, "rmse")) ** 2).mean()
        variance = (fitted.deviation(fresh) ** 2).mean()
        assert np.sqrt(1 + squared / variance) - 1 == pytest.approx(RMSE_TOLERANCE, rel=0.2)


def test_intervals_and_deviations_hold_what_they_say() -> None:
    levels = np.arange(1.0, 11.0)
    prediction, rating = drawn(levels)
    fresh, fresh_rating = drawn(levels, seed=1)
    fitted = fit_rating_distribution(prediction, rating, np.ones(len(rating)), levels)
    scaled = (fresh_rating - fitted.point(fresh, "rmse")) / fitted.deviation(fresh)
    assert scaled.mean() == pytest.approx(0, abs=0.02)
    assert scaled.std() == pytest.approx(1, abs=0.02)
    for coverage in (0.5, 0.8, 0.95):
        low, high = fitted.interval(fresh, coverage)
        assert np.isin(low, levels).all()
        promised = fitted.probability(fresh, low, high)
        assert (promised >= coverage - 1e-9).all()
        inside = ((low <= fresh_rating) & (fresh_rating <= high)).mean()
        assert inside == pytest.approx(promised.mean(), abs=0.01)


def test_a_continuous_scale_has_the_quantiles_of_its_residuals() -> None:
    generator = np.random.default_rng(0)
    prediction = generator.normal(50, 10, 20_000)
    rating = np.clip(prediction + generator.exponential(5, len(prediction)) - 5, 0, 100)
    fitted = fit_rating_distribution(prediction, rating, np.ones(len(rating)), np.unique(rating))
    asked = np.array([50.0])
    assert fitted.point(asked, "rmse")[0] == 50
    assert fitted.point(asked, "mae")[0] == pytest.approx(50 + 5 * (np.log(2) - 1), abs=0.3)
    assert fitted.deviation(asked)[0] == pytest.approx(5, rel=0.05)
    for coverage in (0.5, 0.8, 0.9):
        low, high = fitted.interval(prediction, coverage)
        promised = fitted.probability(prediction, low, high).mean()
        assert promised == pytest.approx(coverage, abs=0.01)  # no atoms that would round it up
        assert ((low <= rating) & (rating <= high)).mean() == pytest.approx(promised, abs=0.02)


def test_probabilities_of_levels_are_those_of_the_logit_model() -> None:
    levels = np.array([1.0, 2.0, 4.0, 5.0])
    distribution = RatingDistribution(levels, np.array([-2.0, -0.5, 0.4]), np.zeros(0))
    location = np.array([-1.0, 0.3, 2.0])
    below = expit(distribution.thresholds - location[:, None])
    share = np.diff(below, axis=1, prepend=0.0, append=1.0)
    mean = (share * levels).sum(1)
    for first in range(4):
        for last in range(first, 4):
            ends = np.full(3, levels[first]), np.full(3, levels[last])
            expected = share[:, first : last + 1].sum(1)
            np.testing.assert_allclose(distribution.probability(mean, *ends), expected, atol=1e-4)
    outside = distribution.probability(mean, np.full(3, 2.1), np.full(3, 3.9))
    np.testing.assert_array_equal(outside, 0)


def test_probabilities_of_a_continuous_scale_lie_between_its_quantiles() -> None:
    quantiles = np.array([-3.0, -1.0, 1.0, 3.0])  # with 1/8, 3/8, 5/8 and 7/8 below
    distribution = RatingDistribution(np.array([0.0, 10.0]), np.zeros(0), quantiles)

    def up_to(mean: float, end: float) -> float:
        lowest = np.array([-np.inf])
        return float(distribution.probability(np.array([mean]), lowest, np.array([end]))[0])

    assert up_to(5, 4) == pytest.approx(3 / 8, abs=1e-5)
    assert up_to(5, 5) == pytest.approx(1 / 2, abs=1e-5)
    assert up_to(5, 1.9) == 0
    assert up_to(5, np.inf) == 1
    # The ends of the range hold what lies beyond them: here all up to the second quantile.
    assert up_to(1, -0.1) == 0
    assert up_to(1, 0) == pytest.approx(3 / 8, abs=1e-5)
    assert up_to(9, 9.9) == pytest.approx(0.6125, abs=1e-5)
    assert up_to(9, 10) == 1


@pytest.mark.parametrize("pull", [0.0, 0.3, 2.0, 100.0])
def test_both_minimises_its_loss(pull: float) -> None:
    distribution = RatingDistribution(
        np.array([1.0, 2.0, 4.0, 5.0]), np.array([-2.0, -0.5, 0.4]), np.zeros(0), pull=pull
    )
    for mean in np.linspace(1.1, 4.9, 20):
        low, high = distribution._support(np.array([mean]))
        share = np.diff(high[0], prepend=0.0)
        expected = (share * low[0]).sum()
        grid = np.linspace(1, 5, 8001)
        loss = 2 * pull * (share * np.abs(grid[:, None] - low[0])).sum(1) + (grid - expected) ** 2
        found = distribution.point(np.array([expected]), "both")[0]
        assert found == pytest.approx(grid[loss.argmin()], abs=2e-3)


def test_a_prediction_off_the_scale_is_the_end_of_it_but_not_certain() -> None:
    prediction, rating = drawn(np.arange(1.0, 6.0))
    fitted = fit_rating_distribution(prediction, rating, np.ones(len(rating)), np.arange(1.0, 6.0))
    asked = np.array([-3.0, 9.0])
    np.testing.assert_array_equal(fitted.point(asked, "rmse"), [1, 5])
    assert (fitted.deviation(asked) > 0.1).all()


def test_one_level_only() -> None:
    fitted = fit_rating_distribution(np.full(9, 3.0), np.full(9, 3.0), np.ones(9), np.array([3.0]))
    for optimise in OPTIMISE:
        np.testing.assert_array_equal(fitted.point(np.array([1.0, 3.0]), optimise), [3, 3])
    assert fitted.deviation(np.array([3.0]))[0] == 0


def test_a_level_that_no_training_rating_has_keeps_its_place() -> None:
    levels = np.arange(1.0, 6.0)
    prediction, rating = drawn(levels)
    kept = rating != 2
    fitted = fit_rating_distribution(
        prediction[kept], rating[kept], np.ones(int(kept.sum())), levels
    )
    assert (np.diff(fitted.thresholds) > 0).all()
    assert np.isfinite(fitted.point(prediction, "both")).all()
