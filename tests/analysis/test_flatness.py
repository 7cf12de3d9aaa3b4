from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from scdr.analysis import RatingErrors, flatness, spectral_bound
from scdr.methods import FactorPredictor
from scdr.models.personal import PersonalMapping


@pytest.mark.parametrize(("steps", "radius"), [(1, 1.0), (5, 5.0)])
def test_a_linear_map_in_closed_form(linear: Any, steps: int, radius: float) -> None:
    """Sign steps go along sgn(c); the ratio is `||W sgn(c)|| / ||sgn(c)||` whatever the radius."""
    found = flatness(linear.predictor, linear.errors, steps=steps, radius=radius)
    mapping = linear.predictor.mapping
    weight = np.eye(6)
    if isinstance(mapping, nn.Linear):
        weight = mapping.weight.detach().double().numpy()
    elif mapping is not None:
        first, second = (layer.weight.detach().double().numpy() for layer in mapping)
        weight = second @ first
    signs = np.sign(linear.direction)
    ratios = np.linalg.norm(signs @ weight.T, axis=1) / np.linalg.norm(signs, axis=1)
    users = linear.errors.users.numpy()
    by_user = [ratios[users == user].mean() for user in np.unique(users)]
    assert found.lipschitz_mean == pytest.approx(np.mean(by_user), rel=1e-4)
    assert found.lipschitz_max == pytest.approx(ratios.max(), rel=1e-4)
    if mapping is None or isinstance(mapping, nn.Linear):
        assert found.spectral_bound == pytest.approx(np.linalg.norm(weight, 2), rel=1e-6)
    assert found.spectral_bound is not None
    assert found.lipschitz_max <= found.spectral_bound * (1 + 1e-5)
    # The worst loss in the ball is (|e| + rho ||c||)^2.
    rise = np.abs(linear.error) + radius * np.linalg.norm(linear.direction, axis=1)
    assert found.loss == pytest.approx((linear.error**2).mean(), rel=1e-5)
    assert found.sharpness == pytest.approx((rise**2 - linear.error**2).mean(), rel=1e-4)


def test_a_network_is_below_its_bound_and_sharper_in_a_larger_ball(
    tanh_network: FactorPredictor, ratings_of: Callable[..., RatingErrors]
) -> None:
    errors = ratings_of(tanh_network)
    small, large = (flatness(tanh_network, errors, steps=5, radius=radius) for radius in (0.1, 1.0))
    for found in (small, large):
        assert found.spectral_bound is not None
        assert 0 < found.lipschitz_mean <= found.lipschitz_max <= found.spectral_bound
        assert found.sharpness > 0
    assert large.sharpness > small.sharpness
    assert large.loss == small.loss


def test_bridges(
    predictor_of: Callable[..., FactorPredictor], ratings_of: Callable[..., RatingErrors]
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
    errors = ratings_of(predictor)
    norms = [
        np.linalg.norm(bridge.double().numpy(), 2)
        for bridge in mapping.bridges(mapping.history[errors.users.unique()])
    ]
    found = flatness(predictor, errors, steps=3, radius=1.0)
    assert found.spectral_bound == pytest.approx(max(norms), rel=1e-6)
    assert found.lipschitz_max <= max(norms) * (1 + 1e-5)


def test_what_has_no_bound_and_what_has_no_perturbation(
    predictor_of: Callable[..., FactorPredictor], ratings_of: Callable[..., RatingErrors]
) -> None:
    predictor = predictor_of(
        nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)), width=6, target_width=4
    )
    errors = ratings_of(predictor)
    assert spectral_bound(predictor, errors.users) is None
    assert flatness(predictor, errors, steps=2, radius=1.0).lipschitz_mean > 0
    still = flatness(predictor, errors, steps=0, radius=1.0)
    assert math.isnan(still.lipschitz_mean) and math.isnan(still.lipschitz_max)
    flat = replace(predictor, mapping=nn.Linear(6, 4).requires_grad_(False))
    assert isinstance(flat.mapping, nn.Linear)
    flat.mapping.weight.zero_()
    found = flatness(flat, ratings_of(flat), steps=2, radius=1.0)
    assert found.sharpness == 0
