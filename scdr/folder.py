"""Run folders that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
        return Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
    folder = Path(out)
    if folder.name in ("", ".."):  # it gets a name, to be renamed to
        folder = Path(os.path.abspath(out))  # noqa: PTH100 (resolve() would follow links)
    if not os.path.lexists(folder):
        return folder
    if not overwrite:
        raise InputError(
            "the run folder exists", where=out, fix="give another --out, or --overwrite"
        )
    if folder.is_symlink() or not folder.is_dir():
        raise InputError("--out is not a folder", where=out, fix="give another --out")
    try:
        files = [path.name for path in folder.iterdir()]
    except OSError as error:
        raise InputError(
            f"the folder can't be read: {error.strerror}", where=out, fix="give another --out"
        ) from error
    if files and REPORT not in files:
        raise InputError(
            f"the folder is not a run folder: it holds files but no {REPORT}",
            where=out,
            fix="give another --out; --overwrite replaces finished runs only",
        )
    return folder


@dataclass
class RunFolder:
    """A run folder being written.

    Attributes:
        partial: where to write to.
        folder: what it is renamed to at the end; numbered where another run took that name first.
    """

    partial: Path
    folder: Path


@contextmanager
def whole_folder(folder: Path, *, overwrite: bool = False) -> Iterator[RunFolder]:
    """A new folder beside `folder` to write to; renamed to it at the end, removed on any failure.

    Args:
        folder: as `choose_folder` gives it.
        overwrite: replace what stands there at the end; otherwise a run that another process
            has written there meanwhile is left, and this one gets a number.

    Raises:
        InputError: the folder can't be created there.
    """
    writing = RunFolder(folder.with_name(f".{folder.name}.partial-{os.getpid()}"), folder)
    missing: list[Path] = []
    try:
        missing = [parent for parent in folder.parents if not parent.exists()]
        writing.partial.mkdir(parents=True)
    except OSError as error:
        _remove_empty(missing)
        raise InputError(
            f"the run folder can't be created: {error.strerror}",
            where=str(folder),
            fix="give an --out that can be written to",
        ) from error
    try:
        yield writing
        if overwrite and folder.exists():
            _replace(writing.partial, folder)
        else:
            writing.folder = _move(writing.partial, folder)
    except BaseException:
        shutil.rmtree(writing.partial, ignore_errors=True)
        _remove_empty(missing)
        raise


def _replace(partial: Path, folder: Path) -> None:
    """Put a finished folder where another one stands, which goes last."""
    old = folder.with_name(f".{folder.name}.replaced-{os.getpid()}")
    folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old)


def _move(partial: Path, folder: Path) -> Path:
    """Rename to the first free name: `folder`, or with -2, -3 and so on."""
    free, number = folder, 1
    while True:
        try:
            return partial.rename(free)  # refuses a folder with files in it
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")


def _remove_empty(created: list[Path]) -> None:
    for parent in created:
        if parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()
