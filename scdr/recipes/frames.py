"""Measurements as CSV frames with the columns of docs/analysis.md, and as tables of a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from scdr.experiments.table import Cell, Row, Table
from scdr.recipes.measure import RELATIVE_RADIUS

MODEL = ["pair", "beta", "seed", "method", "k", "rho"]
SERIES = ["pair", "beta", "label", "k", "rho"]
RELATIVE = RELATIVE_RADIUS
ATTACKS = {
    "fgsm": "FGSM",
    "pgd_linf": "PGD, cube",
    "pgd_l2": "PGD, l2 ball",
    "transfer": "Transfer",
    "random_search 25": "Random search, 25 queries",
    "random_search 100": "Random search, 100 queries",
    "nes 25": "NES, 25 queries",
    "nes 100": "NES, 100 queries",
}
"""Attacks, with their queries, and what they are called."""

Tables = Callable[[pl.DataFrame], dict[str, pl.DataFrame]]
Shown = Callable[[pl.DataFrame], list[Table]]


def fgsm_tables(name: str) -> Tables:
    """`pair,beta,seed,method,k,rho,attack,eps,mae`; eps absolute, and relative in a second file."""
    return lambda found: _robust_tables(found, name)


def attack_tables(found: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The same for all attacks, an attack's queries in its name."""
    return _robust_tables(found, "attacks")


def _robust_tables(found: pl.DataFrame, name: str) -> dict[str, pl.DataFrame]:
    columns = [*MODEL, "attack", "eps", "mae"]
    found = found.with_columns(attack=attack_name().str.replace(" ", "_"), eps=pl.col("level"))
    return {
        name: found.filter(~is_relative()).select(columns),
        f"{name}_relative": found.filter(is_relative()).select(columns),
    }


def attack_name() -> pl.Expr:
    """An attack with its queries, as in `ATTACKS`."""
    budget = pl.when(pl.col("queries").is_null()).then(pl.lit(""))
    return pl.col("attack") + budget.otherwise(" " + pl.col("queries").cast(pl.String))


def is_relative() -> pl.Expr:
    """Whether eps is in RMS of coordinates; an absolute one is in units of 1."""
    return pl.col("scale") != 1.0


def performance_tables(name: str) -> Tables:
    """`pair,beta,seed,method,k,rho,mae,rmse`."""
    return lambda found: {name: found.select([*MODEL, "mae", "rmse"])}


