"""Dumps to read: sound ones in every text format, and what can happen to the bytes of one."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random

from hypothesis import strategies as st

USERS = ["A1", "007", "7", "ü-ser", "用户", "😀", "a b", "O'Neil", "A3SGXH7AUHU8GW", " x", "A%sZ"]
ITEMS = ["B000X", "0001", "1", "é", "ÿ", "𝄞", "0001048775", "C\\D", "n/a", "null", "#1"]
RATINGS = ["1", "5", "4.0", "3.5", "0", "-2", "1e0", "4.", "+3", "2.50000001"]
TIMES = ["1300000000", "0", "-5", "1.3e9", "1371427200000", "12345678901234567", "7.9", ""]
QUOTED = ['a,"b', 'x"y', "tab\tin", '"', "c,d"]

_REVIEW = ("reviewerID", "asin", "overall", "unixReviewTime")
_TEXTS = ["", "plain text " * 9, 'it\'s "fine"', "a\\b\n\tc", "naïve 漢字 😀", "{[,:]}", "\x7f"]
_HEADERS = {
    "amazon-2023": ("user_id", "parent_asin", "rating", "timestamp"),
    "recbole": ("user_id:token", "item_id:token", "rating:float", "timestamp:float"),
    "tsv": ("userId", "movieId", "rating", "timestamp"),
    "csv": ("user", "item", "rating", "time"),
}
FORMATS = ["amazon-2014-json", "amazon-2018-json", "amazon-2014-csv", "amazon-2018-csv", *_HEADERS]

_TOKENS = [
    b'"', b"\\", b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\r", b"\n", b"\r\n", b"\n\n", b"\t",
    b",", b"::", b";", b" ", b"{", b"}", b"[", b"]", b":", b"\xef\xbb\xbf", b"NaN", b"Infinity",
    b"null", b"true", b"-", b"+", b"e", b"1e999", b"-1e-999", b"9" * 25, b"9" * 400, b"0" * 30,
    b"\\u0000", b"\\ud83d\\ude00", b"\\ud800", b"\\udc00", b"\\x", b"\x0b", b"\xc2\xa0",
    b"[" * 40, b"[" * 2000, b'"asin":"Q",', b'"as\\u0069n":"Q",', b'"overall":"4",', b"x" * 5000,
    b"2014-02-28", b"2014-02-28T01:02:03Z", b"2014-02-30", b"\x85", b"\xe2\x80\xa8",
]  # fmt: skip


@st.composite
def sound(draw: st.DrawFn) -> tuple[str, bytes]:
    """A format, and some hundreds of rows in it, so that a few can be broken."""
    format = draw(st.sampled_from(FORMATS))
    rng = random.Random(draw(st.integers(0, 2**16)))
    quoted = QUOTED if draw(st.booleans()) else []
    rows = [
        (
            rng.choice(USERS + quoted), rng.choice(ITEMS + quoted),
            rng.choice(RATINGS), rng.choice(TIMES),
        )
        for _ in range(draw(st.sampled_from([1, 30, 400])))
    ]  # fmt: skip
    return format, (_json if format.endswith("json") else _delimited)(format, rows, rng)


def _delimited(format: str, rows: list[tuple[str, ...]], rng: random.Random) -> bytes:
    order = (1, 0, 2, 3) if format == "amazon-2018-csv" else (0, 1, 2, 3)
    stream = io.StringIO()
    tabs = format in ("tsv", "recbole")
    writer = csv.writer(
        stream,
        delimiter="\t" if tabs else ",",
        lineterminator=rng.choice(["\n", "\r\n"]),
        quoting=rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    )
    more = rng.choice([(), ("more",), ("", "x y")])
    if header := _HEADERS.get(format):
        writer.writerow([*header, *more])
    writer.writerows([*(row[place] for place in order), *more] for row in rows)
    return stream.getvalue().encode()


def _json(format: str, rows: list[tuple[str, ...]], rng: random.Random) -> bytes:
    def literal(text: str) -> object:
        try:
            return rng.choice([text, float(text), int(float(text))])
        except ValueError:
            return rng.choice([text, None])

    ascii, separators = rng.choice([True, False]), rng.choice([(",", ":"), (", ", ": ")])
    lines = []
    for user, item, rating, time in rows:
        review = dict(zip(_REVIEW, (user, item, literal(rating), literal(time)), strict=True))
        review |= {"reviewText": rng.choice(_TEXTS), "helpful": [0, {"a": [True, None, -1.5e3]}]}
        if format == "amazon-2018-json":
            review["verified"] = True
        members = list(review.items())
        rng.shuffle(members)
        lines.append(json.dumps(dict(members), ensure_ascii=ascii, separators=separators))
    return ("\n".join(lines) + rng.choice(["", "\n"])).encode()


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Up to four things done to bytes: cut, doubled, flipped, put in, encoded otherwise."""
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        match draw(
            st.sampled_from(["put", "put", "put", "flip", "drop", "double", "cut", "whole"])
        ):
            case "put":
                data = data[:place] + draw(st.sampled_from(_TOKENS)) + data[place:]
            case "flip" if place < len(data):
                flipped = data[place] ^ draw(st.integers(1, 255))
                data = data[:place] + bytes([flipped]) + data[place + 1 :]
            case "drop":
                data = data[:place] + data[place + draw(st.integers(1, 60)) :]
            case "double":
                data = data[:place] + data[max(0, place - draw(st.integers(1, 300))) :]
            case "cut":
                data = data[:place]
            case "whole":
                data = draw(st.sampled_from(_WHOLE))(data)
            case _:
                pass
    return data


_WHOLE = [
    lambda data: b"\xef\xbb\xbf" + data,
    lambda data: data.replace(b"\n", b"\r\n"),
    lambda data: data.replace(b"\n", b"\r"),
    lambda data: data.replace(b"\n", b"\n\n"),
    lambda data: data.decode(errors="replace").encode("utf-16"),
    lambda data: data.decode(errors="replace").encode("latin-1", errors="replace"),
    lambda data: data.decode(errors="replace").encode("utf-8-sig"),
    lambda data: data.replace(b",", b";"),
    lambda data: data.replace(b",", b"::"),
]


@st.composite
def packed(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes as they are or gzipped, in several members, cut, damaged, with something behind."""
    kind = draw(st.sampled_from(["plain", "plain", "gzip", "members", "cut", "flip", "behind"]))
    if kind == "plain":
        return data
    middle = draw(st.integers(0, len(data)))
    parts = [data[:middle], data[middle:]] if kind == "members" else [data]
    whole = b"".join(gzip.compress(part, mtime=0) for part in parts)
    place = draw(st.integers(0, len(whole) - 1))
    match kind:
        case "cut":
            return whole[:place]
        case "flip":
            return (
                whole[:place]
                + bytes([whole[place] ^ draw(st.integers(1, 255))])
                + whole[place + 1 :]
            )
        case "behind":
            return whole + draw(st.sampled_from([b"\0" * 9, b"garbage", b"\x1f\x8b", whole[:7]]))
    return whole
