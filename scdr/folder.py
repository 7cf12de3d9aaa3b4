"""Run folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from scdr.errors import InputError

REPORT = "report.json"
"""The file that makes a folder a finished run."""


def choose_folder(out: str | None, *, name: str, overwrite: bool) -> Path:
    """The folder a run will be written to; nothing is created yet.

    Args:
        out: as the user gave it, or None for a new folder `runs/<time>-<name>`.
        name: of the run.
        overwrite: whether an existing run folder may be replaced.

    Raises:
        InputError: the folder exists and may not be replaced.
    """
    if out is None:
        stem = Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
        folder, again = stem, 2
        while folder.exists():
            folder, again = stem.with_name(f"{stem.name}-{again}"), again + 1
        return folder
    folder = Path(out)
    if not os.path.lexists(folder):
        return folder
    if not overwrite:
        raise InputError(
            "the run folder exists", where=out, fix="give another --out, or --overwrite"
        )
    if folder.is_symlink() or not folder.is_dir():
        raise InputError("--out is not a folder", where=out, fix="give another --out")
    if any(folder.iterdir()) and not (folder / REPORT).exists():
        raise InputError(
            f"the folder is not a run folder: it holds files but no {REPORT}",
            where=out,
            fix="give another --out; --overwrite replaces finished runs only",
        )
    return folder


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` to write to; renamed to it at the end, removed on any failure.

    Raises:
        InputError: the folder can't be created there.
    """
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    missing = [parent for parent in folder.parents if not parent.exists()]
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        _remove_empty(missing)
        raise InputError(
            f"the run folder can't be created: {error.strerror}",
            where=str(folder),
            fix="give an --out that can be written to",
        ) from error
    try:
        yield partial
        _replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        _remove_empty(missing)
        raise


def _replace(partial: Path, folder: Path) -> None:
    """A finished folder is never gone before the new one stands."""
    if not folder.exists():
        partial.rename(folder)
        return
    old = folder.with_name(f".{folder.name}.replaced-{os.getpid()}")
    folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old)


def _remove_empty(created: list[Path]) -> None:
    for parent in created:
        if parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()
