"""The paper's tables: II, VII (errors), III (statistics), IV (taxonomy), and as it printed them."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any

import polars as pl

from scdr.data import PairStatistics
from scdr.experiments.config import ABLATION
from scdr.experiments.differences import (
    BACKBONE,
    BASELINE,
    LEVEL,
    METRICS,
    PROPOSED,
    Predictor,
    is_predictor,
    predictors,
    several_backbones,
    summary,
)
from scdr.experiments.table import Cell, Row, Table
from scdr.methods import CONTROLS, METHODS
from scdr.models.rating_distribution import POINTS

_YES_NO = {True: "yes", False: "no"}
MARK = "*"
BACKBONES = {"mf": "MF", "ngcf": "NGCF", "lightgcn": "LightGCN"}
"""What tables call a backbone."""


def error_tables(results: pl.DataFrame, tests: pl.DataFrame) -> list[Table]:
    """Tables II and VII, or VI, for each pair: mean and standard deviation over seeds.

    Table VII is made where all methods of the ablation are there, Table II where others are; with
    several backbones Table VI, of all methods, alone.

    Args:
        results: as in results.csv.
        tests: as `differences` gives it.
    """
    tables = []
    methods = set(results["method"]) - set(CONTROLS)
    ablation = set(ABLATION)
    several = several_backbones(results)
    backbones = results["backbone"].drop_nulls().unique()
    for pair in results["pair"].unique(maintain_order=True):
        of_pair = results.filter(pl.col("pair") == pair)
        if several:
            tables.append(_error_table(f"Table VI (backbones). {pair}", of_pair, tests))
            continue
        graph = len(backbones) > 0 and backbones[0] != "mf"
        name = f"{pair}, {BACKBONES[backbones[0]]}" if graph else pair
        if methods - ablation or not ablation <= methods:
            tables.append(_error_table(f"Table II. {name}", of_pair, tests))
        if ablation <= methods:
            kept = of_pair.filter(pl.col("method").is_in([*ablation, *CONTROLS]))
            # The best baseline of a larger comparison may not be among these rows.
            own_tests = tests if methods == ablation else tests.clear()
            tables.append(_error_table(f"Table VII (ablation). {name}", kept, own_tests))
    return tables


def _error_table(title: str, results: pl.DataFrame, tests: pl.DataFrame) -> Table:
    means = summary(results)
    betas = means["beta"].unique(maintain_order=True).to_list()
    columns = [(beta, metric) for beta in betas for metric in METRICS]
    rows: list[Row] = []
    several = several_backbones(results)
    for predictor in predictors(results):
        cells = (_error_cell(means, tests, predictor, *column) for column in columns)
        first_control = predictor[0] == next(iter(CONTROLS))
        label = label_of(predictor, with_backbone=several)
        rows.append(Row(label, tuple(cells), ruled=first_control))
    rows += _improvement_rows(results, tests, columns)
    seeds = results["seed"].n_unique()
    preset = results["preset"][0]
    return Table(
        title=f"{title}, preset {preset}",
        head=("", *(f"beta {beta:g} {metric.upper()}" for beta, metric in columns)),
        rows=tuple(rows),
        notes=(
            _note(seeds, len(tests), BACKBONE if several else BASELINE),
            *_points_note(results),
        ),
        together=len(METRICS),
    )


def _note(seeds: int, tests: int, against: str) -> str:
    mean = f"Mean ± standard deviation over {seeds} seeds" if seeds > 1 else "One seed"
    rival = "that of MF" if against == BACKBONE else "the best baseline's"
    mark = (
        f" {MARK} on an error: lower than {rival}, on an improvement: not by chance "
        f"(paired t-test over users' own errors, p < {LEVEL:g} after Holm's correction for {tests} "
        "tests)."
    )
    return f"{mean}; the lowest error of a column is bold.{mark if tests else ''}"


def _points_note(results: pl.DataFrame) -> list[str]:
    """What several rows of one method are."""
    choices = results.filter(pl.col("optimise").is_not_null())
    titles = ", ".join(title_of(name) for name in choices["method"].unique(maintain_order=True))
    if not titles:
        return []
    return [
        f"{titles}: a row for each point of the predicted distribution that a user can choose "
        "(--optimise), all of one fit. The median is meant for MAE, the mean for RMSE, both for "
        "both; a point is tested only in what it is meant for."
    ]


def _error_cell(
    means: pl.DataFrame,
    tests: pl.DataFrame,
    predictor: Predictor,
    beta: float,
    metric: str,
) -> Cell:
    column = means.filter(pl.col("beta") == beta)
    cell = column.filter(is_predictor(predictor)).row(0, named=True)
    if cell["failed"]:
        share = "" if cell["failed"] == cell["runs"] else f" {cell['failed']} of {cell['runs']}"
        return Cell(f"failed{share}")
    text = f"{cell[metric]:.4f}"
    if cell[f"{metric}_sd"] is not None:
        text += f" ± {cell[f'{metric}_sd']:.4f}"
    better = tests.filter(
        pl.col("pair") == cell["pair"],
        pl.col("beta") == beta,
        pl.col("metric") == metric,
        pl.col("against").is_in([BASELINE, BACKBONE]),
        is_predictor(predictor, PROPOSED),
        pl.col("significant"),
        pl.col("improvement_percent") > 0,
    )
    marked = f"{text} {MARK}" if len(better) else text
    return Cell(marked, bold=cell[metric] == column[metric].min())


def _improvement_rows(
    results: pl.DataFrame, tests: pl.DataFrame, columns: Sequence[tuple[float, str]]
) -> list[Row]:
    of_pair = tests.filter(pl.col("pair") == results["pair"][0])
    rows: list[Row] = []
    kinds = itertools.product(of_pair["against"].unique(maintain_order=True), predictors(results))
    for against, predictor in kinds:
        chosen = of_pair.filter(pl.col("against") == against, is_predictor(predictor, PROPOSED))
        if chosen.is_empty():
            continue
        cells = []
        for beta, metric in columns:
            test = chosen.filter(pl.col("beta") == beta, pl.col("metric") == metric)
            cells.append(Cell(_improvement(test.row(0, named=True)) if len(test) else ""))
        to_mf = against == BACKBONE
        rival = BACKBONES["mf"] if to_mf else f"best {against}"
        label = f"{label_of(predictor, with_backbone=to_mf)} over {rival}"
        rows.append(Row(label, tuple(cells), ruled=not rows))
    return rows


def _improvement(test: dict[str, Any]) -> str:
    mark = f" {MARK}" if test["significant"] else ""
    return f"{test['improvement_percent']:+.2f} %{mark}"


def title_of(method: str, backbone: str | None = None) -> str:
    """What tables call a method or control, with its backbone where that is given."""
    title = (CONTROLS.get(method) or METHODS[method]).title
    return title if backbone is None else f"{title}, {BACKBONES[backbone]}"


def label_of(predictor: Predictor, *, with_backbone: bool) -> str:
    """What tables call a predictor: its method and the point that it predicts."""
    method, backbone, optimise = predictor
    title = title_of(method, backbone if with_backbone else None)
    return title if optimise is None else f"{title}, {POINTS[optimise]}"


def statistics_table(pairs: Iterable[PairStatistics]) -> Table:
    """Table III: the source above the target of each pair."""
    rows: list[Row] = []
    for pair in pairs:
        for role, domain in (("source", pair.source), ("target", pair.target)):
            overlap = f"{pair.overlap_users:,} ({pair.ratio:.2%})" if role == "source" else ""
            counts = (f"{count:,}" for count in (domain.users, domain.items, domain.ratings))
            cells = tuple(Cell(text) for text in (*counts, overlap))
            rows.append(Row(f"{pair.name}, {role}", cells, ruled=role == "source" and bool(rows)))
    return Table(
        title="Table III. Statistics of the pairs",
        head=("", "users", "items", "ratings", "overlap users (ratio)"),
        rows=tuple(rows),
        notes=("Ratio: overlap users / users of either domain.",),
    )


def taxonomy_table(methods: Iterable[str]) -> Table:
    """Table IV: what each method uses."""
    chosen = [CONTROLS.get(name) or METHODS[name] for name in methods]
    first_control = next((m.name for m in chosen if m.name in CONTROLS), None)
    return Table(
        title="Table IV. Taxonomy of the methods",
        head=("", "cross-domain", "mapping"),
        rows=tuple(
            Row(
                method.title,
                (Cell(_YES_NO[method.cross_domain]), Cell(_YES_NO[method.mapping_based])),
                ruled=method.name == first_control,
            )
            for method in chosen
        ),
    )


def published() -> dict[str, Any]:
    """The numbers of the paper's Tables II, V, VI and VII, as in published.toml."""
    return tomllib.loads((files("scdr.experiments") / "published.toml").read_text("utf-8"))


