from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from scdr.data import Interactions, read_domain
from scdr.data import frames as frames_module
from scdr.errors import InputError


def _rows(data: Interactions) -> list[tuple[str, str, float, int]]:
    return [
        (data.user_ids[u], data.item_ids[i], float(r), int(t))
        for u, i, r, t in zip(data.users, data.items, data.ratings, data.times, strict=True)
    ]


TABLE = {
    "userId": ["007", "7", "a b"],
    "movieId": [30, 1, 2**60],
    "rating": [4.5, 3.0, 1.0],
    "timestamp": [10, 20, 30],
}
EXPECTED = [("007", "30", 4.5, 10), ("7", "1", 3.0, 20), ("a b", str(2**60), 1.0, 30)]


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame])
def test_dataframe(make: type[pd.DataFrame]) -> None:
    data, report = read_domain(make(TABLE), core=0)
    assert _rows(data) == EXPECTED
    assert (report.path, report.format, report.rows) == ("DataFrame", "DataFrame", 3)


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "dump"
    pl.DataFrame(TABLE).with_columns(review=pl.lit("long")).write_parquet(path)
    data, report = read_domain(path, core=0)
    assert _rows(data) == EXPECTED
    assert report.format == "parquet"
    monkeypatch.setattr(frames_module, "ROWS_PER_BATCH", 2)
    seen: list[tuple[int, int]] = []
    again, _ = read_domain(
        path, core=0, format="parquet", progress=lambda done, size: seen.append((done, size))
    )
    assert _rows(again) == EXPECTED
    size = path.stat().st_size
    assert seen == [(size * 2 // 3, size), (size, size)]


def test_integers_that_pandas_made_floats() -> None:
    frame = pd.DataFrame(
        {
            "user": [*np.repeat([1.0, 20.0], 100).tolist(), np.nan],
            "item": [*range(200), 5],
            "rating": 3,
        }
    )
    assert frame["user"].dtype == np.float64
    data, report = read_domain(frame, core=0)
    assert list(data.user_ids) == ["1", "20"]
    assert report.rejected_examples == ((201, "no user id"),)


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1, 2, 1], dtype="Int64"),
        pd.Series(["1", "2", "1"], dtype="category"),
        pd.Series(["1", "2", "1"], dtype="string"),
        pd.Series(["1", 2, 1.0], dtype=object),
    ],
)
def test_id_dtypes_of_pandas(column: pd.Series) -> None:
    frame = pd.DataFrame({"user": column, "item": list("xyz"), "rating": [1, 2, 3]})
    assert _rows(read_domain(frame, core=0)[0]) == [
        ("1", "x", 1, 0),
        ("2", "y", 2, 0),
        ("1", "z", 3, 0),
    ]


def test_missing_values_of_nullable_columns() -> None:
    good = 200
    frame = pd.DataFrame(
        {
            "user": pd.Series([*range(good), None, 3], dtype="Int64"),
            "item": ["x"] * (good + 2),
            "rating": pd.Series([4] * (good + 1) + [None], dtype="Int64"),
        }
    )
    data, report = read_domain(frame, core=0)
    assert len(data) == good
    assert [line for line, _ in report.rejected_examples] == [good + 1, good + 2]


@pytest.mark.parametrize("zone", [None, "Europe/Athens"])
def test_dates_become_epoch_seconds(zone: str | None) -> None:
    dates = pd.to_datetime(["2001-09-09 01:46:40", None, "1970-01-01 00:01:00"]).tz_localize("UTC")
    frame = pd.DataFrame(
        {
            "user": list("abc"),
            "item": list("xyz"),
            "rating": [1, 2, 3],
            "time": dates.tz_convert(zone),
        }
    )
    data, _ = read_domain(frame, core=0)
    assert data.times.tolist() == [0, 60, 1_000_000_000]
    polars = pl.DataFrame(
        {
            "user": ["a"],
            "item": ["x"],
            "rating": [1],
            "time": pl.Series(["2001-09-09 01:46:40"]).str.to_datetime(),
        }
    )
    assert read_domain(polars, core=0)[0].times.tolist() == [1_000_000_000]


def test_rows_of_a_frame_with_an_odd_index() -> None:
    frame = pd.DataFrame(TABLE, index=[2.5, 0.5, 0.5])
    assert _rows(read_domain(frame, core=0)[0]) == EXPECTED


def test_bad_rows_say_where(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "rating": [1.0, float("inf")]})
    with pytest.raises(InputError, match="rating 'inf' is not finite") as caught:
        read_domain(frame, core=0)
    assert caught.value.where == "DataFrame:2"
    path = tmp_path / "bad.parquet"
    frame.write_parquet(path)
    with pytest.raises(InputError) as caught:
        read_domain(path, core=0)
    assert caught.value.where == f"{path}:2"


def test_missing_column_and_empty_frame(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no item column among user, rating"):
        read_domain(pd.DataFrame({"user": ["a"], "rating": [1]}))
    path = tmp_path / "bad.parquet"
    pl.DataFrame({"who": ["a"], "item": ["b"], "rating": [1]}).write_parquet(path)
    with pytest.raises(InputError, match="no user column among who, item, rating") as caught:
        read_domain(path)
    assert caught.value.where == str(path)
    data, _ = read_domain(path, columns={"user": "who"}, core=0)
    assert list(data.user_ids) == ["a"]
    with pytest.raises(InputError, match="no rows"):
        read_domain(pd.DataFrame({"user": [], "item": [], "rating": []}))


def test_truncated_parquet(tmp_path: Path) -> None:
    path = tmp_path / "cut.parquet"
    pl.DataFrame(TABLE).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read_domain(path)


def test_import_leaves_pandas_alone() -> None:
    code = "import sys, scdr.data; print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
