"""Whatever the bytes: the ratings that a slow reader finds, or one line that says what is wrong."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import dumps, slow_reader
from fuzz.mode import fuzz
from scdr.data import Interactions, prepare_domain, preparing, read_domain
from scdr.data import rows as rows_module
from scdr.data import text as text_module
from scdr.errors import InputError

BLOCKS = [1 << 7, 1 << 12, 1 << 23]


def ratings(data: Interactions) -> list[slow_reader.Rating]:
    return list(
        zip(
            data.user_ids[data.users].tolist(),
            data.item_ids[data.items].tolist(),
            data.ratings.tolist(),
            data.times.tolist(),
            strict=True,
        )
    )


def check_message(error: InputError, path: Path) -> None:
    assert "\n" not in str(error) and error.fix
    assert error.where is not None and error.where.startswith(str(path))


def check(path: Path, data: bytes, format: str, *, prepare: bool = False) -> None:
    path.write_bytes(data)
    wanted = slow_reader.expected(data, format, text_module.BLOCK_BYTES)
    out = path.with_name("domain.parquet")
    try:
        if prepare:
            prepare_domain(path, out, format=format, core=0)
            found, report = read_domain(out, core=0)
        else:
            found, report = read_domain(path, format=format, core=0)
    except InputError as error:
        check_message(error, path)
        assert wanted is None, error
        assert sorted(path.parent.iterdir()) == [path]  # nothing half-written
        return
    finally:
        for left in path.parent.glob("domain*"):
            left.unlink()
    assert wanted is not None, "a file that is to be refused"
    found_format, reading = wanted
    assert report.format == found_format
    assert report.rows == len(reading.ratings) + len(reading.rejected)
    assert [line for line, _ in report.rejected_examples] == reading.rejected[:20]
    assert all(reason and "\n" not in reason for _, reason in report.rejected_examples)
    assert report.rejected == len(reading.rejected)
    kept = slow_reader.in_order(reading.ratings)
    assert ratings(found) == kept
    assert report.duplicates == len(reading.ratings) - len(kept)
    if reading.rejected and not prepare:
        with pytest.raises(InputError) as caught:
            read_domain(path, format=format, core=0, strict=True)
        assert caught.value.where == f"{path}:{reading.rejected[0]}"


@fuzz(80)
@given(st.data())
def test_a_dump_damaged_in_some_places(tmp_path: Path, data: st.DataObject) -> None:
    format, sound = data.draw(dumps.sound())
    broken = data.draw(dumps.damaged(sound))
    whole = data.draw(dumps.packed(broken))
    chosen = data.draw(st.sampled_from(["auto", format]))
    with (
        patch.object(text_module, "BLOCK_BYTES", data.draw(st.sampled_from(BLOCKS))),
        patch.object(rows_module, "JSON_ROWS_AT_ONCE", data.draw(st.sampled_from([1, 1 << 16]))),
    ):
        check(tmp_path / "dump", whole, chosen)


@fuzz(10)
@given(st.data())
def test_a_damaged_dump_prepared(tmp_path: Path, data: st.DataObject) -> None:
    format, sound = data.draw(dumps.sound())
    broken = data.draw(dumps.damaged(sound))
    with patch.object(preparing, "ROWS_IN_MEMORY", data.draw(st.sampled_from([0, 100, 1 << 24]))):
        check(tmp_path / "dump", data.draw(dumps.packed(broken)), format, prepare=True)


@fuzz(40)
@given(st.binary(max_size=300), st.sampled_from(["auto", *dumps.FORMATS]))
def test_random_bytes(tmp_path: Path, data: bytes, format: str) -> None:
    check(tmp_path / "dump", data, format)


@fuzz(60)
@given(
    st.lists(st.text(st.sampled_from("ab01.,:\"'\t\r \\{}[]-e\0é"), max_size=12), max_size=9),
    st.sampled_from(["auto", *dumps.FORMATS]),
)
def test_random_lines(tmp_path: Path, lines: list[str], format: str) -> None:
    check(tmp_path / "dump", "\n".join(lines).encode(), format)
