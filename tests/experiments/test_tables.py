"""Tables against means, deviations and improvements worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from scdr.data import CrossDomain, Interactions, cross_domain, statistics
from scdr.experiments.comparison import RESULT_COLUMNS, USER_COLUMNS
from scdr.experiments.config import proposed_method, read_config
from scdr.experiments.differences import differences, improvement
from scdr.experiments.table import Cell, Row, Table, to_latex, to_markdown, to_terminal
from scdr.experiments.tables import (
    error_tables,
    published,
    published_tables,
    statistics_table,
    taxonomy_table,
)
from scdr.methods import CONTROLS, METHODS

# MAE and RMSE under seeds 0 and 1. Means: emcdr 1.0 / 1.2, scdr_minus 0.85 / 1.1, scdr 0.8 / 0.9.
ERRORS = {
    "emcdr": [(0.9, 1.1), (1.1, 1.3)],
    "task_mapping": [(1.2, 1.5), (1.4, 1.7)],
    "scdr_minus": [(0.8, 1.0), (0.9, 1.2)],
    "scdr": [(0.7, 0.8), (0.9, 1.0)],
    "global_mean": [(1.0, 1.1), (1.0, 1.1)],
    "item_mean": [(0.9, 1.0), (0.9, 1.0)],
    "bias_transfer": [(0.5, 0.7), (0.5, 0.7)],
    "bias_transfer_weighted": [(0.6, 0.6), (0.6, 0.6)],
}


def results(**errors: str) -> pl.DataFrame:
    rows = []
    for seed in (0, 1):
        for method, values in ERRORS.items():
            mae, rmse = values[seed]
            row: dict[str, Any] = {
                "pair": "a | b_c",
                "beta": 0.5,
                "seed": seed,
                "preset": "paper",
                "method": method,
                "mae": mae,
                "rmse": rmse,
            }
            if f"{method}_{seed}" in errors:
                row |= {"mae": None, "rmse": None, "error": errors[f"{method}_{seed}"]}
            rows.append(row)
    return pl.DataFrame(rows, schema=RESULT_COLUMNS)


def user_errors() -> pl.DataFrame:
    """Users `a` to `l`; each has its method's error plus something of its own."""
    generator = np.random.default_rng(0)
    rows = []
    for method, values in ERRORS.items():
        for seed, (mae, rmse) in enumerate(values):
            for user in "abcdefghijkl":
                own = generator.normal(0, 0.01)
                rows.append(
                    {
                        "pair": "a | b_c",
                        "beta": 0.5,
                        "seed": seed,
                        "preset": "paper",
                        "method": method,
                        "user": user,
                        "n_ratings": 3,
                        "mae": mae + own,
                        "rmse": rmse + own,
                    }
                )
    return pl.DataFrame(rows, schema=USER_COLUMNS)


def compared() -> pl.DataFrame:
    return differences(results(), user_errors(), proposed="scdr")


def test_the_rivals_are_the_best_baseline_and_the_best_control() -> None:
    table = compared()
    assert table.select("metric", "against", "rival").rows() == [
        ("mae", "baseline", "emcdr"),  # not its own ablation, which is nearer
        ("mae", "control", "bias_transfer"),
        ("rmse", "baseline", "emcdr"),
        ("rmse", "control", "bias_transfer_weighted"),
    ]
    assert table["improvement_percent"].to_list() == pytest.approx([20, -60, 25, -50])
    assert table["users"].to_list() == [12] * 4


def test_scdr_b_is_no_baseline_to_scdr_but_scdr_is_one_to_it() -> None:
    with_scdr_b = results().with_columns(pl.col("method").replace("emcdr", "scdr_b"))
    errors = user_errors().with_columns(pl.col("method").replace("emcdr", "scdr_b"))
    for proposed, rival in (("scdr", "task_mapping"), ("scdr_b", "scdr")):
        table = differences(with_scdr_b, errors, proposed=proposed)
        assert set(table.filter(pl.col("against") == "baseline")["rival"]) == {rival}


