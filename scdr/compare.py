"""`python -m scdr.compare`: methods over pairs, betas and seeds, and the paper's tables of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scdr.commands import run_command

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from scdr.experiments.config import CompareConfig
    from scdr.experiments.store import ResultStore
    from scdr.experiments.table import Table
    from scdr.experiments.work import Work


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(_compare, sys.argv[1:] if arguments is None else arguments)


def _compare(arguments: Sequence[str]) -> None:
    from pathlib import Path

    from scdr.device import available_threads
    from scdr.experiments.comparison import missing_runs, plan, read_pairs, run_missing
    from scdr.experiments.config import read_config
    from scdr.experiments.estimate import as_table, estimate, probe_methods
    from scdr.experiments.outputs import write_outputs
    from scdr.experiments.store import ResultStore, comparison_folder, new_folder
    from scdr.progress import Progress

    config = read_config(arguments, program="python -m scdr.compare")
    if config.clear_cache:
        _clear_cache(config)
        return
    with Progress(show=True) as progress:
        pairs = read_pairs(config, progress)
        works = plan(config, pairs)
        folder = Path(config.out) if config.out else new_folder()
        store = ResultStore(folder / "runs")
        jobs = config.jobs or available_threads()
        if config.dry_run:
            missing = missing_runs(works, store)
            probes = probe_methods(missing, jobs=jobs, progress=progress) if missing else {}
        else:
            with comparison_folder(folder):
                try:
                    run_missing(works, store, jobs=jobs, progress=progress)
                    tables, results = write_outputs(folder, config, pairs, works, store)
                except KeyboardInterrupt as stop:
                    kept = len(works) - len(missing_runs(works, store))
                    raise type(stop)(
                        f"{kept} of {len(works)} runs are kept: the same command with "
                        f"--out {folder} goes on from there"
                    ) from None
    if config.dry_run:
        _print_plan(works, store)
        if missing:
            _print_table(as_table(estimate(missing, probes, jobs=jobs)))
    else:
        _print(folder, tables, results)


def _print(folder: Path, tables: Sequence[Table], results: pl.DataFrame) -> None:
    import polars as pl
    from rich.console import Console

    from scdr.experiments.comparison import runs_of
    from scdr.experiments.table import to_terminal
    from scdr.experiments.work import place

    console = Console()
    for table in tables:
        for part in to_terminal(table, console.width):
            console.print(part)
            console.print()
    runs = runs_of(results)
    failures = runs.filter(pl.col("error").is_not_null())
    for run in failures.iter_rows(named=True):
        where = place(*(run[key] for key in ("pair", "beta", "seed", "method", "backbone")))
        console.print(f"failed: {where}: {run['error']}", soft_wrap=True, markup=False)
    console.print(
        f"{len(runs) - len(failures)} runs, {len(failures)} failed. Folder: {folder}",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


def _print_table(table: Table) -> None:
    from rich.console import Console

    from scdr.experiments.table import to_terminal

    console = Console()
    for part in to_terminal(table, console.width):
        console.print(part)


def _print_plan(works: Sequence[Work], store: ResultStore) -> None:
    """Print each run and its state: finished, failed or missing."""
    from scdr.experiments.cache import FactorCache

    missing = 0
    for work in works:
        result = store.find(work)
        state = "missing" if result is None else "failed" if result.error else "finished"
        missing += result is None or not result.final
        print(f"{state:<9} {work.place}")
    print(f"{missing} of {len(works)} runs to do")
    entries = FactorCache(works[0].cache, limit=works[0].cache_limit).entries()
    size = sum(status.st_size for _, status in entries)
    print(f"{len(entries)} pretrained factors, {size / 1e6:.1f} MB, in {works[0].cache}")


def _clear_cache(config: CompareConfig) -> None:
    from pathlib import Path

    from scdr.experiments.cache import FactorCache, default_folder

    folder = Path(config.cache) if config.cache else default_folder()
    entries, size = FactorCache(folder, limit=0).clear()
    print(f"removed {entries} entries, {size / 1e6:.1f} MB, from {folder}")


if __name__ == "__main__":
    sys.exit(main())
