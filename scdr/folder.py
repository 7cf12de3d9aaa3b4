"""Run folders that appear whole or not at all, and can be gone on with where they were not."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from filelock import FileLock, Timeout

from scdr.errors import DivergenceError, InputError
from scdr.options import read_toml
from scdr.whole_file import sync, whole_file

RUNS = Path("runs")
"""Where a run goes that is given no folder."""
REPORT = "report.json"
"""The file that makes a folder a finished run."""
CONFIG = "config.toml"
"""What a finished run was configured with."""
CHECKPOINTS = "checkpoints"
"""Inside a partial folder: a file for each stage, and what the run was started with."""
CHECKPOINT_ENDING = ".safetensors"
"""Of the name of a stage's file."""
_STARTED = "started.json"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_WRITTEN = (*_NO_SPACE, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)


def named_folder(out: str) -> Path:
    """A folder as the user gave it, with a name of its own, to be renamed to."""
    folder = Path(out)
    if folder.name in ("", ".."):
        folder = Path(os.path.abspath(out))  # noqa: PTH100 (resolve() would follow links)
    return folder


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
        return RUNS / f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
    folder = named_folder(out)
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


@dataclass(frozen=True)
class Started:
    """What a run was started with.

    Attributes:
        folder: that it becomes.
        settings: as it was given them.
        overwrite: whether it was to replace a finished run there.
    """

    folder: Path
    settings: dict[str, Any]
    overwrite: bool


def find_started(out: str | None, *, overwrite: bool) -> Started | None:
    """The unfinished run of a folder; of None the last one under runs/ that is not running.

    Args:
        out: as the user gave it. A run that is finished there counts as well.
        overwrite: whether it is to be replaced; then it does not count.

    Raises:
        InputError: what it was started with can't be read, or has been changed.
    """
    if out is not None:
        folder = named_folder(out)
        started = _read_started(folder)
        if started is None and is_finished(folder) and not overwrite:
            return Started(folder, read_toml(str(folder / CONFIG)), overwrite=False)
        return started
    partials = [path.parents[1] for path in RUNS.glob(f".*.partial/{CHECKPOINTS}/{_STARTED}")]
    for partial in sorted(partials, key=_last_change, reverse=True):
        folder = partial.with_name(partial.name.removeprefix(".").removesuffix(".partial"))
        if not _lock_path(folder).exists() or _is_free(folder):
            return _read_started(folder)
    return None


def is_finished(folder: Path) -> bool:
    """Whether there is a finished run and no unfinished one to take its place."""
    partial = _partial_path(folder) / CHECKPOINTS / _STARTED
    return (folder / REPORT).exists() and (folder / CONFIG).exists() and not partial.exists()


def how_to_go_on(folder: Path) -> str | None:
    """In words, how an unfinished run is resumed; None where it left nothing to go on from."""
    if not _has_checkpoints(_partial_path(folder)):
        return None
    return f"python -m scdr.train --resume --out {folder} goes on from the last checkpoint"


@dataclass
class RunFolder:
    """A run folder being written.

    Attributes:
        partial: where to write to.
        folder: what it is renamed to at the end; numbered where that name is taken by then.
        resumed: whether an earlier run's checkpoints are there.
    """

    partial: Path
    folder: Path
    resumed: bool = False

    @property
    def checkpoints(self) -> Path:
        """Folder of the run's checkpoints, which does not stay."""
        return self.partial / CHECKPOINTS

    def start(self, settings: Mapping[str, Any], *, overwrite: bool) -> None:
        """Keep what the run is started with, for `find_started`."""
        self.checkpoints.mkdir(exist_ok=True)
        kept = {"settings": settings, "overwrite": overwrite}
        with whole_file(self.checkpoints / _STARTED) as path:
            path.write_bytes(orjson.dumps({**kept, "sha256": _digest(kept)}))


@contextmanager
def whole_folder(
    folder: Path, *, overwrite: bool = False, resume: bool = False, numbered: bool = False
) -> Iterator[RunFolder]:
    """A new folder beside `folder` to write to; renamed to it at the end.

    While it is written no other process can write to the same folder. On failure it is removed,
    unless there are checkpoints in it to go on from.

    Args:
        folder: as `choose_folder` gives it.
        overwrite: replace what stands there at the end; otherwise what another program has put
            there meanwhile is left, and this run gets a number.
        resume: go on with what an unfinished run left, where it left anything.
        numbered: take a number where another run is writing to that folder.

    Raises:
        InputError: the folder can't be written, another run is writing to it, or one has left
            checkpoints that are neither to be gone on with nor to be overwritten.
    """
    missing = [parent for parent in folder.parents if not os.path.lexists(parent)]
    try:
        with _locked(folder, numbered=numbered) as own, _not_written(own):
            writing = _open_partial(own, overwrite=overwrite, resume=resume)
            try:
                yield writing
                shutil.rmtree(writing.checkpoints, ignore_errors=True)
                if overwrite and own.exists():
                    _replace(writing.partial, own)
                else:
                    writing.folder = _move(writing.partial, own)
                sync(own.parent)
            except BaseException as error:
                unfinished = writing.resumed or _has_checkpoints(writing.partial)
                if isinstance(error, DivergenceError) or not unfinished:
                    shutil.rmtree(writing.partial, ignore_errors=True)
                elif not (writing.partial / REPORT).exists():
                    _leave_checkpoints(writing.partial)
                raise
    except BaseException:
        _remove_empty(missing)
        raise


