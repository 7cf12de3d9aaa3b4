from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, product

import numpy as np
import pytest
import torch

from scdr.analysis import RatingErrors, errors_of, rating_attack
from scdr.data import Interactions, from_columns
from scdr.methods import FactorPredictor
from scdr.models import Factors


@pytest.fixture
def source() -> Interactions:
    """40 users with 7 of 12 items each."""
    generator = np.random.default_rng(0)
    users = np.repeat(np.arange(40), 7)
    items = np.concatenate([generator.permutation(12)[:7] for _ in range(40)])
    return from_columns(
        [f"u{user:02}" for user in users],
        [f"i{item:02}" for item in items],
        generator.integers(1, 6, len(users)).astype(np.float32),
    )


@pytest.fixture
def factors() -> Factors:
    generator = torch.Generator().manual_seed(0)
    return Factors(
        user=torch.zeros(40, 5),
        item=torch.randn(12, 5, generator=generator),
        user_bias=torch.zeros(40),
        item_bias=torch.randn(12, generator=generator),
        offset=3.2,
    )


def folded_in(user: int, ratings: np.ndarray, source: Interactions, factors: Factors) -> np.ndarray:
    """Ridge regression by least squares with one more row for each penalty."""
    items = source.items[source.users == user]
    vectors = np.concatenate([factors.item.numpy()[items], np.ones((len(items), 1))], axis=1)
    target = ratings - factors.offset - factors.item_bias.numpy()[items]
    penalties = np.sqrt(np.diag([2.0] * 5 + [3.0]))
    rows, values = np.concatenate([vectors, penalties]), np.concatenate([target, np.zeros(6)])
    return np.linalg.lstsq(rows, values, rcond=None)[0]


def test_one_test_rating_and_a_linear_map_by_trying_everything(
    source: Interactions, factors: Factors, predictor_of: Callable[..., FactorPredictor]
) -> None:
    predictor = predictor_of(torch.nn.Linear(6, 4), width=6, target_width=4)
    users, items = np.array([3, 11, 20]), np.array([5, 0, 7])
    ratings = np.array([2, 5, 3], dtype=np.float32)
    errors = errors_of(predictor, users, items, ratings)
    found = rating_attack(
        errors, source, factors, changes=3, user_penalty=2.0, user_bias_penalty=3.0
    )
    for m, row in enumerate(found):
        worst = []
        for place, user in enumerate(users):
            before = source.ratings[source.users == user]
            tried = [before]
            for chosen in combinations(range(len(before)), m):
                for values in product((1.0, 5.0), repeat=m):
                    after = before.copy()
                    after[list(chosen)] = values
                    tried.append(after)
            vectors = np.stack([folded_in(user, one, source, factors) for one in tried])
            moved = torch.from_numpy(vectors).float()
            alone = errors_of(
                predictor, *(column[[place] * len(moved)] for column in (users, items, ratings))
            )
            worst.append(alone.at(moved).abs().max().item())
        assert row.changes == m
        assert row.mae == pytest.approx(np.mean(worst), rel=1e-4)


def test_more_changes_never_lower_the_error_of_a_network(
    source: Interactions,
    factors: Factors,
    tanh_network: FactorPredictor,
    ratings_of: Callable[..., RatingErrors],
) -> None:
    errors = ratings_of(tanh_network)
    found = rating_attack(errors, source, factors, changes=10)
    grown = [row.mae for row in found]
    assert grown == sorted(grown)
    assert grown[1] > grown[0]
    assert grown[10] == grown[7]  # a user has seven ratings to change
    none = rating_attack(errors, source, factors, changes=0)
    assert none == found[:1]


def test_wrong_arguments_are_named(
    source: Interactions,
    factors: Factors,
    predictor_of: Callable[..., FactorPredictor],
    ratings_of: Callable[..., RatingErrors],
) -> None:
    errors = ratings_of(predictor_of(None, width=6, target_width=6))
    narrow = ratings_of(predictor_of(None, width=5, target_width=5))
    for match, call in (
        ("^changes is -1", lambda: rating_attack(errors, source, factors, changes=-1)),
        (
            "^user_penalty is 0",
            lambda: rating_attack(errors, source, factors, changes=1, user_penalty=0),
        ),
        (
            "^factors has 12 items of width 6; ",
            lambda: rating_attack(narrow, source, factors, changes=1),
        ),
        (
            "^source has no rating",
            lambda: rating_attack(
                errors, source.take(source.users != errors.users[0].item()), factors, changes=1
            ),
        ),
    ):
        with pytest.raises(ValueError, match=match):
            call()