def flatness_tables(found: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """`...,k,rho,lipschitz_mean,lipschitz_max,spectral_bound`, k and rho those of the measurement.

    Absolute rho, relative rho, and in a third file the sharpness in the same balls.
    """
    return {
        "flatness": _probed(found.filter(pl.col("probe") == "absolute"), _RATIOS),
        "flatness_relative": _probed(found.filter(pl.col("probe") == "relative"), _RATIOS),
        "sharpness": _probed(
            found.filter(pl.col("probe") != "own"), ["probe", "loss", "sharpness"]
        ),
    }


def own_flatness_tables(found: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """The same columns, k and rho those that a model was trained with; at these, and at one ball.

    A second file has the ratios of all models at the same k and relative rho.
    """
    return {
        "fig6": found.filter(pl.col("probe") == "own").select([*MODEL, *_RATIOS]),
        "fig6_relative": found.filter(pl.col("probe") == "relative").select([*MODEL, *_RATIOS]),
    }


_RATIOS = ["lipschitz_mean", "lipschitz_max", "spectral_bound"]


def _probed(found: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    measured = found.with_columns(k=pl.col("probe_k"), rho=pl.col("probe_rho"))
    return measured.select([*MODEL, *columns])


def changed_rating_tables(found: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """`pair,beta,seed,method,k,rho,changes,mae,rmse`."""
    return {"ratings": found.select([*MODEL, "changes", "mae", "rmse"])}


def landscape_tables(name: str) -> Tables:
    """`method,zeta,gamma,mae`, of the first seed; with several pairs or betas these come first."""

    def tables(found: pl.DataFrame) -> dict[str, pl.DataFrame]:
        first = first_seed(found)
        several = [column for column in ("pair", "beta") if first[column].n_unique() > 1]
        points = (
            first.explode("zeta", "mae", empty_as_null=True, keep_nulls=True)
            .explode("gamma", "mae", empty_as_null=True, keep_nulls=True)
            .select([*several, "method", "zeta", "gamma", "mae"])
        )
        return {name: points}

    return tables


def first_seed(found: pl.DataFrame) -> pl.DataFrame:
    """Of each pair, beta and label the rows of the lowest seed."""
    return found.filter(pl.col("seed") == pl.col("seed").min().over("pair", "beta"))


def over_seeds(found: pl.DataFrame, by: Sequence[str], value: str) -> pl.DataFrame:
    """Columns `by`, then `mean`, `sd` (n - 1 in the denominator) and `n` over seeds."""
    column = pl.col(value)
    return found.group_by(by, maintain_order=True).agg(
        column.mean().alias("mean"), column.std(ddof=1).alias("sd"), column.len().alias("n")
    )


def series_label(row: dict[str, object], *, swept: bool) -> str:
    """A model in a table: its label, and k and rho where models differ in them."""
    label = str(row["label"])
    return f"{label} (k = {row['k']}, rho = {row['rho']:g})" if swept and row["rho"] else label


def is_swept(found: pl.DataFrame) -> bool:
    """Whether one label stands for several k and rho."""
    return len(found.select("label", "k", "rho").unique()) > found["label"].n_unique()


def fgsm_shown(title: str) -> Shown:
    """A row for each model, a column for each eps; absolute, then relative."""

    def shown(found: pl.DataFrame) -> list[Table]:
        return [
            table
            for relative, unit in ((False, ""), (True, ", eps in RMS of coordinates"))
            for table in _cross_tables(
                found.filter(is_relative() == relative),
                f"{title}{unit}",
                column="level",
                head=lambda level: "natural" if level == 0 else f"eps {level:g}",
            )
        ]

    return shown


def attacks_shown(found: pl.DataFrame) -> list[Table]:
    """A row for each model, a column for each attack, at the middle eps, in RMS of coordinates."""
    found = found.filter(is_relative()).with_columns(attack=attack_name())
    levels = sorted(set(found["level"]))
    level = levels[len(levels) // 2]
    return _cross_tables(
        found.filter(pl.col("level") == level),
        f"MAE under attacks at eps {level:g}, in RMS of coordinates",
        column="attack",
        head=lambda attack: ATTACKS.get(str(attack), str(attack)),
    )


def changed_ratings_shown(found: pl.DataFrame) -> list[Table]:
    """A row for each model, a column for each m."""
    return _cross_tables(
        found,
        "MAE by changed source ratings",
        column="changes",
        head=lambda changes: f"m = {changes}",
    )


def performance_shown(title: str) -> Shown:
    """A row for each model, MAE and RMSE of each beta."""

    def shown(found: pl.DataFrame) -> list[Table]:
        long = pl.concat(
            found.with_columns(value=pl.col(metric), metric=pl.lit(f"{metric.upper()}"))
            for metric in ("mae", "rmse")
        ).sort("beta", maintain_order=True)
        long = long.with_columns(
            column=pl.format("beta {} {}", pl.col("beta"), "metric"), beta=pl.lit(None, pl.Float64)
        )
        return _cross_tables(long, title, column="column", head=str, value="value")

    return shown


def flatness_shown(title: str) -> Shown:
    """A row for each model: ratios, bound and sharpness at the relative rho."""

    def shown(found: pl.DataFrame) -> list[Table]:
        names = {
            "lipschitz_mean": "mean ratio",
            "lipschitz_max": "largest ratio",
            "spectral_bound": "spectral bound",
            "sharpness": "sharpness",
            "loss": "squared error",
        }
        probed = found.filter(pl.col("probe") == "relative")
        long = pl.concat(
            probed.with_columns(value=pl.col(name).cast(pl.Float64), column=pl.lit(head))
            for name, head in names.items()
        )
        return _cross_tables(long, title, column="column", head=str, value="value")

    return shown


def landscape_shown(found: pl.DataFrame) -> list[Table]:
    """For each method the error in the middle, its range over the plane, and its mean change."""
    from scdr.recipes.landscapes import Shape

    tables = []
    for (pair, beta), group in first_seed(found).group_by("pair", "beta", maintain_order=True):
        rows = []
        for row in group.iter_rows(named=True):
            shape = Shape.of(row)
            values = (shape.centre, shape.lowest, shape.highest, shape.change)
            rows.append(Row(row["label"], tuple(Cell(f"{value:.3f}") for value in values)))
        tables.append(
            Table(
                title=f"Landscapes. {pair}, beta {beta:g}, one seed",
                head=("", "MAE in the middle", "lowest", "highest", "mean change"),
                rows=tuple(rows),
            )
        )
    return tables


def _cross_tables(
    found: pl.DataFrame,
    title: str,
    *,
    column: str,
    head: Callable[[object], str],
    value: str = "mae",
) -> list[Table]:
    """A table for each pair and beta; the lowest mean of each column is bold."""
    tables = []
    swept = is_swept(found)
    for (pair, beta), group in found.group_by("pair", "beta", maintain_order=True):
        means = over_seeds(group, ["label", "k", "rho", column], value)
        columns = means[column].unique(maintain_order=True).to_list()
        lowest = {name: means.filter(pl.col(column) == name)["mean"].min() for name in columns}
        rows = []
        for _, cells in means.group_by("label", "k", "rho", maintain_order=True):
            known = {cell[column]: cell for cell in cells.iter_rows(named=True)}
            texts = (_cell(known.get(name), lowest[name]) for name in columns)
            rows.append(Row(series_label(cells.row(0, named=True), swept=swept), tuple(texts)))
        seeds = group["seed"].n_unique()
        where = pair if beta is None else f"{pair}, beta {beta:g}"
        spread = f"Mean ± standard deviation over {seeds} seeds" if seeds > 1 else "One seed"
        tables.append(
            Table(
                title=f"{title}. {where}",
                head=("", *map(head, columns)),
                rows=tuple(rows),
                notes=(f"{spread}; the lowest of a column is bold.",),
            )
        )
    return tables


def _cell(cell: dict[str, float] | None, lowest: object) -> Cell:
    if cell is None or cell["mean"] is None:
        return Cell("")
    text = f"{cell['mean']:.3f}"
    if cell["sd"] is not None:
        text += f" ± {cell['sd']:.3f}"
    return Cell(text, bold=cell["mean"] == lowest)
