"""Files of histories: what a slow reader finds of each user, or one line that names the file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fuzz import dumps, slow_reader
from fuzz.mode import fuzz
from scdr.data import text
from scdr.errors import InputError
from scdr.serving import files

SOURCE_ITEMS, TARGET_ITEMS = (np.array(sorted(dumps.ITEMS[n:]), dtype=object) for n in (3, 0))
User = tuple[list[tuple[int, float]], set[int]]
"""Ratings of source items by time, and the target items that the user is not to get."""


def known(reading: slow_reader.Reading, items: np.ndarray) -> list[tuple[str, int | None, float]]:
    """User, code of the item or None, and rating, in order of time."""
    codes = {item: code for code, item in enumerate(items)}
    ordered = sorted(reading.ratings, key=lambda rating: rating[3])  # stable
    return [(user, codes.get(item), rating) for user, item, rating, _ in ordered]


def wanted(histories: slow_reader.Reading, rated: slow_reader.Reading | None) -> dict[str, User]:
    users: dict[str, User] = {}
    for user, item, rating in known(histories, SOURCE_ITEMS):
        history, _ = users.setdefault(user, ([], set()))
        if item is not None:
            history[:] = [(other, given) for other, given in history if other != item]
            history.append((item, rating))
    for user, item, _ in known(rated, TARGET_ITEMS) if rated else []:
        if user in users and item is not None:
            users[user][1].add(item)
    return users


def found(paths: list[Path], format: str, work: Path) -> dict[str, User]:
    given = [files.RatingFile(path, format) for path in paths]
    histories = files.HistoryFile(
        given[0], given[1] if len(given) > 1 else None,
        source_items=SOURCE_ITEMS, target_items=TARGET_ITEMS, work=work,
    )  # fmt: skip
    users: dict[str, User] = {}
    for batch in histories.batches(lambda done: None):
        starts = batch.histories.starts
        for place, (user, rated) in enumerate(zip(batch.ids, batch.rated, strict=True)):
            rows = slice(starts[place], starts[place + 1])
            items = batch.histories.items[rows].tolist()
            ratings = batch.histories.ratings[rows].tolist()
            assert user not in users
            users[user] = (list(zip(items, ratings, strict=True)), set(rated.tolist()))
    assert list(users) == sorted(users)
    return users


@fuzz(15)
@given(st.data())
def test_damaged_histories(tmp_path: Path, data: st.DataObject) -> None:
    format, sound = data.draw(dumps.sound())
    contents = [data.draw(dumps.packed(data.draw(dumps.damaged(sound))))]
    if data.draw(st.booleans()):
        contents.append(sound)
    paths = [tmp_path / f"dump{number}" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    readings = [slow_reader.expected(content, format, text.BLOCK_BYTES) for content in contents]
    pieces = data.draw(st.sampled_from([7, 1 << 20]))
    with (
        tempfile.TemporaryDirectory(dir=tmp_path) as work,
        patch.object(files, "ROWS_AT_ONCE", pieces),
        patch.object(files, "USERS_AT_ONCE", data.draw(st.sampled_from([2, 4096]))),
    ):
        try:
            users = found(paths, format, Path(work))
        except InputError as error:
            assert "\n" not in str(error) and error.fix
            assert any(
                str(error.where).startswith(str(path)) and reading is None
                for path, reading in zip(paths, readings, strict=True)
            )
            return
    assert all(readings)
    histories, *rated = (reading for _, reading in filter(None, readings))
    assert users == wanted(histories, rated[0] if rated else None)
