"""`python -m scdr.recommend`: the best items of many users from a file, or of one user by hand."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from scdr.commands import run_command
from scdr.hyperparameters import STRICT, Count, PositiveCount

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

    from scdr.progress import Progress
    from scdr.serving import Predictor
    from scdr.serving.files import UserBatch


@dataclass(frozen=True, kw_only=True)
class RecommendConfig:
    """What to recommend, and to whom."""

    __pydantic_config__ = STRICT

    model: tyro.conf.Positional[str]
    """Run folder of scdr.train, or the model.safetensors in it."""
    histories: str | None = None
    """File with source ratings of the users to answer, in any of the formats in docs/data.md."""
    out: str | None = None
    """File to write: .parquet or .csv, with columns user, rank, item, rating, answered_as."""
    k: PositiveCount = 20
    """Items for each user."""
    exclude: str | None = None
    """File with target ratings: no user gets an item that it rates there."""
    user: tuple[str, ...] = ()
    """Instead of a file: ids of users to look at."""
    item: tuple[str, ...] = ()
    """With --user, or alone for a user of whom nothing is known: ids of target items to predict
    ratings of."""
    format: str = "auto"
    """Format of the histories, by name, where it is not recognised by itself."""
    columns: str | None = None
    """Where the columns of the histories are not recognised:
    user=NAME,item=NAME,rating=NAME,time=NAME, or positions from 0 instead of names."""
    overwrite: bool = False
    """Replace the file where it exists."""
    threads: Count = 0
    """Cores to use; 0: all. Results do not depend on it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(_recommend, sys.argv[1:] if arguments is None else arguments)


