"""The figures of docs/full_scale.md: whole commands on data of the paper's full size.

    python bench/full_scale.py train   # Books to Movies and to Music, by scdr and by scdr_b
    python bench/full_scale.py dumps   # Books in each dump format: prepare it, load it, train on it

Each command is a process of its own, of which wall time, processor time and peak memory are taken.
`--scale` makes everything smaller, `--formats` picks some formats, and `--folder` keeps the files
where there is room for 15 GB.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl

from scdr.data import Interactions, preset

PAPER_EPOCHS = (
    *("--method", "scdr", "--pretrain.epochs", "20"),
    *("--pretrain.sharp-epochs", "10", "--mapping.epochs", "10"),
)
METHODS = {"scdr": PAPER_EPOCHS, "scdr_b": ("--method", "scdr_b")}
BLOCK = 500_000
WORDS = 900
"""Different words of the review texts."""
TEXTS = 20_000
TEXT_WORDS = 130
"""On average: with it a line has the 1,060 bytes of one of the 5-core Books of 2014."""


@dataclass(frozen=True)
class Cost:
    """What a command took."""

    wall: float
    processor: float
    peak: int

    def __str__(self) -> str:
        """As the cells of a table."""
        return f"{self.wall:.1f} s | {self.processor:.1f} s | {self.peak / 1e9:.2f} GB"


# A process that is started has at first the peak of the one that starts it, which here holds all
# ratings: this one is small.
MEASURE = """
import json, os, sys, time
started = time.perf_counter()
silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=silent)
_, status, used = os.wait4(process, 0)
wall = time.perf_counter() - started
print(json.dumps([status, wall, used.ru_utime + used.ru_stime, 1024 * used.ru_maxrss]))
"""


def measure(*command: str) -> Cost:
    """Run a module of scdr in a process of its own.

    Raises:
        SystemExit: it failed.
    """
    measured = [sys.executable, "-c", MEASURE, sys.executable, "-m", *command]
    done = subprocess.run(measured, stdout=subprocess.PIPE, check=True)
    status, wall, processor, peak = json.loads(done.stdout)
    if status:
        sys.exit(f"failed: {' '.join(command)}")
    return Cost(wall, processor, peak)


def train(folder: Path, data: tuple[str, ...], method: str) -> tuple[Cost, dict[str, float]]:
    """One run, and the seconds of its stages."""
    out = folder / f"run-{method}"
    options = ("--beta", "0.5", "--overwrite", "--out", str(out))
    cost = measure("scdr.train", *data, *METHODS[method], *options)
    seconds: dict[str, float] = json.loads((out / "report.json").read_text())["seconds"]
    return cost, seconds


def print_training(scale: float, folder: Path) -> None:
    """Books to Movies and to Music, the data made by each command itself."""
    print("| pair | method | after loading | pretrain | mapping | evaluate | wall | CPU | peak |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for pair in ("books-movies", "books-music"):
        for method in METHODS:
            data = ("--synthetic", pair, "--scale", str(scale))
            cost, seconds = train(folder, data, method)
            after = seconds["total"] - seconds["read"]
            stages = " | ".join(f"{seconds[n]:.1f} s" for n in ("pretrain", "mapping", "evaluate"))
            print(f"| {pair} | {method} | {after:.1f} s | {stages} | {cost} |", flush=True)


def ratings_csv(order: tuple[str, ...], separator: str, header: str) -> Callable[..., bytes]:
    def lines(block: pl.DataFrame, first: bool) -> bytes:
        text = block.select(order).write_csv(
            separator=separator, include_header=False, float_precision=1
        )
        return ((header + "\n" if first and header else "") + text).encode()

    return lines


def reviews(block: pl.DataFrame, first: bool) -> bytes:
    """5-core reviews with texts, the keys and widths of 2014."""
    texts = review_texts()
    chosen = np.random.default_rng(int(block["timestamp"][0])).integers(TEXTS, size=len(block))
    named = block.select(
        reviewerID="user",
        asin="item",
        reviewerName=pl.lit("J. Reader"),
        helpful=pl.lit([0, 0]),
        reviewText=texts.gather(chosen),
        overall="rating",
        summary=texts.gather(chosen).str.slice(0, 30),
        unixReviewTime="timestamp",
        reviewTime=pl.from_epoch("timestamp").dt.strftime("%m %d, %Y"),
    )
    return named.write_ndjson().encode()


def review_texts() -> pl.Series:
    """Texts of words, the same at each call."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfw"))
    words = ["".join(rng.choice(letters, rng.integers(2, 10))) for _ in range(WORDS)]
    lengths = rng.geometric(1 / TEXT_WORDS, TEXTS)
    return pl.Series([" ".join(rng.choice(words, length)) for length in lengths])


