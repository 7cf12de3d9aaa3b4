from __future__ import annotations

from pathlib import Path

import pytest

from scdr.data import Interactions, cold_start_split, cross_domain, example_paths, read_domain

REAL = Path(__file__).resolve().parents[3] / "shared" / "data"

# rows in the file; users, items, ratings after duplicates and 5-core
FILES = {
    "epinions/ratings_Cat03.csv.gz": (167_263, 5_299, 5_265, 112_946),
    "epinions/ratings_Cat04.csv.gz": (102_957, 1_120, 1_465, 13_596),
    "epinions/ratings_Cat05.csv.gz": (85_419, 1_701, 2_606, 26_814),
    "douban/ratings_douban_book.csv.gz": (96_041, 1_696, 6_775, 95_099),
    "douban/ratings_douban_music.csv.gz": (69_709, 1_160, 5_567, 68_662),
}
PAIRS = {
    ("epinions/ratings_Cat03.csv.gz", "epinions/ratings_Cat05.csv.gz"): 779,
    ("epinions/ratings_Cat04.csv.gz", "epinions/ratings_Cat03.csv.gz"): 722,
    ("epinions/ratings_Cat04.csv.gz", "epinions/ratings_Cat05.csv.gz"): 193,
    ("douban/ratings_douban_book.csv.gz", "douban/ratings_douban_music.csv.gz"): 1_018,
}


def _read(name: str) -> tuple[Interactions, int]:
    path = REAL / name
    if not path.exists():
        pytest.skip(f"no {name} beside the repository")
    data, report = read_domain(path)
    assert report.format == "csv"
    assert report.rejected == 0
    return data, report.rows


@pytest.mark.parametrize("name", FILES)
def test_counts(name: str) -> None:
    data, rows = _read(name)
    assert (rows, data.n_users, data.n_items, len(data)) == FILES[name]


@pytest.mark.parametrize("pair", PAIRS)
def test_overlap(pair: tuple[str, str]) -> None:
    domains = cross_domain(_read(pair[0])[0], _read(pair[1])[0])
    assert len(domains.overlap) == PAIRS[pair]


def test_example_ships_and_splits() -> None:
    source_path, target_path = example_paths()
    assert "Tang" in (source_path.parent / "README.md").read_text()
    source, source_report = read_domain(source_path)
    target, target_report = read_domain(target_path)
    assert (source_report.rows, source.n_users, source.n_items, len(source)) == FILES[
        "epinions/ratings_Cat03.csv.gz"
    ]
    assert (target_report.rows, target.n_users, target.n_items, len(target)) == FILES[
        "epinions/ratings_Cat05.csv.gz"
    ]
    split = cold_start_split(cross_domain(source, target), beta=0.5, seed=0)
    counts = split.manifest()
    assert [counts[f"{name}_users"] for name in ("test", "validation", "train")] == [390, 39, 350]
    assert counts["train_ratings"] + counts["validation_ratings"] + counts["test_ratings"] == 26_814
