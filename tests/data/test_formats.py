from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scdr.data import FORMATS, Interactions, read_domain
from scdr.errors import InputError

Write = Callable[[str, Path, Sequence[tuple[object, ...]]], Path]

AMAZON_ROWS = [
    ("A2SUAM1J3GNN3B", "0000013714", 5.0, 1252800000),
    ("A14VAT5EAX3D9S", "B000F83SZQ", 3.0, 1363392000),
    ("A14VAT5EAX3D9S", "B00ANV2B0A", 1.0, 1363392001),
    ("AO94DHGC771SJ", "048665088X", 4.5, 1400457600),
]

# A carriage return or newline within quotes is no part of the line-based formats; a byte order
# mark is dropped at the start of a file.
NASTY = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0\ufeff")
    | st.sampled_from(list("\"',\t 0;|\\#é")),
    min_size=1,
    max_size=6,
)


def _rows(data: Interactions) -> list[tuple[str, str, float, int]]:
    return [
        (data.user_ids[u], data.item_ids[i], float(r), int(t))
        for u, i, r, t in zip(data.users, data.items, data.ratings, data.times, strict=True)
    ]


def test_every_text_format_is_tested(text_format: str) -> None:
    assert text_format in FORMATS


@pytest.mark.parametrize("packed", [False, True])
def test_recognised_by_content(
    tmp_path: Path, text_format: str, write: Write, pack: Callable[[Path], Path], packed: bool
) -> None:
    path = write(text_format, tmp_path / "dump", AMAZON_ROWS)
    if packed:
        pack(path)
    data, report = read_domain(path, core=0)
    assert _rows(data) == AMAZON_ROWS
    # positional columns with Amazon's ids are its 2014 dump
    expected = "amazon-2014-csv" if text_format == "csv" else text_format
    assert report.format == expected
    assert (report.rows, report.rejected, report.duplicates) == (4, 0, 0)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(
        st.tuples(NASTY, NASTY, st.integers(1, 10).map(lambda r: r / 2), st.integers(0, 2**40)),
        min_size=1,
        max_size=12,
        unique_by=lambda row: row[:2],
    )
)
def test_round_trip_of_nasty_ids(
    tmp_path: Path,
    text_format: str,
    write: Write,
    rows: list[tuple[str, str, float, int]],
) -> None:
    path = write(text_format, tmp_path / "dump", rows)
    data, _ = read_domain(path, format=text_format, core=0)
    assert _rows(data) == sorted(rows, key=lambda row: row[3])


def test_amazon_order_is_decided_by_most_rows(tmp_path: Path) -> None:
    odd = "#oc-R1LDUTV6QX4IYO,B000F83SZQ,4,1252800000"
    lines = [f"A{number:012d}Q,B{number:09d},5,1252800000" for number in range(40)]
    path = tmp_path / "ratings"
    path.write_text("\n".join([odd, *lines]))
    data, report = read_domain(path, core=0)
    assert report.format == "amazon-2014-csv"
    swapped = [
        ",".join([line.split(",")[1], line.split(",")[0], "5,1252800000"]) for line in [odd, *lines]
    ]
    path.write_text("\n".join(swapped))
    again, report = read_domain(path, core=0)
    assert report.format == "amazon-2018-csv"
    assert list(again.user_ids) == list(data.user_ids)


@pytest.mark.parametrize(
    "text",
    [
        "1,1630,4,\n1,1181,4,\n2,6061,5,\n",  # an empty time column
        "1,1630,4\n1,1181,4\n2,6061,5",  # none, and no newline at the end
        "1,1630,4,0\r\n1,1181,4,0\r\n2,6061,5,0\r\n",
        "\ufeff1,1630,4\n1,1181,4\n2,6061,5\n\n\n",
        '"1","1630","4"\n"1","1181",4\n2,6061,5\n',
        "\n1,1630,4\n\n1,1181,4\n  \n2,6061,5\n",
        "1,1630,4,nan\n1,1181,4,\n2,6061,5, 0 \n",
        "1,1630, 4 ,,more\n1,1181,4.0,,\n2,6061,5,,\n",
        "uid,asin,stars\n1,1630,4\n1,1181,4\n2,6061,5\n",
        'rating,"Item ID",user_id\r\n4,1630,1\r\n4,1181,1\r\n5,6061,2\r\n',
        "1\t1630\t4\n1\t1181\t4\n2\t6061\t5\n",
        "item_id:token\tuser_id:token\trating:float\n1630\t1\t4\n1181\t1\t4\n6061\t2\t5\n",
    ],
)
def test_plain_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plain"
    path.write_text(text, encoding="utf-8", newline="")
    data, report = read_domain(path, core=0)
    assert _rows(data) == [("1", "1630", 4, 0), ("1", "1181", 4, 0), ("2", "6061", 5, 0)]
    assert (report.rows, report.rejected) == (3, 0)
    assert report.format in ("csv", "tsv", "recbole")


def test_times_in_any_notation(tmp_path: Path) -> None:
    path = tmp_path / "plain"
    path.write_text("u1,i1,3,1.4e9\nu1,i2,3,1400000001.0\nu1,i3,3, 1400000002\nu1,i4,3,-5\n")
    data, _ = read_domain(path, core=0)
    assert data.times.tolist() == [-5, 1400000000, 1400000001, 1400000002]


