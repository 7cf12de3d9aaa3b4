"""Methods that predict several points of one distribution: their rows, tests and runs."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from scdr.compare import main
from scdr.experiments import work as working
from scdr.experiments.comparison import RESULT_COLUMNS, USER_COLUMNS, runs_of
from scdr.experiments.differences import differences
from scdr.experiments.figure import draw_comparison
from scdr.experiments.table import Table
from scdr.experiments.tables import error_tables
from scdr.methods import CONTROLS, METHODS
from scdr.methods.scdr_b import ScdrBConfig
from scdr.report.run_pages import _against_controls, _differences

POINTS = ("both", "mae", "rmse")
# MAE and RMSE of each method and point; a seed more adds 0.1 to all of them.
ERRORS: dict[tuple[str, str | None], tuple[float, float]] = {
    ("emcdr", None): (0.75, 1.0),
    ("scdr", None): (0.80, 0.95),
    ("scdr_b", "both"): (0.70, 0.91),
    ("scdr_b", "mae"): (0.60, 1.10),
    ("scdr_b", "rmse"): (0.72, 0.90),
    ("item_mean", None): (0.76, 0.98),
    ("bias_transfer", None): (0.71, 0.92),
}


def frames(*, failed_seed: int | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Results and users' errors; under one seed SCDR-B may have failed."""
    generator = np.random.default_rng(0)
    results: list[dict[str, Any]] = []
    users: list[dict[str, Any]] = []
    for seed in (0, 1):
        for (method, optimise), (mae, rmse) in ERRORS.items():
            key = {"pair": "p", "beta": 0.5, "seed": seed, "preset": "default"}
            key |= {"method": method, "optimise": optimise}
            if method == "scdr_b" and seed == failed_seed:
                results.append(key | {"error": "diverged"})
                continue
            results.append(key | {"mae": mae + 0.1 * seed, "rmse": rmse + 0.1 * seed})
            users += [
                key
                | {"user": user, "n_ratings": 3}
                | {"mae": mae + generator.normal(0, 0.01), "rmse": rmse}
                | {"rmse": rmse + generator.normal(0, 0.01)}
                for user in "abcdefghijkl"
            ]
    return pl.DataFrame(results, schema=RESULT_COLUMNS), pl.DataFrame(users, schema=USER_COLUMNS)


def lines(table: Table) -> dict[str, list[tuple[str, bool]]]:
    return {row.label: [(cell.text, cell.bold) for cell in row.cells] for row in table.rows}


def test_a_point_is_tested_in_the_metric_that_it_is_for() -> None:
    results, users = frames()
    tests = differences(results, users, proposed="scdr_b")
    rows = tests.select("metric", "against", "optimise", "rival", "rival_optimise").rows()
    assert set(rows) == {
        ("mae", "baseline", "both", "emcdr", None),
        ("mae", "baseline", "mae", "emcdr", None),
        ("mae", "control", "both", "bias_transfer", None),
        ("mae", "control", "mae", "bias_transfer", None),
        ("rmse", "baseline", "both", "scdr", None),
        ("rmse", "baseline", "rmse", "scdr", None),
        ("rmse", "control", "both", "bias_transfer", None),
        ("rmse", "control", "rmse", "bias_transfer", None),
    }
    assert len(rows) == 8 and tests["significant"].all()
    median = tests.filter(optimise="mae", against="baseline").row(0, named=True)
    assert median["improvement_percent"] == pytest.approx(100 * (0.8 - 0.65) / 0.8)
    assert median["user_difference"] == pytest.approx(-0.15, abs=0.01)


def test_rows_are_labelled_and_no_row_has_the_mark_of_another() -> None:
    results, users = frames()
    (table,) = error_tables(results, differences(results, users, proposed="scdr_b"))
    shown = lines(table)
    deviation = "0.0707"
    assert {label: cells for label, cells in shown.items() if label.startswith("SCDR-B")} == {
        "SCDR-B, both": [(f"0.7500 ± {deviation} *", False), (f"0.9600 ± {deviation} *", False)],
        "SCDR-B, median": [(f"0.6500 ± {deviation} *", True), (f"1.1500 ± {deviation}", False)],
        "SCDR-B, mean": [(f"0.7700 ± {deviation}", False), (f"0.9500 ± {deviation} *", True)],
        "SCDR-B, both over best baseline": [("+6.25 % *", False), ("+4.00 % *", False)],
        "SCDR-B, median over best baseline": [("+18.75 % *", False), ("", False)],
        "SCDR-B, mean over best baseline": [("", False), ("+5.00 % *", False)],
        "SCDR-B, both over best control": [("+1.32 % *", False), ("+1.03 % *", False)],
        "SCDR-B, median over best control": [("+14.47 % *", False), ("", False)],
        "SCDR-B, mean over best control": [("", False), ("+2.06 % *", False)],
    }
    assert list(shown)[:5] == ["EMCDR", "SCDR", "SCDR-B, both", "SCDR-B, median", "SCDR-B, mean"]
    assert table.notes[1].startswith("SCDR-B: a row for each point")
    without = results.filter(pl.col("method") != "scdr_b")
    (other,) = error_tables(without, differences(without, users, proposed="scdr"))
    assert len(other.notes) == 1


