from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from scdr.data import Interactions, from_columns
from scdr.models.empirical_bayes import EmpiricalBayes, FactorConfig, fit_factors
from scdr.models.moments import inverse


def drawn(
    n_users: int = 400,
    n_items: int = 300,
    each: int = 30,
    signal: float = 0.7,
    dimension: int = 2,
    seed: int = 0,
) -> tuple[Interactions, NDArray[np.float64]]:
    """Gaussian ratings of a model with factors, and the noise-free rating of each row."""
    generator = np.random.default_rng(seed)
    user = generator.standard_normal((n_users, dimension))
    item = signal / np.sqrt(dimension) * generator.standard_normal((n_items, dimension))
    user_bias, item_bias = (
        0.4 * generator.standard_normal(n_users),
        generator.normal(0, 0.3, n_items),
    )
    users = np.repeat(np.arange(n_users), each)
    items = np.concatenate([generator.permutation(n_items)[:each] for _ in range(n_users)])
    means = 3.0 + user_bias[users] + item_bias[items] + (user[users] * item[items]).sum(1)
    noisy = means + 0.5 * generator.standard_normal(len(users))
    ratings = Interactions(
        users.astype(np.int32),
        items.astype(np.int32),
        noisy.astype(np.float32),
        np.zeros(len(users), dtype=np.int64),
        np.array([f"u{k:04d}" for k in range(n_users)], dtype=object),
        np.array([f"i{k:04d}" for k in range(n_items)], dtype=object),
    )
    return ratings, means


def fitted(
    ratings: Interactions, dimension: int, sweeps: int = 25, threads: int = 1
) -> EmpiricalBayes:
    config = FactorConfig(dimension=dimension, sweeps=sweeps)
    return fit_factors(ratings, config, seed=0, threads=threads, advance=lambda **_: None)


def factor_variances(model: EmpiricalBayes) -> NDArray[np.float64]:
    """Variance that each dimension adds to a rating, whatever the rotation; ascending."""
    users, items = (side.prior.covariance[0, 1:, 1:] for side in (model.users, model.items))
    return np.sort(np.linalg.eigvals(users @ items).real)


def test_variances_are_those_the_data_were_drawn_with() -> None:
    ratings, means = drawn()
    model = fitted(ratings, dimension=2)
    assert model.noise == pytest.approx(0.25, rel=0.05)
    assert model.users.prior.covariance[0, 0, 0] == pytest.approx(0.16, rel=0.25)
    assert model.items.prior.covariance[0, 0, 0] == pytest.approx(0.09, rel=0.25)
    assert factor_variances(model) == pytest.approx(0.7**2 / 2, rel=0.25)
    user, item = model.users.mean[ratings.users], model.items.mean[ratings.items]
    predicted = model.mean + user[:, 0] + item[:, 0] + (user[:, 1:] * item[:, 1:]).sum(1)
    assert np.corrcoef(predicted, means)[0, 1] > 0.95


def test_dimensions_without_support_switch_themselves_off() -> None:
    ratings, _ = drawn()
    variances = factor_variances(fitted(ratings, dimension=5))
    assert (variances[:3] < 0.02 * variances[3:].mean()).all()
    no_taste, _ = drawn(signal=0.0)
    assert factor_variances(fitted(no_taste, dimension=3, sweeps=60)).sum() < 0.01 * 0.25


def test_factors_start_where_they_are_told_to() -> None:
    ratings, _ = drawn(n_users=80, n_items=50, each=12)
    config = FactorConfig(dimension=2, sweeps=4)

    def started(start: NDArray[np.float32]) -> EmpiricalBayes:
        silent = lambda **_: None  # noqa: E731
        return fit_factors(ratings, config, seed=0, threads=1, advance=silent, start=start)

    singular = fitted(ratings, dimension=0, sweeps=4).leading_factors(2, seed=0)
    default, doubled = fitted(ratings, dimension=2, sweeps=4), started(2 * singular)
    np.testing.assert_array_equal(doubled.items.packed, default.items.packed)  # scale is no matter
    nothing = started(np.zeros_like(singular))
    assert not nothing.items.mean[:, 1:].any()  # factors that are all zero stay so


