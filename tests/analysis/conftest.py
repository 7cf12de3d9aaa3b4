from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scdr.analysis import RatingErrors, errors_of
from scdr.methods import FactorPredictor
from scdr.models import TargetItems


@dataclass(frozen=True)
class LinearCase:
    """A predictor whose mapping is `x W' + b`, and what it comes to for each rating, in float64.

    Attributes:
        error: `[n]`, `offset + <u W' + b, v> - r`.
        direction: `[n, d]`, `W' v`: the error at `u + delta` is `error + <delta, direction>`.
    """

    predictor: FactorPredictor
    errors: RatingErrors
    user: np.ndarray
    error: np.ndarray
    direction: np.ndarray


def _predictor(mapping: nn.Module | None, *, width: int, target_width: int) -> FactorPredictor:
    generator = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    items = TargetItems(normal(31, target_width), 3 + normal(31), torch.full((31,), 3.0))
    return FactorPredictor(normal(40, width), mapping, items)


def _errors(predictor: FactorPredictor, *, n: int = 200) -> RatingErrors:
    users, items, ratings = _ratings(n)
    return errors_of(predictor, users, items, ratings)


def _ratings(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    users, items = generator.integers(0, 40, n), generator.integers(0, 30, n)
    return users, items, generator.integers(1, 6, n).astype(np.float32)


@pytest.fixture
def predictor_of() -> Callable[..., FactorPredictor]:
    return _predictor


@pytest.fixture
def ratings_of() -> Callable[..., RatingErrors]:
    return _errors


@pytest.fixture
def random_ratings() -> Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return _ratings


@pytest.fixture(params=["identity", "linear", "two linear layers"])
def linear(request: pytest.FixtureRequest) -> LinearCase:
    torch.manual_seed(1)
    if request.param == "identity":
        mapping, weight, bias = None, np.eye(6), np.zeros(6)
    elif request.param == "linear":
        mapping = nn.Linear(6, 4)
        weight, bias = (value.detach().double().numpy() for value in (mapping.weight, mapping.bias))
    else:
        mapping = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4, bias=False))
        first, second = (layer.weight.detach().double().numpy() for layer in mapping)
        weight, bias = second @ first, second @ mapping[0].bias.detach().double().numpy()
    predictor = _predictor(mapping, width=6, target_width=len(weight))
    users, items, ratings = _ratings(200)
    user = predictor.source_vectors.double().numpy()[users]
    item = predictor.items.vectors.double().numpy()[items]
    offset = predictor.items.offsets.double().numpy()[items]
    return LinearCase(
        predictor=predictor,
        errors=errors_of(predictor, users, items, ratings),
        user=user,
        error=offset + ((user @ weight.T + bias) * item).sum(1) - ratings,
        direction=item @ weight,
    )


@pytest.fixture
def tanh_network() -> FactorPredictor:
    """A network steep enough that its error is far from linear within the attacks' reach."""
    torch.manual_seed(2)
    mapping = nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 4)).requires_grad_(False)
    mapping[0].weight.mul_(4)
    mapping[2].weight.mul_(4)
    return _predictor(mapping, width=6, target_width=4)
