from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from scdr.analysis import RatingErrors, draw_directions, landscape
from scdr.methods import FactorPredictor


def test_a_linear_map_in_closed_form(linear: Any) -> None:
    directions = draw_directions(6, seed=0)
    found = landscape(linear.errors, directions, size=5)
    np.testing.assert_allclose(found.zeta, [-1, -0.5, 0, 0.5, 1])
    length = np.linalg.norm(linear.user, axis=1)
    slopes = length[:, None] * (linear.direction @ directions.T)  # [n, 2]
    for i, zeta in enumerate(found.zeta):
        for j, gamma in enumerate(found.gamma):
            expected = np.abs(linear.error + slopes @ np.array([zeta, gamma])).mean()
            assert found.mae[i, j] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.ReLU(), nn.Sequential(nn.Tanh(), nn.Tanh())])
def test_a_network_point_by_point(
    tanh_network: FactorPredictor, activation: nn.Module, ratings_of: Callable[..., RatingErrors]
) -> None:
    assert isinstance(tanh_network.mapping, nn.Sequential)
    first, _, last = tanh_network.mapping
    mapping = nn.Sequential(first, activation, last)
    errors = ratings_of(replace(tanh_network, mapping=mapping), n=700)
    directions = draw_directions(6, seed=1)
    found = landscape(errors, directions, size=7)
    exact = mapping.double()
    user, item = errors.vectors.double(), errors.items.double()
    length = user.norm(dim=1, keepdim=True)
    for i, zeta in enumerate(found.zeta):
        for j, gamma in enumerate(found.gamma):
            moved = user + length * torch.from_numpy(zeta * directions[0] + gamma * directions[1])
            error = (exact(moved) * item).sum(1) - errors.residuals
            assert found.mae[i, j] == pytest.approx(error.abs().mean().item(), rel=1e-5)
    mapping.float()


def test_the_centre_is_the_error_without_a_perturbation(
    tanh_network: FactorPredictor, ratings_of: Callable[..., RatingErrors]
) -> None:
    errors = ratings_of(tanh_network)
    found = landscape(errors, draw_directions(6, seed=0), size=3)
    clean = errors.at(errors.vectors).abs().double().mean().item()
    assert found.mae[1, 1] == pytest.approx(clean, rel=1e-5)


def test_directions_are_of_length_one_and_of_the_seed_alone() -> None:
    directions = draw_directions(11, seed=3)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    assert (directions == draw_directions(11, seed=3)).all()
    assert (directions != draw_directions(11, seed=4)).any()


def test_wrong_arguments_are_named(
    predictor_of: Callable[..., FactorPredictor], ratings_of: Callable[..., RatingErrors]
) -> None:
    errors = ratings_of(predictor_of(None, width=6, target_width=6))
    directions = draw_directions(6, seed=0)
    with pytest.raises(ValueError, match=r"^directions is \[2, 5\]"):
        landscape(errors, draw_directions(5, seed=0))
    with pytest.raises(ValueError, match=r"^size is 50"):
        landscape(errors, directions, size=50)
    with pytest.raises(ValueError, match=r"^errors holds no rating"):
        landscape(ratings_of(predictor_of(None, width=6, target_width=6), n=0), directions)
