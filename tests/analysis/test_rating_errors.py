from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from scdr.analysis import cold_start_errors, errors_of
from scdr.analysis.rating_errors import first_rows
from scdr.data import ColdStartSplit, cold_start_split, planted, source_users
from scdr.methods import METHODS, FactorPredictor, FitContext
from scdr.models.personal import PersonalMapping


@pytest.fixture(scope="module")
def split() -> ColdStartSplit:
    made = planted(
        source_users=60,
        overlap_users=40,
        target_only_users=20,
        source_items=40,
        target_items=30,
        source_ratings_per_user=12,
        target_ratings_per_user=8,
        signal=0.8,
        seed=1,
    )
    return cold_start_split(made.domains, beta=0.4, seed=2)


@pytest.mark.parametrize("name", ["cmf", "emcdr", "ptupcdr", "scdr"])
def test_unperturbed_errors_are_those_of_the_predictions(split: ColdStartSplit, name: str) -> None:
    method = METHODS[name]
    predictor = method.fit(split.training, method.presets["default"], FitContext())
    errors = cold_start_errors(predictor, split)
    users = source_users(split.test_pairs, split.test)
    expected = predictor.predict(users, split.test.items) - split.test.ratings
    np.testing.assert_allclose(errors.at(errors.vectors), expected, atol=1e-5)

    moved = errors.vectors + 0.1
    mapped = predictor.map_vectors(moved, errors.users)
    items = predictor.items.vectors[torch.from_numpy(split.test.items).long()]
    offsets = predictor.items.offsets.numpy()[split.test.items]
    expected = (mapped * items).sum(1).detach().numpy() + offsets - split.test.ratings
    np.testing.assert_allclose(errors.at(moved), expected, atol=1e-5)


def test_slopes_are_those_of_autograd(
    predictor_of: Callable[..., FactorPredictor],
    random_ratings: Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 8, bias=False), nn.ReLU(), nn.Linear(8, 4)]
    predictor = predictor_of(nn.Sequential(*layers), width=6, target_width=4)
    users, items, ratings = random_ratings(3_000)
    errors = errors_of(predictor, users, items, ratings)
    at = errors.vectors.clone().requires_grad_()
    total = ((predictor.map_vectors(at, errors.users) * errors.items).sum(1)).sum()
    (expected,) = torch.autograd.grad(total, at)
    values, slopes = errors.with_slopes_at(errors.vectors)
    torch.testing.assert_close(slopes, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(values, errors.at(errors.vectors), atol=0, rtol=0)
    assert not slopes.requires_grad


def test_a_bridge_does_not_depend_on_the_vector(
    predictor_of: Callable[..., FactorPredictor],
    random_ratings: Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> None:
    generator = torch.Generator().manual_seed(0)
    mapping = PersonalMapping(
        torch.randn(10, 3, generator=generator),
        torch.randint(-1, 10, (40, 5), generator=generator, dtype=torch.int32),
        source_width=6,
        target_width=4,
        hidden=8,
        generator=generator,
    ).requires_grad_(False)
    predictor = predictor_of(mapping, width=6, target_width=4)
    users, items, ratings = random_ratings(100)
    errors = errors_of(predictor, users, items, ratings)
    moved = errors.vectors - 0.5
    mapped = predictor.map_vectors(moved, errors.users)
    expected = (mapped * predictor.items.vectors[items]).sum(1) - errors.residuals
    torch.testing.assert_close(errors.at(moved), expected, atol=1e-5, rtol=1e-5)


def test_scale_counts_each_user_once(predictor_of: Callable[..., FactorPredictor]) -> None:
    vectors = torch.tensor([[3.0, 4.0], [0.0, 1.0], [9.0, 9.0]])
    predictor = replace(predictor_of(None, width=2, target_width=2), source_vectors=vectors)
    users = np.array([1, 0, 1, 1])
    errors = errors_of(predictor, users, np.zeros(4, np.int64), np.ones(4, np.float32))
    assert errors.coordinate_rms() == pytest.approx((26 / 4) ** 0.5)
    assert first_rows(torch.tensor([5, 2, 5, 2, 0])).tolist() == [4, 1, 0]


def test_the_same_rows_for_every_method(
    split: ColdStartSplit, predictor_of: Callable[..., FactorPredictor]
) -> None:
    n_users, n_items = split.training.source.n_users, split.test.n_items
    one = predictor_of(None, width=2, target_width=2)
    items = replace(
        one.items,
        vectors=torch.randn(n_items + 1, 2),
        offsets=torch.zeros(n_items + 1),
        priors=torch.zeros(n_items + 1),
    )
    narrow = FactorPredictor(torch.randn(n_users, 2), None, items)
    wide = FactorPredictor(torch.randn(n_users, 3), nn.Linear(3, 2), items)
    chosen = [cold_start_errors(predictor, split, rows=20, seed=4) for predictor in (narrow, wide)]
    assert len(chosen[0]) == 20
    assert torch.equal(chosen[0].residuals, chosen[1].residuals)
    assert torch.equal(chosen[0].users, chosen[1].users)
    assert len(cold_start_errors(narrow, split, rows=10**6)) == len(split.test)
    with pytest.raises(ValueError, match=r"^rows is 0"):
        cold_start_errors(narrow, split, rows=0)
    with pytest.raises(ValueError, match=r"^predictor has 40 source vectors, the split "):
        cold_start_errors(one, split)
