"""`python -m scdr.analyze`: robustness, flatness and landscapes, of runs or by recipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scdr.commands import run_command

if TYPE_CHECKING:
    from pathlib import Path

    from scdr.progress import Progress
    from scdr.recipes.config import AnalyzeConfig
    from scdr.report import Page

LOCK = ".scdr-analyze.lock"
"""Marks a folder as that of an analysis; locked while one is writing to it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(_analyze, sys.argv[1:] if arguments is None else arguments)


def _analyze(arguments: Sequence[str]) -> None:
    from datetime import datetime
    from pathlib import Path

    from scdr.experiments.store import comparison_folder
    from scdr.progress import Progress
    from scdr.recipes.config import read_config
    from scdr.report import render
    from scdr.report.run_pages import comparison_page, is_comparison
    from scdr.whole_file import write_whole

    config = read_config(arguments, program="python -m scdr.analyze")
    name = f"{datetime.now():%Y%m%d-%H%M%S}-analyze"
    folder = Path(config.out) if config.out else Path("runs") / name
    if any(is_comparison(Path(run)) for run in config.runs):
        page = comparison_page(_only_comparison(config))
        with comparison_folder(folder, lock_name=LOCK, of="analysis"):
            write_whole(folder / "report.html", render(page))
    else:
        with Progress(show=True) as progress:
            page = _measure(config, folder, progress)
    _print(folder, page)


def _only_comparison(config: AnalyzeConfig) -> Path:
    from pathlib import Path

    from scdr.errors import InputError

    if len(config.runs) > 1 or config.recipe:
        raise InputError(
            "a comparison keeps no models to analyse, only its report can be made",
            where=", ".join(config.runs),
            fix="give the comparison alone, or run folders of scdr.train",
        )
    return Path(config.runs[0])


def _measure(config: AnalyzeConfig, folder: Path, progress: Progress) -> Page:
    """Measure what is missing, and write the folder."""
    from scdr.device import available_threads
    from scdr.experiments.comparison import read_pairs
    from scdr.experiments.store import comparison_folder
    from scdr.recipes.planning import distinct, read_tasks, trained_tasks
    from scdr.recipes.study import Measurements, run_missing
    from scdr.report import render
    from scdr.report.analysis_page import analysis_page
    from scdr.whole_file import write_whole

    if config.runs:
        tasks = read_tasks(config)
    else:
        pairs = read_pairs(config.comparison(("scdr",), (0.5,)), progress)
        tasks = trained_tasks(config, pairs)
    with comparison_folder(folder, lock_name=LOCK, of="analysis"):
        for part in ("figures", "tables"):
            (folder / part).mkdir(exist_ok=True)
        store = Measurements(folder / "runs")
        jobs = config.jobs or available_threads()
        try:
            failures = run_missing(distinct(tasks), store, jobs=jobs, progress=progress)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"what was measured is kept: the same command with --out {folder} goes on from "
                "there"
            ) from None
        page = analysis_page(config, tasks, store, folder, failures)
        write_whole(folder / "report.html", render(page))
    return page


def _print(folder: Path, page: Page) -> None:
    from rich.console import Console

    from scdr.report.page import FAILED

    console = Console(soft_wrap=True, highlight=False, markup=False)
    for section in page.sections:
        if section.findings or section.warnings:
            console.print(section.title)
        for line in section.findings:
            console.print(f"  {line}")
        if section.warnings:
            console.print(f"  {len(section.warnings)} warnings, in the report")
    for line in page.summary:
        if line.startswith(FAILED):
            console.print(line)
    console.print(f"Report: {folder / 'report.html'}")


if __name__ == "__main__":
    sys.exit(main())
