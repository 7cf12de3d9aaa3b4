"""Folding in against the regression solved user by user, and against the model that was fitted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scdr.data import Interactions, from_columns
from scdr.models import Factors, PretrainConfig
from scdr.models.empirical_bayes import FactorConfig, fit_factors
from scdr.models.fold_in import Histories, RidgeFoldIn
from scdr.models.profile_fold_in import ProfileFoldIn
from scdr.models.user_profile import UserProfiles


@pytest.fixture
def ratings() -> Interactions:
    random = np.random.default_rng(0)
    pairs = random.permutation(40 * 30)[:500]
    return from_columns(
        [f"u{p // 30:02}" for p in pairs],
        [f"i{p % 30:02}" for p in pairs],
        random.integers(1, 6, size=500),
    )


@pytest.fixture
def factors(ratings: Interactions) -> Factors:
    random = torch.Generator().manual_seed(0)
    return Factors(
        user=torch.zeros(ratings.n_users, 4),
        item=torch.randn(ratings.n_items, 4, generator=random),
        user_bias=torch.zeros(ratings.n_users),
        item_bias=torch.randn(ratings.n_items, generator=random),
        offset=3.5,
    )


@pytest.mark.parametrize("per_rating", [False, True])
def test_it_is_the_regularised_least_squares_of_each_user(
    per_rating: bool, ratings: Interactions, factors: Factors
) -> None:
    """As plain least squares with a row for each penalty, by another solver."""
    config = PretrainConfig(user_penalty=2.0, user_bias_penalty=3.0, penalty_per_rating=per_rating)
    users = np.array([7, 0, 33])
    folded = RidgeFoldIn.as_pretrained(factors, config).vectors(Histories.of(ratings, users))
    assert factors.item_bias is not None
    for user, vector in zip(users, folded, strict=True):
        rows = np.flatnonzero(ratings.users == user)
        items = torch.from_numpy(ratings.items[rows]).long()
        weight = len(rows) if per_rating else 1
        design = np.concatenate([factors.item[items].numpy(), np.ones((len(rows), 1))], axis=1)
        design = np.concatenate([design, np.diag(np.sqrt(weight * np.array([2, 2, 2, 2, 3.0])))])
        residuals = ratings.ratings[rows] - 3.5 - factors.item_bias[items].numpy()
        expected = np.linalg.lstsq(design, np.append(residuals, np.zeros(5)), rcond=None)[0]
        np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-5)


def test_without_penalties_the_start_of_the_factors_is_the_prior(factors: Factors) -> None:
    config = PretrainConfig(user_penalty=0.0, user_bias_penalty=0.0, initial_std=0.5)
    np.testing.assert_array_equal(RidgeFoldIn.as_pretrained(factors, config).penalties, 4.0)


def test_a_user_without_ratings_has_the_vector_of_the_prior(factors: Factors) -> None:
    nothing = Histories(np.zeros(3, np.int64), np.zeros(0, np.int64), np.zeros(0))
    fold_in = RidgeFoldIn.of(factors, user_penalty=1.0, user_bias_penalty=1.0)
    np.testing.assert_array_equal(fold_in.vectors(nothing), np.zeros((2, 5)))


@pytest.mark.parametrize("name", ["user_penalty", "user_bias_penalty"])
def test_a_penalty_must_be_positive(name: str, factors: Factors) -> None:
    penalties = {"user_penalty": 1.0, "user_bias_penalty": 1.0, name: 0.0}
    with pytest.raises(ValueError, match=f"^{name} is 0.0"):
        RidgeFoldIn.of(factors, **penalties)


def test_the_factor_models_posterior_is_found_again(ratings: Interactions) -> None:
    """At the end of its sweeps a user's posterior changes little, so that the users it was fitted
    on are found again; leaving out what is not known of items is several times as far off."""
    config = FactorConfig(dimension=3, sweeps=60)
    model = fit_factors(ratings, config, seed=0, threads=1, advance=lambda **_: None)
    everyone = np.arange(ratings.n_users)
    profiles, expected = UserProfiles.of(ratings, model, everyone)
    fold_in = ProfileFoldIn.of(model, ratings, profiles, np.zeros(3))
    histories = Histories.of(ratings, everyone)
    means = fold_in.posterior_means(histories)
    deviation = model.users.deviation
    off = np.sqrt(((means - model.users.mean) ** 2).mean(0)) / deviation
    assert (off < 0.05).all()
    vectors = fold_in.vectors(histories)
    np.testing.assert_allclose(vectors[:, :7], expected, atol=0.05)
    np.testing.assert_array_equal(
        fold_in.vectors(histories.take(np.array([5, 2]))), vectors[[5, 2]]
    )


def test_histories_keep_the_order_of_each_users_ratings(ratings: Interactions) -> None:
    users = np.array([3, 1])
    histories = Histories.of(ratings, users)
    for place, user in enumerate(users):
        rows = np.flatnonzero(ratings.users == user)
        mine = slice(histories.starts[place], histories.starts[place + 1])
        np.testing.assert_array_equal(histories.items[mine], ratings.items[rows])
        np.testing.assert_array_equal(histories.ratings[mine], ratings.ratings[rows])
    swapped = histories.take(np.array([1, 0]))
    np.testing.assert_array_equal(swapped.items, Histories.of(ratings, users[::-1]).items)
