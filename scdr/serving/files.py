"""Histories of any number of users from a file, in bounded memory, a batch of users at a time.

The rows go to Parquet parts as they are read; DuckDB, which spills what its memory limit does not
hold, sorts them by user and time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from scdr.data.checking import RowCheck
from scdr.data.columns import Batch, Columns
from scdr.data.database import ROWS_PER_PART, database, quoted
from scdr.data.formats import AUTO, check_format
from scdr.data.frames import dataframe_batches
from scdr.data.prepared import is_prepared, load_prepared
from scdr.data.reading import EXAMPLES, file_batches
from scdr.data.text import Progress
from scdr.models.fold_in import Histories

ROWS_AT_ONCE = 1 << 20
USERS_AT_ONCE = 4_096

_SORT = """
COPY (SELECT user, item, rating, rated FROM parts {of_users}
      ORDER BY user, rated, time, row)
TO '{path}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 131072);
"""
_OF_USERS = "SEMI JOIN (SELECT DISTINCT user FROM parts WHERE NOT rated) AS asked USING (user)"


@dataclass(frozen=True, slots=True)
class RatingFile:
    """A file with ratings.

    Attributes:
        path: in one of `scdr.data.FORMATS`, gzipped or not.
        format: a name of them, or auto.
        columns: user, item, rating and time by name or position, where they are not recognised.
        progress: called with the bytes read so far and the size of the file.
    """

    path: Path
    format: str = AUTO
    columns: Columns | None = None
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class UserBatch:
    """Some users of a file.

    Attributes:
        ids: `[K]`.
        histories: their ratings of known source items; of an item rated twice the last.
        rated: K arrays of known target items that they are not to get.
    """

    ids: list[str]
    histories: Histories
    rated: list[NDArray[np.int64]]


class HistoryFile:
    """The users of a file of source ratings, sorted on disk."""

    def __init__(
        self,
        histories: RatingFile,
        rated: RatingFile | None,
        *,
        source_items: NDArray[np.object_],
        target_items: NDArray[np.object_],
        work: Path,
    ) -> None:
        """Read and sort.

        Args:
            histories: source ratings of the users to answer.
            rated: target ratings, of items that their users are not to get; users that are not in
                `histories` do not matter.
            source_items: ids of the items that are known there, `[I_s]`.
            target_items: the same of the target, `[I]`.
            work: an empty folder, for as much as the unpacked rows take.

        Raises:
            InputError: a file can't be used.
        """
        self._path = work / "sorted.parquet"
        files = [(histories, source_items)] + ([(rated, target_items)] if rated else [])
        for number, (file, items) in enumerate(files):
            _write_parts(file, items, number, work)
        with database(work) as connection:
            connection.execute(
                _SORT.format(path=quoted(self._path), of_users=_OF_USERS if rated else "")
            )
        for part in work.glob("part-*.parquet"):
            part.unlink()

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(pl.scan_parquet(self._path).select(pl.len()).collect().item())

    def batches(self, advance: Callable[[int], None]) -> Iterator[UserBatch]:
        """Yield all users in order of their ids; `advance` is told of rows done."""
        scan, rows = pl.scan_parquet(self._path), len(self)
        left = scan.head(0).collect()
        for start in range(0, rows, ROWS_AT_ONCE):
            table = pl.concat([left, scan.slice(start, ROWS_AT_ONCE).collect()])
            end = min(start + ROWS_AT_ONCE, rows)
            # The last user may go on in the next rows.
            last = table["user"] == table["user"][-1] if end < rows else None
            left = table.head(0) if last is None else table.filter(last)
            yield from _user_batches(table if last is None else table.filter(~last))
            advance(end)


def _write_parts(file: RatingFile, items: NDArray[np.object_], number: int, work: Path) -> None:
    check_format(file.format)
    check = RowCheck(str(file.path), strict=False, listed=EXAMPLES)
    codes = pl.DataFrame(
        {"item": pl.Series(items, dtype=pl.String), "code": np.arange(len(items), dtype=np.int32)}
    )
    first, gathered = 0, list[pl.DataFrame]()

    def flush() -> int:
        table = pl.concat(gathered).with_row_index("row", first)
        table.cast({"row": pl.Int64}).write_parquet(
            work / f"part-{number}-{first}.parquet", compression="lz4", statistics=False
        )
        gathered.clear()
        return first + table.height

    for batch in _batches(file):
        sound = check.sound(batch).join(codes, on="item", how="left", maintain_order="left")
        gathered.append(
            sound.select(
                "user", item="code", rating="rating", time="time", rated=pl.lit(number == 1)
            )
        )
        if sum(frame.height for frame in gathered) >= ROWS_PER_PART:
            first = flush()
    if gathered:
        flush()
    check.finish()


def _batches(file: RatingFile) -> Iterator[Batch]:
    """The rows of a file, unchecked; a prepared domain is loaded as a whole."""
    if not is_prepared(file.path, file.format):
        return file_batches(file.path, file.format, file.columns, file.progress)[1]
    domain, _ = load_prepared(file.path)
    table = {
        "user": domain.user_ids[domain.users],
        "item": domain.item_ids[domain.items],
        "rating": domain.ratings,
        "time": domain.times,
    }
    return dataframe_batches(pl.DataFrame(table), None)


def _user_batches(table: pl.DataFrame) -> Iterator[UserBatch]:
    """Whole users, sorted, in batches."""
    users = table["user"].rle_id().to_numpy()
    firsts = np.flatnonzero(np.diff(users, prepend=-1))
    ids = table["user"].gather(firsts).to_list()
    table = table.with_columns(owner=pl.Series(users)).filter(pl.col("item").is_not_null())
    known = table.unique(["owner", "item", "rated"], keep="last", maintain_order=True)
    histories, rated = known.filter(~pl.col("rated")), known.filter(pl.col("rated"))

    def starts(of: pl.DataFrame) -> NDArray[np.int64]:
        counts = np.bincount(of["owner"].to_numpy(), minlength=len(ids))
        return np.append(0, np.cumsum(counts))

    everyone = Histories(
        starts(histories),
        histories["item"].to_numpy().astype(np.int64),
        histories["rating"].to_numpy().astype(np.float64),
    )
    out = np.split(rated["item"].to_numpy().astype(np.int64), starts(rated)[1:-1])
    for first in range(0, len(ids), USERS_AT_ONCE):
        some = np.arange(first, min(first + USERS_AT_ONCE, len(ids)))
        yield UserBatch(
            ids[first : first + USERS_AT_ONCE],
            everyone.take(some),
            out[first : first + USERS_AT_ONCE],
        )
