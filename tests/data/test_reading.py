from __future__ import annotations

import gzip
import random
import threading
from pathlib import Path

import numpy as np
import pytest

from scdr.data import read_domain
from scdr.data import text as text_module
from scdr.errors import InputError


def _lines(n: int) -> list[str]:
    return [f"u{row % 10},i{row // 10},{row % 5 + 1},{row}" for row in range(n)]


def _write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    return path


BAD_LINES = {
    "u1,i1": "no rating",
    "u1,i1,,5": "no rating",
    "u1,i1,good,5": "rating 'good' is not a number",
    "u1,i1,nan,5": "rating 'nan' is not finite",
    "u1,i1,inf,5": "rating 'inf' is not finite",
    "u1,i1,1e50,5": "rating '1e50' is not finite",
    ",i1,3,5": "no user id",
    "u1,,3,5": "no item id",
    '"",i1,3,5': "no user id",
    "u1,i1,3,yesterday": "time 'yesterday' is not a number",
    ",,,": "no user id",
    '"u1,i1,3,5': "broken quotes",
}


@pytest.mark.parametrize("bad", BAD_LINES)
def test_bad_row_in_a_small_file_is_an_error(tmp_path: Path, bad: str) -> None:
    lines = _lines(20)
    path = _write(tmp_path / "small.csv", [*lines[:6], bad, *lines[6:]])
    with pytest.raises(InputError) as caught:
        read_domain(path)
    assert caught.value.where == f"{path}:7"
    assert caught.value.what.startswith("1 of 21 rows are malformed, the first: ")
    assert BAD_LINES[bad] in caught.value.what
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", BAD_LINES)
def test_bad_rows_in_a_large_file_are_counted(tmp_path: Path, bad: str) -> None:
    lines = _lines(1000)
    lines[3] = bad
    lines[500] = ""
    lines[700] = bad
    path = _write(tmp_path / "large.csv", ["user,item,rating,time", *lines])
    data, report = read_domain(path, core=0)
    assert (report.rows, report.rejected, len(data)) == (999, 2, 997)
    assert [line for line, _ in report.rejected_examples] == [5, 702]
    assert all(BAD_LINES[bad] in reason for _, reason in report.rejected_examples)
    with pytest.raises(InputError) as caught:
        read_domain(path, core=0, strict=True)
    assert caught.value.where == f"{path}:5"
    assert BAD_LINES[bad] in caught.value.what


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{broken", "not JSON"),
        ('["A1", "B1", 5]', "not a JSON object"),
        ('{"reviewerID": "A1", "asin": "B1"}', "no rating"),
        ('{"reviewerID": "A1", "asin": "B1", "overall": NaN}', "not JSON"),
        ('{"reviewerID": "A1", "asin": "B1", "overall": true}', "rating 'true' is not a number"),
        ('{"reviewerID": "", "asin": "B1", "overall": 1}', "no user id"),
        ('{"reviewerID": "A1", "asin": null, "overall": 1}', "no item id"),
        ('{"reviewerID": "A1", "asin": "B1", "overall": 1} {}', "not JSON"),
    ],
)
def test_bad_json_rows(tmp_path: Path, bad: str, reason: str) -> None:
    good = '{"reviewerID": "A%d", "asin": "B1", "overall": 4.0, "unixReviewTime": 3}'
    lines = [good % row for row in range(200)]
    path = _write(tmp_path / "reviews.json", [bad, *lines])
    data, report = read_domain(path, core=0)
    assert len(data) == 200
    ((line, why),) = report.rejected_examples
    assert line == 1
    assert reason in why
    _write(path, [*lines[:9], bad])
    with pytest.raises(InputError) as caught:
        read_domain(path, core=0)
    assert caught.value.where == f"{path}:10"


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes("\n".join(_lines(200)).encode() + "\né,i1,3,5\n".encode("latin-1"))
    _, report = read_domain(path, core=0)
    assert report.rejected_examples == ((201, "not UTF-8"),)


def test_examples_end_at_twenty(tmp_path: Path) -> None:
    lines = _lines(5000)
    lines[1::200] = ["u1,i1,bad,1"] * 25
    _, report = read_domain(_write(tmp_path / "many.csv", lines), core=0)
    assert report.rejected == 25
    assert [line for line, _ in report.rejected_examples] == list(range(2, 4000, 200))


def test_all_rows_malformed(tmp_path: Path) -> None:
    path = _write(tmp_path / "bad.csv", ["u1,i1,bad,1", "u2,i2,worse,2"])
    with pytest.raises(InputError, match=r"2 of 2 rows are malformed") as caught:
        read_domain(path)
    assert caught.value.where == f"{path}:1"


def test_rows_and_line_numbers_across_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_module, "BLOCK_BYTES", 997)
    lines = _lines(3000)
    lines[1234] = "u1,i1,bad,1"
    lines[2000] = "  "
    lines[2900] = '"u,1","i""1",3,1'
    path = _write(tmp_path / "many.csv", lines)
    whole = path.read_bytes()
    seen: list[tuple[int, int]] = []
    data, report = read_domain(path, core=0, progress=lambda done, size: seen.append((done, size)))
    assert report.rejected_examples == ((1235, "rating 'bad' is not a number"),)
    assert (report.rows, len(data)) == (2999, 2998)
    assert "u,1" in data.user_ids
    assert 'i"1' in data.item_ids
    assert seen[-1] == (len(whole), len(whole))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    expected = sorted(float(line.split(",")[2]) for line in lines[:1234])
    early = data.take(data.times < 1234)
    assert sorted(early.ratings.tolist()) == sorted([*expected, 3.0])  # the quoted row has time 1
    path.write_bytes(gzip.compress(whole))
    again, _ = read_domain(path, core=0)
    np.testing.assert_array_equal(again.ratings, data.ratings)
    np.testing.assert_array_equal(again.users, data.users)


