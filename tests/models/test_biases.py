from __future__ import annotations

import numpy as np

from scdr.data import from_columns
from scdr.models import fit_biases


def test_solves_the_joint_ridge_problem() -> None:
    """Alternating between users and items ends where one dense ridge regression ends."""
    generator = np.random.default_rng(0)
    users, items = generator.integers(0, 12, 200), generator.integers(0, 9, 200)
    ratings = generator.integers(1, 6, 200).astype(np.float32)
    data = from_columns(users, items, ratings)
    biases = fit_biases(data, sweeps=200)

    design = np.zeros((200, data.n_users + data.n_items))
    design[np.arange(200), data.users] = 1
    design[np.arange(200), data.n_users + data.items] = 1
    penalty = np.diag([5.0] * data.n_users + [1.5] * data.n_items)
    solution = np.linalg.solve(
        design.T @ design + penalty, design.T @ (ratings - ratings.mean(dtype=np.float64))
    )
    np.testing.assert_allclose(biases.user, solution[: data.n_users], atol=1e-9)
    np.testing.assert_allclose(biases.item, solution[data.n_users :], atol=1e-9)
    assert biases.mean == np.mean(ratings, dtype=np.float64)


def test_a_user_without_a_rating_has_no_bias() -> None:
    data = from_columns(["a", "a", "b", "b"], ["x", "y", "x", "y"], [1, 2, 4, 5])
    biases = fit_biases(data.take(data.users == 0))
    assert biases.user[1] == 0
    assert biases.mean == 1.5