def test_as_a_baseline_it_is_the_best_of_its_points() -> None:
    results, users = frames()
    tests = differences(results, users, proposed="emcdr")
    baseline = tests.filter(against="baseline")
    assert baseline.select("metric", "optimise", "rival", "rival_optimise").rows() == [
        ("mae", None, "scdr_b", "mae"),
        ("rmse", None, "scdr_b", "rmse"),
    ]
    # But not to SCDR, of which it is a form with parts added.
    scdr = differences(results, users, proposed="scdr").filter(against="baseline")
    assert set(scdr["rival"]) == {"emcdr"}


def test_where_a_seed_failed_all_points_have() -> None:
    results, users = frames(failed_seed=1)
    assert differences(results, users, proposed="scdr_b").is_empty()
    (table,) = error_tables(results, differences(results, users, proposed="scdr_b"))
    shown = lines(table)
    for label in ("SCDR-B, both", "SCDR-B, median", "SCDR-B, mean"):
        assert shown[label] == [("failed 1 of 2", False)] * 2
    assert len(runs_of(results)) == 2 * 5
    assert len(runs_of(results).filter(pl.col("error").is_not_null())) == 1


def test_points_of_several_backbones_are_compared_each_with_its_own() -> None:
    results, users = frames()

    def renamed(frame: pl.DataFrame) -> pl.DataFrame:
        """SCDR-B with MF, and again with LightGCN and an error that is 0.2 higher."""
        method = pl.col("method") == "scdr_b"
        kept = frame.filter(method | pl.col("method").is_in(list(CONTROLS)))
        mf = kept.with_columns(backbone=pl.when(method).then(pl.lit("mf")))
        noise = pl.Series(np.linspace(0.2, 0.21, int(frame.select(method.sum()).item())))
        graph = mf.filter(method).with_columns(
            pl.col("mae", "rmse") + noise, backbone=pl.lit("lightgcn")
        )
        return pl.concat([mf, graph])

    tests = differences(renamed(results), renamed(users), proposed="scdr_b")
    assert tests.select("metric", "optimise", "rival", "rival_optimise").rows() == [
        ("mae", "both", "mf", "both"),
        ("mae", "mae", "mf", "mae"),
        ("rmse", "both", "mf", "both"),
        ("rmse", "rmse", "mf", "rmse"),
    ]
    (table,) = error_tables(renamed(results), tests)
    labels = list(lines(table))
    assert "SCDR-B, LightGCN, median" in labels and "SCDR-B, MF, mean" in labels
    assert labels[-3:] == [
        f"SCDR-B, LightGCN, {point} over MF" for point in ("both", "median", "mean")
    ]
    assert _differences(tests)[1] == (
        "p, beta 0.5: SCDR-B, LightGCN, median is 31.54 % behind the same with MF in MAE, not by "
        "chance (p < 0.05)."
    )


def test_the_page_says_which_point_is_ahead_of_which_rival() -> None:
    results, users = frames()
    said = _differences(differences(results, users, proposed="emcdr"))
    assert said[0] == (
        "p, beta 0.5: EMCDR is 23.08 % behind the best baseline (SCDR-B, median) in MAE, not by "
        "chance (p < 0.05)."
    )
    ahead = _against_controls(results)
    assert ahead == [
        "p, beta 0.5: ahead of the best control in MAE (Bias transfer, 0.7600): SCDR-B, median; "
        "SCDR-B, both.",
        "p, beta 0.5: ahead of the best control in RMSE (Bias transfer, 0.9700): SCDR-B, mean; "
        "SCDR-B, both.",
    ]


def test_the_picture_has_a_line_for_each_row() -> None:
    results, _ = frames()
    heights = []
    for frame in (results, results.filter(pl.col("method") != "scdr_b")):
        picture = io.BytesIO()
        draw_comparison(frame, picture)
        heights.append(Image.open(picture).height)
    assert heights[0] > heights[1]


