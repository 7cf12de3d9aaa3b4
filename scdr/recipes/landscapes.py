"""Landscapes as contours (Fig. 4), as surfaces (Fig. 2), and as data for a rotatable one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from scdr.recipes.frames import first_seed
from scdr.recipes.style import new_figure, styled

COLOURS = "cividis"
"""Even in brightness, and the same to the colour-blind."""
LEVELS = 40
_ZETA, _GAMMA = "zeta (user lengths)", "gamma (user lengths)"


@dataclass(frozen=True)
class Shape:
    """A landscape in numbers.

    Attributes:
        centre: MAE at the unperturbed vectors.
        lowest: over the plane.
        highest: over the plane.
        change: mean over the plane of how far the error is from `centre`, up or down.
    """

    centre: float
    lowest: float
    highest: float
    change: float

    @classmethod
    def of(cls, row: dict[str, Any]) -> Shape:
        """Of one row of measurements."""
        mae = np.array(row["mae"])
        centre = float(mae[len(mae) // 2, len(mae) // 2])
        return cls(centre, float(mae.min()), float(mae.max()), float(np.abs(mae - centre).mean()))


def draw_contours(found: pl.DataFrame) -> Figure:
    """Methods side by side, a row for each pair and beta, all on one colour scale."""
    with styled():
        found = first_seed(found)
        groups = found.group_by("pair", "beta", maintain_order=True).all().height
        labels = found["label"].unique(maintain_order=True).to_list()
        width = max(3.4, 0.9 + 1.6 * len(labels))
        figure = new_figure(0.55 + 1.75 * groups, width)
        grid = figure.subplots(groups, len(labels), squeeze=False, sharex=True, sharey=True)
        levels = _levels(found)
        drawn = None
        rows = found.group_by("pair", "beta", maintain_order=True)
        for axes, ((pair, beta), group) in zip(grid, rows, strict=True):
            for panel, label in zip(axes, labels, strict=True):
                panel.grid(visible=False)
                panel.set_aspect("equal")
                panel.set_xticks([-1, 0, 1])
                panel.set_yticks([-1, 0, 1])
                method = group.filter(pl.col("label") == label)
                if method.is_empty():
                    panel.set_visible(False)
                    continue
                zeta, gamma, mae = _plane(method.row(0, named=True))
                norm = Normalize(levels[0], levels[-1])
                drawn = panel.contourf(zeta, gamma, mae, levels, norm=norm, cmap=COLOURS)
                panel.contour(zeta, gamma, mae, levels, colors="black", linewidths=0.35, alpha=0.7)
                panel.plot(0, 0, marker="+", color="white", markersize=6, markeredgewidth=1.2)
            axes[0].set_ylabel(f"{_short(str(pair))}, beta {beta:g}\n{_GAMMA}")
        for panel, label in zip(grid[0], labels, strict=True):
            panel.set_title(label)
        for panel in grid[-1]:
            panel.set_xlabel(_ZETA)
        if drawn is not None:
            bar = figure.colorbar(drawn, ax=grid, fraction=0.03, pad=0.01)
            bar.set_label("test MAE (rating units)")
            bar.locator = MaxNLocator(6)
            bar.update_ticks()
    return figure


def draw_surfaces(found: pl.DataFrame) -> Figure:
    """Methods side by side as surfaces over the same plane, on one scale of height and colour."""
    with styled():
        found = first_seed(found)
        groups = list(found.group_by("pair", "beta", maintain_order=True))
        labels = found["label"].unique(maintain_order=True).to_list()
        figure = new_figure(0.2 + 2.7 * len(groups), max(3.6, min(2.9 * len(labels), 11.0)))
        levels = _levels(found)
        for row, ((pair, beta), group) in enumerate(groups):
            for column, label in enumerate(labels):
                method = group.filter(pl.col("label") == label)
                if method.is_empty():
                    continue
                place = row * len(labels) + column + 1
                panel: Any = figure.add_subplot(len(groups), len(labels), place, projection="3d")
                zeta, gamma, mae = _plane(method.row(0, named=True))
                panel.plot_surface(
                    *np.meshgrid(zeta, gamma),
                    mae,
                    cmap=COLOURS,
                    norm=Normalize(levels[0], levels[-1]),
                    rcount=51,
                    ccount=51,
                    linewidth=0.1,
                    edgecolor=(0, 0, 0, 0.25),
                    rasterized=True,
                )
                panel.set_zlim(0, levels[-1])
                panel.set_xlabel(_ZETA, labelpad=-5, fontsize="small")
                panel.set_ylabel(_GAMMA, labelpad=-5, fontsize="small")
                panel.set_zlabel("test MAE (rating units)", labelpad=-5, fontsize="small")
                panel.tick_params(pad=-2, labelsize="small")
                panel.set_xticks([-1, 0, 1])
                panel.set_yticks([-1, 0, 1])
                panel.view_init(elev=24, azim=-57)
                panel.set_box_aspect(None, zoom=0.84)
                panel.set_title(f"{label}\n{_short(str(pair))}, beta {beta:g}", pad=-4)
    return figure


def surfaces(found: pl.DataFrame) -> list[dict[str, Any]]:
    """The landscapes for a rotatable picture: `label`, `zeta`, `gamma` and `mae`, rounded."""
    return [
        {
            "label": f"{row['label']}, {row['pair']}, beta {row['beta']:g}",
            "zeta": np.round(row["zeta"], 4).tolist(),
            "gamma": np.round(row["gamma"], 4).tolist(),
            "mae": np.round(row["mae"], 4).T.tolist(),
        }
        for row in first_seed(found).iter_rows(named=True)
    ]


def _plane(
    row: dict[str, Any],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Zeta along x and gamma along y, and so rows of the error by gamma."""
    return np.array(row["zeta"]), np.array(row["gamma"]), np.array(row["mae"]).T


def _levels(found: pl.DataFrame) -> NDArray[np.float64]:
    """Contours at equal steps over all landscapes, so that dense lines mean steep everywhere."""
    values = np.array(found["mae"].to_list())
    low, high = float(values.min()), float(values.max())
    levels: NDArray[np.float64] = np.linspace(low, max(high, low + 1e-3), LEVELS)
    return levels


def _short(pair: str) -> str:
    return pair if len(pair) <= 28 else pair[:26] + "..."
