"""pgd_perturb against the k-step loop of Eq. 12 and 13, and against what must always hold."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from scdr.ops import pgd_perturb, reference


def rows(batch: int, width: int, target_width: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    user = torch.randn(batch, width, generator=generator, dtype=torch.float64)
    item = torch.randn(batch, target_width, generator=generator, dtype=torch.float64)
    return user, item, 5 * torch.rand(batch, generator=generator, dtype=torch.float64)


def mapping_of(kind: str, width: int, target_width: int) -> nn.Module | None:
    torch.manual_seed(1)
    made = {
        "identity": None,
        "linear": nn.Linear(width, target_width),
        "linear without bias": nn.Linear(width, target_width, bias=False),
        "mlp": nn.Sequential(nn.Linear(width, 13), nn.Tanh(), nn.Linear(13, target_width)),
        "deep": nn.Sequential(nn.Linear(width, 7), nn.ReLU(), nn.Linear(7, target_width)),
    }[kind]
    return made.double().requires_grad_(False) if made else None


KINDS = ["identity", "linear", "linear without bias", "mlp", "deep"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [0, 1, 64])
@pytest.mark.parametrize("width", [1, 10, 16, 33])
@pytest.mark.parametrize("steps", [0, 1, 5])
@pytest.mark.parametrize("radius", [0.3, 5.0])
def test_equals_the_loop(kind: str, batch: int, width: int, steps: int, radius: float) -> None:
    target_width = width if kind == "identity" else 6
    user, item, rating = rows(batch, width, target_width)
    mapping = mapping_of(kind, width, target_width)
    delta = pgd_perturb(user, item, rating, mapping, steps=steps, radius=radius)
    expected = reference.pgd_perturb(user, item, rating, mapping, steps=steps, radius=radius)
    # In float64 only rounding separates the two, unless a sign hangs on it; none does here.
    torch.testing.assert_close(delta, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["identity", "linear", "mlp"])
def test_float32_raises_the_loss_as_the_loop_in_float64_does(kind: str) -> None:
    user, item, rating = rows(500, 10, 10)
    mapping = mapping_of(kind, 10, 10)
    single = mapping_of(kind, 10, 10)
    delta = pgd_perturb(
        user.float(), item.float(), rating.float(), single and single.float(), steps=5, radius=2.0
    ).double()
    expected = reference.pgd_perturb(user, item, rating, mapping, steps=5, radius=2.0)

    def loss(at: Tensor) -> Tensor:
        mapped = at if mapping is None else mapping(at)
        return ((mapped * item).sum(1) - rating) ** 2

    # A sign near zero may differ in float32, and then moves the loss by as little.
    ratio = loss(user + delta) / loss(user + expected)
    assert ratio.median() == pytest.approx(1, abs=1e-5)
    assert (ratio - 1).abs().quantile(0.99) < 1e-3


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    width=st.integers(1, 40),
    steps=st.integers(0, 8),
    radius=st.floats(0, 10),
    step_size=st.one_of(st.none(), st.floats(1e-3, 3)),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
    seed=st.integers(0, 2**31),
)
def test_never_leaves_the_ball(
    kind: str,
    width: int,
    steps: int,
    radius: float,
    step_size: float | None,
    scale: float,
    seed: int,
) -> None:
    user, item, rating = (scale * t.float() for t in rows(9, width, width, seed))
    mapping = mapping_of(kind, width, width)
    delta = pgd_perturb(
        user,
        item,
        rating,
        mapping and mapping.float(),
        steps=steps,
        step_size=step_size,
        radius=radius,
    )
    assert delta.isfinite().all()
    assert (delta.double().norm(dim=1) <= radius * (1 + 1e-6)).all()


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["identity", "linear"]),
    inner=st.sampled_from(["pgd", "exact"]),
    seed=st.integers(0, 2**31),
)
def test_linear_maps_never_lose_loss_and_exact_is_the_supremum(
    kind: str, inner: str, seed: int
) -> None:
    user, item, rating = rows(30, 10, 10, seed)
    mapping = mapping_of(kind, 10, 10)

    def loss(at: Tensor) -> Tensor:
        mapped = at if mapping is None else mapping(at)
        return ((mapped * item).sum(1) - rating) ** 2

    exact = loss(
        user + pgd_perturb(user, item, rating, mapping, steps=5, radius=1.3, inner="exact")
    )
    chosen = loss(user + pgd_perturb(user, item, rating, mapping, steps=5, radius=1.3, inner=inner))
    assert (chosen >= loss(user)).all()
    direction = item if mapping is None else item @ mapping.weight
    supremum = (loss(user).sqrt() + 1.3 * direction.norm(dim=1)) ** 2
    torch.testing.assert_close(exact, supremum, rtol=1e-10, atol=1e-10)
    assert (chosen <= supremum * (1 + 1e-12)).all()


def test_the_closed_form_by_hand() -> None:
    user = torch.tensor([[1.0, 1.0, 1.0]])
    item = torch.tensor([[2.0, -1.0, 0.0]])
    # The error is 2 - 1 - 5 = -4, so the perturbation goes against the item, and not at all along
    # its zero; three steps of 0.5 pass the ball of radius 1, whose corner is at 1 / sqrt(2).
    delta = pgd_perturb(user, item, torch.tensor([5.0]), steps=3, step_size=0.5, radius=1.0)
    corner = 1 / math.sqrt(2)
    torch.testing.assert_close(delta, torch.tensor([[-corner, corner, 0.0]]))
    inside = pgd_perturb(user, item, torch.tensor([5.0]), steps=1, step_size=0.5, radius=1.0)
    torch.testing.assert_close(inside, torch.tensor([[-0.5, 0.5, 0.0]]))


def test_ties_and_zero_vectors_stay_where_they_are() -> None:
    user = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    item = torch.tensor([[2.0, 1.0], [0.0, 0.0]])
    rating = torch.tensor([3.0, 3.0])
    for inner in ("pgd", "exact"):
        delta = pgd_perturb(user, item, rating, steps=5, radius=1.0, inner=inner)
        assert torch.equal(delta, torch.zeros(2, 2))


def test_rows_do_not_know_each_other() -> None:
    user, item, rating = rows(50, 10, 10)
    mapping = mapping_of("mlp", 10, 10)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(3))
    whole = pgd_perturb(user, item, rating, mapping, steps=5, radius=1.0)
    shuffled = pgd_perturb(user[order], item[order], rating[order], mapping, steps=5, radius=1.0)
    torch.testing.assert_close(shuffled, whole[order], rtol=1e-12, atol=1e-12)


def test_carries_no_gradient() -> None:
    user, item, rating = rows(4, 10, 10)
    mapping = mapping_of("mlp", 10, 10).requires_grad_()
    delta = pgd_perturb(user.requires_grad_(), item, rating, mapping, steps=2, radius=1.0)
    assert not delta.requires_grad


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("user", {"user": torch.zeros(3)}),
        ("user", {"user": torch.zeros(3, 4, dtype=torch.int64)}),
        ("item", {"item": torch.zeros(3, 5)}),
        ("item", {"item": torch.zeros(2, 4)}),
        ("item", {"item": torch.zeros(3, 4, dtype=torch.float64)}),
        ("rating", {"rating": torch.zeros(3, 1)}),
        ("rating", {"rating": torch.tensor([1.0, math.nan, 1.0])}),
        ("user", {"user": torch.full((3, 4), math.inf)}),
        ("steps", {"steps": -1}),
        ("step_size", {"step_size": 0.0}),
        ("radius", {"radius": -1.0}),
        ("radius", {"radius": math.nan}),
        ("inner", {"inner": "sam"}),
    ],
)
def test_a_wrong_argument_is_named(name: str, change: dict[str, object]) -> None:
    good: dict[str, object] = {
        "user": torch.zeros(3, 4),
        "item": torch.zeros(3, 4),
        "rating": torch.zeros(3),
        "steps": 2,
        "radius": 1.0,
    }
    with pytest.raises(ValueError, match=rf"^{name} "):
        pgd_perturb(**(good | change))  # type: ignore[arg-type]


def test_exact_needs_a_linear_map() -> None:
    user, item, rating = rows(3, 4, 4)
    with pytest.raises(ValueError, match="exact"):
        pgd_perturb(user, item, rating, mapping_of("mlp", 4, 4), steps=1, radius=1.0, inner="exact")
