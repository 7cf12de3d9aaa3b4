"""The picture of a run: errors beside the controls', calibration, and how training went."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from scdr.methods import CONTROLS, METHODS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette: told apart by the colour-blind and in print.
METHOD_COLOUR, CONTROL_COLOUR = "#D55E00", "#0072B2"
CURVE_COLOURS = ("#0072B2", "#009E73", "#D55E00", "#CC79A7")


def draw_report(report: dict[str, Any], progress: Path, path: Path) -> None:
    """Write the picture of a run as PNG.

    Args:
        report: as in report.json.
        progress: the run's progress.jsonl.
        path: file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    judged = report["distribution"]
    ratios = (1, 1, 1.2) if judged is None else (1, 1, 1.2, 1)
    figure = Figure(figsize=(3.75 * sum(ratios), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    mae, rmse, training, *calibration = figure.subplots(1, len(ratios), width_ratios=ratios)
    figure.suptitle(f"{report['pair']}, beta {report['beta']}, seed {report['seed']}")
    _draw_errors(mae, report, "mae")
    _draw_errors(rmse, report, "rmse")
    rmse.set_yticklabels([])
    _draw_training(training, progress)
    for axes in calibration:
        _draw_calibration(axes, judged["calibration"])
    figure.savefig(path, dpi=130)


def _draw_errors(axes: Axes, report: dict[str, Any], metric: str) -> None:
    rows = [(CONTROLS[name].title, metrics) for name, metrics in report["controls"].items()]
    rows.append((METHODS[report["method"]].title, report["test"]))
    for height, (_, metrics) in enumerate(rows):
        low, high = metrics[f"{metric}_ci95"]
        value = metrics[metric]
        colour = METHOD_COLOUR if height == len(rows) - 1 else CONTROL_COLOUR
        axes.errorbar(
            value, height, xerr=[[value - low], [high - value]], fmt="o", color=colour, capsize=3
        )
    axes.set_yticks(range(len(rows)), [title for title, _ in rows])
    axes.set_xlabel(f"test {metric.upper()} in rating units, 95 % over users")
    axes.grid(axis="x", alpha=0.3)


def _draw_calibration(axes: Axes, curves: list[dict[str, Any]]) -> None:
    """How often ratings reach a level, over the probability that the distribution gives it."""
    axes.plot((0, 1), (0, 1), color="grey", linewidth=1, linestyle="--")
    for curve, colour in zip(curves, CURVE_COLOURS, strict=False):
        label = f"rating ≥ {curve['level']:.3g}"
        axes.plot(curve["promised"], curve["observed"], marker="o", ms=3, label=label, color=colour)
    axes.set_xlabel("predicted probability")
    axes.set_ylabel("share of test ratings")
    axes.set_aspect("equal")
    axes.grid(alpha=0.3)
    if curves:
        axes.legend(frameon=False, fontsize="small")


def _draw_training(axes: Axes, progress: Path) -> None:
    curves: dict[str, list[float]] = defaultdict(list)
    for text in progress.read_bytes().splitlines():
        line = orjson.loads(text)
        for key in ("loss", "validation"):
            if key in line:
                name = line["stage"] if key == "loss" else f"{line['stage']}, validation"
                curves[name].append(line[key])
    for (name, values), colour in zip(sorted(curves.items()), CURVE_COLOURS, strict=False):
        axes.plot(range(1, len(values) + 1), values, label=name, color=colour)
    axes.set_xlabel("epoch")
    axes.set_ylabel("RMS error in rating units")
    axes.grid(alpha=0.3)
    if curves:
        axes.legend(frameon=False, fontsize="small")
