from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys

import numpy as np
import polars as pl
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


def test_the_library_may_come_before_torch() -> None:
    program = "import scdr._C, torch, scdr.ops, sys; sys.exit('scdr' not in dir(torch.ops))"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_where_torch_is_not_found_it_is_imported_first() -> None:
    """The library fails as it does in a wheel whose folder torch is not beside."""
    program = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "scdr._C" and "torch" not in sys.modules:
            raise ImportError("libtorch_cpu.so: cannot open shared object file")
sys.meta_path.insert(0, Missing())
import scdr.data
assert "torch" in sys.modules and scdr.build_info().version
"""
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


IDS = st.lists(st.text(st.sampled_from("ab\0é😀"), max_size=14), max_size=60)


@given(IDS, st.integers(0, 60))
def test_ids_are_numbered_as_they_are_met(ids: list[str], cut: int) -> None:
    table = _C.IdTable()
    column = pl.Series(ids, dtype=pl.String)
    parts = [column[:cut], pl.concat([column[cut:], column])]  # slices, and two chunks
    codes = np.concatenate([table.code(part) for part in parts])
    met = list(dict.fromkeys(ids))
    assert codes.dtype == np.int32
    assert codes.tolist() == [met.index(id) for id in ids + ids]
    assert table.ids() == met and len(table) == len(met)
    assert table.ranks().tolist() == [sorted(met).index(id) for id in met]


def test_many_ids() -> None:
    """Beyond what slots and pages hold at first, and one longer than a page."""
    ids = [f"user{number * 7919 % 100_003}" for number in range(100_003)] + ["x" * 100_000]
    table = _C.IdTable()
    before = table.bytes
    assert table.code(pl.Series(ids)).tolist() == list(range(len(ids)))
    assert table.code(pl.Series(ids[::-1])).tolist() == list(range(len(ids)))[::-1]
    assert table.bytes > before + sum(map(len, ids))
    assert [ids[code] for code in np.argsort(table.ranks())] == sorted(ids)


@pytest.mark.parametrize(
    ("column", "message"),
    [(pl.Series([1, 2]), "not of strings"), (pl.Series(["a", None]), "holds a null")],
)
def test_what_is_no_column_of_ids(column: pl.Series, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _C.IdTable().code(column)


TIMES = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3) | st.integers(0, 2**33))


@given(TIMES)
def test_the_order_of_rows_in_time(times: list[int]) -> None:
    column = np.array(times, np.int64)
    order = _C.stable_order(column)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(order, np.argsort(column, kind="stable"))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=60))
def test_the_last_row_of_each_pair_stays(rows: list[tuple[int, int]]) -> None:
    pairs = np.array(rows, np.int32).reshape(-1, 2)
    users, items = np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])
    keep = _C.last_of_pairs(users, items, 5, 5)
    assert keep.tolist() == [row not in rows[place + 1 :] for place, row in enumerate(rows)]


def test_the_wrong_arguments_of_ordering_are_named() -> None:
    with pytest.raises(ValueError, match="times: must be a contiguous int64 array"):
        _C.stable_order(np.zeros(3))
    with pytest.raises(ValueError, match=r"items: holds 5, outside \[0, 5\)"):
        _C.last_of_pairs(np.zeros(1, np.int32), np.full(1, 5, np.int32), 5, 5)
