"""The native op behind pgd_perturb for Linear - Tanh - Linear, in float32."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import scdr
from scdr.ops import pgd_perturb, reference, sharp_mapping_loss

Rows = tuple[Tensor, Tensor, Tensor]


def problem(
    batch: int,
    d_source: int = 10,
    hidden: int = 50,
    d_target: int = 10,
    *,
    bias: bool = True,
    device: str = "cpu",
) -> tuple[Rows, nn.Sequential]:
    random = torch.Generator().manual_seed(batch)
    torch.manual_seed(1)
    mapping = nn.Sequential(
        nn.Linear(d_source, hidden, bias=bias), nn.Tanh(), nn.Linear(hidden, d_target, bias=bias)
    )
    user = torch.randn(batch, d_source, generator=random).to(device)
    item = torch.randn(batch, d_target, generator=random).to(device)
    rating = 5 * torch.rand(batch, generator=random).to(device)
    return (user, item, rating), mapping.requires_grad_(False).to(device)


def in_double(rows: Rows, mapping: nn.Sequential) -> tuple[list[Tensor], nn.Sequential]:
    return [t.cpu().double() for t in rows], copy.deepcopy(mapping).cpu().double()


def far_from_ties(rows: Rows, mapping: nn.Sequential, steps: int, radius: float) -> Tensor:
    """The rows [B] where no step in float64 meets a sign that float32 could turn."""
    (user, item, rating), exact = in_double(rows, mapping)
    clear = torch.ones(len(user), dtype=torch.bool)
    for done in range(steps):
        at = user + reference.pgd_perturb(user, item, rating, exact, steps=done, radius=radius)
        at.requires_grad_()
        hidden = (item @ exact[2].weight).abs().sum(1)  # [B] what the sums below are sums of
        error = (exact(at) * item).sum(1) - rating
        (slope,) = torch.autograd.grad(error.sum(), at)
        # Float32 and the tanh round each of the terms by less than 1e-6 of itself or of 1.
        slack = 3e-6 * hidden * max(1.0, float(exact[0].weight.abs().max()))
        clear &= error.detach().abs() > slack + 1e-6 * rating
        clear &= (slope.abs() > slack[:, None]).all(1)
    return clear


def assert_like_reference(rows: Rows, mapping: nn.Sequential, radius: float) -> float:
    """Compares the rows without near ties and returns their share."""
    steps = 5
    delta = pgd_perturb(*rows, mapping, steps=steps, radius=radius).cpu().double()
    double_rows, exact = in_double(rows, mapping)
    expected = reference.pgd_perturb(*double_rows, exact, steps=steps, radius=radius)
    clear = far_from_ties(rows, mapping, steps, radius)
    torch.testing.assert_close(delta[clear], expected[clear], rtol=1e-5, atol=1e-5 * radius)
    assert delta.shape == rows[0].shape
    assert (delta.norm(dim=1) <= radius * (1 + 1e-6)).all()

    user, item, rating = double_rows
    loss, best = (((exact(user + d) * item).sum(1) - rating) ** 2 for d in (delta, expected))
    if len(user) >= 100:
        assert loss.sum().item() == pytest.approx(best.sum().item(), rel=1e-3)
    return float(clear.double().mean()) if len(user) else 1.0


@pytest.mark.parametrize("batch", [0, 1, 7, 8, 9, 255, 256, 1000])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("radius", [0.4, 5.0])
def test_any_number_of_rows(batch: int, bias: bool, radius: float, device: str) -> None:
    share = assert_like_reference(*problem(batch, bias=bias, device=device), radius)
    assert share > 0.95 or batch < 100


@pytest.mark.parametrize("d_source", [1, 10, 11, 16, 33, 256])
@pytest.mark.parametrize("d_target", [1, 6, 256])
@pytest.mark.parametrize("hidden", [1, 7, 50, 64, 129, 256])
def test_any_width(d_source: int, d_target: int, hidden: int, device: str) -> None:
    rows, mapping = problem(37, d_source, hidden, d_target, device=device)
    share = assert_like_reference(rows, mapping, 0.8)
    assert share > 0.3 or d_source == 256  # many signs, so that one of them is often near a tie


def test_zero_items_and_ties_are_not_moved(device: str) -> None:
    (user, item, rating), mapping = problem(20, device=device, bias=False)
    item[3] = 0
    user[5] = 0  # without biases this user maps to zero
    rating[5] = 0
    delta = pgd_perturb(user, item, rating, mapping, steps=5, radius=1.0)
    still = ~delta.any(1)
    assert still.nonzero().flatten().tolist() == [3, 5]


@pytest.mark.parametrize(("steps", "radius"), [(0, 1.0), (5, 0.0), (5, 1e-40)])
def test_nothing_to_do_gives_zeros(steps: int, radius: float, device: str) -> None:
    rows, mapping = problem(20, device=device)
    assert not pgd_perturb(*rows, mapping, steps=steps, radius=radius).any()


@pytest.mark.parametrize("step_size", [1e-20, 1e-3, 1e30])
@pytest.mark.parametrize("radius", [1e-20, 1e-3, 1e30])
def test_extreme_lengths_stay_in_the_ball(step_size: float, radius: float, device: str) -> None:
    rows, mapping = problem(50, 256, 20, device=device)
    delta = pgd_perturb(*rows, mapping, steps=5, step_size=step_size, radius=radius).double()
    assert delta.isfinite().all()
    assert delta.any()
    assert (delta.norm(dim=1) <= radius * (1 + 1e-6)).all()


@pytest.mark.parametrize("batch", [256, 5000])
def test_same_bits_at_any_number_of_threads(batch: int, threads: None) -> None:
    rows, mapping = problem(batch)
    results = []
    for count in (1, 2, 3, 7):
        torch.set_num_threads(count)
        results.append(pgd_perturb(*rows, mapping, steps=5, radius=2.0))
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("d_source", [10, 33])
def test_a_row_does_not_know_the_others(d_source: int, device: str) -> None:
    rows, mapping = problem(100, d_source, device=device)
    whole = pgd_perturb(*rows, mapping, steps=5, radius=2.0)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0)).to(device)
    shuffled = pgd_perturb(*(t[order] for t in rows), mapping, steps=5, radius=2.0)
    assert torch.equal(shuffled, whole[order])
    for i in (0, 57, 99):
        alone = pgd_perturb(*(t[i : i + 1] for t in rows), mapping, steps=5, radius=2.0)
        assert torch.equal(alone[0], whole[i])


def test_rows_that_are_not_contiguous(device: str) -> None:
    (user, item, rating), mapping = problem(40, device=device)
    expected = pgd_perturb(user, item, rating, mapping, steps=5, radius=2.0)
    strided = (user.T.contiguous().T, item.repeat(1, 2)[:, :10], rating.repeat_interleave(2)[::2])
    assert not any(t.is_contiguous() for t in strided)
    assert torch.equal(pgd_perturb(*strided, mapping, steps=5, radius=2.0), expected)


ALONE = """
import sys, torch
import scdr.ops
from scdr import build_info
inputs, grid = torch.load(sys.argv[1])
deltas = [torch.ops.scdr.pgd_perturb_mlp(*t, steps=5, step_size=0.3, radius=0.8) for t in inputs]
tanh = torch.ops.scdr.tanh(grid)
torch.save({"simd": build_info().simd, "deltas": deltas, "tanh": tanh}, sys.argv[2])
"""


def at_level(
    level: str, folder: Path, inputs: list[list[Tensor | None]], grid: Tensor
) -> dict[str, Any] | None:
    torch.save((inputs, grid), folder / "in.pt")
    finished = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder / "in.pt"), str(folder / "out.pt")],
        env={**os.environ, "SCDR_SIMD": level},
        capture_output=True,
        text=True,
    )
    if "no such SIMD level here" in finished.stderr:
        return None
    assert finished.returncode == 0, finished.stderr
    output: dict[str, Any] = torch.load(folder / "out.pt")
    assert output["simd"] == level
    return output


@pytest.mark.skipif(len(scdr.build_info().simd_compiled) == 1, reason="one SIMD level here")
def test_simd_levels_agree(tmp_path: Path) -> None:
    cases = [problem(37, d, hidden, 6) for d, hidden in ((10, 50), (11, 50), (33, 129), (1, 7))]
    inputs: list[list[Tensor | None]] = [
        [*rows, mapping[0].weight, mapping[0].bias, mapping[2].weight, mapping[2].bias]
        for rows, mapping in cases
    ]
    # Floats from 0 to infinity by their bits, and where tanh bends.
    floats = torch.arange(0, 0x7F800000, 4001, dtype=torch.int32).view(torch.float32)
    grid = torch.cat([floats, -floats, torch.arange(-12, 12, 1e-4)])
    levels = {
        name: at_level(name, tmp_path, inputs, grid) for name in scdr.build_info().simd_compiled
    }
    exact = grid.double().tanh()
    for found in levels.values():
        if found is not None:
            error = (found["tanh"] - exact).abs() / exact.abs().clamp_min(1e-37)
            assert error.max() < 4e-7
    wide = [levels[name] for name in ("avx2", "avx512") if levels[name] is not None]
    for output in wide:  # both fuse the same multiplies with the same adds
        assert torch.equal(output["tanh"], wide[0]["tanh"])
        for mine, theirs in zip(output["deltas"], wide[0]["deltas"], strict=True):
            assert torch.equal(mine, theirs)
    portable = levels["scalar"]
    assert portable is not None
    for output in wide:
        for (rows, mapping), mine, theirs in zip(
            cases, output["deltas"], portable["deltas"], strict=True
        ):
            clear = far_from_ties(rows, mapping, 5, 0.8)
            torch.testing.assert_close(mine[clear], theirs[clear], rtol=1e-5, atol=1e-5)


def test_tanh_over_all_of_float32(fast_device: str) -> None:
    """Every 251st float from 0 to infinity, and every 5th between 1/4 and 16, where it bends."""
    worst = 0.0
    low, high, infinite = (int(np.float32(x).view(np.int32)) for x in (0.25, 16, np.inf))
    parts = [np.arange(0, infinite, 251, dtype=np.int32), np.arange(low, high, 5, dtype=np.int32)]
    for part in parts:
        for bits in np.array_split(part, max(1, len(part) >> 24)):
            x = torch.from_numpy(bits.view(np.float32)).to(fast_device)
            y = torch.ops.scdr.tanh(x)
            exact = x.double().tanh()
            assert torch.equal(torch.ops.scdr.tanh(-x), -y)
            assert (y <= 1).all() and (y >= 0).all()
            worst = max(worst, float(((y - exact).abs() / exact.clamp_min(1e-37)).max()))
    assert worst < 4e-7


def test_tanh_of_special_values(device: str) -> None:
    x = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, 3e38, 9.0, -9.0, 1e-45], device=device)
    expected = torch.tensor([0.0, -0.0, 1.0, -1.0, 1.0, 1.0, -1.0, 1e-45], device=device)
    y = torch.ops.scdr.tanh(x)
    assert torch.equal(y, expected)
    assert torch.equal(y.signbit(), x.signbit())
    assert torch.ops.scdr.tanh(torch.full((9,), torch.nan, device=device)).isnan().all()


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [("user", (39, 9), torch.nan), ("item", (0, 0), torch.inf), ("rating", (17,), -torch.inf)],
)
def test_not_finite_is_named(name: str, at: tuple[int, ...], value: float, device: str) -> None:
    rows, mapping = problem(40, device=device)
    dict(zip(("user", "item", "rating"), rows, strict=True))[name][at] = value
    for steps in (0, 3):
        with pytest.raises(ValueError, match=rf"^{name} holds a value that is not finite$"):
            pgd_perturb(*rows, mapping, steps=steps, radius=1.0)


@pytest.mark.parametrize("name", ["user", "item"])
def test_a_width_that_the_mapping_does_not_have(name: str, device: str) -> None:
    (user, item, rating), mapping = problem(5, device=device)
    user, item = (user[:, :9], item) if name == "user" else (user, item[:, :9])
    with pytest.raises(ValueError, match=rf"^{name} has width 9, mapping 10"):
        pgd_perturb(user, item, rating, mapping, steps=1, radius=1.0)


def op_arguments(device: str) -> tuple[dict[str, Any], dict[str, Any]]:
    (user, item, rating), mapping = problem(20, device=device)
    tensors = {"user": user, "item": item, "rating": rating}
    tensors |= {"w1": mapping[0].weight, "b1": mapping[0].bias}
    tensors |= {"w2": mapping[2].weight, "b2": mapping[2].bias}
    return tensors, {"steps": 3, "step_size": 0.3, "radius": 1.0}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("user", torch.zeros(20, 9)),
        ("user", torch.zeros(20, 10).double()),
        ("user", torch.zeros(20, 258)),
        ("item", torch.zeros(19, 10)),
        ("item", torch.zeros(20, 0)),
        ("rating", torch.zeros(20, 1)),
        ("w1", torch.zeros(0, 10)),
        ("b1", torch.zeros(49)),
        ("w2", torch.zeros(10, 49)),
        ("b2", torch.zeros(10).double()),
        ("steps", -1),
        ("step_size", float("nan")),
        ("radius", -1.0),
    ],
)
def test_the_op_refuses(name: str, value: Any, device: str) -> None:
    tensors, options = op_arguments(device)
    changed = value.to(device) if isinstance(value, Tensor) else value
    (tensors if name in tensors else options)[name] = changed
    named = "w1" if name == "user" and value.shape == (20, 9) else name
    with pytest.raises(RuntimeError, match=rf"pgd_perturb_mlp: {named} must"):
        torch.ops.scdr.pgd_perturb_mlp(*tensors.values(), **options)


def test_opcheck(device: str) -> None:
    tensors, options = op_arguments(device)
    op = torch.ops.scdr.pgd_perturb_mlp.default
    torch.library.opcheck(op, tuple(tensors.values()), options)
    torch.library.opcheck(op, (*(tensors | {"b1": None, "b2": None}).values(),), options)
    torch.library.opcheck(torch.ops.scdr.tanh.default, (tensors["user"],))


def test_inside_torch_compile(device: str) -> None:
    rows, mapping = problem(40, device=device)
    mapping.requires_grad_()
    compiled = torch.compile(sharp_mapping_loss, fullgraph=True, backend="aot_eager")
    gradients = []
    for function in (sharp_mapping_loss, compiled):
        loss = function(*rows, mapping, steps=4, radius=1.0)
        gradients.append([loss, *torch.autograd.grad(loss.sum(), list(mapping.parameters()))])
    for expected, actual in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected)
