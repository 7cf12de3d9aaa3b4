"""How far the proposed method is from the best baseline and control, and whether by chance.

The improvement is the paper's: `(rival - proposed) / rival` of the means over seeds of the error
over test ratings, in percent. The test is a paired t-test over users of each user's own MAE or
RMSE; a user who was a test user under several seeds counts once, with the mean of its differences.
p-values are corrected by Holm's method for all tests of the comparison.

Where the proposed method predicts several points of one distribution, each is compared in the
metric that it is for: the median in MAE, the mean in RMSE, the point between them in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from scdr.evaluation import holm, paired_p_value
from scdr.methods import CONTROLS
from scdr.models.rating_distribution import Optimise

METRICS = ("mae", "rmse")
LEVEL = 0.05
"""Corrected p-values below it are marked as significant."""
NO_BASELINES = {"scdr": ("scdr_minus", "scdr_b")}
"""By proposed method, its forms with a part left out or added, which are no baselines to it."""

Predictor = tuple[str, str | None, Optimise | None]
PREDICTOR = ("method", "backbone", "optimise")
"""What a row of a table is; backbone and point are null where there is nothing to choose."""
PROPOSED = ("proposed", "backbone", "optimise")
"""The same in a row of tests."""

BASELINE, CONTROL, BACKBONE = "baseline", "control", "backbone"
COLUMNS = {
    "pair": pl.String,
    "beta": pl.Float64,
    "preset": pl.String,
    "metric": pl.String,
    "against": pl.String,
    "proposed": pl.String,
    "backbone": pl.String,
    "optimise": pl.String,
    "rival": pl.String,
    "rival_optimise": pl.String,
    "improvement_percent": pl.Float64,
    "user_difference": pl.Float64,
    "users": pl.Int64,
    "p": pl.Float64,
    "p_holm": pl.Float64,
    "significant": pl.Boolean,
}


def summary(results: pl.DataFrame) -> pl.DataFrame:
    """Mean and standard deviation over seeds.

    Args:
        results: as in results.csv.

    Returns:
        A row for each pair, beta, method, backbone and point, in the order of `results`: `runs`,
        `failed`, and for each metric its mean and `_sd` (n - 1 in the denominator; null for one
        seed). Both are null where any seed failed, since methods are compared on the same splits
        or not at all.
    """
    failed = pl.col("error").is_not_null().sum()
    whole = [
        pl.when(failed == 0).then(expression)
        for metric in METRICS
        for expression in (pl.col(metric).mean(), pl.col(metric).std(ddof=1).alias(f"{metric}_sd"))
    ]
    return results.group_by("pair", "beta", "preset", *PREDICTOR, maintain_order=True).agg(
        pl.len().alias("runs"), failed.alias("failed"), *whole
    )


def predictors(results: pl.DataFrame) -> list[Predictor]:
    """The rows of a table."""
    return results.select(PREDICTOR).unique(maintain_order=True).rows()


def is_predictor(predictor: Predictor, columns: tuple[str, ...] = PREDICTOR) -> pl.Expr:
    """Whether a row is of this predictor."""
    return pl.all_horizontal(
        pl.col(name).eq_missing(value) for name, value in zip(columns, predictor, strict=True)
    )


def several_backbones(results: pl.DataFrame) -> bool:
    """Whether methods ran with more than one backbone, which are then what is compared."""
    return results["backbone"].drop_nulls().n_unique() > 1


def differences(results: pl.DataFrame, errors: pl.DataFrame, *, proposed: str) -> pl.DataFrame:
    """Compare the proposed method with its best rivals; of several backbones, each with MF.

    Args:
        results: as in results.csv.
        errors: as in user_errors.parquet.
        proposed: name of the method.

    Returns:
        Columns `COLUMNS`: a row for each pair, beta, metric and point that is for it, against the
        best baseline, and one against the best control. With several backbones there is a row for
        each method and graph backbone instead, against the same with `mf`, which is the rival then.
        `user_difference` is the mean over users of proposed minus rival; `significant` says that
        `p_holm` is below 0.05 and that users' errors and the errors over ratings differ in the
        same direction.
    """
    means = summary(results)
    backbones = several_backbones(results)
    rows = []
    for (pair, beta, preset), group in means.group_by(
        "pair", "beta", "preset", maintain_order=True
    ):
        here = errors.filter(pl.col("pair") == pair, pl.col("beta") == beta)
        for metric in METRICS:
            judged = group.filter(pl.col(metric).is_not_null())
            chosen = _backbones(judged, metric) if backbones else _rivals(judged, metric, proposed)
            for against, own, rival in chosen:
                difference, p, users = _test(here, metric, own, rival)
                rows.append(
                    {
                        "pair": pair,
                        "beta": beta,
                        "preset": preset,
                        "metric": metric,
                        "against": against,
                        "proposed": own["method"],
                        "backbone": own["backbone"],
                        "optimise": own["optimise"],
                        "rival": rival["backbone" if against == BACKBONE else "method"],
                        "rival_optimise": rival["optimise"],
                        "improvement_percent": improvement(rival[metric], own[metric]),
                        "user_difference": difference,
                        "users": users,
                        "p": p,
                    }
                )
    table = pl.DataFrame(rows, schema={k: v for k, v in COLUMNS.items() if k not in _CORRECTED})
    corrected = pl.Series("p_holm", holm(table["p"].to_numpy()))
    agree = pl.col("improvement_percent").sign() == -pl.col("user_difference").sign()
    return table.with_columns(
        corrected, significant=(corrected < LEVEL) & table.select(agree).to_series()
    )


_CORRECTED = ("p_holm", "significant")


def improvement(rival: float, proposed: float) -> float:
    """By how many percent of the rival's error the proposed method's is lower."""
    return 100 * (rival - proposed) / rival


Comparison = tuple[str, dict[str, Any], dict[str, Any]]
"""Against what, and the two rows of `summary` that are compared."""


def _rivals(means: pl.DataFrame, metric: str, proposed: str) -> Iterator[Comparison]:
    """The proposed method against the best baseline and the best control."""
    own = means.filter(pl.col("method") == proposed, _is_for(metric))
    for against in (BASELINE, CONTROL):
        rivals = means.filter(_is_rival(against, proposed)).sort(metric, maintain_order=True)
        if len(rivals):
            best = rivals.row(0, named=True)
            yield from ((against, row, best) for row in own.iter_rows(named=True))


def _backbones(means: pl.DataFrame, metric: str) -> Iterator[Comparison]:
    """Each method's graph backbones against its matrix factorisation."""
    for own in means.filter(pl.col("backbone") != "mf", _is_for(metric)).iter_rows(named=True):
        rival = means.filter(is_predictor((own["method"], "mf", own["optimise"])))
        if len(rival):
            yield BACKBONE, own, rival.row(0, named=True)


def _is_for(metric: str) -> pl.Expr:
    """Whether a predictor is meant for a metric; points are named after theirs."""
    return pl.col("optimise").fill_null("both").is_in(["both", metric])


def _is_rival(against: str, proposed: str) -> pl.Expr:
    method = pl.col("method")
    if against == CONTROL:
        return method.is_in(list(CONTROLS))
    return ~method.is_in([*CONTROLS, proposed, *NO_BASELINES.get(proposed, ())])


def _test(
    errors: pl.DataFrame, metric: str, own: dict[str, Any], rival: dict[str, Any]
) -> tuple[float, float, int]:
    columns = ["seed", "user", metric]
    ours, theirs = (
        errors.filter(is_predictor((row["method"], row["backbone"], row["optimise"]))).select(
            columns
        )
        for row in (own, rival)
    )
    both = ours.join(theirs, on=["seed", "user"], suffix="_rival", maintain_order="left")
    users = both["user"].to_numpy()
    difference, p = paired_p_value(
        users, both[metric].to_numpy(), both[f"{metric}_rival"].to_numpy()
    )
    return difference, p, both["user"].n_unique()
