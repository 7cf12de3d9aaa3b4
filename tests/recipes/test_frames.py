"""CSV columns, intervals over seeds, and the sentences on what the paper says."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from scdr.recipes import claims
from scdr.recipes.frames import fgsm_tables, landscape_tables
from scdr.recipes.landscapes import Shape
from scdr.recipes.style import half_width, within_seeds


def measurements(**columns: list) -> pl.DataFrame:
    n = len(next(iter(columns.values())))
    same = {"pair": "p", "beta": 0.8, "seed": 0, "preset": "paper", "method": "scdr", "k": 5}
    same |= {"label": "SCDR", "rho": 5.0}
    return pl.DataFrame({name: [value] * n for name, value in same.items()} | columns)


def fgsm_rows(mae: dict[str, list[float]]) -> pl.DataFrame:
    """Two levels of each label, absolute and relative alike."""
    parts = [
        measurements(
            label=[label] * 2,
            attack=["fgsm"] * 2,
            queries=[None] * 2,
            level=[0.0, 1.0],
            scale=[scale] * 2,
            mae=values,
            rmse=values,
        )
        for label, values in mae.items()
        for scale in (1.0, 0.3)
    ]
    return pl.concat(parts).with_columns(pl.col("queries").cast(pl.Int64))


def test_robust_tables_have_the_columns_of_the_docs() -> None:
    tables = fgsm_tables("fig5")(fgsm_rows({"SCDR": [1.0, 2.0]}))
    columns = ["pair", "beta", "seed", "method", "k", "rho", "attack", "eps", "mae"]
    assert list(tables) == ["fig5", "fig5_relative"]
    assert all(frame.columns == columns for frame in tables.values())
    assert tables["fig5"]["eps"].to_list() == [0.0, 1.0]


def test_a_landscape_is_a_row_a_point() -> None:
    found = measurements(zeta=[[-1.0, 1.0]], gamma=[[-1.0, 1.0]], mae=[[[1.0, 2.0], [3.0, 4.0]]])
    table = landscape_tables("fig4")(found)["fig4"]
    assert table.rows() == [
        ("scdr", -1.0, -1.0, 1.0),
        ("scdr", -1.0, 1.0, 2.0),
        ("scdr", 1.0, -1.0, 3.0),
        ("scdr", 1.0, 1.0, 4.0),
    ]


def test_a_tilted_plane_is_no_flat_landscape() -> None:
    tilted = np.add.outer(np.arange(5.0), np.zeros(5)).tolist()
    level = np.full((5, 5), 2.0).tolist()
    assert Shape.of({"mae": level}) == Shape(2.0, 2.0, 2.0, 0.0)
    assert Shape.of({"mae": tilted}) == Shape(2.0, 0.0, 4.0, 1.2)
    planes = [[level], [tilted]]
    found = pl.concat(
        measurements(label=[label], mae=mae)
        for label, mae in zip(("SCDR", "EMCDR"), planes, strict=True)
    )
    assert claims.landscapes(found)[0].endswith("SCDR is the flattest holds.")


def test_intervals_are_those_of_a_t_test() -> None:
    values = np.array([1.0, 1.4, 1.1])
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    half = half_width(np.array([values.std(ddof=1), 0.0]), np.array([3.0, 1.0]))
    assert half[0] == pytest.approx((high - low) / 2)
    assert np.isnan(half[1])


def test_what_a_seed_adds_to_all_lines_leaves_the_bands() -> None:
    generator = np.random.default_rng(0)
    cell = np.repeat([0.0, 1.0, 2.0], 4)
    own = generator.normal(size=12)
    seeds = np.tile(np.arange(4), 3)
    easy = np.array([5.0, -3.0, 0.5, 1.0])

    def bands(value: np.ndarray) -> pl.DataFrame:
        found = pl.DataFrame({"seed": seeds, "level": cell, "mae": value})
        return within_seeds(found, ["level"], "mae")

    plain, shifted = bands(own), bands(own + easy[seeds])
    for level in (0.0, 1.0, 2.0):
        one, other = (
            frame.filter(pl.col("level") == level)["mae"].to_numpy() for frame in (plain, shifted)
        )
        np.testing.assert_allclose(one - one.mean(), other - other.mean(), atol=1e-12)
        assert one.mean() == pytest.approx(own[cell == level].mean())
        assert other.mean() == pytest.approx(own[cell == level].mean() + easy.mean())


def test_a_cell_that_a_seed_lacks_is_left_as_it_is() -> None:
    found = pl.DataFrame(
        {"seed": [0, 1, 0, 1, 0], "level": [0, 0, 1, 1, 2], "mae": [1.0, 3.0, 2.0, 4.0, 9.0]}
    )
    assert within_seeds(found, ["level"], "mae")["mae"].to_list() == [2.0, 2.0, 3.0, 3.0, 9.0]


def test_the_most_robust_and_the_most_fragile_are_named() -> None:
    found = fgsm_rows({"EMCDR": [2.0, 3.0], "PTUPCDR": [1.5, 9.0], "SCDR": [1.0, 1.1]})
    line = claims.robustness(found)[0]
    assert "SCDR has the lowest MAE (1.100) and PTUPCDR the highest (9.000)" in line
    assert "most robust of the paper's methods holds by error and holds by rise" in line
    assert "most fragile holds by error and holds by rise" in line
    turned = fgsm_rows({"EMCDR": [2.0, 9.5], "PTUPCDR": [1.5, 1.6], "SCDR": [1.0, 1.7]})
    line = claims.robustness(turned)[0]
    assert "most robust of the paper's methods does not hold by error" in line
    assert "most fragile does not hold by error" in line


def test_an_error_that_falls_with_eps_is_a_warning() -> None:
    assert claims.warnings(fgsm_rows({"SCDR": [1.0, 1.1]})) == []
    lines = claims.warnings(fgsm_rows({"SCDR": [1.0, 0.9]}))
    assert len(lines) == 2
    assert "MAE falls from 1.0000 at eps 0 to 0.9000 at 1" in lines[0]


def test_a_flat_sweep_is_told_from_a_steep_one() -> None:
    def sweep(values: list[float]) -> str:
        found = measurements(k=[1, 5], mae=values, rmse=values)
        return claims.sweep_performance(found)[0]

    assert "flat holds" in sweep([1.0, 1.02])
    assert "flat does not hold" in sweep([1.0, 1.2])
