from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scdr
from scdr._native import _C


def by_repeated_counting(users: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    keep = np.ones(len(users), bool)
    while True:
        user_count = np.bincount(users[keep], minlength=users.max(initial=0) + 1)
        item_count = np.bincount(items[keep], minlength=items.max(initial=0) + 1)
        still = keep & (user_count[users] >= k) & (item_count[items] >= k)
        if (still == keep).all():
            return keep
        keep = still


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 7)), max_size=150),
    k=st.integers(0, 6),
)
def test_k_core_is_what_repeated_counting_leaves(rows: list[tuple[int, int]], k: int) -> None:
    pairs = np.array(rows, np.int32).reshape(-1, 2)
    users, items = np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])
    keep = _C.k_core(users, items, 12, 8, k)
    assert keep.dtype == bool
    np.testing.assert_array_equal(keep, by_repeated_counting(users, items, k))


def test_k_core_peels_a_chain_from_its_ends() -> None:
    """A path user 0 - item 0 - user 1 - item 1 ... falls apart at k = 2; a ring stays."""
    n = 1000
    users = np.repeat(np.arange(n, dtype=np.int32), 2)
    items = ((np.arange(2 * n) + 1) // 2 % n).astype(np.int32)
    assert _C.k_core(users, items, n, n, 2).all()
    assert not _C.k_core(users[1:].copy(), items[1:].copy(), n, n, 2).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"users": np.array([0, 3], np.int32)}, r"users: holds 3, outside \[0, 3\)"),
        ({"items": np.array([-1, 0], np.int32)}, r"items: holds -1, outside \[0, 2\)"),
        ({"users": np.array([0, 1])}, "users: must be a contiguous int32 array"),
        ({"items": np.zeros((2, 1), np.int32)}, "items: must be a contiguous int32 array"),
        ({"users": np.zeros(4, np.int32)[::2]}, "users: must be a contiguous int32 array"),
        ({"items": np.zeros(3, np.int32)}, "items: has 3 rows, users has 2"),
        ({"n_users": -1}, "n_users: is negative"),
        ({"n_items": -1}, "n_items: is negative"),
        ({"k": -1}, "k: is negative"),
    ],
)
def test_k_core_names_the_wrong_argument(change: dict[str, object], message: str) -> None:
    arguments = {
        "users": np.array([0, 2], np.int32),
        "items": np.array([0, 1], np.int32),
        "n_users": 3,
        "n_items": 2,
        "k": 1,
    }
    assert _C.k_core(**arguments).all()
    with pytest.raises(ValueError, match=message):
        _C.k_core(**{**arguments, **change})


@pytest.mark.parametrize("first", ["scdr", "scdr.data", "scdr.build", "scdr.ops", "scdr.prepare"])
def test_torch_is_there_before_the_library(first: str) -> None:
    """Which in a wheel from another machine finds torch's libraries only where they are loaded."""
    program = (
        f"import sys, {first}; scdr.build_info(); names = list(sys.modules);"
        "assert names.index('torch._C') < names.index('scdr._C')"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_exceptions_are_thrown_by_the_runtime_that_torch_has() -> None:
    if shutil.which("nm") is None:
        pytest.skip("nm is not installed")
    command = ["nm", "--dynamic", "--defined-only", _C.__file__]
    symbols = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "PyInit__C" in symbols
    assert "__cxa_throw" not in symbols


def test_build_info() -> None:
    info = scdr.build_info()
    assert info.version == importlib.metadata.version("scdr")
    assert info.simd in info.simd_compiled and info.simd_compiled[0] == "scalar"
    assert bool(info.cuda_architectures) == (info.cuda_why_not is None)
    assert bool(info.cuda_architectures) == (info.cuda_compiler is not None)
    assert info.compiler and info.torch
    assert len(str(info).splitlines()) == 6