def test_biases_alone_are_ridge_regression_with_the_learned_variances() -> None:
    """At the fixed point each bias is a sum of residuals over count + noise / variance."""
    ratings, _ = drawn(n_users=80, n_items=50, each=12)
    model = fitted(ratings, dimension=0, sweeps=200)
    centred = ratings.ratings - model.mean
    user, item = model.users.mean[:, 0], model.items.mean[:, 0]
    rest = centred - user[ratings.users]
    penalty = model.noise / model.items.prior.covariance[0, 0, 0]
    count = np.bincount(ratings.items, minlength=50)
    expected = np.bincount(ratings.items, rest, 50) / (count + penalty)
    np.testing.assert_allclose(item, expected, atol=2e-4)


def test_an_item_without_a_rating_is_refitted_without_it() -> None:
    ratings, _ = drawn(n_users=60, n_items=30, each=10)
    model = fitted(ratings, dimension=2, sweeps=5)
    row = 17
    left_out = model.items_without(
        ratings.users[row : row + 1], ratings.items[row : row + 1], ratings.ratings[row : row + 1]
    )[0]
    # The same posterior from the remaining ratings of the item, term by term in float64.
    item = ratings.items[row]
    precision = np.linalg.inv(model.items.prior.covariance[0])
    right = np.zeros(3)
    for other in np.flatnonzero(ratings.items == item):
        if other == row:
            continue
        full = np.zeros((4, 4))
        full[np.triu_indices(4)] = model.users.packed[ratings.users[other]]
        full = np.triu(full) + np.triu(full, 1).T
        phi = [0, 2, 3]
        precision += full[np.ix_(phi, phi)] / model.noise
        right += ((ratings.ratings[other] - model.mean) * full[0, phi] - full[1, phi]) / model.noise
    np.testing.assert_allclose(left_out, np.linalg.solve(precision, right), rtol=1e-3, atol=1e-5)


def test_users_move_to_what_is_expected_of_them() -> None:
    ratings, _ = drawn(n_users=60, n_items=30, each=3)
    model = fitted(ratings, dimension=0, sweeps=5)
    before = model.users.mean[:5, 0].copy()
    model.expect_users(np.arange(5), np.full((5, 1), 2.0, dtype=np.float32))
    model.sweep(learn_priors=False)
    assert (model.users.mean[:5, 0] > before).all()
    for _ in range(5):
        model.sweep(learn_priors=True)
    first, second = model.users.prior.covariance[:, 0, 0]
    assert second > first  # such expectations are far off, and the model notices


def test_results_do_not_depend_on_threads() -> None:
    ratings, _ = drawn(n_users=5000, n_items=200, each=5)
    one, two = (fitted(ratings, dimension=3, sweeps=4, threads=n) for n in (1, 3))
    np.testing.assert_array_equal(one.users.packed, two.users.packed)
    np.testing.assert_array_equal(one.items.packed, two.items.packed)


@pytest.mark.parametrize("value", [3.0, 1e-3])
def test_ratings_that_are_all_the_same_have_no_variance_to_explain(value: float) -> None:
    ratings = from_columns(
        [f"u{k % 7}" for k in range(35)], [f"i{k // 7}" for k in range(35)], np.full(35, value)
    )
    model = fitted(ratings, dimension=2)
    assert model.mean == pytest.approx(value)
    assert np.abs(model.users.mean[:, 0]).max() < 1e-6 * value
    assert np.isfinite(model.items.packed).all()


def test_inverse() -> None:
    generator = np.random.default_rng(0)
    root = generator.standard_normal((50, 7, 7))
    matrices = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(7)
    result = inverse(np.ascontiguousarray(matrices.transpose(1, 2, 0)))
    np.testing.assert_allclose(result.transpose(2, 0, 1), np.linalg.inv(matrices), rtol=1e-8)
