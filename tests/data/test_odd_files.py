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