@pytest.mark.parametrize(
    ("arguments", "proposed"),
    [
        ([], "scdr_b"),
        (["--preset", "paper"], "scdr"),
        (["--methods", "emcdr", "scdr"], "scdr"),
        (["--methods", "emcdr", "scdr", "--proposed", "emcdr"], "emcdr"),
    ],
)
def test_the_proposed_method_goes_with_the_preset_and_the_methods(
    arguments: list[str], proposed: str
) -> None:
    assert proposed_method(read_config(arguments, program="compare")) == proposed


def test_the_p_values_are_those_of_scipy_over_users_with_their_seeds_averaged() -> None:
    errors = user_errors().group_by("method", "user", maintain_order=True).agg(pl.col("mae").mean())
    own, rival = (
        errors.filter(pl.col("method") == name).sort("user")["mae"].to_numpy()
        for name in ("scdr", "emcdr")
    )
    row = compared().row(0, named=True)
    assert row["p"] == pytest.approx(stats.ttest_rel(own, rival).pvalue)
    assert row["user_difference"] == pytest.approx((own - rival).mean())
    assert (compared()["p_holm"] >= compared()["p"]).all()
    assert compared()["significant"].all()


def test_no_difference_is_significant_against_the_direction_of_the_errors_over_ratings() -> None:
    swapped = user_errors().with_columns(
        method=pl.col("method").replace({"scdr": "emcdr", "emcdr": "scdr"})
    )
    table = differences(results(), swapped, proposed="scdr")
    baseline = table.filter(pl.col("against") == "baseline")
    assert (baseline["p_holm"] < 0.05).all()
    assert not baseline["significant"].any()


def lines(table: Table) -> dict[str, list[tuple[str, bool]]]:
    return {row.label: [(cell.text, cell.bold) for cell in row.cells] for row in table.rows}


def test_cells_are_means_and_deviations_with_the_best_bold_and_the_proposed_marked() -> None:
    table, ablation = error_tables(results(), compared())
    assert table.head == ("", "beta 0.5 MAE", "beta 0.5 RMSE")
    assert lines(table) == {
        "EMCDR": [("1.0000 ± 0.1414", False), ("1.2000 ± 0.1414", False)],
        "Task mapping": [("1.3000 ± 0.1414", False), ("1.6000 ± 0.1414", False)],
        "SCDR-": [("0.8500 ± 0.0707", False), ("1.1000 ± 0.1414", False)],
        "SCDR": [("0.8000 ± 0.1414 *", False), ("0.9000 ± 0.1414 *", False)],
        "Global mean": [("1.0000 ± 0.0000", False), ("1.1000 ± 0.0000", False)],
        "Item mean": [("0.9000 ± 0.0000", False), ("1.0000 ± 0.0000", False)],
        "Bias transfer": [("0.5000 ± 0.0000", True), ("0.7000 ± 0.0000", False)],
        "Bias transfer, weighted": [("0.6000 ± 0.0000", False), ("0.6000 ± 0.0000", True)],
        "SCDR over best baseline": [("+20.00 % *", False), ("+25.00 % *", False)],
        "SCDR over best control": [("-60.00 % *", False), ("-50.00 % *", False)],
    }
    assert ablation.title.startswith("Table VII")
    assert list(lines(ablation))[:3] == ["Task mapping", "SCDR-", "SCDR"]


def test_one_seed_has_no_deviation() -> None:
    one = results().filter(pl.col("seed") == 0)
    table, _ = error_tables(one, differences(one, user_errors(), proposed="scdr"))
    assert lines(table)["EMCDR"] == [("0.9000", False), ("1.1000", False)]
    assert table.notes[0].startswith("One seed")


