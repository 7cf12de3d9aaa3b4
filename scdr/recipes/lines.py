"""The figures that are lines and dots: robust error, flatness and performance."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from scdr.recipes.frames import ATTACKS, attack_name, is_relative, over_seeds
from scdr.recipes.style import (
    half_width,
    legend_below,
    new_figure,
    panels_of,
    plot_mean,
    series_of,
    style_of,
    styled,
    within_seeds,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAE = "test MAE (rating units)"
EPS = "eps (units of the user vectors)"
RELATIVE_EPS = "eps (RMS of coordinates of the user vectors)"
PANEL = 2.5
"""Height of a row of panels in inches."""
_SWEEP_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_SWEEP_DASHES = ((0, (1, 1)), (0, (2, 1)), (0, (5, 1)), "-", (0, (3, 1, 1, 1)))
_SWEEP_MARKS = "o^sDv"


def draw_fgsm(found: pl.DataFrame) -> Figure:
    """Robust MAE by eps, a line for each method: absolute eps on the left, relative on the right.

    Axes are logarithmic in the error, where methods lie several times apart.
    """
    with styled():
        figure, rows = _panels(found, 2, extra=0.75)
        for (pair, beta, group), axes in rows:
            labels = group["label"].unique(maintain_order=True).to_list()
            for panel, relative in zip(axes, (False, True), strict=True):
                chosen = group.filter(is_relative() == relative)
                for (label,), line in series_of(chosen, ["label"]):
                    style = style_of(str(label), labels.index(label))
                    plot_mean(panel, line, "level", "mae", label=str(label), style=style)
                panel.set_xlabel(RELATIVE_EPS if relative else EPS)
                _log_errors(panel, group["mae"])
            _name(axes, pair, beta, MAE)
        legend_below(figure, rows[0][1][0], 5)
    return figure


def draw_attacks(found: pl.DataFrame) -> Figure:
    """MAE by relative eps under each attack, a small panel for each method."""
    with styled():
        found = found.filter(is_relative()).with_columns(attack=attack_name())
        groups = panels_of(found)
        labels = found["label"].unique(maintain_order=True).to_list()
        columns = min(3, len(labels))
        per_group = -(-len(labels) // columns)
        figure = new_figure(0.9 + 1.9 * per_group * len(groups))
        grid = figure.subplots(per_group * len(groups), columns, squeeze=False, sharex=True)
        for number, (pair, beta, group) in enumerate(groups):
            panels = grid[number * per_group : (number + 1) * per_group].ravel()
            for panel, label in zip(panels, labels, strict=False):
                method = group.filter(pl.col("label") == label)
                method = within_seeds(method, ["attack", "level"], "mae")
                for index, (attack, title) in enumerate(ATTACKS.items()):
                    line = method.filter(pl.col("attack") == attack)
                    if len(line):
                        style = (_ATTACK_COLOURS[index], _ATTACK_MARKS[index], _dashes(attack))
                        plot_mean(panel, line, "level", "mae", label=title, style=style)
                several = f"{pair}, beta {beta:g}: " if len(groups) > 1 else ""
                panel.set_title(f"{several}{label}", loc="left")
            for panel in panels[len(labels) :]:
                panel.set_visible(False)
            for row in grid[number * per_group : (number + 1) * per_group]:
                row[0].set_ylabel("test MAE")
        for panel in grid[-1]:
            panel.set_xlabel("eps (RMS of coordinates)")
        if len(groups) == 1:
            figure.suptitle(f"{groups[0][0]}, beta {groups[0][1]:g}", fontsize="medium")
        legend_below(figure, grid[0, 0], 4)
    return figure


_ATTACK_COLOURS = (
    *("#000000", "#D55E00", "#E69F00", "#CC79A7"),
    *("#56B4E9", "#0072B2", "#7FD6B4", "#009E73"),
)
_ATTACK_MARKS = "oDs^v<PX"


def _dashes(attack: str) -> object:
    """White-box attacks are whole lines."""
    return "-" if attack in ("fgsm", "pgd_linf", "pgd_l2") else (0, (3, 1))


def draw_sweep_error(found: pl.DataFrame) -> Figure:
    """MAE by k at each eps, a panel for each rho."""
    with styled():
        absolute = found.filter(~is_relative())
        radii = sorted(set(absolute["rho"].drop_nulls()))
        figure, rows = _panels(absolute, len(radii), extra=0.5, share_y=True)
        levels = sorted(set(absolute["level"]))
        for (pair, beta, group), axes in rows:
            group = within_seeds(group, ["k", "rho", "level"], "mae")
            for panel, rho in zip(axes, radii, strict=True):
                for index, level in enumerate(levels):
                    line = group.filter(pl.col("rho") == rho, pl.col("level") == level)
                    colour = _shade(index, len(levels))
                    style = (colour, _SWEEP_MARKS[index % 5], "-")
                    label = "natural" if level == 0 else f"eps {level:g}"
                    plot_mean(panel, line, "k", "mae", label=label, style=style)
                panel.set_xlabel("steps k")
                panel.set_xticks(sorted(set(group["k"].drop_nulls())))
                panel.set_title(f"rho = {rho:g}", loc="left")
            _name(axes, pair, beta, MAE, title=False)
        legend_below(figure, rows[0][1][0], len(levels))
    return figure


def draw_sweep_fgsm(found: pl.DataFrame) -> Figure:
    """Robust MAE by eps, a line for each rho and k; absolute and relative eps."""
    with styled():
        figure, rows = _panels(found, 2, extra=0.6)
        for (pair, beta, group), axes in rows:
            for panel, relative in zip(axes, (False, True), strict=True):
                chosen = group.filter(is_relative() == relative, pl.col("rho").is_not_null())
                chosen = within_seeds(chosen, ["k", "rho", "level"], "mae")
                _sweep_lines(panel, chosen, "level", "mae", by=("rho", "k"))
                panel.set_xlabel(RELATIVE_EPS if relative else EPS)
            _name(axes, pair, beta, MAE)
        legend_below(figure, rows[0][1][0], 4)
    return figure


def draw_sweep_flatness(found: pl.DataFrame) -> Figure:
    """Lipschitz ratio by k for each rho: at the trained perturbation, and at one ball for all."""
    with styled():
        figure, rows = _panels(found, 2, extra=0.5)
        for (pair, beta, group), axes in rows:
            probes = {"own": "at each model's own k and rho", "relative": "at one ball for all"}
            for panel, (probe, title) in zip(axes, probes.items(), strict=True):
                chosen = group.filter(pl.col("probe") == probe, pl.col("rho").is_not_null())
                chosen = within_seeds(chosen, ["k", "rho"], "lipschitz_mean")
                _sweep_lines(panel, chosen, "k", "lipschitz_mean", by=("rho",))
                panel.set_xlabel("steps k of training")
                panel.set_xticks(sorted(set(chosen["k"])))
                panel.set_ylim(bottom=0)
                panel.set_title(title, loc="left")
            _name(axes, pair, beta, "mean Lipschitz ratio (no unit)", title=False)
        legend_below(figure, rows[0][1][0], 4)
    return figure


def draw_sweep_performance(found: pl.DataFrame) -> Figure:
    """MAE and RMSE by k for each rho, from zero, so that flat looks flat."""
    with styled():
        figure, rows = _panels(found, 2, extra=0.5)
        for (pair, beta, group), axes in rows:
            swept = group.filter(pl.col("rho").is_not_null())
            for panel, metric in zip(axes, ("mae", "rmse"), strict=True):
                chosen = within_seeds(swept, ["k", "rho"], metric)
                _sweep_lines(panel, chosen, "k", metric, by=("rho",))
                panel.set_xlabel("steps k")
                panel.set_xticks(sorted(set(swept["k"])))
                panel.set_ylim(bottom=0)
                panel.set_ylabel(f"test {metric.upper()} (rating units)")
            axes[0].set_title(f"{pair}, beta {beta:g}", loc="left")
        legend_below(figure, rows[0][1][0], 4)
    return figure


def draw_ablation(found: pl.DataFrame) -> Figure:
    """MAE and RMSE by beta, a line for each method; a dot where there is one beta."""
    with styled():
        pairs = found["pair"].unique(maintain_order=True).to_list()
        figure = new_figure(0.5 + PANEL * len(pairs))
        grid = figure.subplots(len(pairs), 2, squeeze=False)
        for axes, pair in zip(grid, pairs, strict=True):
            group = found.filter(pl.col("pair") == pair)
            for panel, metric in zip(axes, ("mae", "rmse"), strict=True):
                for index, ((label,), line) in enumerate(series_of(group, ["label"])):
                    style = style_of(str(label), index)
                    plot_mean(panel, line, "beta", metric, label=str(label), style=style)
                panel.set_xlabel("beta (share of overlap users that are test users)")
                panel.set_xticks(sorted(set(group["beta"])))
                panel.set_ylabel(f"test {metric.upper()} (rating units)")
            axes[0].set_title(pair, loc="left")
        legend_below(figure, grid[0, 0], 4)
    return figure


def draw_flatness(found: pl.DataFrame) -> Figure:
    """Lipschitz ratios and bound, and sharpness, a dot for each method, on logarithmic axes."""
    with styled():
        probed = found.filter(pl.col("probe") == "relative")
        groups = panels_of(probed)
        labels = probed["label"].unique(maintain_order=True).to_list()
        figure = new_figure((0.9 + 0.24 * len(labels)) * len(groups) + 0.3)
        grid = figure.subplots(len(groups), 2, squeeze=False, width_ratios=(1.2, 1))
        for axes, (pair, beta, group) in zip(grid, groups, strict=True):
            _dots(axes[0], group, labels, "lipschitz_mean", "mean ratio", "#0072B2", "o")
            _dots(axes[0], group, labels, "lipschitz_max", "largest ratio", "#E69F00", "D")
            _dots(axes[0], group, labels, "spectral_bound", "spectral bound", "#000000", "|")
            _dots(axes[1], group, labels, "sharpness", "sharpness", "#D55E00", "o")
            axes[0].set_xlabel("Lipschitz ratio (no unit)")
            axes[1].set_xlabel("sharpness (squared rating units)")
            for panel, names in zip(axes, (labels, [""] * len(labels)), strict=True):
                panel.set_xscale("log")
                panel.set_yticks(range(len(labels)), list(reversed(names)))
                panel.grid(axis="x", which="both")
                panel.xaxis.set_major_formatter("{x:g}")
            axes[0].set_title(f"{pair}, beta {beta:g}", loc="left")
        legend_below(figure, grid[0, 0], 3)
    return figure


def draw_changed_ratings(found: pl.DataFrame) -> Figure:
    """MAE by the number of changed source ratings, a line for each method."""
    with styled():
        groups = panels_of(found)
        figure = new_figure(0.7 + (PANEL + 0.3) * len(groups))
        grid = figure.subplots(len(groups), 1, squeeze=False)
        for (panel,), (pair, beta, group) in zip(grid, groups, strict=True):
            for index, ((label,), line) in enumerate(series_of(group, ["label"])):
                style = style_of(str(label), index)
                plot_mean(panel, line, "changes", "mae", label=str(label), style=style)
            panel.set_xlabel("m (source ratings changed for each user)")
            _log_errors(panel, group["mae"])
            _name([panel], pair, beta, MAE)
        legend_below(figure, grid[0, 0], 5)
    return figure


def _panels(
    found: pl.DataFrame, columns: int, *, extra: float, share_y: bool = False
) -> tuple[Figure, list[tuple[tuple[str, float, pl.DataFrame], np.ndarray]]]:
    """A figure with a row of panels for each pair and beta."""
    groups = panels_of(found)
    figure = new_figure(extra + PANEL * len(groups))
    grid = figure.subplots(len(groups), columns, squeeze=False, sharey="row" if share_y else False)
    return figure, list(zip(groups, grid, strict=True))


def _name(
    axes: np.ndarray | list[Axes], pair: str, beta: float, label: str, *, title: bool = True
) -> None:
    axes[0].set_ylabel(label if title else f"{pair}, beta {beta:g}\n{label}")
    if title:
        axes[0].set_title(f"{pair}, beta {beta:g}", loc="left")


def _sweep_lines(
    panel: Axes, found: pl.DataFrame, x: str, value: str, *, by: tuple[str, ...]
) -> None:
    """A line for each rho and, where asked, k: colours by rho, dashes and marks by k."""
    radii, steps = sorted(set(found["rho"])), sorted(set(found["k"]))
    for key, line in series_of(found.sort("rho", "k", maintain_order=True), list(by)):
        rho, k = radii.index(key[0]), steps.index(key[1]) if len(by) > 1 else 3
        style = (_SWEEP_COLOURS[rho % 4], _SWEEP_MARKS[(k if len(by) > 1 else rho) % 5], "-")
        if len(by) > 1:
            style = (*style[:2], _SWEEP_DASHES[k % 5])  # type: ignore[assignment]
        label = f"rho = {key[0]:g}" + (f", k = {key[1]}" if len(by) > 1 else "")
        plot_mean(panel, line, x, value, label=label, style=style)


def _dots(
    panel: Axes,
    found: pl.DataFrame,
    labels: list[str],
    value: str,
    label: str,
    colour: str,
    mark: str,
) -> None:
    """The mean of each method and its confidence interval over seeds."""
    means = over_seeds(found.with_columns(pl.col(value).cast(pl.Float64)), ["label"], value)
    means = means.drop_nulls("mean")
    half = half_width(
        means["sd"].fill_null(np.nan).to_numpy(), means["n"].cast(pl.Float64).to_numpy()
    )
    heights = [len(labels) - 1 - labels.index(name) for name in means["label"]]
    centre = means["mean"].to_numpy()
    # A logarithmic axis has no place for what an interval of few seeds may reach below zero.
    low = np.minimum(half, centre * 0.9)
    panel.errorbar(
        centre,
        heights,
        xerr=np.nan_to_num(np.stack([low, half])),
        fmt=mark,
        color=colour,
        label=label,
        capsize=2,
        elinewidth=0.9,
        markersize=9 if mark == "|" else 4.5,
        markeredgewidth=1.6 if mark == "|" else 0.5,
    )


def _log_errors(panel: Axes, errors: pl.Series) -> None:
    """A logarithmic axis where errors lie several times apart."""
    low, high = errors.min(), errors.max()
    if isinstance(low, float) and isinstance(high, float) and high > 3 * low > 0:
        panel.set_yscale("log")
        ticks = [
            tick
            for tick in (0.1, 0.2, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100)
            if low * 0.9 <= tick <= high * 1.1
        ]
        panel.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.minorticks_off()


def _shade(index: int, of: int) -> str:
    """From a light to a dark blue, so that order is seen in grey as well."""
    shades = ("#9ECAE1", "#6BAED6", "#4292C6", "#2171B5", "#08306B")
    return shades[round(index * (len(shades) - 1) / max(of - 1, 1))]


Draw = Callable[[pl.DataFrame], Figure]