def published_tables() -> list[Table]:
    """Tables II, V, VI and VII as the paper printed them."""
    numbers = published()
    tables = [
        _published_errors(numbers["table_2"], scenario)
        for scenario in dict.fromkeys(row["scenario"] for row in numbers["table_2"]["rows"])
    ]
    for key, title in (
        ("table_5", "Table V, robust MAE by attack rate, Movies to Music, beta 0.8"),
        ("table_6", "Table VI, other backbones, Movies to Music"),
        ("table_7", "Table VII, ablation, Movies to Music"),
    ):
        part = numbers[key]
        rows = (
            Row(label, tuple(Cell(f"{value:.4f}") for value in values))
            for label, *values in part["rows"]
        )
        tables.append(Table(f"Published: {title}", ("", *part["columns"]), tuple(rows), (_OTHER,)))
    return tables


_OTHER = "As the paper prints it: other data and splits than above."


def _published_errors(numbers: dict[str, Any], scenario: str) -> Table:
    of_scenario = [row for row in numbers["rows"] if row["scenario"] == scenario]
    impossible = {
        (cell["beta"], cell["method"])
        for cell in numbers["impossible"]
        if cell["scenario"] == scenario
    }
    rows: list[Row] = []
    for index, method in enumerate(numbers["methods"]):
        cells = []
        for row in of_scenario:
            for metric in METRICS:
                value, best = row[metric][index], min(row[metric])
                doubt = "?" if metric == "rmse" and (row["beta"], method) in impossible else ""
                cells.append(Cell(f"{value:.4f}{doubt}", bold=value == best))
        rows.append(Row(title_of(method), tuple(cells)))
    gains = tuple(Cell(f"{gain:+.2f} %") for row in of_scenario for gain in row["improvement"])
    rows.append(Row("SCDR over best baseline", gains, ruled=True))
    doubtful = " ?: an RMSE below the MAE, which cannot be." if impossible else ""
    return Table(
        title=f"Published: Table II, {scenario} ({SCENARIOS[scenario]})",
        head=("", *(f"beta {row['beta']:g} {m.upper()}" for row in of_scenario for m in METRICS)),
        rows=tuple(rows),
        notes=(_OTHER + doubtful,),
        together=len(METRICS),
    )


SCENARIOS = {
    "Scenario 1": "Movies to Music",
    "Scenario 2": "Books to Movies",
    "Scenario 3": "Books to Music",
}
