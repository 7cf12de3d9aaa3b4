"""From a dump file or a DataFrame to the clean ratings of one domain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from scdr.data.coding import code_ids, id_dtype
from scdr.data.columns import Batch, Columns
from scdr.data.formats import AUTO, check_format, detect
from scdr.data.frames import dataframe_batches, parquet_batches
from scdr.data.interactions import Interactions, deduplicate, k_core
from scdr.data.rows import parse
from scdr.data.text import GZIP_MAGIC, Progress, check_file, read_blocks, unpack
from scdr.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

PARQUET_MAGIC = b"PAR1"
DATAFRAME = "DataFrame"
SAMPLE_LINES = 5000
EXAMPLES = 20
# More malformed rows than this share mean that the file is not what it was taken for.
LARGEST_REJECTED_SHARE = 0.01
# Besides numbers; what pandas, databases and most dumps write.
DATE_FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d")


@dataclass(frozen=True, slots=True)
class ReadReport:
    """What was found in one file.

    Attributes:
        path: the file, or ``DataFrame``.
        format: the name of its format in ``FORMATS``, or ``DataFrame``.
        rows: rows of data seen, malformed ones included; blank lines and the header are not rows.
        rejected: malformed rows, which were left out.
        rejected_examples: (line, reason) of the first of them, at most 20; lines count from 1.
        duplicates: rows that a later row of the same user and item replaced.
        interactions_before_core: rows left before the k-core.
        core: the k of the k-core; 0 where none was taken.
    """

    path: str
    format: str
    rows: int
    rejected: int
    rejected_examples: tuple[tuple[int, str], ...]
    duplicates: int
    interactions_before_core: int
    core: int


def read_domain(
    source: str | Path | pd.DataFrame | pl.DataFrame,
    *,
    format: str = AUTO,
    columns: Columns | None = None,
    core: int = 5,
    strict: bool = False,
    progress: Progress | None = None,
) -> tuple[Interactions, ReadReport]:
    """Read one domain: rows, then the last of each (user, item) in time, then the k-core.

    Ids stay the strings they are. Malformed rows (too few columns, an empty id, a rating that is
    not a finite number, broken JSON) are left out and counted, unless they are more than one in
    a hundred.

    Args:
        source: a file in one of ``FORMATS``, gzipped or not, or a pandas or polars DataFrame.
        format: a name of ``FORMATS``; ``auto`` recognises it by the content.
        columns: user, item, rating and time by name or by position from 0, where they are not
            recognised; ``{"time": None}`` ignores times.
        core: k of the k-core; 0 keeps all.
        strict: make the first malformed row an error.
        progress: called with the bytes read so far and the size of the file.

    Raises:
        InputError: the file is missing, empty, damaged or of unknown format, a column is
            missing, too many rows are malformed, or none is left.
    """
    check_format(format)
    if isinstance(source, str | Path):
        path = Path(source)
        where = str(path)
        format, batches = _file_batches(path, format, columns, progress)
    else:
        where, format = DATAFRAME, DATAFRAME
        batches = dataframe_batches(source, columns)
    collected = _Collector(where, strict)
    for batch in batches:
        collected.add(batch)
    interactions = collected.interactions()
    clean = deduplicate(interactions)
    report = ReadReport(
        path=where,
        format=format,
        rows=collected.rows,
        rejected=collected.rejected,
        rejected_examples=tuple(collected.examples),
        duplicates=len(interactions) - len(clean),
        interactions_before_core=len(clean),
        core=core,
    )
    return _core(clean, core, where), report


def _core(clean: Interactions, core: int, where: str) -> Interactions:
    left = k_core(clean, core) if core else clean
    if not len(left):
        raise InputError(
            f"the {core}-core removes all {len(clean)} ratings: no group of users and items has "
            f"{core} ratings each",
            where=where,
            fix="give more data or take a smaller core",
        )
    return left


def _file_batches(
    path: Path, format: str, columns: Columns | None, progress: Progress | None
) -> tuple[str, Iterator[Batch]]:
    """Return the format of a file and its rows."""
    head = check_file(path)
    packed = head.startswith(GZIP_MAGIC)
    if format == "parquet" or (format == AUTO and head.startswith(PARQUET_MAGIC)):
        data = unpack(path) if packed else None
        return "parquet", parquet_batches(path, columns, progress, data=data)
    blocks = read_blocks(path, progress)
    first = next(blocks, None)
    if first is None:
        raise InputError("the file is empty", where=str(path), fix="download or export it again")
    if format == AUTO and first.data.startswith(PARQUET_MAGIC):
        return "parquet", parquet_batches(path, columns, progress, data=unpack(path))
    lines = first.data.decode(errors="replace").split("\n", SAMPLE_LINES)[:SAMPLE_LINES]
    layout = detect([line.rstrip("\r") for line in lines], format, columns, str(path))
    return layout.format, (parse(block, layout) for block in chain([first], blocks))


@dataclass(slots=True)
class _Collector:
    """Checks batches and keeps their rows, ids already replaced by integers."""

    where: str
    strict: bool
    rows: int = 0
    rejected: int = 0
    examples: list[tuple[int, str]] = field(default_factory=list)
    parts: list[pl.DataFrame] = field(default_factory=list)
    user_dtype: pl.Categorical = field(default_factory=id_dtype)
    item_dtype: pl.Categorical = field(default_factory=id_dtype)

    def add(self, batch: Batch) -> None:
        """Keep the sound rows of a batch, count and describe the others."""
        checked = batch.frame.select(
            "user", "item", _rating(batch.frame["rating"]), _time(batch.frame["time"])
        )
        sound = checked.select(
            pl.col("user").is_not_null()
            & (pl.col("user") != "")
            & pl.col("item").is_not_null()
            & (pl.col("item") != "")
            & pl.col("rating").is_finite().fill_null(False)
            & pl.col("time").is_not_null()
        ).to_series()
        self.rows += batch.frame.height
        if not sound.all():
            self._reject(batch, (~sound).arg_true())
            checked = checked.filter(sound)
        self.parts.append(
            checked.with_columns(
                pl.col("user").cast(self.user_dtype), pl.col("item").cast(self.item_dtype)
            )
        )

    def _reject(self, batch: Batch, positions: pl.Series) -> None:
        self.rejected += len(positions)
        for row in positions.head(EXAMPLES - len(self.examples)).to_list():
            reason = batch.reasons.get(row) or _reason(batch.frame.row(row, named=True))
            self.examples.append((int(batch.lines[row]), reason))
        if self.strict:
            line, reason = self.examples[0]
            raise InputError(
                f"malformed row: {reason}",
                where=f"{self.where}:{line}",
                fix="correct the row, or leave strict off to skip it",
            )

    def interactions(self) -> Interactions:
        """Code the ids of all rows kept.

        Raises:
            InputError: too many rows were malformed, or there was none.
        """
        if self.rejected > LARGEST_REJECTED_SHARE * self.rows:
            line, reason = self.examples[0]
            raise InputError(
                f"{self.rejected} of {self.rows} rows are malformed, the first: {reason}",
                where=f"{self.where}:{line}",
                fix="correct them, or name the format or the columns if they were taken wrongly",
            )
        if not self.rows:
            raise InputError("no rows", where=self.where, fix="give a file with ratings")
        table = pl.concat(self.parts)
        self.parts.clear()
        users, user_ids = code_ids(table["user"])
        items, item_ids = code_ids(table["item"])
        return Interactions(
            users=users,
            items=items,
            ratings=table["rating"].to_numpy(),
            times=table["time"].to_numpy(),
            user_ids=user_ids,
            item_ids=item_ids,
        )


def _number(column: pl.Series, dtype: type[pl.DataType]) -> pl.Expr:
    expression = pl.col(column.name)
    if column.dtype == pl.String:
        expression = expression.str.strip_chars()
    return expression.cast(dtype, strict=False)


def _rating(column: pl.Series) -> pl.Expr:
    return _number(column, pl.Float32)


def _time(column: pl.Series) -> pl.Expr:
    """Times as integers, dates as epoch seconds: 0 where missing, null where it is neither."""
    whole = _number(column, pl.Int64)
    if column.dtype.is_integer():
        return whole.fill_null(0)
    number = _number(column, pl.Float64)
    missing = pl.col("time").is_null() | number.is_nan()
    readings = [whole, number.cast(pl.Int64, strict=False)]
    if column.dtype == pl.String:
        text = pl.col("time").str.strip_chars().str.strip_suffix("Z")
        missing |= text == ""
        readings += [
            text.str.to_datetime(form, time_unit="us", strict=False).dt.epoch("s")
            for form in (DATE_FORMATS if column.str.contains("-", literal=True).any() else ())
        ]
    return pl.when(missing).then(0).otherwise(pl.coalesce(readings)).alias("time")


def _reason(row: dict[str, object]) -> str:
    """Say what is wrong with a malformed row."""
    for role in ("user", "item"):
        if row[role] in (None, ""):
            return f"no {role} id"
    for role in ("rating", "time"):
        value = row[role]
        if value is None or not str(value).strip():
            return f"no {role}: too few columns or an empty one"
        try:
            number = float(str(value))
        except ValueError:
            return f"{role} {str(value)[:40]!r} is not a number"
        if not abs(number) <= float(np.finfo(np.float32).max):  # also NaN
            return f"{role} {str(value)[:40]!r} is not finite"
    return "not readable"