def test_a_method_that_failed_stands_in_its_place_and_is_no_rival() -> None:
    failed = results(emcdr_1="diverged", bias_transfer_0="no", bias_transfer_1="no")
    table = differences(failed, user_errors(), proposed="scdr")
    assert table["rival"].to_list()[:2] == ["task_mapping", "bias_transfer_weighted"]
    shown = lines(error_tables(failed, table)[0])
    assert shown["EMCDR"] == [("failed 1 of 2", False)] * 2
    assert shown["Bias transfer"] == [("failed", False)] * 2
    assert shown["Bias transfer, weighted"][0] == ("0.6000 ± 0.0000", True)


def test_nothing_is_tested_where_the_proposed_method_failed_or_is_not_there() -> None:
    failed = results(scdr_0="diverged")
    assert differences(failed, user_errors(), proposed="scdr").is_empty()
    table = error_tables(failed, differences(failed, user_errors(), proposed="scdr"))[0]
    assert "SCDR over best baseline" not in lines(table)
    assert differences(results(), user_errors(), proposed="tmcdr").is_empty()


SMALL = Table(
    title="T & t_1",
    head=("", "one", "two"),
    rows=(
        Row("a|b", (Cell("1 ± 2", bold=True), Cell("-3 %"))),
        Row("c_d", (Cell("x"), Cell("y")), ruled=True),
    ),
    notes=("p < 0.05.",),
)


def test_markdown() -> None:
    assert to_markdown(SMALL) == (
        "## T & t_1\n\n|  | one | two |\n| --- | ---: | ---: |\n"
        "| a\\|b | **1 ± 2** | -3 % |\n| c_d | x | y |\n\np < 0.05.\n"
    )


