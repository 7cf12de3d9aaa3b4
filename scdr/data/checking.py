"""Which rows of a file are sound, what is wrong with the others, and the report on them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from scdr.data.columns import Batch
from scdr.errors import InputError

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


@dataclass(slots=True)
class RowCheck:
    """Checks the batches of one file and counts what it rejects.

    Attributes:
        where: the file, for messages.
        strict: make the first malformed row an error.
        listed: how many malformed rows to describe.
        rows: rows seen so far.
        rejected: malformed ones among them.
        examples: (line, reason) of the first of them, at most ``listed``.
    """

    where: str
    strict: bool
    listed: int
    rows: int = 0
    rejected: int = 0
    examples: list[tuple[int, str]] = field(default_factory=list)

    def sound(self, batch: Batch) -> pl.DataFrame:
        """Return the sound rows of a batch: user, item, rating float32, time int64; no nulls.

        Raises:
            InputError: a row is malformed, and ``strict``.
        """
        checked = batch.frame.select(
            "user", "item", _numbers(batch.frame["rating"], pl.Float32), _times(batch.frame["time"])
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
        if sound.all():
            return checked
        self._reject(batch, (~sound).arg_true())
        return checked.filter(sound)

    def finish(self) -> None:
        """Judge the file as a whole.

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

    def _reject(self, batch: Batch, positions: pl.Series) -> None:
        self.rejected += len(positions)
        for row in positions.head(self.listed - len(self.examples)).to_list():
            reason = batch.reasons.get(row) or _reason(batch.frame.row(row, named=True))
            self.examples.append((int(batch.lines[row]), reason))
        if self.strict:
            line, reason = self.examples[0]
            raise InputError(
                f"malformed row: {reason}",
                where=f"{self.where}:{line}",
                fix="correct the row, or leave strict off to skip it",
            )


def _numbers(column: pl.Series, dtype: type[pl.DataType]) -> pl.Series:
    """Return numbers, also those that are written with blanks around; null for anything else."""
    numbers = column.cast(dtype, strict=False)
    if column.dtype == pl.String and numbers.null_count() > column.null_count():
        return column.str.strip_chars().cast(dtype, strict=False)
    return numbers


def _times(column: pl.Series) -> pl.Series:
    """Times as integers, dates as epoch seconds: 0 where missing, null where it is neither."""
    whole = _numbers(column, pl.Int64)
    if not whole.null_count():
        return whole
    number = _numbers(column, pl.Float64)
    missing = column.is_null() | number.is_nan().fill_null(False)
    readings = [whole, number.cast(pl.Int64, strict=False)]
    if column.dtype == pl.String:
        text = column.str.strip_chars().str.strip_suffix("Z")
        missing |= (text == "").fill_null(False)
        readings += [
            text.str.to_datetime(form, time_unit="us", strict=False).dt.epoch("s")
            for form in (DATE_FORMATS if column.str.contains("-", literal=True).any() else ())
        ]
    times = pl.when(missing).then(0).otherwise(pl.coalesce(readings))
    return pl.select(times.alias(column.name)).to_series()


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