def _recommend(arguments: Sequence[str]) -> None:
    config = tyro.cli(
        RecommendConfig,
        prog="python -m scdr.recommend",
        description="Recommend target items: to the users of a file, or by hand to one.",
        args=list(arguments),
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    from scdr.errors import InputError
    from scdr.options import checked

    config = checked(RecommendConfig, asdict(config), where="command line")
    by_hand = bool(config.user or config.item)
    if by_hand == (config.histories is not None):
        raise InputError(
            "users by hand and from a file" if by_hand else "no users",
            fix="give either --histories FILE and --out FILE, or --user ID",
        )
    if (config.out is None) == (config.histories is not None):
        raise InputError(
            "--histories and --out go together", fix="give both, or --user ID for a look by hand"
        )
    import torch

    from scdr.device import available_threads
    from scdr.progress import Progress
    from scdr.serving import Predictor

    torch.set_num_threads(config.threads or available_threads())
    if by_hand:
        look(Predictor.load(config.model), config)
        return
    with Progress(show=True) as progress, progress.timed("total"):
        counts = recommend_file(config, progress)
    users = sum(counts.values())
    seconds = progress.elapsed("total")
    reading = progress.elapsed("read")
    print(f"{users:,} users in {seconds:.1f} s, {reading:.1f} s of it reading and sorting")
    print(", ".join(f"{n:,} {kind}" for kind, n in counts.items() if n))
    print(f"File: {config.out}")


def recommend_file(config: RecommendConfig, progress: Progress) -> dict[str, int]:
    """Answer all users of a file of histories, in bounded memory.

    Returns:
        How many users were answered as what.

    Raises:
        InputError: a file can't be used, or `out` can't be written; it is as it was then.
    """
    import tempfile

    from scdr.data.writing import writing_file
    from scdr.options import columns_of
    from scdr.serving import Predictor
    from scdr.serving.answers import KINDS
    from scdr.serving.files import HistoryFile, RatingFile
    from scdr.whole_file import whole_file

    out = _out(config)
    predictor = Predictor.load(config.model)
    counts: dict[str, int] = dict.fromkeys(reversed(KINDS), 0)
    with (
        writing_file(out, "recommendations"),
        tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder,
    ):
        work = Path(folder)
        with progress.timed("read"), progress.reading("read") as read:
            users = HistoryFile(
                RatingFile(
                    Path(str(config.histories)),
                    config.format,
                    columns_of(config.columns, where="--columns"),
                    read,
                ),
                RatingFile(Path(config.exclude)) if config.exclude else None,
                source_items=predictor.source_item_ids,
                target_items=predictor.item_ids,
                work=work,
            )
        with progress.rows("recommend", len(users)) as advance:
            tables = (_table(predictor, some, config.k, counts) for some in users.batches(advance))
            with whole_file(out) as partial:
                _write(tables, partial, work, csv=out.suffix == ".csv")
    return counts


def _table(predictor: Predictor, users: UserBatch, k: int, counts: dict[str, int]) -> pl.DataFrame:
    """A row for each recommended item; adds up what the users were answered as."""
    import numpy as np
    import polars as pl

    from scdr.serving.answers import KINDS

    vectors, kinds = predictor.vectors(users.ids, users.histories)
    best, ratings = predictor.topk(vectors, kinds, min(k, len(predictor.item_ids)), users.rated)
    for kind, n in zip(KINDS, np.bincount(kinds, minlength=len(KINDS)), strict=True):
        counts[kind] += int(n)
    found = best >= 0
    user, place = np.nonzero(found)
    names = pl.Series(users.ids, dtype=pl.String)
    labels = pl.Series(KINDS, dtype=pl.Enum(KINDS))
    return pl.DataFrame(
        {
            "user": names.gather(user),
            "rank": (place + 1).astype(np.int32),
            "item": predictor.item_names.gather(best[found]),
            "rating": ratings[found],
            "answered_as": labels.gather(kinds[user]).cast(pl.Categorical()),
        }
    )


def _write(tables: Iterator[pl.DataFrame], path: Path, work: Path, *, csv: bool) -> None:
    """Write tables one below the other."""
    import polars as pl

    parts = 0
    with path.open("wb") as file:
        for parts, table in enumerate(tables, start=1):
            if csv:
                table.write_csv(file, include_header=parts == 1)
            else:
                table.cast({"answered_as": pl.String}).write_parquet(work / f"out-{parts}.parquet")
    if not csv:
        files = [work / f"out-{part + 1}.parquet" for part in range(parts)]
        pl.scan_parquet(files).sink_parquet(path, maintain_order=True)


def _out(config: RecommendConfig) -> Path:
    from scdr.errors import InputError

    out = Path(str(config.out))
    if out.suffix not in (".parquet", ".csv"):
        raise InputError(
            "neither Parquet nor CSV", where=str(out), fix="name a file .parquet or .csv"
        )
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise InputError("not a file that can be written", where=str(out), fix="name another")
    if out.exists() and not config.overwrite:
        raise InputError("the file exists", where=str(out), fix="name another, or --overwrite")
    return out.absolute()


def look(predictor: Predictor, config: RecommendConfig) -> None:
    """Print what is recommended to users given by hand, or predicted of items."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for user in config.user or (None,):
        if config.item:
            predicted = predictor.predict(user, config.item)
            answered_as, items, ratings = predicted.answered_as, config.item, predicted.ratings
            notes = ["" if known else "not in the model" for known in predicted.known]
        else:
            best = predictor.recommend(user, config.k)
            answered_as, items, ratings = best.answered_as, tuple(best.items), best.ratings
            notes = [str(rank + 1) for rank in range(len(items))]
        name = "nobody in particular" if user is None else user
        table = Table(title=f"{name}, answered as {answered_as}", title_justify="left")
        table.add_column("" if config.item else "rank")
        table.add_column("item")
        table.add_column("rating", justify="right")
        for note, item, rating in zip(notes, items, ratings, strict=True):
            table.add_row(note, item, f"{rating:.2f}")
        console.print(table, markup=False)


if __name__ == "__main__":
    sys.exit(main())
