from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scdr.data import Interactions, deduplicate, from_columns, k_core

IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)
ROWS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 5), st.integers(0, 3)),
    max_size=60,
)


def _interactions(rows: list[tuple[int, int, int, int]]) -> Interactions:
    users, items, ratings, times = zip(*rows, strict=True) if rows else ((), (), (), ())
    return from_columns([f"u{u}" for u in users], [f"i{i}" for i in items], ratings, times)


def _as_rows(data: Interactions) -> list[tuple[str, str, float, int]]:
    return [
        (data.user_ids[u], data.item_ids[i], float(r), int(t))
        for u, i, r, t in zip(data.users, data.items, data.ratings, data.times, strict=True)
    ]


@given(st.lists(st.tuples(IDS, IDS), max_size=40))
def test_coding_keeps_ids_and_sorts_by_code_point(pairs: list[tuple[str, str]]) -> None:
    users, items = [user for user, _ in pairs], [item for _, item in pairs]
    data = from_columns(users, items, np.ones(len(pairs)))
    assert list(data.user_ids) == sorted(set(users))
    assert list(data.item_ids) == sorted(set(items))
    assert [data.user_ids[code] for code in data.users] == users
    assert [data.item_ids[code] for code in data.items] == items
    assert data.users.dtype == data.items.dtype == np.int32
    assert all(type(name) is str for name in data.user_ids)


def test_code_points_order_beyond_the_basic_plane() -> None:
    # UTF-16 would put the emoji before U+FF21, code points put it after
    data = from_columns(["\U0001f600", "\uff21", "a"], ["x"] * 3, [1, 2, 3])
    assert list(data.user_ids) == ["a", "\uff21", "\U0001f600"]


@pytest.mark.parametrize(
    "column",
    [[7, 10, 7], np.array([7, 10, 7], np.uint64), pl.Series([7, 10, 7]), np.array([7.0, 10, 7])],
)
def test_numbers_become_decimals(column: object) -> None:
    data = from_columns(column, ["x"] * 3, [1, 2, 3])  # type: ignore[arg-type]
    assert list(data.user_ids) == ["10", "7"]
    assert data.users.tolist() == [1, 0, 1]


@pytest.mark.parametrize("missing", ["", None, float("nan")])
def test_missing_id_is_refused(missing: object) -> None:
    with pytest.raises(ValueError, match="items holds a missing or empty id"):
        from_columns(["a", "b"], ["x", missing], [1, 2])


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="ratings is float32"):
        from_columns(["a", "b"], ["x", "y"], [1.0])


def test_take_by_mask_and_indices() -> None:
    data = _interactions([(0, 1, 5, 0), (1, 2, 4, 1), (2, 0, 3, 2)])
    assert _as_rows(data.take(np.array([2, 0]))) == [("u2", "i0", 3, 2), ("u0", "i1", 5, 0)]
    masked = data.take(np.array([False, True, False]))
    assert len(masked) == 1
    assert masked.n_users == data.n_users == 3


@given(ROWS)
def test_deduplicate_keeps_the_last_in_time(rows: list[tuple[int, int, int, int]]) -> None:
    data = _interactions(rows)
    kept: dict[tuple[str, str], tuple[str, str, float, int]] = {}
    for row in sorted(_as_rows(data), key=lambda row: row[3]):  # stable, as the protocol asks
        kept.pop(row[:2], None)
        kept[row[:2]] = row
    assert _as_rows(deduplicate(data)) == list(kept.values())


@given(ROWS, st.integers(1, 4))
def test_k_core_against_removing_one_row_at_a_time(
    rows: list[tuple[int, int, int, int]], k: int
) -> None:
    left = _as_rows(_interactions(rows))
    while True:
        users, items = Counter(row[0] for row in left), Counter(row[1] for row in left)
        weak = next((row for row in left if users[row[0]] < k or items[row[1]] < k), None)
        if weak is None:
            break
        left.remove(weak)
    core = k_core(_interactions(rows), k)
    assert _as_rows(core) == left
    assert list(core.user_ids) == sorted({row[0] for row in left})
    assert list(core.item_ids) == sorted({row[1] for row in left})
