"""What a comparison leaves in its folder once its runs are through."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import orjson
import polars as pl
import torch

from scdr.device import environment
from scdr.experiments.comparison import Pair, collect, tuning_report
from scdr.experiments.config import CompareConfig, proposed_method
from scdr.experiments.differences import differences
from scdr.experiments.figure import draw_comparison
from scdr.experiments.store import ResultStore
from scdr.experiments.table import Table, to_latex, to_markdown
from scdr.experiments.tables import (
    error_tables,
    published_tables,
    statistics_table,
    taxonomy_table,
)
from scdr.experiments.work import Work
from scdr.whole_file import write_whole

SCHEMA = 2


def write_outputs(
    folder: Path,
    config: CompareConfig,
    pairs: Sequence[Pair],
    works: Sequence[Work],
    store: ResultStore,
) -> tuple[list[Table], pl.DataFrame]:
    """Write results, tables and picture.

    Returns:
        The tables, and the results as in results.csv.

    Raises:
        InputError: a file can't be written.
    """
    results, errors = collect(works, store)
    tests = differences(results, errors, proposed=proposed_method(config))
    tables = [
        statistics_table(pair.statistics for pair in pairs),
        taxonomy_table(dict.fromkeys(work.method for work in works)),
        *error_tables(results, tests),
        *(published_tables() if config.published else ()),
    ]
    for name, frame in (("results", results), ("user_errors", errors), ("significance", tests)):
        buffer = io.BytesIO()
        frame.write_parquet(buffer)
        write_whole(folder / f"{name}.parquet", buffer.getvalue())
    for name, frame in (("results", results), ("significance", tests)):
        write_whole(folder / f"{name}.csv", frame.write_csv().encode())
    write_whole(folder / "tables.md", "\n".join(map(to_markdown, tables)).encode())
    write_whole(folder / "tables.tex", "\n".join(map(to_latex, tables)).encode())
    write_whole(folder / "data.md", "\n".join(pair.card for pair in pairs).encode())
    if config.tune:
        searches = orjson.dumps(tuning_report(works, store), option=orjson.OPT_INDENT_2)
        write_whole(folder / "tuning.json", searches)
    picture = io.BytesIO()
    draw_comparison(results, picture)
    write_whole(folder / "comparison.png", picture.getvalue())
    write_whole(folder / "config.toml", config.with_absolute_paths().to_toml().encode())
    device = torch.device(works[0].device)
    report = {
        "schema": SCHEMA,
        "config": dataclasses.asdict(config),
        "environment": environment(device, works[0].threads),
        "pairs": [dataclasses.asdict(pair.statistics) for pair in pairs],
    }
    write_whole(folder / "report.json", orjson.dumps(report, option=orjson.OPT_INDENT_2))
    return tables, results
