"""The native reader of JSON lines: what the json module finds, or it leaves the line."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from fuzz import dumps
from fuzz.mode import fuzz
from scdr._native import _C

KEYS = ["reviewerID", "asin", "overall", "unixReviewTime"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.text(st.sampled_from('ab"\\\n\t\x7fé😀 '), max_size=80)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), VALUES, max_size=7)


def check(line: bytes) -> None:
    rows, left = _C.take_json_fields(line + b"\n", KEYS, 2)
    if left:
        assert (rows, left) == (b"\t\t\t\n", [0])
        return
    value = json.loads(line, parse_int=str, parse_float=str, parse_constant=lambda _: 1 / 0)
    fields = rows.decode().removesuffix("\n").split("\t")
    assert fields == ["" if value.get(key) is None else value[key] for key in KEYS]


@fuzz(200)
@given(OBJECTS, st.booleans(), st.sampled_from([(",", ":"), (" , ", " : ")]))
def test_objects(value: dict[str, object], ascii: bool, separators: tuple[str, str]) -> None:
    line = json.dumps(value, ensure_ascii=ascii, separators=separators)
    check(line.encode(errors="surrogatepass"))


@fuzz(300)
@given(st.data())
def test_damaged_objects(data: st.DataObject) -> None:
    line = json.dumps(data.draw(OBJECTS), ensure_ascii=data.draw(st.booleans()))
    broken = data.draw(dumps.damaged(line.encode(errors="surrogatepass")))
    for part in broken.split(b"\n"):
        check(part)


@fuzz(100)
@given(st.binary(max_size=200))
def test_strings_of_any_bytes(text: bytes) -> None:
    for part in text.split(b"\n"):
        check(b'{"reviewerID":"' + part + b'","asin":"x","overall":1}')


@fuzz(100)
@given(st.lists(OBJECTS, max_size=9))
def test_lines_do_not_know_each_other(values: list[dict[str, object]]) -> None:
    lines = [json.dumps(value).encode() + b"\n" for value in values]
    alone = [_C.take_json_fields(line, KEYS, 2) for line in lines]
    rows, left = _C.take_json_fields(b"".join(lines), KEYS, 2)
    assert rows == b"".join(row for row, _ in alone)
    assert left == [place for place, (_, other) in enumerate(alone) if other]


def test_plain_reviews_are_not_left() -> None:
    review = {
        "reviewerID": "A1é", "asin": "0001048775", "reviewerName": 'J. "Q" 😀',
        "helpful": [0, {"x": [True, False, None, -1.5, 10]}], "reviewText": "a\\b\u0001" * 50,
        "overall": 5.0, "unixReviewTime": 1300000000, "empty": {}, "none": [],
    }  # fmt: skip
    for ascii in (True, False):  # "\\ud83d\\ude00" and UTF-8
        plain = review | ({"reviewerID": "A1"} if ascii else {})
        rows, left = _C.take_json_fields(json.dumps(plain, ensure_ascii=ascii).encode(), KEYS, 2)
        assert rows.decode() == f"{plain['reviewerID']}\t0001048775\t5.0\t1300000000\n"
        assert left == []
