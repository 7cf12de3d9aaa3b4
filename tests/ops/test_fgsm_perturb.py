"""fgsm_perturb against Eq. 19 by autograd, and against what must always hold."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from scdr.ops import fgsm_perturb, reference


def rows(batch: int, width: int, target_width: int, device: str) -> list[Tensor]:
    random = torch.Generator().manual_seed(batch)
    user = torch.randn(batch, width, generator=random, dtype=torch.float64)
    item = torch.randn(batch, target_width, generator=random, dtype=torch.float64)
    rating = 5 * torch.rand(batch, generator=random, dtype=torch.float64)
    return [t.to(device) for t in (user, item, rating)]


def mapping_of(kind: str, width: int, target_width: int, device: str) -> nn.Module | None:
    torch.manual_seed(1)
    made = {
        "identity": None,
        "linear": nn.Linear(width, target_width),
        "mlp": nn.Sequential(nn.Linear(width, 13), nn.Tanh(), nn.Linear(13, target_width)),
        "deep": nn.Sequential(nn.Linear(width, 7), nn.ReLU(), nn.Linear(7, target_width)),
    }[kind]
    return made.double().requires_grad_(False).to(device) if made else None


@pytest.mark.parametrize("kind", ["identity", "linear", "mlp", "deep"])
@pytest.mark.parametrize("batch", [0, 1, 64])
@pytest.mark.parametrize("width", [1, 10, 33])
@pytest.mark.parametrize("eps", [0.0, 0.25])
def test_equals_the_gradients_sign(
    kind: str, batch: int, width: int, eps: float, device: str
) -> None:
    target_width = width if kind == "identity" else 6
    inputs = rows(batch, width, target_width, device)
    mapping = mapping_of(kind, width, target_width, device)
    eta = fgsm_perturb(*inputs, mapping, eps=eps)
    assert torch.equal(eta, reference.fgsm_perturb(*inputs, mapping, eps=eps))


@pytest.mark.parametrize("kind", ["identity", "linear", "mlp"])
@pytest.mark.parametrize("eps", [1e-42, 1e-30, 0.1, 1.0, 1e30])
def test_float32_entries_are_exactly_eps(kind: str, eps: float, device: str) -> None:
    inputs = rows(500, 10, 10, device)
    mapping = mapping_of(kind, 10, 10, device)
    single = copy.deepcopy(mapping).float() if mapping is not None else None
    eta = fgsm_perturb(*(t.float() for t in inputs), single, eps=eps)
    assert eta.dtype == torch.float32
    assert (eta.abs() == torch.tensor(eps, device=device)).all()
    expected = reference.fgsm_perturb(*inputs, mapping, eps=1.0)
    # A sign that rounding could turn is that of a slope near 0.
    assert ((eta.sign() == expected).double().mean()) > 0.999


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_by_hand(dtype: torch.dtype, device: str) -> None:
    user = torch.tensor([[1.0, 1.0, 1.0], [2.0, 0.0, 1.0]], dtype=dtype, device=device)
    item = torch.tensor([[2.0, -1.0, 0.0], [1.0, 1.0, 1.0]], dtype=dtype, device=device)
    # Errors 2 - 1 - 5 = -4, so against the item, not along its zero; and 3 - 3 = 0: nowhere.
    eta = fgsm_perturb(user, item, torch.tensor([5.0, 3.0], dtype=dtype, device=device), eps=0.5)
    assert eta.tolist() == [[-0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]


def test_carries_no_gradient(device: str) -> None:
    user, item, rating = rows(4, 10, 10, device)
    mapping = nn.Linear(10, 10).double().to(device)
    assert not fgsm_perturb(user.requires_grad_(), item, rating, mapping, eps=0.5).requires_grad


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("user", {"user": torch.zeros(3)}),
        ("user", {"user": [1.0]}),
        ("item", {"item": torch.zeros(3, 5)}),
        ("rating", {"rating": torch.tensor([1.0, math.nan, 1.0])}),
        ("eps", {"eps": -0.1}),
        ("eps", {"eps": math.nan}),
        ("eps", {"eps": math.inf}),
        ("eps", {"eps": 1e39}),
    ],
)
def test_a_wrong_argument_is_named(name: str, change: dict[str, object]) -> None:
    good: dict[str, object] = {
        "user": torch.zeros(3, 4),
        "item": torch.zeros(3, 4),
        "rating": torch.zeros(3),
        "eps": 0.5,
    }
    with pytest.raises(ValueError, match=rf"^{name} "):
        fgsm_perturb(**(good | change))  # type: ignore[arg-type]
