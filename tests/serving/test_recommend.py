"""python -m scdr.recommend: the library's answers in a file, whatever the order of its rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from serving.people import cold_users, history_of, target_users

from scdr.data import ColdStartSplit
from scdr.recommend import main
from scdr.serving import Predictor, files


@pytest.fixture
def histories(split: ColdStartSplit, tmp_path: Path) -> Path:
    """Ratings of known and of new users, in any order, one of them twice, some of no known item."""
    rows = [("new", item, 1.0, 0) for item in list(history_of(split, 0))[:2]]
    rows += [("new", item, rating, 5) for item, rating in history_of(split, 0).items()]
    for number in range(1, 9):
        history = history_of(split, number)
        rows += [(f"new{number}", *rated, at) for at, rated in enumerate(history.items(), start=1)]
    for user in (cold_users(split)[0], target_users(split)[0], "lost"):
        rows += [(user, "never seen", 3.0, 1)]
    random = np.random.default_rng(0)
    first = rows[:2]
    table = [*first, *(rows[n] for n in random.permutation(np.arange(2, len(rows))))]
    path = tmp_path / "histories.csv"
    pl.DataFrame(table, ["user", "item", "rating", "time"], orient="row").write_csv(path)
    return path


def run(model: Path, histories: Path, out: Path, *options: str) -> int:
    return main([str(model), "--histories", str(histories), "--out", str(out), *options])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_file_holds_what_the_library_answers(
    suffix: str,
    model_of: Callable[[str], Path],
    predictor_of: Callable[[str], Predictor],
    split: ColdStartSplit,
    histories: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(files, "ROWS_AT_ONCE", 7)  # so that users go on from one piece to the next
    monkeypatch.setattr(files, "USERS_AT_ONCE", 2)
    monkeypatch.setattr(files, "ROWS_PER_PART", 50)
    out = tmp_path / f"best.{suffix}"
    before = sorted(tmp_path.iterdir())
    assert run(model_of("ptupcdr"), histories, out, "--k", "4") == 0
    assert sorted(tmp_path.iterdir()) == sorted([*before, out])
    table = pl.read_csv(out) if suffix == "csv" else pl.read_parquet(out)
    assert table.columns == ["user", "rank", "item", "rating", "answered_as"]
    predictor = predictor_of("ptupcdr")
    new = {"new": history_of(split, 0)}
    new |= {f"new{number}": history_of(split, number) for number in range(1, 9)}
    expected = {user: predictor.recommend(history, 4) for user, history in new.items()}
    for user in (cold_users(split)[0], target_users(split)[0], "lost"):
        expected[user] = predictor.recommend(user, 4)
    assert table["user"].unique(maintain_order=True).to_list() == sorted(expected)
    for (user,), rows in table.group_by("user"):
        best = expected[str(user)]
        assert rows["rank"].to_list() == [1, 2, 3, 4]
        assert rows["item"].to_list() == best.items
        np.testing.assert_allclose(rows["rating"].to_numpy(), best.ratings, rtol=1e-5)
        assert set(rows["answered_as"]) == {best.answered_as}
    said = capsys.readouterr().out
    assert "12 users" in said and "9 folded_in" in said and "1 items_alone" in said


def test_rated_items_are_left_out(
    model_of: Callable[[str], Path],
    predictor_of: Callable[[str], Predictor],
    split: ColdStartSplit,
    histories: Path,
    tmp_path: Path,
) -> None:
    predictor = predictor_of("scdr_b")
    out, rated = tmp_path / "best.parquet", tmp_path / "rated.csv"
    best = predictor.recommend(history_of(split, 4), 3).items
    rows = [*(("new4", item, 3.0) for item in best[:2]), ("somebody else", best[2], 3.0)]
    pl.DataFrame(rows, ["user", "item", "rating"], orient="row").write_csv(rated)
    assert run(model_of("scdr_b"), histories, out, "--k", "3", "--exclude", str(rated)) == 0
    table = pl.read_parquet(out)
    expected = predictor.recommend(history_of(split, 4), 3, exclude=best[:2]).items
    assert table.filter(pl.col("user") == "new4")["item"].to_list() == expected
    assert "somebody else" not in table["user"]


def test_by_hand(
    model_of: Callable[[str], Path],
    predictor_of: Callable[[str], Predictor],
    split: ColdStartSplit,
    capsys: pytest.CaptureFixture[str],
) -> None:
    user, predictor = cold_users(split)[0], predictor_of("scdr")
    assert main([str(model_of("scdr")), "--user", user, "--k", "2"]) == 0
    said = capsys.readouterr().out
    best = predictor.recommend(user, 2)
    assert "source_user" in said.replace("\n", " ")
    assert all(item in said for item in best.items)
    assert f"{best.ratings[0]:.2f}" in said
    assert main([str(model_of("scdr")), "--item", best.items[0], "unheard-of"]) == 0
    said = capsys.readouterr().out
    assert "items_alone" in said and "not in the model" in said


WRONG = {
    "nobody": ([], "no users"),
    "both": (["--histories", "a.csv", "--user", "b"], "by hand and from a file"),
    "no out": (["--histories", "a.csv"], "--histories and --out go together"),
    "k": (["--user", "a", "--k", "0"], "k is 0"),
    "suffix": (["--histories", "a.csv", "--out", "best.txt"], "neither Parquet nor CSV"),
    "missing": (["--histories", "nowhere.csv", "--out", "best.csv"], "nowhere.csv"),
    "no folder": (["--histories", "a.csv", "--out", "nowhere/best.csv"], "nowhere/best.csv"),
    "columns": (["--histories", "h.csv", "--out", "b.csv", "--columns", "x"], "--columns"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_call_is_one_line_and_writes_nothing(
    kind: str,
    model_of: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    options, expected = WRONG[kind]
    assert main([str(model_of("scdr")), *options]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and expected in lines[0], lines
    assert not list(tmp_path.iterdir())


def test_a_bad_file_leaves_what_was_there(
    model_of: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad, out = tmp_path / "bad.csv", tmp_path / "best.csv"
    bad.write_text("user,item,rating\n" + "u,i,good\n" * 9)
    out.write_text("precious")
    assert run(model_of("scdr"), bad, out) == 2
    assert "the file exists" in capfd.readouterr().err
    assert run(model_of("scdr"), bad, out, "--overwrite") == 2
    assert "malformed" in capfd.readouterr().err
    assert out.read_text() == "precious"
    assert sorted(tmp_path.iterdir()) == [bad, out]
