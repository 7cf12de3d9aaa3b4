"""The folder of a comparison: a file for each finished run, so that it can go on at any time."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import polars as pl
from filelock import FileLock, Timeout

from scdr.errors import InputError
from scdr.experiments.tuning import Tuned
from scdr.experiments.work import Result, Work
from scdr.whole_file import write_whole

LOCK = ".scdr-compare.lock"
"""Marks a folder as that of a comparison; locked while one is writing to it."""


def new_folder() -> Path:
    """A name under runs/ for a comparison that was given none."""
    return Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-compare"


@contextmanager
def comparison_folder(
    folder: Path, *, lock_name: str = LOCK, of: str = "comparison"
) -> Iterator[Path]:
    """The folder for this process alone; made where it is missing.

    Args:
        folder: to write to.
        lock_name: file that marks it as one of this kind.
        of: what it is the folder of.

    Raises:
        InputError: it holds something else, can't be written to, or another process writes to it.
    """
    fix = "give another --out"
    try:
        if folder.exists() and any(folder.iterdir()) and not (folder / lock_name).exists():
            raise InputError(
                f"the folder holds files, but not those of a {of}", where=str(folder), fix=fix
            )
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / lock_name)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(
            f"another {of} is writing to this folder", where=str(folder), fix=fix
        ) from error
    except OSError as error:
        raise InputError(
            f"the folder can't be written to: {error.strerror}", where=str(folder), fix=fix
        ) from error
    try:
        yield folder
    finally:
        lock.release()


class ResultStore:
    """Results by the digest of what they depend on.

    A result is `HASH.json`, and where it did not fail `HASH.parquet` with the users' errors, whose
    checksum the first one holds beside its own. A file that is damaged is as good as none.

    Attributes:
        damaged: the files that were found so, and why.
    """

    def __init__(self, folder: Path) -> None:
        """Use a folder that exists."""
        self.folder = folder
        self.damaged: dict[Path, str] = {}

    def find(self, work: Work) -> Result | None:
        """The result of a run; None where there is none or it is damaged."""
        path = self.folder / f"{work.config_hash}.json"
        if not path.exists():
            return None
        try:
            kept = orjson.loads(path.read_bytes())
            if kept.pop("sha256") != _digest(kept):
                raise ValueError("its checksum does not fit")
            digest = kept.pop("users_sha256")
            users = None
            if digest is not None:
                data = path.with_suffix(".parquet").read_bytes()
                if hashlib.sha256(data).hexdigest() != digest:
                    raise ValueError("the checksum of its users does not fit")
                users = pl.read_parquet(io.BytesIO(data))
            tuned = None if kept["tuned"] is None else Tuned(**kept["tuned"])
            kept |= {"users": users, "tuned": tuned, "notes": ()}
            return Result(**{f.name: kept[f.name] for f in dataclasses.fields(Result)})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.damaged[path] = str(error)
            return None

    def keep(self, work: Work, result: Result) -> None:
        """Store a result.

        Raises:
            InputError: the disk is full or the folder can't be written to any more.
        """
        values = {
            "pair": work.pair.name,
            "beta": work.beta,
            "seed": work.seed,
            "preset": work.preset,
            "method": work.method,
            "backbone": work.backbone,
            "hyper": dataclasses.asdict(work.hyper),
            "users_sha256": None,
        }
        for name in ("metrics", "seconds", "error", "final", "trace"):
            values[name] = getattr(result, name)
        values["tuned"] = None if result.tuned is None else dataclasses.asdict(result.tuned)
        if result.users is not None:
            buffer = io.BytesIO()
            result.users.write_parquet(buffer)
            values["users_sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()
            write_whole(self.folder / f"{work.config_hash}.parquet", buffer.getvalue())
        # Last, since it makes the result one that counts.
        values["sha256"] = _digest(values)
        data = orjson.dumps(values, option=orjson.OPT_INDENT_2)
        write_whole(self.folder / f"{work.config_hash}.json", data)


def _digest(values: dict[str, Any]) -> str:
    """Of what JSON keeps of the values, so that they may be those read from it."""
    options = orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY
    return hashlib.sha256(orjson.dumps(values, option=options)).hexdigest()
