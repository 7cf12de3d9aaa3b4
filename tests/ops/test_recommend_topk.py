from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import scdr
from scdr.ops import recommend_topk, reference

Result = tuple[Tensor, Tensor]


def problem(
    n_users: int, n_items: int, d: int, *, offsets: bool = True, device: str = "cpu"
) -> dict[str, Any]:
    random = torch.Generator().manual_seed(n_users + n_items + d)
    tensors = {
        "user_vectors": torch.randn(n_users, d, generator=random),
        "item_vectors": torch.randn(n_items, d, generator=random) + 0.3,
    }
    if offsets:
        tensors["offsets"] = torch.randn(n_items, generator=random)
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def exclusions(n_users: int, n_items: int, most: int, dtype: torch.dtype = torch.int64) -> Any:
    """Lists of 0 to `most` items for each user, in no order, with repetitions."""
    random = torch.Generator().manual_seed(n_items)
    counts = torch.randint(0, most + 1, (n_users,), generator=random)
    total = int(counts.sum())
    return {
        "exclude_offsets": torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
        "exclude_items": torch.randint(n_items, (total,), generator=random, dtype=dtype),
    }


def assert_same(actual: Result, expected: Result) -> None:
    """To the bit: both sum in one order, and neither fuses a multiply with an add."""
    for mine, theirs in zip(actual, expected, strict=True):
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
        assert torch.equal(mine.cpu(), theirs.cpu())


def on(device: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {n: v.to(device) if isinstance(v, Tensor) else v for n, v in arguments.items()}


@pytest.mark.parametrize("n_users", [1, 4, 9])
@pytest.mark.parametrize("n_items", [1, 257, 1300])
@pytest.mark.parametrize("k", [1, 20, 300])
@pytest.mark.parametrize("offsets", [False, True])
def test_like_reference(n_users: int, n_items: int, k: int, offsets: bool, device: str) -> None:
    arguments = problem(n_users, n_items, 10, offsets=offsets, device=device)
    assert_same(recommend_topk(**arguments, k=k), reference.recommend_topk(**arguments, k=k))


@pytest.mark.parametrize("d", [1, 2, 11, 16, 33, 64, 256])
def test_any_width(d: int, device: str) -> None:
    arguments = {**problem(5, 600, d, device=device), "k": 7}
    assert_same(recommend_topk(**arguments), reference.recommend_topk(**arguments))


@pytest.mark.parametrize(("n_users", "n_items"), [(0, 50), (5, 0), (0, 0)])
@pytest.mark.parametrize("k", [0, 3])
def test_nothing_to_rank(n_users: int, n_items: int, k: int, device: str) -> None:
    scores, items = recommend_topk(**problem(n_users, n_items, 4, device=device), k=k)
    assert scores.shape == items.shape == (n_users, k)
    assert (scores == -torch.inf).all() and (items == -1).all()


@pytest.mark.parametrize("n_items", [1, 100, 1200])
def test_all_items(n_items: int, device: str) -> None:
    arguments = {**problem(5, n_items, 10, device=device), "k": n_items + 2}
    scores, items = recommend_topk(**arguments)
    assert_same((scores, items), reference.recommend_topk(**arguments))
    assert torch.equal(items[:, :n_items].sort(1).values.cpu(), torch.arange(n_items).expand(5, -1))
    assert (items[:, n_items:] == -1).all() and (scores[:, n_items:] == -torch.inf).all()


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(("n_items", "most"), [(30, 60), (400, 300), (1300, 900)])
def test_excluded_items(n_items: int, most: int, dtype: torch.dtype, device: str) -> None:
    n_users = 9
    arguments = {**problem(n_users, n_items, 10), **exclusions(n_users, n_items, most, dtype)}
    arguments = {**on(device, arguments), "k": 25}
    scores, items = recommend_topk(**arguments)
    assert_same((scores, items), reference.recommend_topk(**arguments))
    starts, excluded = arguments["exclude_offsets"].tolist(), arguments["exclude_items"].tolist()
    for user, row in enumerate(items.tolist()):
        assert not set(row) & set(excluded[starts[user] : starts[user + 1]])


def test_a_case_by_hand(device: str) -> None:
    users = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]], device=device)
    items = torch.tensor([[1.0, 5.0], [3.0, 1.0], [3.0, 4.0], [-2.0, 5.0]], device=device)
    options: Any = {
        "offsets": torch.tensor([0.5, 0.0, 0.0, -0.0], device=device),
        "exclude_offsets": torch.tensor([0, 0, 2, 5], device=device),
        "exclude_items": torch.tensor([3, 3, 0, 2, 1], device=device),
    }
    scores, ranked = recommend_topk(users, items, 3, **options)
    assert ranked.tolist() == [[1, 2, 0], [0, 2, 1], [3, -1, -1]]
    assert scores.tolist() == [[3, 3, 1.5], [10.5, 8, 2], [0, -torch.inf, -torch.inf]]


