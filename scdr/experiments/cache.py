"""A store of pretrained factors on disk, shared by all methods and runs that need the same ones.

An entry's name is the digest of all that its factors depend on: the ratings trained on, the
pretraining's hyper-parameters, the seed, the device and the code. So source factors are shared by
all betas, target factors by the methods of one split, and nothing is ever out of date.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import platformdirs
import torch
from filelock import FileLock

from scdr.data import Interactions
from scdr.fingerprint import code_digest, digest, ratings_digest
from scdr.models import Factors, PretrainConfig
from scdr.tensor_file import read_tensors, write_tensors

ENTRY, PARTIAL = ".safetensors", ".partial"


def default_folder() -> Path:
    """Where the cache is unless the user says otherwise: SCDR_CACHE, or the user's cache folder."""
    chosen = os.environ.get("SCDR_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("scdr") / "pretrained"


class FactorCache:
    """Pretrained factors by what they depend on.

    Safe under several threads and processes at once, and under their sudden end: an entry appears
    whole by a rename, and a lock on its name lets the second who needs it wait for the first.

    Attributes:
        notes: what a user should know: damaged entries, a folder that can't be written to.
    """

    def __init__(self, folder: Path, *, limit: int) -> None:
        """Use a folder, which is made when it is needed.

        Args:
            folder: of the entries.
            limit: bytes that all entries may take; those used least recently go first.
        """
        self.folder, self.limit = folder, limit
        self.notes: list[str] = []

    def get_or_train(
        self,
        interactions: Interactions,
        config: PretrainConfig,
        *,
        seed: tuple[int, ...],
        device: torch.device,
        train: Callable[[], Factors],
    ) -> Factors:
        """The entry for these arguments; where there is none, what `train` gives, kept."""
        key = digest(
            ratings_digest(interactions),
            dataclasses.asdict(config),
            seed,
            device.type,
            code_digest("models", "ops"),
        )
        path = self.folder / f"{key}{ENTRY}"
        locks = self.folder / "locks"
        lock = FileLock(locks / key[:2])  # not one for each entry: lock files stay for ever
        try:
            locks.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            self._without(error)
            return train()
        try:
            factors = self._load(path, device)
            if factors is None:
                factors = train()
                self._keep(path, factors)
        finally:
            lock.release()
        return factors

    def _load(self, path: Path, device: torch.device) -> Factors | None:
        """An entry, marked as used; None where there is none or it is damaged, which removes it."""
        if not path.exists():
            return None
        try:
            factors = read_factors(path)
            os.utime(path)
        except (OSError, ValueError) as error:
            self.notes.append(f"damaged cache entry {path} ({error}): dropped and trained again")
            path.unlink(missing_ok=True)
            return None
        return factors.to(device)

    def _keep(self, path: Path, factors: Factors) -> None:
        try:
            write_factors(path, factors)
            self._evict()
        except OSError as error:
            self._without(error)

    def _without(self, error: OSError) -> None:
        self.notes.append(f"the cache {self.folder} can't be used: {error.strerror}")

    def entries(self) -> list[tuple[Path, os.stat_result]]:
        """Files of the cache and what the system knows of them, the least recently used first."""
        found = []
        for path in self.folder.glob("*.*"):
            try:
                found.append((path, path.stat()))
            except FileNotFoundError:  # another process has dropped it
                continue
        files = [(path, s) for path, s in found if path.suffix in (ENTRY, PARTIAL)]
        return sorted(files, key=lambda entry: (entry[1].st_mtime_ns, entry[0]))

    def _evict(self) -> None:
        entries = self.entries()
        size = sum(status.st_size for _, status in entries)
        for path, status in entries:
            if size <= self.limit:
                break
            path.unlink(missing_ok=True)
            size -= status.st_size

    def clear(self) -> tuple[int, int]:
        """Remove all entries; how many there were, and their bytes."""
        entries = self.entries()
        for path, _ in entries:
            path.unlink(missing_ok=True)
        return len(entries), sum(status.st_size for _, status in entries)


def write_factors(path: Path, factors: Factors) -> None:
    """Write factors as a file that notices any change.

    Raises:
        OSError: it can't be written.
    """
    names = ("user", "item", "user_bias", "item_bias")
    tensors = {name: value for name in names if (value := getattr(factors, name)) is not None}
    write_tensors(path, tensors, {"offset": factors.offset})


def read_factors(path: Path) -> Factors:
    """Read what `write_factors` wrote.

    Raises:
        OSError, ValueError: the file is not what it was when it was written.
    """
    tensors, header = read_tensors(path)
    return Factors(**tensors, offset=header["offset"])