@contextmanager
def _locked(folder: Path, *, numbered: bool) -> Iterator[Path]:
    """The folder, or one with a number, for this process alone; the system ends it with it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for own in _numbered(folder) if numbered else (folder,):
            if numbered and own.exists():
                continue
            lock = FileLock(_lock_path(own))
            try:
                lock.acquire(timeout=0)
                break
            except Timeout as error:
                if not numbered:
                    raise InputError(
                        "another run is writing to this folder",
                        where=str(folder),
                        fix="wait for it, or give another --out",
                    ) from error
    except OSError as error:
        raise InputError(
            f"the run folder can't be created: {error.strerror}",
            where=str(folder),
            fix="give an --out that can be written to",
        ) from error
    try:
        yield own
    finally:
        _lock_path(own).unlink(missing_ok=True)  # while it is held: who waits for it looks again
        lock.release()


def _is_free(folder: Path) -> bool:
    try:
        with FileLock(_lock_path(folder)).acquire(timeout=0):
            return True
    except (Timeout, OSError):
        return False


def _open_partial(folder: Path, *, overwrite: bool, resume: bool) -> RunFolder:
    writing = RunFolder(_partial_path(folder), folder)
    _bring_back(folder)
    writing.resumed = resume and (writing.checkpoints / _STARTED).exists()
    if _has_checkpoints(writing.partial) and not (resume or overwrite):
        raise InputError(
            "an interrupted run is there",
            where=str(folder),
            fix="--resume goes on with it, --overwrite starts again",
        )
    if not writing.resumed:
        if writing.partial.exists():
            shutil.rmtree(writing.partial)
        writing.partial.mkdir()
    return writing


@contextmanager
def _not_written(folder: Path) -> Iterator[None]:
    """Turn what the disk says into one line."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_WRITTEN:
            raise
        fix = "free some space" if error.errno in _NO_SPACE else "mend that"
        go_on = how_to_go_on(folder)
        raise InputError(
            f"the run folder can't be written: {error.strerror}",
            where=str(folder),
            fix=f"{fix}, then {go_on}" if go_on else f"{fix}, or give another --out",
        ) from error


def _leave_checkpoints(partial: Path) -> None:
    """Remove what is half-written."""
    with suppress(OSError):
        for path in partial.iterdir():
            if path.name != CHECKPOINTS:
                path.unlink()


def _replace(partial: Path, folder: Path) -> None:
    """Put a finished folder where another one stands, which goes last."""
    old = _replaced_path(folder)
    folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old)


def _bring_back(folder: Path) -> None:
    """Undo a replacement that was cut off before the new folder was in its place."""
    old = _replaced_path(folder)
    if old.exists() and folder.exists():
        shutil.rmtree(old)
    elif old.exists():
        old.rename(folder)


def _move(partial: Path, folder: Path) -> Path:
    """Rename to the first free name."""
    for free in _numbered(folder):
        try:
            return partial.rename(free)  # refuses a folder with files in it
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
    raise AssertionError("numbers do not end")


def _numbered(folder: Path) -> Iterator[Path]:
    """`folder`, then with -2, -3 and so on."""
    yield folder
    for number in itertools.count(2):
        yield folder.with_name(f"{folder.name}-{number}")


def _read_started(folder: Path) -> Started | None:
    path = _partial_path(folder) / CHECKPOINTS / _STARTED
    if not path.exists():
        return None
    try:
        kept = orjson.loads(path.read_bytes())
        if kept.pop("sha256") != _digest(kept):
            raise ValueError("its checksum does not fit")
        return Started(folder, kept["settings"], kept["overwrite"])
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"the interrupted run can't be gone on with: {error}",
            where=str(path),
            fix="start it again by --overwrite",
        ) from error


def _last_change(partial: Path) -> float:
    return (partial / CHECKPOINTS).stat().st_mtime


def _digest(kept: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(kept, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _has_checkpoints(partial: Path) -> bool:
    return any((partial / CHECKPOINTS).glob(f"[!.]*{CHECKPOINT_ENDING}"))


def _partial_path(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.partial")


def _lock_path(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _replaced_path(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.replaced")


def _remove_empty(created: list[Path]) -> None:
    for parent in created:
        if parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()