def in_order(order: str, n_users: int, n_items: int) -> dict[str, Any]:
    position = torch.arange(n_items, dtype=torch.float32)
    column = {
        "ascending": position,
        "descending": -position,
        "equal": torch.ones(n_items),
        "steps": (position / 1000).floor(),
        "equal in parts": (position % 7 == 3).float(),
    }[order]
    return {
        "user_vectors": torch.linspace(-1, 1, n_users)[:, None].repeat(1, 2),
        "item_vectors": torch.stack([column, torch.full((n_items,), 0.5)], 1),
    }


ORDERS = ["ascending", "descending", "equal", "steps", "equal in parts"]


@pytest.mark.parametrize("order", ORDERS)
def test_orders_that_are_hard_for_a_threshold(order: str, device: str) -> None:
    arguments = {**on(device, in_order(order, 3, 3000)), "k": 7}
    assert_same(recommend_topk(**arguments), reference.recommend_topk(**arguments))


@pytest.mark.parametrize("order", ORDERS)
def test_the_same_for_so_many_that_items_are_put_in_order(order: str) -> None:
    arguments = {**in_order(order, 40, 30_000), "k": 33}
    assert_same(recommend_topk(**arguments), reference.recommend_topk(**arguments))


@settings(max_examples=60, deadline=None)
@given(
    n_users=st.integers(1, 60),
    n_items=st.integers(1, 20_000),
    d=st.integers(1, 12),
    k=st.integers(0, 50),
    scale=st.sampled_from([1e-30, 1e-22, 1.0, 1e15]),
    shift=st.sampled_from([0.0, 1.0, 100.0]),
    levels=st.sampled_from([0, 1, 2, 50]),
    offsets=st.sampled_from([0.0, 1e-3, 1.0, 1e3]),
    seed=st.integers(0, 2**31),
)
def test_any_scale_shift_and_number_of_ties(
    n_users: int,
    n_items: int,
    d: int,
    k: int,
    scale: float,
    shift: float,
    levels: int,
    offsets: float,
    seed: int,
) -> None:
    """Items far from their mean, in its line, on a coarse grid, of lengths that differ by much."""
    random = torch.Generator().manual_seed(seed)
    users = (
        torch.randn(n_users, d, generator=random) * torch.rand(n_users, 1, generator=random) ** 4
    )
    items = (
        torch.randn(n_items, d, generator=random) * torch.rand(n_items, 1, generator=random) ** 4
    )
    if levels:
        users, items = (users * levels).round() / levels, (items * levels).round() / levels
    arguments: dict[str, Any] = {
        "user_vectors": users * scale,
        "item_vectors": (items + shift) * scale,
        "offsets": torch.randn(n_items, generator=random) * offsets * scale**2,
        "k": k,
    }
    assert_same(recommend_topk(**arguments), reference.recommend_topk(**arguments))


def test_same_bits_at_any_number_of_threads(threads: None) -> None:
    arguments = {**problem(333, 20_000, 10), **exclusions(333, 20_000, 50), "k": 20}
    results = []
    for count in (1, 2, 3, 7):
        torch.set_num_threads(count)
        results.append(recommend_topk(**arguments))
    for result in results[1:]:
        assert_same(result, results[0])


def test_a_user_does_not_know_the_others() -> None:
    arguments = problem(101, 20_000, 10)
    scores, items = recommend_topk(**arguments, k=20)
    users = arguments.pop("user_vectors")
    order = torch.randperm(101, generator=torch.Generator().manual_seed(0))
    shuffled = recommend_topk(users[order], **arguments, k=20)
    assert_same(shuffled, (scores[order], items[order]))
    for i in (0, 57, 100):
        alone = recommend_topk(users[i : i + 1], **arguments, k=20)
        assert_same(alone, (scores[i : i + 1], items[i : i + 1]))


def test_tensors_that_are_not_contiguous(device: str) -> None:
    arguments = problem(40, 900, 10, device=device)
    expected = recommend_topk(**arguments, k=5)
    strided = {
        "user_vectors": arguments["user_vectors"].T.contiguous().T,
        "item_vectors": arguments["item_vectors"].repeat(1, 2)[:, :10],
        "offsets": arguments["offsets"].repeat_interleave(2)[::2],
    }
    assert not any(t.is_contiguous() for t in strided.values())
    assert_same(recommend_topk(**strided, k=5), expected)


