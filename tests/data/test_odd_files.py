"""Files of an odd kind: read as what they hold, or refused by one line."""

from __future__ import annotations

import gzip
import io
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from scdr.data import read_domain
from scdr.errors import InputError

FRAME = pl.DataFrame(
    {"user": ["01", "01", "b"], "item": ["x", "y", "x"], "rating": [1, 2, 3], "time": [7, 8, 9]}
)


def parquet(frame: pl.DataFrame) -> bytes:
    stream = io.BytesIO()
    frame.write_parquet(stream)
    return stream.getvalue()


@pytest.mark.parametrize("format", ["auto", "parquet"])
def test_gzipped_parquet(format: str, tmp_path: Path) -> None:
    path = tmp_path / "ratings.gz"
    path.write_bytes(gzip.compress(parquet(FRAME)))
    data, report = read_domain(path, format=format, core=0)
    assert report.format == "parquet"
    assert data.user_ids.tolist() == ["01", "b"]
    assert data.times.tolist() == [7, 8, 9]


@pytest.mark.parametrize("cut", [0.5, 0.999])
def test_gzipped_parquet_cut_short(cut: float, tmp_path: Path) -> None:
    packed = gzip.compress(parquet(FRAME))
    path = tmp_path / "ratings.gz"
    path.write_bytes(packed[: int(cut * len(packed))])
    with pytest.raises(InputError, match="ends early"):
        read_domain(path, core=0)


def test_ids_that_a_writer_left_as_bytes(tmp_path: Path) -> None:
    path = tmp_path / "ratings.parquet"
    path.write_bytes(parquet(FRAME.with_columns(pl.col("user").cast(pl.Binary))))
    assert read_domain(path, core=0)[0].user_ids.tolist() == ["01", "b"]


@pytest.mark.parametrize("role", ["user", "rating"])
def test_columns_of_lists(role: str, tmp_path: Path) -> None:
    frame = FRAME.with_columns(pl.concat_list(role).alias(role))
    path = tmp_path / "ratings.parquet"
    path.write_bytes(parquet(frame))
    for source in (path, frame):
        with pytest.raises(InputError, match=f"the {role} column is of type List"):
            read_domain(source, core=0)


@pytest.mark.parametrize(
    "written",
    ["2014-02-28 01:02:03", "2014-02-28T01:02:03Z", "2014-02-28T01:02:03.75", "2014-02-28"],
)
def test_dates_are_times(written: str, tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text(f"user,item,rating,date\na,x,1,{written}\na,y,2,1300000000\na,z,3,\n")
    moment = datetime.fromisoformat(written.rstrip("Z")).replace(tzinfo=UTC)
    data, report = read_domain(path, core=0)
    assert report.rejected == 0
    times = dict(zip(data.item_ids[data.items], data.times.tolist(), strict=True))
    assert times == {"x": int(moment.timestamp()), "y": 1300000000, "z": 0}


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        read_domain(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_path_that_no_system_takes(name: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_domain(name)


def test_a_name_for_a_file_without_header(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text("A1X,B001,5.0,1300000000\n" * 3)
    with pytest.raises(InputError, match="'reviewer' for the user: the file has no header"):
        read_domain(path, columns={"user": "reviewer"})


def test_one_broken_object_leaves_the_ids_of_the_others(tmp_path: Path) -> None:
    rows = [
        '{"reviewerID": 7, "asin": 1.0, "overall": 3.0, "unixReviewTime": 5.0}',
        '{"reviewerID": "u", "asin": true, "overall": "4", "unixReviewTime": "6"}',
    ] * 60
    sound, broken = tmp_path / "sound.json", tmp_path / "broken.json"
    sound.write_text("\n".join(rows))
    broken.write_text("\n".join([*rows, "{broken"]))
    (first, _), (second, report) = read_domain(sound, core=0), read_domain(broken, core=0)
    assert report.rejected == 1
    assert first.item_ids.tolist() == second.item_ids.tolist() == ["1", "true"]
    assert first.user_ids.tolist() == second.user_ids.tolist()
    np.testing.assert_array_equal(first.ratings, second.ratings)
    np.testing.assert_array_equal(first.times, second.times)


def test_a_time_of_more_digits_than_a_float_holds(tmp_path: Path) -> None:
    path = tmp_path / "reviews.json"
    time = 1_300_000_000_123_456_789
    review = '{{"reviewerID": "u", "asin": "{}", "overall": 5, "unixReviewTime": {}}}\n'
    path.write_text(review.format("x", time) + review.format("y", time + 1))
    assert read_domain(path, core=0)[0].times.tolist() == [time, time + 1]


def test_lines_that_are_read_one_by_one_keep_their_place(tmp_path: Path) -> None:
    path = tmp_path / "reviews.json"
    lines = [f'{{"reviewerID": "u{n}", "asin": "x", "overall": {n % 5}}}' for n in range(300)]
    lines[7] = '{"reviewerID": "u\\u00e97", "asin": "x", "overall": 1.50}'
    lines[100] = ""
    lines[200] = '{"reviewerID": "u200", "asin": '
    lines[299] = '{"overall": 3e0, "asin": -1, "reviewerID": "u299"}'
    path.write_text("\n".join(lines))
    data, report = read_domain(path, core=0)
    assert (report.rows, report.rejected) == (299, 1)
    assert report.rejected_examples[0][0] == 201
    assert "not JSON" in report.rejected_examples[0][1]
    expected = [f"u{n}" if n != 7 else "ué7" for n in range(300) if n not in (100, 200)]
    assert data.user_ids[data.users].tolist() == expected
    assert data.ratings[[7, -1]].tolist() == [1.5, 3.0]


BROKEN = 'b,y,"2,8'  # one line of quotes that do not end makes the others be read one by one


@pytest.mark.parametrize("other", [BROKEN, "b,y,2,8"], ids=["one by one", "at once"])
@pytest.mark.parametrize(
    ("line", "user"),
    [
        ('"a",x,1,7', "a"), ('"a""b",x,1,7', 'a"b'), ('a"b,x,1,7', 'a"b'), ('"a,b",x,1,7', "a,b"),
        ("a\rb,x,1,7", "a\rb"), ("a,x,1,7\r", "a"), ('a,x,1,7,"b"c', "a"), ("a,x,1", "a"),
    ],
)  # fmt: skip
def test_a_row_is_the_same_whatever_stands_beside_it(
    line: str, user: str, other: str, tmp_path: Path
) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text("\n".join(["c,z,3,9"] * 150 + [line, other]), newline="")
    data, report = read_domain(path, core=0)
    assert report.rejected == (other is BROKEN)
    row = data.items.tolist().index(data.item_ids.tolist().index("x"))
    assert data.user_ids[data.users[row]] == user
    assert data.ratings[row] == 1
