"""The error tables as a picture: a dot for each method, a panel for each pair, beta and metric."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import polars as pl

from scdr.experiments.differences import (
    METRICS,
    PREDICTOR,
    Predictor,
    predictors,
    several_backbones,
    summary,
)
from scdr.experiments.tables import label_of
from scdr.figure import CONTROL_COLOUR, METHOD_COLOUR
from scdr.methods import CONTROLS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE = 2.0
"""Ratio of the largest to the smallest error from which an axis is logarithmic."""


def draw_comparison(results: pl.DataFrame, file: BinaryIO) -> None:
    """Write the picture of a comparison as PNG.

    Args:
        results: as in results.csv; methods that failed on a split are left out there.
        file: to write to.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    means = summary(results)
    shown = predictors(means)
    several = several_backbones(results)
    labels = [label_of(predictor, with_backbone=several) for predictor in shown]
    splits = means.select("pair", "beta").unique(maintain_order=True).rows()
    size = (11, 0.6 + (0.9 + 0.24 * len(shown)) * len(splits))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(splits), len(METRICS), squeeze=False)
    for row, (pair, beta) in zip(panels, splits, strict=True):
        of_split = means.filter(pl.col("pair") == pair, pl.col("beta") == beta)
        for axes, metric in zip(row, METRICS, strict=True):
            _draw(axes, of_split, metric, shown)
            axes.set_yticks(range(len(labels)), labels[::-1])
            axes.set_title(f"{pair}, beta {beta:g}", fontsize="medium")
        row[-1].set_yticklabels([])
    for axes, metric in zip(panels[-1], METRICS, strict=True):
        axes.set_xlabel(f"test {metric.upper()} in rating units, mean and deviation over seeds")
    # A time of writing inside would make two equal pictures differ.
    figure.savefig(file, dpi=110, metadata={"Software": None})


def _draw(axes: Axes, means: pl.DataFrame, metric: str, shown: list[Predictor]) -> None:
    values = means.drop_nulls(metric)
    for cell in values.iter_rows(named=True):
        height = len(shown) - 1 - shown.index(tuple(cell[name] for name in PREDICTOR))
        colour = CONTROL_COLOUR if cell["method"] in CONTROLS else METHOD_COLOUR
        deviation = cell[f"{metric}_sd"]
        axes.errorbar(cell[metric], height, xerr=deviation, fmt="o", color=colour, capsize=3)
    low, high = values[metric].min(), values[metric].max()
    if isinstance(low, float) and isinstance(high, float) and high > WIDE * low > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="x", which="both", labelsize="small")
    axes.grid(axis="x", which="both", alpha=0.3)