ALONE = """
import sys, torch
import scdr.ops
from scdr import build_info
results = [scdr.ops.recommend_topk(**case) for case in torch.load(sys.argv[1])]
torch.save({"simd": build_info().simd, "results": results}, sys.argv[2])
"""


@pytest.mark.skipif(len(scdr.build_info().simd_compiled) == 1, reason="one SIMD level here")
def test_simd_levels_give_the_same_bits(tmp_path: Path) -> None:
    cases = [
        {**problem(n_users, n_items, d), **exclusions(n_users, n_items, 40), "k": 20}
        for n_users, n_items, d in ((5, 700, 10), (50, 9001, 10), (33, 8200, 33), (34, 8300, 256))
    ]
    expected = [reference.recommend_topk(**case) for case in cases]
    torch.save(cases, tmp_path / "in.pt")
    for level in scdr.build_info().simd_compiled:
        finished = subprocess.run(
            [sys.executable, "-c", ALONE, str(tmp_path / "in.pt"), str(tmp_path / "out.pt")],
            env={**os.environ, "SCDR_SIMD": level},
            capture_output=True,
            text=True,
        )
        if "no such SIMD level here" in finished.stderr:
            continue
        assert finished.returncode == 0, finished.stderr
        output = torch.load(tmp_path / "out.pt")
        assert output["simd"] == level
        for actual, wanted in zip(output["results"], expected, strict=True):
            assert_same(actual, wanted)


def arguments_of_20(device: str) -> dict[str, Any]:
    arguments = {**problem(20, 90, 10), **exclusions(20, 90, 5), "k": 4}
    return on(device, arguments)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("user_vectors", torch.zeros(20), "must have 2 dimensions, not 1"),
        ("user_vectors", torch.zeros(20, 10).double(), "must have dtype Float, not Double"),
        ("user_vectors", torch.zeros(20, 0), "must have 1 to 256 columns, not 0"),
        ("user_vectors", torch.zeros(20, 257), "must have 1 to 256 columns, not 257"),
        ("user_vectors", torch.full((20, 10), NAN), "holds a value that is not finite"),
        ("user_vectors", torch.full((20, 10), 1e38), r"is too large: .* exceed what float32 holds"),
        ("user_vectors", [[1.0]], "is a list; it must be a tensor"),
        ("item_vectors", torch.zeros(90, 9), r"must have shape \[90, 10\], not \[90, 9\]"),
        ("item_vectors", torch.full((90, 10), -INF), "holds a value that is not finite"),
        ("k", -1, "must not be negative, not -1"),
        ("offsets", torch.zeros(89), r"must have shape \[90\], not \[89\]"),
        ("offsets", torch.full((90,), INF), "holds a value that is not finite"),
        ("exclude_offsets", torch.zeros(20, dtype=torch.int64), r"must have shape \[21\]"),
        ("exclude_offsets", torch.zeros(21, dtype=torch.int32), "must have dtype Long, not Int"),
        ("exclude_offsets", torch.zeros(21, dtype=torch.int64), "must start at 0, never fall"),
        ("exclude_offsets", None, "and exclude_items must be given together"),
        ("exclude_items", torch.zeros(3), "must have dtype Int or Long, not Float"),
        ("exclude_items", torch.full((1,), 90), r"holds 90, outside \[0, 90\)"),
        ("exclude_items", torch.full((1,), -1, dtype=torch.int32), r"holds -1, outside \[0, 90\)"),
    ],
)
def test_a_wrong_argument_is_named(name: str, value: Any, message: str, device: str) -> None:
    arguments = arguments_of_20(device)
    arguments[name] = value.to(device) if isinstance(value, Tensor) else value
    if name == "exclude_items" and "holds" in message:
        arguments["exclude_offsets"] = torch.tensor([0] * 20 + [1], device=device)
    with pytest.raises(ValueError, match=rf"^{name} {message}"):
        recommend_topk(**arguments)


def test_exclude_offsets_that_fall(device: str) -> None:
    arguments = arguments_of_20(device)
    arguments["exclude_offsets"][3] = len(arguments["exclude_items"]) + 1
    with pytest.raises(ValueError, match=r"^exclude_offsets must start at 0, never fall"):
        recommend_topk(**arguments)


def test_opcheck(device: str) -> None:
    arguments = arguments_of_20(device)
    op = torch.ops.scdr.recommend_topk.default
    positional = tuple(arguments.pop(name) for name in ("user_vectors", "item_vectors", "k"))
    torch.library.opcheck(op, positional, arguments)
    torch.library.opcheck(op, positional)


def test_inside_torch_compile(device: str) -> None:
    arguments = arguments_of_20(device)
    compiled = torch.compile(recommend_topk, fullgraph=True, backend="aot_eager")
    assert_same(compiled(**arguments), recommend_topk(**arguments))
