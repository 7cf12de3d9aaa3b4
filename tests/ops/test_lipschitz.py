from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from scdr.ops import lipschitz_bound, lipschitz_ratio, pgd_perturb


def mlp(width: int, hidden: int, target_width: int, *, scale: float = 1.0) -> nn.Sequential:
    made = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, target_width))
    for parameter in made.parameters():
        parameter.data.mul_(scale)
    return made.double().requires_grad_(False)


def test_ratio_by_hand(device: str) -> None:
    double = nn.Linear(2, 2, bias=False).to(device)
    double.weight.data = 2 * torch.eye(2, device=device)
    user = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], device=device)
    delta = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-3.0, 4.0]], device=device)
    assert lipschitz_ratio(user, delta, double).tolist() == [2, 0, 2]
    # One coordinate through tanh: (tanh(1) - tanh(0)) / 1.
    ratio = lipschitz_ratio(user[:1, :1] - 1, delta[:1, :1], torch.tanh)
    assert ratio.item() == pytest.approx(math.tanh(1))


@pytest.mark.parametrize("length", [1e-30, 1e30])
def test_lengths_whose_squares_float32_does_not_hold(length: float, device: str) -> None:
    delta = torch.full((2, 3), length, device=device)
    ratio = lipschitz_ratio(torch.zeros_like(delta), delta, lambda x: 3 * x)
    torch.testing.assert_close(ratio, torch.full_like(ratio, 3))


def test_no_rows_and_no_gradient(device: str) -> None:
    mapping = nn.Linear(4, 4).to(device)
    empty = torch.zeros(0, 4, device=device)
    assert lipschitz_ratio(empty, empty, mapping).shape == (0,)
    ones = torch.ones(2, 4, device=device, requires_grad=True)
    assert not lipschitz_ratio(ones, ones, mapping).requires_grad


@settings(max_examples=30, deadline=None)
@given(
    width=st.integers(1, 20),
    hidden=st.integers(1, 30),
    target_width=st.integers(1, 20),
    scale=st.sampled_from([0.1, 1.0, 10.0]),
    seed=st.integers(0, 2**31),
)
def test_no_ratio_exceeds_the_bound(
    width: int, hidden: int, target_width: int, scale: float, seed: int
) -> None:
    torch.manual_seed(seed)
    mapping = mlp(width, hidden, target_width, scale=scale)
    user, item = torch.randn(30, width).double(), torch.randn(30, target_width).double()
    delta = pgd_perturb(user, item, item[:, 0], mapping, steps=3, radius=0.5)
    assert (lipschitz_ratio(user, delta, mapping) <= lipschitz_bound(mapping) * (1 + 1e-9)).all()


def test_bounds_that_are_reached() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(5, 7).double()
    # The first right singular vector is stretched the most.
    direction = torch.linalg.svd(linear.weight.detach()).Vh[:1]
    ratio = lipschitz_ratio(torch.zeros(1, 5).double(), direction, linear)
    assert ratio.item() == pytest.approx(lipschitz_bound(linear), rel=1e-12)
    # One path of slopes 3 and 2, and tanh has slope 1 at 0.
    path = mlp(1, 1, 1, scale=0.0)
    path[0].weight.data.fill_(3.0)
    path[2].weight.data.fill_(-2.0)
    assert lipschitz_bound(path) == pytest.approx(6)
    nearby = torch.full((1, 1), 1e-5).double()
    assert lipschitz_ratio(-nearby / 2, nearby, path).item() == pytest.approx(6, rel=1e-9)
    assert lipschitz_bound(None) == 1


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("user", {"user": torch.zeros(3)}),
        ("user", {"user": torch.full((3, 4), math.nan)}),
        ("user", {"user": torch.zeros(3, 4, dtype=torch.int64)}),
        ("delta", {"delta": torch.zeros(3, 5)}),
        ("delta", {"delta": torch.zeros(3, 4).double()}),
        ("delta", {"delta": torch.full((3, 4), math.inf)}),
        ("delta", {"delta": None}),
    ],
)
def test_a_wrong_argument_is_named(name: str, change: dict[str, object]) -> None:
    good: dict[str, object] = {"user": torch.zeros(3, 4), "delta": torch.zeros(3, 4)}
    with pytest.raises(ValueError, match=rf"^{name} "):
        lipschitz_ratio(**(good | change), mapping=nn.Linear(4, 4))  # type: ignore[arg-type]


def test_bound_of_what_is_not_known() -> None:
    with pytest.raises(ValueError, match=r"^mapping has a ReLU"):
        lipschitz_bound(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    broken = nn.Linear(2, 2)
    broken.weight.data[0, 0] = math.nan
    with pytest.raises(ValueError, match=r"^mapping holds a weight that is not finite"):
        lipschitz_bound(broken)
