"""A prepared domain is the domain read from the dump, and any damage to it is found."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from scdr.data import Interactions, on_disk, prepare_domain, preparing, read_domain
from scdr.errors import InputError

Row = tuple[Any, ...]
Write = Callable[[str, Path, Sequence[Row]], Path]
USERS = ["007", "7", "ü-ser", "用户", "😀", "A1", "a b", "O'Neil", "z"]
ITEMS = ["0001", "1", "é", "B000X", "ÿ", "𝄞", "C%s"]


def ratings(rows: int, seed: int = 0) -> list[Row]:
    """Rows with many duplicates, among them some of equal time, and half stars."""
    rng = random.Random(seed)
    return [
        (rng.choice(USERS), rng.choice(ITEMS), rng.randrange(1, 11) / 2, rng.randrange(-3, 9))
        for _ in range(rows)
    ]


def assert_equal(first: Interactions, second: Interactions) -> None:
    for name in ("users", "items", "ratings", "times", "user_ids", "item_ids"):
        a, b = getattr(first, name), getattr(second, name)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    dump = tmp_path / "dump.csv"
    dump.write_text("".join(f"{u},{i},{r},{t}\n" for u, i, r, t in ratings(80)))
    prepare_domain(dump, tmp_path / "domain.parquet", core=2)
    return tmp_path / "domain.parquet"


@pytest.mark.parametrize("id_bytes", [1 << 28, 0])
@pytest.mark.parametrize("core", [0, 3])
def test_every_format_gives_the_domain_of_its_dump(
    core: int,
    id_bytes: int,
    text_format: str,
    write: Write,
    pack: Callable[[Path], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preparing, "IDS_IN_MEMORY", id_bytes)
    dump = pack(write(text_format, tmp_path / "dump", ratings(150)))
    options = {"core": core, "format": text_format}
    expected, report = read_domain(dump, **options)
    out = tmp_path / "domain.parquet"
    made = prepare_domain(dump, out, **options)
    found, found_report = read_domain(out, core=core)
    assert_equal(found, expected)
    assert found_report == made.report == replace(report, path=str(out))
    assert (made.users, made.items, made.ratings) == (
        expected.n_users, expected.n_items, len(expected),
    )  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["domain.parquet", "dump"]


def test_parquet_without_times_over_several_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "ROWS_IN_MEMORY", 25)
    monkeypatch.setattr(on_disk, "ROWS_PER_PART", 7)
    monkeypatch.setattr("scdr.data.frames.ROWS_PER_BATCH", 10)
    frame = pl.DataFrame(ratings(200), ("user", "item", "rating", "time"), orient="row")
    frame.drop("time").write_parquet(tmp_path / "dump.parquet")
    prepare_domain(tmp_path / "dump.parquet", tmp_path / "domain", core=2)
    assert_equal(
        read_domain(tmp_path / "domain", core=2)[0],
        read_domain(tmp_path / "dump.parquet", core=2)[0],
    )


@pytest.mark.parametrize("core_in_memory", [0, 300, 10**6])
def test_the_core_of_a_domain_that_does_not_fit_into_memory(
    core_in_memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "ROWS_IN_MEMORY", 1500)
    monkeypatch.setattr(on_disk, "CORE_ROWS_IN_MEMORY", core_in_memory)
    rng = random.Random(1)
    dump = tmp_path / "dump.csv"
    dump.write_text(
        "".join(
            f"u{int(rng.paretovariate(0.5))},i{int(rng.paretovariate(0.5))},3,{row}\n"
            for row in range(2000)
        )
    )
    prepare_domain(dump, tmp_path / "domain", core=5)
    expected, _ = read_domain(dump, core=5)
    assert 0 < len(expected) < 2000
    assert_equal(read_domain(tmp_path / "domain", core=5)[0], expected)


def test_times_at_the_ends_of_their_range(tmp_path: Path) -> None:
    dump = tmp_path / "dump.csv"
    lowest, highest = -(2**63), 2**63 - 1
    dump.write_text(f"u,i,1,{highest}\nu,i,2,{lowest}\nv,i,3,{lowest}\nv,i,4,0\nw,i,5,\n")
    prepare_domain(dump, tmp_path / "domain", core=0)
    found, _ = read_domain(tmp_path / "domain", core=0)
    assert_equal(found, read_domain(dump, core=0)[0])
    assert found.ratings.tolist() == [4, 5, 1]


def test_a_larger_core_is_taken_at_loading_and_a_smaller_one_refused(
    prepared: Path, tmp_path: Path
) -> None:
    found, report = read_domain(prepared, core=4)
    expected, _ = read_domain(tmp_path / "dump.csv", core=4)
    assert_equal(found, expected)
    assert report.core == 4
    with pytest.raises(InputError, match="prepared with core 2, and core 1"):
        read_domain(prepared, core=1)


def test_malformed_rows_are_listed_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "REJECTED_LISTED", 3)
    lines = [f"u{row % 7},i{row % 11},3,{row}" for row in range(1000)]
    for row in (4, 500, 700, 900):
        lines[row] = f"u,,{row}"
    dump = tmp_path / "dump.csv"
    dump.write_text("\n".join(lines))
    out = tmp_path / "domain.parquet"
    report = prepare_domain(dump, out, core=0).report
    assert report.rejected == 4
    listed = pl.read_csv(tmp_path / "domain.rejected.csv")
    assert listed["line"].to_list() == [5, 501, 701]
    assert listed["reason"].to_list() == 3 * ["no item id"]
    with pytest.raises(InputError, match="line 5 of the dump"):
        read_domain(out, core=0, strict=True)
    with pytest.raises(InputError, match=r"dump\.csv:5"):
        prepare_domain(dump, tmp_path / "strict", core=0, strict=True)
    assert not (tmp_path / "strict").exists()


def test_any_changed_byte_is_found(prepared: Path) -> None:
    whole = prepared.read_bytes()
    places = {
        *range(len(whole) - 2500, len(whole), 7),
        *range(len(whole) - 8, len(whole)),
        *range(0, len(whole), 97),
    }
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        prepared.write_bytes(damaged)
        with pytest.raises(InputError, match=r"domain\.parquet"):
            read_domain(prepared, core=2)
    for size in range(0, len(whole), 499):
        prepared.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"domain\.parquet"):
            read_domain(prepared, core=2)
    prepared.write_bytes(whole + b"\0")
    with pytest.raises(InputError, match=r"damaged.*domain\.parquet"):
        read_domain(prepared, core=2)


def test_columns_of_a_prepared_domain_are_refused(prepared: Path) -> None:
    with pytest.raises(InputError, match="columns of a prepared domain"):
        read_domain(prepared, columns={"user": "users"}, core=2)


def test_preparing_twice_is_refused(prepared: Path) -> None:
    with pytest.raises(InputError, match="prepared already"):
        prepare_domain(prepared, prepared.with_name("again"))


def test_a_core_that_leaves_nothing_leaves_no_file(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="99-core removes all"):
        prepare_domain(tmp_path / "dump.csv", tmp_path / "again", core=99)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["domain.parquet", "dump.csv"]