def test_methods_say_which_points_they_have() -> None:
    assert METHODS["scdr_b"].points == POINTS
    others = [*METHODS.values(), *CONTROLS.values()]
    assert all(method.points == (None,) for method in others if method.name != "scdr_b")


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """SCDR-B and the controls on a small pair, one beta, two seeds."""
    monkeypatch.setenv("SCDR_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    for name in ("source", "target"):
        rows = [
            f"{user:03d},{name[0]}{item},{generator.integers(1, 6)}"
            for user in range(40)
            for item in range(12)
            if generator.random() < 0.9
        ]
        (tmp_path / f"{name}.csv").write_text("\n".join(rows) + "\n")
    pair = f"small={tmp_path / 'source.csv'}:{tmp_path / 'target.csv'}"
    chosen = ["--methods", "scdr_b", "--betas", "0.5", "--seeds", "0", "1", "--jobs", "1"]
    return ["--pairs", pair, *chosen, "--out", str(tmp_path / "out")]


def fits(monkeypatch: pytest.MonkeyPatch, fail_on: int | None = None) -> list[int]:
    """The seeds of all fits of SCDR-B from here on."""
    seeds: list[int] = []
    fit = METHODS["scdr_b"].fit

    def counted(data: Any, config: ScdrBConfig, context: Any) -> Any:
        seeds.append(context.seed)
        if context.seed == fail_on:
            raise RuntimeError("out of luck")
        return fit(data, config, context)

    method = dataclasses.replace(METHODS["scdr_b"], fit=counted)
    monkeypatch.setattr(working, "METHODS", {"scdr_b": method})
    return seeds


def test_one_fit_gives_all_points_and_they_are_those_of_train(
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from scdr.train import main as train

    seeds = fits(monkeypatch)
    assert main(options) == 0
    assert seeds == [0, 1]
    assert "10 runs, 0 failed" in capfd.readouterr().out
    results = pl.read_parquet(tmp_path / "out" / "results.parquet")
    assert len(results) == 2 * (3 + len(CONTROLS))
    ours = results.filter(pl.col("method") == "scdr_b", pl.col("seed") == 1)
    assert ours["optimise"].to_list() == list(POINTS)
    assert ours["config_hash"].n_unique() == ours["seconds"].n_unique() == 1
    assert results.filter(pl.col("method") != "scdr_b")["optimise"].is_null().all()

    files = ["--source", str(tmp_path / "source.csv"), "--target", str(tmp_path / "target.csv")]
    assert train([*files, "--beta", "0.5", "--seed", "1", "--out", str(tmp_path / "run")]) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    for row in ours.iter_rows(named=True):
        found = report["distribution"]["points"][row["optimise"]]
        assert (row["mae"], row["rmse"], row["user_mae"]) == (
            found["mae"],
            found["rmse"],
            found["user_mae"],
        )

    errors = pl.read_parquet(tmp_path / "out" / "user_errors.parquet")
    for row in results.iter_rows(named=True):
        own = errors.filter(
            pl.col("method") == row["method"],
            pl.col("seed") == row["seed"],
            pl.col("optimise").eq_missing(row["optimise"]),
        )
        assert len(own) == row["n_test_users"]
        assert own["mae"].mean() == pytest.approx(row["user_mae"])

    capfd.readouterr()
    assert main(options) == 0  # from what is stored
    assert seeds == [0, 1]
    assert pl.read_parquet(tmp_path / "out" / "results.parquet").equals(results)


def test_a_run_that_failed_is_one_failure(
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from scdr.analyze import main as analyze

    fits(monkeypatch, fail_on=1)
    assert main(options) == 0
    printed = capfd.readouterr().out
    assert "9 runs, 1 failed" in printed
    assert printed.count("out of luck") == 1
    results = pl.read_csv(tmp_path / "out" / "results.csv")
    failed = results.filter(pl.col("error").is_not_null())
    assert failed["optimise"].to_list() == list(POINTS)
    tables = (tmp_path / "out" / "tables.md").read_text()
    assert "| SCDR-B, median | failed 1 of 2 | failed 1 of 2 |" in tables
    assert analyze([str(tmp_path / "out"), "--out", str(tmp_path / "page")]) == 0
    page = (tmp_path / "page" / "report.html").read_text("utf-8")
    assert "10 runs, 1 failed" in page
    assert page.count("out of luck") == 1


def test_a_search_looks_at_the_point_that_is_chosen(options: list[str], tmp_path: Path) -> None:
    config, out = tmp_path / "compare.toml", tmp_path / "out"
    first = {}
    for optimise in ("mae", "rmse"):
        config.write_text(f'[hyper.scdr_b]\noptimise = "{optimise}"\n')
        search = ["--config", str(config), "--seeds", "0", "--tune", "2"]
        assert main([*options, *search, "--validation-fraction", "0.3"]) == 0
        (searched,) = json.loads((out / "tuning.json").read_text())
        first[optimise] = searched["trials"][0][1]
        results = pl.read_parquet(out / "results.parquet").filter(pl.col("method") == "scdr_b")
        assert results["optimise"].to_list() == list(POINTS)
    assert first["mae"] > first["rmse"]  # on validation users, of the same fit
