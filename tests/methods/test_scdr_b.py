"""SCDR-B on data whose answer is known, and on other rating scales."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from scdr.data import ColdStartSplit, Interactions, cold_start_split, planted, source_users
from scdr.methods import CONTROLS, METHODS, FactorPredictor, FitContext


def fitted(name: str, split: ColdStartSplit) -> FactorPredictor:
    method = (CONTROLS if name in CONTROLS else METHODS)[name]
    return method.fit(split.training, method.presets["default"], FitContext(seed=split.seed))


def predictions(
    predictor: FactorPredictor, split: ColdStartSplit, optimise: str = "rmse"
) -> NDArray[np.float32]:
    users = source_users(split.test_pairs, split.test)
    return predictor.predict(users, split.test.items, optimise=optimise).clip(1, 5)


def rmse(predicted: NDArray[np.float32], split: ColdStartSplit) -> float:
    return float(np.sqrt(((predicted - split.test.ratings) ** 2).mean()))


@pytest.mark.parametrize(("signal", "least"), [(0.4, 0.25), (0.6, 0.55), (0.8, 0.65)])
def test_it_finds_the_taste_that_both_domains_share(signal: float, least: float) -> None:
    made = planted(signal=signal, seed=1)
    split = cold_start_split(made.domains, seed=1)
    best, control = (
        made.best_rmse(split.test_rows),
        rmse(predictions(fitted("bias_transfer", split), split), split),
    )
    found = rmse(predictions(fitted("scdr_b", split), split), split)
    assert (control - found) / (control - best) > least


def test_it_falls_back_where_taste_is_unrelated() -> None:
    made = planted(signal=0.8, related=False)
    split = cold_start_split(made.domains)
    control = rmse(predictions(fitted("bias_transfer", split), split), split)
    assert rmse(predictions(fitted("scdr_b", split), split), split) < 1.005 * control


def rescaled(split: ColdStartSplit, factor: float, shift: float) -> ColdStartSplit:
    """The same split with all ratings on another scale."""

    def change(rows: Interactions) -> Interactions:
        return replace(rows, ratings=(factor * rows.ratings + shift).astype(np.float32))

    domains = replace(
        split.domains, source=change(split.domains.source), target=change(split.domains.target)
    )
    return cold_start_split(
        domains,
        beta=split.beta,
        seed=split.seed,
        validation_fraction=split.validation_fraction,
    )


@pytest.mark.parametrize(("factor", "shift"), [(0.5, 0.0), (2.0, 0.0), (25.0, -25.0)])
def test_predictions_follow_the_scale_of_the_ratings(
    factor: float, shift: float, split: ColdStartSplit
) -> None:
    """Half stars, 2 to 10, and 0 to 100."""
    users, items = source_users(split.test_pairs, split.test), split.test.items
    plain, scaled = fitted("scdr_b", split), fitted("scdr_b", rescaled(split, factor, shift))
    for optimise in ("both", "rmse"):
        expected = factor * plain.predict(users, items, optimise=optimise) + shift
        found = scaled.predict(users, items, optimise=optimise)
        assert np.abs(found - expected).mean() < 0.01 * factor
    deviation = scaled.deviation(users, items) / plain.deviation(users, items)
    assert deviation.mean() == pytest.approx(factor, rel=0.01)


def test_a_continuous_scale(split: ColdStartSplit) -> None:
    generator = np.random.default_rng(0)

    def jittered(rows: Interactions) -> Interactions:
        noise = generator.uniform(-0.5, 0.5, len(rows)).astype(np.float32)
        return replace(rows, ratings=rows.ratings + noise)

    domains = replace(
        split.domains, source=jittered(split.domains.source), target=jittered(split.domains.target)
    )
    other = cold_start_split(domains, beta=0.4, seed=2, validation_fraction=0.2)
    predictor = fitted("scdr_b", other)
    users, ratings = source_users(other.test_pairs, other.test), other.test.ratings
    low, high = predictor.interval(users, other.test.items, 0.8)
    assert ((low <= ratings) & (ratings <= high)).mean() == pytest.approx(0.8, abs=0.06)
    mean, median = (
        predictor.predict(users, other.test.items, optimise=optimise)
        for optimise in ("rmse", "mae")
    )
    assert len(np.unique(median)) > 100
    assert np.abs(median - mean).max() < 1


def test_one_training_user_is_enough(split: ColdStartSplit) -> None:
    training = replace(split.training, train_pairs=split.training.train_pairs[:1])
    predictor = METHODS["scdr_b"].fit(training, METHODS["scdr_b"].presets["default"], FitContext())
    users = source_users(split.test_pairs, split.test)
    assert np.isfinite(predictor.predict(users, split.test.items)).all()
