"""How figures look: sizes, lines that the colour-blind and a printer tell apart, and bands."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import t as student

from scdr.recipes.frames import over_seeds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CONFIDENCE = 0.95
WIDTH = 7.2
"""Of a figure in inches, a page of two columns."""
DPI = 160
# Okabe and Ito's palette without its yellow, which a white page swallows; SCDR in its strongest.
STYLES = {
    "EMCDR": ("#56B4E9", "s", (0, (1, 1))),
    "SSCDR": ("#0072B2", "v", (0, (4, 1))),
    "CLCDR": ("#CC79A7", "P", (0, (3, 1, 1, 1))),
    "PTUPCDR": ("#E69F00", "D", (0, (5, 2))),
    "TMCDR": ("#009E73", "^", (0, (2, 1))),
    "Task mapping": ("#7F7F7F", "<", (0, (1, 2))),
    "SCDR-": ("#8C564B", ">", (0, (6, 1, 1, 1, 1, 1))),
    "SCDR": ("#D55E00", "o", "-"),
    "SCDR-B": ("#000000", "X", "-"),
}
OTHERS = ("#882255", "#44AA99", "#332288", "#999933", "#AA4499")
MARKS = "oDsv^<>PX"
_RC: Any = {
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "svg.hashsalt": "scdr",
}


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib's settings for the figures of a report."""
    with mpl.rc_context(_RC):
        yield


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def to_svg(figure: Figure) -> bytes:
    """The figure as SVG, the same bytes each time."""
    return _saved(figure, "svg", {"Date": None, "Creator": None})


def to_png(figure: Figure) -> bytes:
    """The figure as PNG, the same bytes each time."""
    return _saved(figure, "png", {"Software": None})


def _saved(figure: Figure, form: str, metadata: dict[str, None]) -> bytes:
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format=form, dpi=DPI, metadata=metadata)
    return buffer.getvalue()


def style_of(label: str, index: int) -> tuple[str, str, object]:
    """Colour, mark and dashes of a method; of one that is not ours by its place."""
    if label in STYLES:
        return STYLES[label]
    return OTHERS[index % len(OTHERS)], MARKS[index % len(MARKS)], "-"


def half_width(sd: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Half the width of the confidence interval of a mean of n values, by Student's t; nan for one.

    Args:
        sd: standard deviations, n - 1 in the denominator.
        n: numbers of values.
    """
    quantile = student.ppf((1 + CONFIDENCE) / 2, np.maximum(n - 1, 1))
    return np.where(n > 1, quantile * sd / np.sqrt(n), np.nan)


def within_seeds(found: pl.DataFrame, cell: Sequence[str], value: str) -> pl.DataFrame:
    """The same means over seeds, without what all cells of a seed have in common.

    A seed is a split, whose difficulty moves all lines of one method together; intervals without it
    say whether they differ. Lines of methods whose errors lie far apart have too little in common.
    Each seed's mean over the cells that all seeds have is taken off, and deviations grow by
    `sqrt(C / (C - 1))` for C cells (D. Cousineau, 2005; R. Morey, 2008).

    Args:
        found: rows of one panel or row of panels.
        cell: columns that, with the seed, name a row.
        value: column to change.
    """
    complete = pl.len().over(cell) == found["seed"].n_unique()
    everywhere = found.filter(complete)
    count = everywhere.select(cell).n_unique()
    if count < 2:
        return found
    common = pl.col(value).mean() - everywhere[value].mean()
    seeds = everywhere.group_by("seed").agg(seed_level=common)
    centre = pl.col(value).mean().over(cell)
    stretch = float(np.sqrt(count / (count - 1)))
    moved = centre + stretch * (pl.col(value) - pl.col("seed_level") - centre)
    return found.join(seeds, on="seed", how="left", maintain_order="left").with_columns(
        pl.when(complete).then(moved).otherwise(pl.col(value)).alias(value)
    )


def plot_mean(
    axes: Axes,
    found: pl.DataFrame,
    x: str,
    value: str,
    *,
    label: str,
    style: tuple[str, str, object],
) -> None:
    """A line over the means of seeds, and a band that is their confidence interval.

    Args:
        axes: to draw on.
        found: rows of one series.
        x: column along the axis.
        value: column whose mean over seeds is drawn.
        label: in the legend.
        style: as `style_of` gives it.
    """
    means = over_seeds(found, [x], value).sort(x)
    at, centre = means[x].to_numpy(), means["mean"].to_numpy()
    half = half_width(means["sd"].cast(pl.Float64).fill_null(np.nan).to_numpy(), _count(means))
    colour, mark, dashes = style
    (line,) = axes.plot(at, centre, color=colour, marker=mark, label=label)
    line.set_linestyle(dashes)  # type: ignore[arg-type]
    if len(at) == 1:
        axes.errorbar(at, centre, yerr=np.nan_to_num(half), color=colour, capsize=3)
    elif np.isfinite(half).any():
        axes.fill_between(at, centre - half, centre + half, color=colour, alpha=0.14, linewidth=0)


def _count(means: pl.DataFrame) -> np.ndarray:
    return means["n"].cast(pl.Float64).to_numpy()


def legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    """One legend for all panels, under them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, handlelength=3.2)


def panels_of(found: pl.DataFrame) -> list[tuple[str, float, pl.DataFrame]]:
    """Rows of panels: pair, beta and their measurements."""
    return [
        (str(pair), float(str(beta)), group)
        for (pair, beta), group in found.group_by("pair", "beta", maintain_order=True)
    ]


def series_of(found: pl.DataFrame, by: Sequence[str]) -> Iterable[tuple[tuple, pl.DataFrame]]:
    """Groups in the order of their first rows."""
    return found.group_by(by, maintain_order=True)