FORMATS: dict[str, tuple[str, Callable[..., bytes]]] = {
    "amazon-2014-csv": (
        "books.csv",
        ratings_csv(("user", "item", "rating", "timestamp"), ",", ""),
    ),
    "amazon-2018-csv": (
        "books.csv",
        ratings_csv(("item", "user", "rating", "timestamp"), ",", ""),
    ),
    "amazon-2023": (
        "books.csv",
        ratings_csv(
            ("user", "item", "rating", "timestamp"), ",", "user_id,parent_asin,rating,timestamp"
        ),
    ),
    "recbole": (
        "books.inter",
        ratings_csv(
            ("user", "item", "rating", "timestamp"),
            "\t",
            "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        ),
    ),
    "amazon-2014-json": ("books.json.gz", reviews),
}


def blocks(domain: Interactions) -> Iterator[pl.DataFrame]:
    """The ratings with their ids, some at a time."""
    users = pl.Series(domain.user_ids, dtype=pl.String)
    items = pl.Series(domain.item_ids, dtype=pl.String)
    for start in range(0, len(domain), BLOCK):
        rows = slice(start, start + BLOCK)
        yield pl.DataFrame(
            {
                "user": users.gather(domain.users[rows]),
                "item": items.gather(domain.items[rows]),
                "rating": domain.ratings[rows],
                "timestamp": domain.times[rows],
            }
        )


def write_dump(path: Path, domain: Interactions, lines: Callable[..., bytes]) -> None:
    """A dump file, gzipped where its name says so."""
    with ExitStack() as stack:
        file: BinaryIO = stack.enter_context(path.open("wb"))
        if path.suffix == ".gz":
            file = stack.enter_context(gzip.GzipFile(fileobj=file, compresslevel=1, mode="wb"))  # type: ignore[assignment]
        for number, block in enumerate(blocks(domain)):
            file.write(lines(block, number == 0))


def print_dumps(scale: float, formats: list[str], folder: Path) -> None:
    """Each format from a dump to a run on the Parquet domain made of it."""
    domains = preset("books-movies", scale=scale).domains
    movies = prepared(folder, "movies.csv", FORMATS["amazon-2014-csv"][1], domains.target)[0]
    print("| format | file | prepare: wall | CPU | peak | load both | train: wall | CPU | peak |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in formats:
        books, size, cost = prepared(folder, *FORMATS[name], domains.source)
        pair = ("--source", str(books), "--target", str(movies))
        ran, seconds = train(folder, pair, "scdr")
        print(
            f"| {name} | {size / 1e9:.2f} GB | {cost} | {seconds['read']:.1f} s | {ran} |",
            flush=True,
        )


def prepared(
    folder: Path, file: str, lines: Callable[..., bytes], domain: Interactions
) -> tuple[Path, int, Cost]:
    """A Parquet domain by way of a dump: its path, the dump's size, and what preparing took."""
    dump = folder / file
    write_dump(dump, domain, lines)
    size = dump.stat().st_size
    out = folder / f"{file.partition('.')[0]}-prepared"
    cost = measure("scdr.prepare", str(dump), "--out", str(out), "--overwrite")
    dump.unlink()
    return next(out.glob("*.parquet")), size, cost


def main() -> None:
    """Print the table that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("train", "dumps"))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--formats", nargs="+", choices=tuple(FORMATS), default=list(FORMATS))
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        if given.what == "train":
            print_training(given.scale, folder)
        else:
            print_dumps(given.scale, given.formats, folder)


if __name__ == "__main__":
    main()