def test_reviews_with_floats_and_strings(tmp_path: Path) -> None:
    path = tmp_path / "reviews"
    path.write_text(
        '{"overall": 4.0, "reviewerID": "A1", "asin": "B1", "reviewTime": "01 1, 2018"}\n'
        '{"overall": 5, "verified": true, "reviewerID": "A2", "asin": "B1", "unixReviewTime": 7}\n'
        '{"overall": "3.0", "reviewerID": "A3", "asin": "B2", "unixReviewTime": "8"}\n'
    )
    data, report = read_domain(path, core=0)
    assert report.format == "amazon-2018-json"
    assert _rows(data) == [("A1", "B1", 4, 0), ("A2", "B1", 5, 7), ("A3", "B2", 3, 8)]


def test_reviews_of_2023_prefer_the_parent(tmp_path: Path) -> None:
    path = tmp_path / "reviews.jsonl"
    path.write_text(
        '{"rating": 4.0, "asin": "B1", "parent_asin": "B0", "user_id": "AE", "timestamp": 99}\n'
    )
    data, report = read_domain(path, core=0)
    assert report.format == "amazon-2023"
    assert _rows(data) == [("AE", "B0", 4, 99)]


def test_columns_by_name_and_position(tmp_path: Path) -> None:
    path = tmp_path / "plain"
    path.write_text("Kunde,Ware,Note,Datum\nk1,w1,3,2020-01-01\nk2,w1,4,2020-01-02\n")
    named, _ = read_domain(
        path, core=0, columns={"user": "Kunde", "item": "Ware", "rating": "Note"}
    )
    assert _rows(named) == [("k1", "w1", 3, 0), ("k2", "w1", 4, 0)]
    path.write_text("w1,k1,9,3\nw1,k2,8,4\n")
    placed, _ = read_domain(path, core=0, columns={"user": 1, "item": 0, "time": None, "rating": 3})
    assert _rows(placed) == _rows(named)
    path.write_text("user,item,rating,time\nk1,w1,3,soon\nk2,w1,4,later\n")
    without_time, _ = read_domain(path, core=0, columns={"time": None})
    assert _rows(without_time) == _rows(named)


def test_gzip_of_several_members(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv.gz"
    path.write_bytes(gzip.compress(b"u1,i1,3,1\nu2,") + gzip.compress(b"i2,4,2\n"))
    data, _ = read_domain(path, core=0)
    assert _rows(data) == [("u1", "i1", 3, 1), ("u2", "i2", 4, 2)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id,rating,timestamp\nu,3,1\n", "no item column among user_id, rating, timestamp"),
        ("item_id\trating:float\ni\t3\n", "no user column among"),
        ("reviewer,product,grade\nu1,i1,3\n", "no rating column among"),
        ("u1,3\nu2,4\n", "no column for the rating: the file has 2 columns"),
        ('{"reviewerID": "A1", "overall": 3}\n', "no item column: no object has the key 'asin'"),
        ('{"who": "A1", "what": 3}\n', "unknown format, JSON with the keys who, what"),
        ("just some prose\nwithout columns\n", "unknown format, neither JSON lines nor columns"),
        ("\0\0\0\0", "unknown format, it is not UTF-8 text"),
        ("{'reviewerID': 'A1'}\n", "not JSON lines"),
        (f"u1,{'x' * 200_000},3\n", "no column for the item: the file has 1 columns"),
    ],
)
def test_unusable_layout(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "dump"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_domain(path)
    assert message in caught.value.what
    assert caught.value.where is not None
    assert caught.value.where.startswith(str(path))
    assert caught.value.fix


def test_unknown_format_lists_the_formats(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown format 'netflix'") as caught:
        read_domain(tmp_path / "missing", format="netflix")
    assert all(name in str(caught.value) for name in FORMATS)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"who": "a"}, "unknown column role 'who'"),
        ({"user": None}, "columns gives no user column"),
        ({"user": "nobody"}, "no column 'nobody' for the user"),
        ({"user": 7}, "no column 7 for the user"),
        ({"user": "item"}, "column 'item' is both user and item"),
    ],
)
def test_unusable_columns(tmp_path: Path, columns: dict[str, str], message: str) -> None:
    path = tmp_path / "dump"
    path.write_text("user,item,rating\nu1,i1,3\n")
    with pytest.raises(InputError, match=message):
        read_domain(path, columns=columns)


def test_all_byte_order_marks_at_the_start_are_taken_off(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_bytes(2 * b"\xef\xbb\xbf" + b"a,x,4,1\nb,y,5,2\n")
    found, _ = read_domain(path, core=0)
    assert found.user_ids.tolist() == ["a", "b"]


def test_a_quote_within_a_quoted_column_makes_its_row_malformed(tmp_path: Path) -> None:
    rows = [f'"u{n}","i{n % 7}","{1 + n % 5}","{n}"' for n in range(300)]
    rows[17] = '"u"17":"4",Z","i3","3","17"'
    path = tmp_path / "ratings.csv"
    path.write_text("\n".join(rows) + "\n")
    found, report = read_domain(path, core=0)
    assert len(found) == 299
    assert [line for line, _ in report.rejected_examples] == [18]
