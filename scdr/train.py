"""`python -m scdr.train`: pretraining, mapping and evaluation on one pair of domains."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from scdr.commands import run_command

if TYPE_CHECKING:
    from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(_train, sys.argv[1:] if arguments is None else arguments)


def _train(arguments: Sequence[str]) -> None:
    from scdr.config import read_settings
    from scdr.progress import Progress
    from scdr.run import run

    settings = read_settings(arguments, program="python -m scdr.train")
    with Progress(show=True) as progress:
        folder, report = run(settings, progress)
    print_report(folder, report)


def print_report(folder: Path, report: dict[str, Any]) -> None:
    """A table of the method and the controls, and what to make of it."""
    from rich.console import Console
    from rich.table import Table

    from scdr.methods import CONTROLS, METHODS
    from scdr.prediction import other_points

    console = Console()
    data = report["data"]
    table = Table(
        title=f"{report['pair']}, beta {report['beta']}, seed {report['seed']}, "
        f"preset {report['preset']}",
        title_justify="left",
        caption=f"{data['test_users']:,} test users, {data['test_ratings']:,} test ratings; "
        "intervals: 95 %, over users",
        caption_justify="left",
    )
    table.add_column("on test users")
    for column in ("MAE", "95 %", "RMSE", "95 %"):
        table.add_column(column, justify="right")
    title = METHODS[report["method"]].title
    rows = [(title, report["test"], "bold")]
    if report["validation"]:
        rows.append((f"{title}, validation users", report["validation"], ""))
    for label, metrics, style in rows:
        table.add_row(label, *_cells(metrics), style=style)
    for label, metrics in other_points(title, report["distribution"]):
        table.add_row(label, *_cells(metrics))
    table.add_section()
    for name, metrics in report["controls"].items():
        table.add_row(CONTROLS[name].title, *_cells(metrics))
    console.print(table)
    for line in verdict(title, report):
        console.print(line, soft_wrap=True, highlight=False)
    console.print(f"Run folder: {folder}", soft_wrap=True, highlight=False)


def verdict(title: str, report: dict[str, Any]) -> list[str]:
    """In words: the controls it beats, its distribution, how near it is to the best possible."""
    from scdr.prediction import calibration_lines

    lines = []
    for metric in ("mae", "rmse"):
        ahead = [n for n, m in report["controls"].items() if report["test"][metric] < m[metric]]
        best = min(report["controls"], key=lambda name: report["controls"][name][metric])
        margin = report["test"][metric] - report["controls"][best][metric]
        side = "below" if margin < 0 else "above"
        lines.append(
            f"{metric.upper()}: {title} beats {len(ahead)} of {len(report['controls'])} controls; "
            f"{abs(margin):.4f} {side} the best of them ({best})."
        )
    lines += calibration_lines(report["distribution"])
    if "planted" in report:
        truth = report["planted"]
        lines.append(
            f"Best possible RMSE {truth['best_rmse']:.4f}: {title} closes "
            f"{100 * truth['gap_closed']:.1f} % of the gap from bias transfer to it."
        )
    return lines


def _cells(metrics: dict[str, Any]) -> list[str]:
    cells = []
    for name in ("mae", "rmse"):
        low, high = metrics[f"{name}_ci95"]
        cells += [f"{metrics[name]:.4f}", f"{low:.3f} to {high:.3f}"]
    return cells


if __name__ == "__main__":
    sys.exit(main())
