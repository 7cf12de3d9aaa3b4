"""The sections that a run's report and a comparison's folder hold already."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from scdr.data import PairStatistics
from scdr.errors import InputError
from scdr.experiments.comparison import runs_of
from scdr.experiments.differences import (
    BACKBONE,
    LEVEL,
    METRICS,
    predictors,
    several_backbones,
    summary,
)
from scdr.experiments.outputs import SCHEMA
from scdr.experiments.table import Cell, Row, Table
from scdr.experiments.tables import (
    error_tables,
    label_of,
    statistics_table,
    taxonomy_table,
    title_of,
)
from scdr.folder import REPORT
from scdr.methods import CONTROLS, METHODS
from scdr.options import checked
from scdr.prediction import calibration_lines, other_points
from scdr.report.page import Page, Picture, Section

_COMPARISON_FILES = (REPORT, "results.parquet", "significance.parquet", "config.toml")


def run_section(folder: Path, report: Mapping[str, Any]) -> Section:
    """What a run's own report says: errors, the controls, and which of them it beats.

    Args:
        folder: of the run.
        report: its report.json.
    """
    title = METHODS[report["method"]].title
    rows = [(title, report["test"], False)]
    if report["validation"]:
        rows.append((f"{title}, validation users", report["validation"], False))
    points = other_points(title, report["distribution"])
    rows += [(label, metrics, False) for label, metrics in points]
    rows += [
        (CONTROLS[name].title, metrics, index == 0)
        for index, (name, metrics) in enumerate(report["controls"].items())
    ]
    on_test = (report["test"], *(found for _, found in points), *report["controls"].values())
    lowest = {metric: min(found[metric] for found in on_test) for metric in ("mae", "rmse")}
    table = Table(
        title=f"{report['pair']}, beta {report['beta']:g}, seed {report['seed']}",
        head=("", "MAE", "95 %", "RMSE", "95 %"),
        rows=tuple(
            Row(label, tuple(_metric_cells(metrics, lowest)), ruled)
            for label, metrics, ruled in rows
        ),
        notes=(
            f"{report['data']['test_users']:,} test users, {report['data']['test_ratings']:,} test "
            "ratings; intervals over users, by bootstrap.",
        ),
    )
    findings = []
    for metric in ("mae", "rmse"):
        beaten = [
            CONTROLS[name].title
            for name, metrics in report["controls"].items()
            if report["test"][metric] < metrics[metric]
        ]
        findings.append(
            f"{metric.upper()}: {title} beats {', '.join(beaten) if beaten else 'no control'}"
            f" ({len(beaten)} of {len(report['controls'])} controls)."
        )
    picture = folder / "report.png"
    return Section(
        name=f"run-{folder.name}",
        title=f"Run {folder.name}: {title}, preset {report['preset']}",
        findings=(*findings, *calibration_lines(report["distribution"])),
        picture=Picture(picture.read_bytes(), "png", "Errors of the run and how training went")
        if picture.exists()
        else None,
        tables=(table,),
        preformatted={
            "Configuration and hyper-parameters": (folder / "config.toml").read_text("utf-8"),
            "Environment": _indented(report["environment"]),
        },
    )


def is_comparison(folder: Path) -> bool:
    """Whether a folder is one of scdr.compare, finished or not."""
    return (folder / ".scdr-compare.lock").exists()


def comparison_page(folder: Path) -> Page:
    """The report of a comparison.

    Raises:
        InputError: it is not finished, or of another version of scdr.
    """
    fix = "run the same command of python -m scdr.compare again"
    missing = [name for name in _COMPARISON_FILES if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"the comparison is incomplete: it has no {' and no '.join(missing)}",
            where=str(folder),
            fix=fix,
        )
    report = orjson.loads((folder / REPORT).read_bytes())
    if report["schema"] != SCHEMA:
        raise InputError(
            f"the comparison is of another version of scdr: its report has schema "
            f"{report['schema']}, this one reads {SCHEMA}",
            where=str(folder),
            fix=fix,
        )
    results = pl.read_parquet(folder / "results.parquet")
    tests = pl.read_parquet(folder / "significance.parquet")
    picture = folder / "comparison.png"
    runs = runs_of(results)
    failed = runs.filter(pl.col("error").is_not_null())
    methods = results["method"].unique(maintain_order=True).to_list()
    return Page(
        title=f"Comparison {folder.name}",
        summary=(
            f"{len(runs)} runs, {len(failed)} failed: {len(methods)} methods and controls on "
            f"{results['pair'].n_unique()} pairs of domains, preset {results['preset'][0]}.",
        ),
        sections=(
            Section(
                name="errors",
                title="Errors on test users",
                findings=tuple(_against_controls(results) + _differences(tests)),
                warnings=tuple(
                    f"{run['pair']}, beta {run['beta']:g}, seed {run['seed']}, {run['method']}: "
                    f"{run['error']}"
                    for run in failed.iter_rows(named=True)
                ),
                picture=Picture(picture.read_bytes(), "png", "Errors of all methods")
                if picture.exists()
                else None,
                tables=tuple(error_tables(results, tests)),
            ),
            Section(
                name="data",
                title="Data and methods",
                tables=(
                    statistics_table(
                        checked(PairStatistics, pair, where=str(folder / REPORT))
                        for pair in report["pairs"]
                    ),
                    taxonomy_table(dict.fromkeys(methods)),
                ),
            ),
            Section(
                name="settings",
                title="Configuration and environment",
                preformatted={
                    "Configuration": (folder / "config.toml").read_text("utf-8"),
                    "Environment": _indented(report["environment"]),
                },
            ),
        ),
    )


def environment_section(values: Mapping[str, Any]) -> Section:
    """Versions and hardware."""
    return Section(
        name="environment", title="Environment", preformatted={"Environment": _indented(values)}
    )


def _against_controls(results: pl.DataFrame) -> list[str]:
    """For each pair, beta and metric what is ahead of the best control."""
    lines = []
    several = several_backbones(results)
    is_control = pl.col("method").is_in(list(CONTROLS))
    for (pair, beta), group in summary(results).group_by("pair", "beta", maintain_order=True):
        for metric in METRICS:
            by_error = group.drop_nulls(metric).sort(metric, maintain_order=True)
            controls = by_error.filter(is_control)
            if controls.is_empty():
                continue
            best = controls.row(0, named=True)
            ahead = predictors(by_error.filter(~is_control, pl.col(metric) < best[metric]))
            names = "; ".join(label_of(found, with_backbone=several) for found in ahead)
            lines.append(
                f"{pair}, beta {beta:g}: ahead of the best control in {metric.upper()} "
                f"({title_of(best['method'])}, {best[metric]:.4f}): {names or 'no method'}."
            )
    return lines


def _differences(tests: pl.DataFrame) -> list[str]:
    """The improvements that are not chance, in words."""
    lines = []
    for row in tests.filter(pl.col("significant")).iter_rows(named=True):
        to_mf = row["against"] == BACKBONE
        proposed = row["proposed"], row["backbone"], row["optimise"]
        against = "the same with MF"
        if not to_mf:
            rival = label_of((row["rival"], None, row["rival_optimise"]), with_backbone=False)
            against = f"the best {row['against']} ({rival})"
        own = label_of(proposed, with_backbone=to_mf)
        side = "ahead of" if row["improvement_percent"] > 0 else "behind"
        lines.append(
            f"{row['pair']}, beta {row['beta']:g}: {own} is {abs(row['improvement_percent']):.2f} "
            f"% {side} {against} in {row['metric'].upper()}, not by chance (p < {LEVEL:g})."
        )
    return lines


def _metric_cells(metrics: Mapping[str, Any], lowest: Mapping[str, float]) -> list[Cell]:
    cells = []
    for name in ("mae", "rmse"):
        low, high = metrics[f"{name}_ci95"]
        cells.append(Cell(f"{metrics[name]:.4f}", bold=metrics[name] == lowest[name]))
        cells.append(Cell(f"{low:.3f} to {high:.3f}"))
    return cells


def _indented(values: Mapping[str, Any]) -> str:
    return orjson.dumps(values, option=orjson.OPT_INDENT_2).decode()
