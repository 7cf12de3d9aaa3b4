"""Columns that are already typed: pandas and polars DataFrames, and Parquet files."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from scdr.data.columns import ROLES, Batch, Columns, columns_by_name
from scdr.data.text import Progress
from scdr.errors import InputError

ROWS_PER_BATCH = 1 << 20


def _plain_id(value: Any) -> str | None:
    """Turn one id into its string; None where it is missing."""
    if isinstance(value, str):
        return value
    if value is None or str(value) in ("nan", "<NA>", "NaT"):
        return None
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def id_strings(values: Any) -> pl.Series:
    """Return ids as strings: strings as they are, numbers as plain decimals, missing as null.

    A float that holds a whole number (what pandas makes of an integer column with gaps) becomes
    that whole number: ``1.0`` gives ``"1"``.

    Args:
        values: [n], a polars Series or anything that NumPy turns into a one-dimensional array.
    """
    if isinstance(values, pl.Series):
        if values.dtype == pl.Binary:  # strings, as some writers leave them
            return values.cast(pl.String)
        if values.dtype.is_integer() or values.dtype in (pl.String, pl.Categorical, pl.Enum):
            return values.cast(pl.String)
        values = values.to_list()
    elif hasattr(values, "to_numpy"):
        values = values.to_numpy()
    array = values if isinstance(values, np.ndarray) else np.array(list(values), dtype=object)
    if array.dtype.kind in "iu":
        return pl.Series(array).cast(pl.String)
    if array.dtype.kind in "TU":
        array = array.astype(object)
    return pl.Series([_plain_id(value) for value in array.tolist()], dtype=pl.String)


def _numbers(values: Any) -> pl.Series:
    """Return a rating or time column as polars numbers or strings, dates as epoch seconds."""
    if isinstance(values, pl.Series):
        if values.dtype in (pl.Datetime, pl.Date):
            return values.cast(pl.Datetime("us")).dt.epoch("s")
        if values.dtype.is_decimal():
            return values.cast(pl.Float64)
        return values
    if values.dtype.kind == "M":
        instants = np.asarray(values, dtype="datetime64[ns]")  # in UTC
        seconds = instants.astype("datetime64[s]").astype(np.int64)
        return pl.Series(np.where(np.isnat(instants), 0, seconds))
    array = values.to_numpy()
    if array.dtype.kind == "O":
        missing_or_text = [None if _plain_id(value) is None else str(value) for value in array]
        return pl.Series(missing_or_text, dtype=pl.String)
    return pl.Series(array)


def _batch(columns: Mapping[str, Any], first_row: int) -> Batch:
    """Build the four columns of one batch; ``columns`` maps roles to typed columns."""
    frame = pl.DataFrame(
        {
            "user": id_strings(columns["user"]),
            "item": id_strings(columns["item"]),
            "rating": _numbers(columns["rating"]),
            "time": _numbers(columns["time"])
            if "time" in columns
            else pl.Series([None] * len(columns["user"]), dtype=pl.Int64),
        }
    )
    return Batch(frame, np.arange(first_row, first_row + frame.height))


def _check_plain(types: Mapping[str, pl.DataType], where: str) -> None:
    """Refuse columns of lists and the like.

    Raises:
        InputError: naming the role and the type.
    """
    for role, dtype in types.items():
        if dtype.is_nested() or dtype == pl.Object:
            raise InputError(
                f"the {role} column is of type {dtype}",
                where=where,
                fix="give one number or string a row",
            )


def dataframe_batches(frame: Any, columns: Columns | None) -> Iterator[Batch]:
    """Yield a pandas or polars DataFrame in batches; rows are numbered from 1."""
    names = [str(name) for name in frame.columns]
    chosen = columns_by_name(names, columns, where="DataFrame")
    positions = {role: names.index(name) for role, name in chosen.items()}
    if isinstance(frame, pl.DataFrame):
        _check_plain({role: frame.dtypes[place] for role, place in positions.items()}, "DataFrame")
    for start in range(0, len(frame), ROWS_PER_BATCH):
        rows = slice(start, start + ROWS_PER_BATCH)
        cells = frame if isinstance(frame, pl.DataFrame) else frame.iloc
        series = {role: cells[rows, position] for role, position in positions.items()}
        yield _batch(series, start + 1)


def parquet_batches(
    path: Path,
    columns: Columns | None,
    progress: Progress | None = None,
    *,
    data: bytes | None = None,
) -> Iterator[Batch]:
    """Yield a Parquet file in batches of the needed columns; rows are numbered from 1.

    Args:
        path: the file.
        columns: the user's choice by role.
        progress: called with the bytes read so far and the size of the file.
        data: what the file holds, where it was packed.

    Raises:
        InputError: not a Parquet file, a damaged one, or a column is missing.
    """
    try:
        scan = pl.scan_parquet(path if data is None else io.BytesIO(data))
        schema = scan.collect_schema()
        chosen = columns_by_name(schema.names(), columns, where=str(path))
        _check_plain({role: schema[name] for role, name in chosen.items()}, str(path))
        wanted = scan.select([pl.col(name).alias(role) for role, name in chosen.items()])
        height = int(scan.select(pl.len()).collect().item())
        for start in range(0, height, ROWS_PER_BATCH):
            part = wanted.slice(start, ROWS_PER_BATCH).collect()
            yield _batch({role: part[role] for role in ROLES if role in chosen}, start + 1)
            if progress:
                size = path.stat().st_size
                progress(size * min(start + ROWS_PER_BATCH, height) // height, size)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(
            f"not a readable Parquet file: {str(error).splitlines()[0]}",
            where=str(path),
            fix="check that it was copied completely, or name its format",
        ) from error
