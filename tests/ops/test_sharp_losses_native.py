"""The native sharp losses and their gradients against the reference in float64."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scdr.ops import pgd_perturb, reference, sharp_mapping_loss, sharp_mf_loss

Rows = list[Tensor]
# Sums of up to some hundred products in float32, whose terms are of order 1 to 10.
TOLERANCE = {"rtol": 2e-5, "atol": 2e-5}


def draw(batch: int, d_source: int, d_target: int, device: str = "cpu") -> Rows:
    random = torch.Generator().manual_seed(batch)
    user = torch.randn(batch, d_source, generator=random) * d_source**-0.5
    item = torch.randn(batch, d_target, generator=random) * d_target**-0.5
    return [t.to(device) for t in (user, item, 5 * torch.rand(batch, generator=random))]


def mlp(
    d_source: int, hidden: int, d_target: int, device: str = "cpu", *, bias: bool = True
) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(d_source, hidden, bias=bias), nn.Tanh(), nn.Linear(hidden, d_target, bias=bias)
    ).to(device)


def evaluate(
    loss_of: Callable[..., Tensor], rows: Rows, mapping: nn.Module | None, **options: Any
) -> list[Tensor]:
    """Losses, then gradients of a weighted sum over everything that has one."""
    rows = [t.detach().clone().requires_grad_() for t in rows]
    arguments = (*rows, *([] if mapping is None else [mapping]))
    losses = loss_of(*arguments, **options)
    weights = torch.linspace(-1, 2, len(losses), dtype=losses.dtype, device=losses.device)
    leaves = [*rows, *([] if mapping is None else mapping.parameters())]
    return [losses.detach(), *torch.autograd.grad((weights * losses).sum(), leaves)]


def assert_like_reference(rows: Rows, mapping: nn.Module | None, **options: Any) -> None:
    loss, exact = (
        (sharp_mf_loss, reference.sharp_mf_loss)
        if mapping is None
        else (sharp_mapping_loss, reference.sharp_mapping_loss)
    )
    double = None if mapping is None else copy.deepcopy(mapping).double()
    expected = evaluate(exact, [t.double() for t in rows], double, **options)
    actual = evaluate(loss, rows, mapping, **options)
    for mine, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(mine.double(), theirs, **TOLERANCE)


@pytest.mark.parametrize("inner", ["pgd", "exact"])
@pytest.mark.parametrize("d", [1, 8, 10, 33, 257, 300])  # the last is too wide for native code
@pytest.mark.parametrize(("steps", "radius"), [(0, 1.0), (5, 0.0), (2, 9.0), (5, 0.3)])
@pytest.mark.parametrize("batch", [0, 1, 70])
def test_smf(batch: int, d: int, steps: int, radius: float, inner: str, device: str) -> None:
    rows = draw(batch, d, d, device)
    assert_like_reference(rows, None, steps=steps, radius=radius, inner=inner)


def test_smf_of_zeros_and_ties(device: str) -> None:
    user, item, rating = draw(30, 10, 10, device)
    item[3] = 0
    item[4:, 2] = 0
    user[7] = 0
    rating[7] = 0
    for inner in ("pgd", "exact"):
        assert_like_reference([user, item, rating], None, steps=5, radius=0.5, inner=inner)


@pytest.mark.parametrize("inner", ["pgd", "exact"])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_map(bias: bool, inner: str, device: str) -> None:
    torch.manual_seed(0)
    mapping = nn.Linear(10, 6, bias=bias).to(device)
    assert_like_reference(draw(50, 10, 6, device), mapping, steps=5, radius=0.5, inner=inner)


# A sign near a tie may differ from float64, and moves a coordinate by 2 step_size: small steps.
@pytest.mark.parametrize("options", [{"steps": 0, "radius": 1.0}, {"steps": 5, "radius": 1e-5}])
@pytest.mark.parametrize("batch", [0, 1, 64, 300])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "widths", [(10, 50, 10), (11, 6, 11), (1, 1, 1), (33, 7, 6), (17, 64, 257)]
)
def test_mlp(
    widths: tuple[int, int, int], bias: bool, batch: int, options: dict[str, Any], device: str
) -> None:
    d_source, _, d_target = widths
    rows = draw(batch, d_source, d_target, device)
    assert_like_reference(rows, mlp(*widths, device, bias=bias), **options)


def test_mlp_with_many_blocks(fast_device: str) -> None:
    rows, mapping = draw(5000, 10, 10, fast_device), mlp(10, 50, 10, fast_device)
    assert_like_reference(rows, mapping, steps=3, radius=1e-6)


def test_mlp_with_more_rows_than_a_tile(device: str) -> None:
    rows, mapping = draw(16384 + 300, 3, 2, device), mlp(3, 2, 2, device)
    assert_like_reference(rows, mapping, steps=1, radius=1e-6)


def test_mlp_at_the_perturbation_of_pgd_perturb(device: str) -> None:
    """With a large radius, in float32: the loss at u + delta*, and the gradients at that delta*."""
    rows, mapping = draw(200, 10, 10, device), mlp(10, 50, 10, device)
    delta = pgd_perturb(*rows, mapping, steps=5, radius=2.0)

    def at_delta(user: Tensor, item: Tensor, rating: Tensor, f: nn.Module, **_: Any) -> Tensor:
        return ((f(user + delta) * item).sum(1) - rating) ** 2

    options: dict[str, Any] = {"steps": 5, "radius": 2.0}
    expected = evaluate(at_delta, rows, mapping, **options)
    for mine, theirs in zip(
        evaluate(sharp_mapping_loss, rows, mapping, **options), expected, strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_only_what_requires_a_gradient_gets_one(device: str) -> None:
    (user, item, rating), mapping = draw(20, 10, 10, device), mlp(10, 50, 10, device)
    user.requires_grad_()
    mapping.requires_grad_(False)
    mapping[2].weight.requires_grad_()
    sharp_mapping_loss(user, item, rating, mapping, steps=2, radius=0.5).mean().backward()
    assert user.grad is not None and mapping[2].weight.grad is not None
    assert item.grad is None and mapping[0].weight.grad is None
    with torch.no_grad():
        assert not sharp_mapping_loss(user, item, rating, mapping, steps=2, radius=1).requires_grad


def test_rows_that_are_not_contiguous(device: str) -> None:
    (user, item, rating), mapping = draw(40, 10, 10, device), mlp(10, 50, 10, device)
    strided = [user.T.contiguous().T, item.repeat(1, 2)[:, :10], rating.repeat_interleave(2)[::2]]
    options: dict[str, Any] = {"steps": 3, "radius": 0.5}
    for loss, with_mapping in ((sharp_mf_loss, None), (sharp_mapping_loss, mapping)):
        expected = evaluate(loss, [user, item, rating], with_mapping, **options)
        arguments = [*strided, *([] if with_mapping is None else [mapping])]
        assert torch.equal(loss(*arguments, **options).detach(), expected[0])


@pytest.mark.parametrize("batch", [256, 5000])
def test_same_bits_at_any_number_of_threads(batch: int, threads: None) -> None:
    rows, mapping = draw(batch, 10, 10), mlp(10, 50, 10)
    results = []
    for count in (1, 2, 3, 7):
        torch.set_num_threads(count)
        mine = evaluate(sharp_mapping_loss, rows, mapping, steps=5, radius=2.0)
        results.append([*mine, *evaluate(sharp_mf_loss, rows, None, steps=5, radius=2.0)])
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize(("name", "place"), [("user", 0), ("item", 1), ("rating", 2)])
def test_not_finite_is_named(name: str, place: int, mapped: bool, device: str) -> None:
    rows = draw(40, 10, 10, device)
    rows[place].view(-1)[17] = torch.nan
    with pytest.raises(ValueError, match=rf"^{name} holds a value that is not finite$"):
        if mapped:
            sharp_mapping_loss(*rows, mlp(10, 50, 10, device), steps=3, radius=1.0)
        else:
            sharp_mf_loss(*rows, steps=3, radius=1.0)


@pytest.mark.parametrize("kind", ["identity", "linear", "mlp"])
@pytest.mark.parametrize("inner", ["pgd", "exact"])
def test_gradcheck_of_the_reference(kind: str, inner: str) -> None:
    """At a fixed delta*, since Eq. 15 takes it as a constant: without steps."""
    mapping = {"identity": None, "linear": nn.Linear(4, 4), "mlp": mlp(4, 3, 4)}[kind]
    rows = [t.double().requires_grad_() for t in draw(5, 4, 4)]
    options: dict[str, Any] = {"steps": 0, "radius": 1.0, "inner": inner}
    if mapping is None:
        assert torch.autograd.gradcheck(lambda *r: sharp_mf_loss(*r, **options), rows)
    elif kind == "linear" or inner == "pgd":
        mapping.double()
        assert torch.autograd.gradcheck(lambda *r: sharp_mapping_loss(*r, mapping, **options), rows)


def test_opcheck(device: str) -> None:
    rows = [t.requires_grad_() for t in draw(20, 10, 10, device)]
    options: dict[str, Any] = {"steps": 3, "step_size": 0.3, "radius": 1.0}
    ops = torch.ops.scdr
    for inner in ("pgd", "exact"):
        torch.library.opcheck(ops.sharp_mf_loss.default, rows, {**options, "inner": inner})
    first, _, second = mlp(10, 50, 10, device)
    weights = [first.weight, first.bias, second.weight, second.bias]
    torch.library.opcheck(ops.sharp_mapping_loss.default, (*rows, *weights), options)
    weights = [first.weight, None, second.weight, None]
    torch.library.opcheck(ops.sharp_mapping_loss.default, (*rows, *weights), options)
    plain = [None if t is None else t.detach() for t in (rows[2], *rows, *weights)]
    for item_too in (True, False):
        torch.library.opcheck(
            ops.sharp_mapping_loss_backward.default, plain, {"item_too": item_too}
        )
    along = torch.zeros(20, device=device)
    torch.library.opcheck(
        ops.sharp_mf_loss_backward.default,
        (along, rows[0].detach(), rows[1].detach(), along, along),
        {"inner": "pgd"},
    )


@pytest.mark.parametrize("kind", ["identity", "linear", "mlp"])
def test_inside_torch_compile(kind: str, fast_device: str) -> None:
    torch.manual_seed(0)
    mapping = {"identity": None, "linear": nn.Linear(10, 10), "mlp": mlp(10, 50, 10)}[kind]
    mapping = mapping and mapping.to(fast_device)
    loss = sharp_mf_loss if mapping is None else sharp_mapping_loss
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    rows = draw(40, 10, 10, fast_device)
    options: dict[str, Any] = {"steps": 4, "radius": 1.0}
    for mine, theirs in zip(
        evaluate(compiled, rows, mapping, **options),
        evaluate(loss, rows, mapping, **options),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("name", ["sharp_mf_loss", "sharp_mapping_loss"])
def test_function_and_reference_take_the_same_arguments(name: str) -> None:
    function = {"sharp_mf_loss": sharp_mf_loss, "sharp_mapping_loss": sharp_mapping_loss}[name]
    assert inspect.signature(getattr(reference, name)) == inspect.signature(function)