def test_duplicates_and_core(tmp_path: Path) -> None:
    rows = [f"u{u},i{i},{(u + i) % 5 + 1},1" for u in range(5) for i in range(5)]
    path = _write(tmp_path / "core.csv", [*rows, "u9,i0,4,1", "u0,i0,5,0", "u1,i1,5,2"])
    data, report = read_domain(path)
    assert (report.rows, report.duplicates, report.interactions_before_core) == (28, 2, 26)
    assert (data.n_users, data.n_items, len(data)) == (5, 5, 25)
    rating = {
        (data.user_ids[u], data.item_ids[i]): float(r)
        for u, i, r in zip(data.users, data.items, data.ratings, strict=True)
    }
    assert rating["u0", "i0"] == 1  # the duplicate of time 0 is older
    assert rating["u1", "i1"] == 5


def test_nothing_left_of_the_core(tmp_path: Path) -> None:
    path = _write(tmp_path / "thin.csv", _lines(20))
    with pytest.raises(InputError, match="the 5-core removes all 20 ratings") as caught:
        read_domain(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (gzip.compress(b"", mtime=0), "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        (b"\n\n \n", "no rows: blank lines only"),
        (b"user,item,rating\n", "no rows"),
        (b"PK\x03\x04rest", "packed by zip"),
        (b"BZh91AY", "packed by bzip2"),
        (b"PAR1PAR1", "not a readable Parquet file"),
    ],
)
def test_files_without_rows(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "dump"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_domain(path)
    assert message in caught.value.what
    assert caught.value.where == str(path)
    assert caught.value.fix


def test_missing_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file") as caught:
        read_domain(tmp_path / "none.csv")
    assert caught.value.where == str(tmp_path / "none.csv")
    with pytest.raises(InputError, match="is a directory"):
        read_domain(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_domain(tmp_path / "none.parquet", format="parquet")


def test_truncated_and_damaged_gzip(tmp_path: Path) -> None:
    numbers = random.Random(0)
    lines = [f"u{numbers.random()},i{numbers.random()},3,1" for _ in range(2000)]
    whole = gzip.compress("\n".join(lines).encode())
    path = tmp_path / "ratings.csv.gz"
    for size in (len(whole) // 2, len(whole) - 4, 12):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=f"ends early: all its {size} bytes") as caught:
            read_domain(path)
        assert caught.value.where is not None
        assert caught.value.where.startswith(f"{path}:")
    for position in (len(whole) // 2, len(whole) - 6):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 255]) + whole[position + 1 :])
        with pytest.raises(InputError, match="the gzip file is damaged"):
            read_domain(path)


def test_file_without_line_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "BLOCK_BYTES", 100)
    monkeypatch.setattr(text_module, "LONGEST_LINE", 1 << 20)
    path = tmp_path / "blob"
    path.write_bytes(b"x" * (2 << 20))
    with pytest.raises(InputError, match="no line ends within 1 MiB"):
        read_domain(path)


def test_a_reading_that_is_given_up_ends_its_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_module, "BLOCK_BYTES", 100)
    path = tmp_path / "ratings.csv"
    path.write_text("u,i,3,1\n" * 10_000)
    before = set(threading.enumerate())
    blocks = text_module.read_blocks(path)
    assert bytes(next(blocks).data) == b"u,i,3,1\n" * 12
    (reader,) = set(threading.enumerate()) - before
    blocks.close()
    reader.join(timeout=60)
    assert not reader.is_alive()


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf", b"\xef\xbb\xbf\xef\xbb\xbf"])
@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_one_line_without_an_end(
    mark: bytes, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_module, "BLOCK_BYTES", block)
    path = tmp_path / "ratings.csv"
    path.write_bytes(mark + b"A1B2C3D4E5,0001048775,4.0,1400000000")
    data, _ = read_domain(path, core=0)
    assert (data.user_ids.tolist(), data.item_ids.tolist()) == (["A1B2C3D4E5"], ["0001048775"])


@pytest.mark.parametrize(
    "broken", ['""1"",x,4,1', '"a"\r,x,4,1', '"a""b"c,x,4,1', '"a",x"y",4"",1"']
)
def test_a_quote_within_a_column_is_met_alike_in_any_company(broken: str, tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    found = []
    for company in ([], ['"a']):  # a quote that is not closed has every line read by itself
        lines = [*(f'"u{row}",i,3,{row}' for row in range(400)), broken, *company]
        path.write_text("\n".join(lines) + "\n", newline="")
        data, report = read_domain(path, core=0)
        rejected = [line for line, _ in report.rejected_examples if line < 402]
        found.append((data.user_ids.tolist(), data.item_ids.tolist(), rejected))
    assert found[0] == found[1]