def test_latex() -> None:
    assert to_latex(SMALL).splitlines() == [
        r"\begin{table}",
        r"\centering",
        r"\caption{T \& t\_1. p $<$ 0.05.}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r" & one & two \\",
        r"\midrule",
        r"a|b & \textbf{1 $\pm$ 2} & $-$3 \% \\",
        r"\midrule",
        r"c\_d & x & y \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


@pytest.mark.parametrize(("width", "columns"), [(200, [6]), (60, [4, 2]), (10, [2, 2, 2])])
def test_a_narrow_terminal_gets_a_wide_table_in_parts(width: int, columns: list[int]) -> None:
    cells = tuple(Cell(str(number) * 8) for number in range(6))
    wide = Table("t", ("", *"abcdef"), (Row("label", cells),), together=2)
    parts = to_terminal(wide, width)
    assert [len(part.columns) - 1 for part in parts] == columns


def pair() -> CrossDomain:
    def domain(users: list[str], items: int) -> Interactions:
        n = len(users) * items
        return Interactions(
            np.repeat(np.arange(len(users), dtype=np.int32), items),
            np.tile(np.arange(items, dtype=np.int32), len(users)),
            np.ones(n, dtype=np.float32),
            np.zeros(n, dtype=np.int64),
            np.array(users, dtype=object),
            np.array([str(item) for item in range(items)], dtype=object),
        )

    return cross_domain(domain(list("abc"), 4), domain(list("bcde"), 2), "p")


def test_statistics_and_taxonomy() -> None:
    assert lines(statistics_table([statistics(pair())])) == {
        "p, source": [("3", False), ("4", False), ("12", False), ("2 (40.00%)", False)],
        "p, target": [("4", False), ("2", False), ("8", False), ("", False)],
    }
    assert lines(taxonomy_table(["tgt", "scdr", "bias_transfer"])) == {
        "TGT (MF)": [("no", False), ("no", False)],
        "SCDR": [("yes", False), ("yes", False)],
        "Bias transfer": [("yes", False), ("no", False)],
    }


def test_the_published_improvements_follow_from_the_published_errors() -> None:
    """So a slip in copying one of them would show."""
    numbers = published()["table_2"]
    impossible = [tuple(cell.values()) for cell in numbers["impossible"]]
    for row in numbers["rows"]:
        for metric, printed in zip(("mae", "rmse"), row["improvement"], strict=True):
            *others, scdr = row[metric]
            possible = [
                error
                for method, error in zip(numbers["methods"], others, strict=False)
                if (row["scenario"], row["beta"], method) not in impossible
            ]
            assert improvement(min(possible), scdr) == pytest.approx(printed, abs=0.01), row


def test_published_tables_are_apart_and_agree_with_each_other() -> None:
    tables = published_tables()
    assert [table.title.split(",")[0] for table in tables] == [
        *["Published: Table II"] * 3,
        "Published: Table V",
        "Published: Table VI",
        "Published: Table VII",
    ]
    numbers = published()
    scenario_1 = [row for row in numbers["table_2"]["rows"] if row["scenario"] == "Scenario 1"]
    scdr = [row[metric][-1] for row in scenario_1 for metric in ("mae", "rmse")]
    assert numbers["table_6"]["rows"][0][1:] == scdr == numbers["table_7"]["rows"][2][1:]
    assert numbers["table_5"]["rows"][-1][1] == scenario_1[-1]["mae"][-1]
    tmcdr = [row[metric][6] for row in scenario_1 for metric in ("mae", "rmse")]
    assert numbers["table_7"]["rows"][0][1:] == tmcdr


def test_methods_have_titles() -> None:
    assert len({method.title for method in (*METHODS.values(), *CONTROLS.values())}) == len(
        METHODS
    ) + len(CONTROLS)


def with_backbones() -> tuple[pl.DataFrame, pl.DataFrame]:
    """SCDR's errors as those of MF, EMCDR's as those of SCDR with LightGCN, SCDR-B as it is."""

    def renamed(frame: pl.DataFrame) -> pl.DataFrame:
        kept = frame.filter(pl.col("method").is_in(["scdr", "emcdr", "scdr_minus", *CONTROLS]))
        method = pl.col("method")
        return kept.with_columns(
            backbone=pl.when(method == "scdr")
            .then(pl.lit("mf"))
            .when(method == "emcdr")
            .then(pl.lit("lightgcn")),
            method=method.replace({"emcdr": "scdr", "scdr_minus": "scdr_b"}),
        )

    return renamed(results()), renamed(user_errors())


def test_several_backbones_are_each_compared_with_mf_in_table_vi() -> None:
    by_backbone, errors = with_backbones()
    tests = differences(by_backbone, errors, proposed="scdr")
    assert tests.select("metric", "against", "proposed", "backbone", "rival").rows() == [
        ("mae", "backbone", "scdr", "lightgcn", "mf"),
        ("rmse", "backbone", "scdr", "lightgcn", "mf"),
    ]
    assert tests["improvement_percent"].to_list() == pytest.approx([-25, -100 / 3])
    (table,) = error_tables(by_backbone, tests)
    assert table.title == "Table VI (backbones). a | b_c, preset paper"
    labels = [row.label for row in table.rows]
    assert set(labels[:3]) == {"SCDR, MF", "SCDR, LightGCN", "SCDR-B"}
    assert labels[-1] == "SCDR, LightGCN over MF"
    assert [cell.text for cell in table.rows[-1].cells] == ["-25.00 % *", "-33.33 % *"]
    cells = {row.label: row.cells for row in table.rows}
    assert cells["SCDR, MF"][0].text.startswith("0.8000 ±")
    assert cells["SCDR, LightGCN"][0].text.startswith("1.0000 ±")
    assert "lower than that of MF" in table.notes[0]


def test_a_table_of_one_graph_backbone_says_which() -> None:
    of_ngcf = results().with_columns(
        backbone=pl.when(pl.col("method").is_in(list(METHODS))).then(pl.lit("ngcf"))
    )
    errors = user_errors().with_columns(
        backbone=pl.when(pl.col("method").is_in(list(METHODS))).then(pl.lit("ngcf"))
    )
    tables = error_tables(of_ngcf, differences(of_ngcf, errors, proposed="scdr"))
    assert [table.title.split(",")[:2] for table in tables] == [
        ["Table II. a | b_c", " NGCF"],
        ["Table VII (ablation). a | b_c", " NGCF"],
    ]
