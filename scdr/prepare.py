"""`python -m scdr.prepare`: dumps to Parquet domains that load in seconds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from scdr.commands import run_command
from scdr.hyperparameters import STRICT, Count

if TYPE_CHECKING:
    from scdr.progress import Progress

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Which dumps to prepare, and where."""

    __pydantic_config__ = STRICT

    dumps: tyro.conf.Positional[tuple[str, ...]]
    """Rating files in any of the formats in docs/data.md, one for each domain."""
    out: str
    """Folder to write: NAME.parquet for each dump, NAME.rejected.csv where it has malformed rows,
    and report.json."""
    format: str = "auto"
    """Format of the dumps, by name, where it is not recognised by itself."""
    columns: str | None = None
    """Where the columns are not recognised: user=NAME,item=NAME,rating=NAME,time=NAME, or positions
    from 0 instead of names."""
    core: Count = 5
    """Ratings that every user and every item keeps at least, in each domain; 0 keeps all."""
    strict: bool = False
    """Refuse a dump with any malformed row, rather than list a few."""
    overwrite: bool = False
    """Replace the folder where it exists."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(_prepare, sys.argv[1:] if arguments is None else arguments)


def _prepare(arguments: Sequence[str]) -> None:
    config = tyro.cli(
        PrepareConfig,
        prog="python -m scdr.prepare",
        description="Turn rating dumps into Parquet domains once, for scdr.train to load in "
        "seconds: malformed rows, duplicates and the k-core are dealt with.",
        args=list(arguments),
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    from scdr.options import checked
    from scdr.progress import Progress

    config = checked(PrepareConfig, asdict(config), where="command line")
    with Progress(show=True) as progress:
        folder, report = prepare(config, progress)
    print_report(folder, report)


def prepare(config: PrepareConfig, progress: Progress) -> tuple[Path, dict[str, Any]]:
    """Prepare the domains of a configuration.

    Returns:
        The folder and what is in its report.json.

    Raises:
        InputError: a dump can't be used, or the folder can't be written; nothing is left then.
    """
    import orjson

    from scdr.data import prepare_domain
    from scdr.data.preparing import STEPS
    from scdr.data.writing import writing_domain
    from scdr.folder import REPORT, choose_folder, whole_folder
    from scdr.options import columns_of

    columns = columns_of(config.columns, where="--columns")
    names = _names(config.dumps)
    target = choose_folder(config.out, name="prepare", overwrite=config.overwrite)
    with whole_folder(target, overwrite=config.overwrite) as writing, progress.timed("total"):
        domains = []
        for name, dump in names.items():
            sorting = progress.stage(f"sort {name}", STEPS)
            with progress.reading(f"read {name}") as read, sorting as advance:
                domain = prepare_domain(
                    dump,
                    writing.partial / f"{name}.parquet",
                    format=config.format,
                    columns=columns,
                    core=config.core,
                    strict=config.strict,
                    progress=read,
                    advance=advance,
                )
            domains.append(
                {
                    "dump": dump,
                    **asdict(domain.report),
                    "path": f"{name}.parquet",
                    "users": domain.users,
                    "items": domain.items,
                    "ratings": domain.ratings,
                }
            )
        summary = {
            "schema": SCHEMA,
            "domains": domains,
            "overlaps": _overlaps(writing.partial, list(names)),
            "seconds": round(progress.elapsed("total"), 4),
        }
        with writing_domain(target):
            (writing.partial / REPORT).write_bytes(
                orjson.dumps(summary, option=orjson.OPT_INDENT_2)
            )
    return writing.folder, summary


def print_report(folder: Path, report: dict[str, Any]) -> None:
    """What each dump gave, and how many users the domains share."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    columns = ("rows", "rejected", "duplicates", "ratings", "users", "items")
    table = Table()
    table.add_column("domain")
    for column in columns:
        table.add_column(column, justify="right")
    for domain in report["domains"]:
        table.add_row(domain["path"], *(f"{domain[column]:,}" for column in columns))
    console.print(table)
    for overlap in report["overlaps"]:
        console.print(
            f"{' and '.join(overlap['domains'])}: {overlap['users']:,} overlap users",
            soft_wrap=True,
            highlight=False,
        )
    console.print(f"Folder: {folder}", soft_wrap=True, highlight=False)


def _names(dumps: Sequence[str]) -> dict[str, str]:
    """The dump of each domain, by the name of its file up to the first dot."""
    from scdr.errors import InputError

    if not dumps:
        raise InputError("no dump to prepare", fix="name one file or more")
    names: dict[str, str] = {}
    for dump in dumps:
        name = Path(dump).name.split(".")[0] or "domain"
        if name in names:
            raise InputError(
                f"{names[name]} and {dump} would both be {name}.parquet",
                fix="rename one, or prepare them into two folders",
            )
        names[name] = dump
    return names


def _overlaps(folder: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """Users that two domains share, for each two."""
    import polars as pl

    def users(name: str) -> pl.LazyFrame:
        return pl.scan_parquet(folder / f"{name}.parquet").select("user_ids").drop_nulls()

    return [
        {
            "domains": [first, second],
            "users": users(first).join(users(second), "user_ids", "semi").collect().height,
        }
        for first, second in combinations(names, 2)
    ]


if __name__ == "__main__":
    sys.exit(main())
