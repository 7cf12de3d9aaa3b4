"""Checkpoints: what was kept comes back, what was damaged never does, and a failure loses none."""

from __future__ import annotations

import errno
import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scdr.checkpoints import Checkpoints, Stage
from scdr.errors import InputError
from scdr.folder import whole_folder
from scdr.tensor_file import read_tensors, write_tensors

MINE = {"configuration": "a", "data": "b", "code": "c"}


class Kept:
    """Checkpoints in a folder, and what they tell the user."""

    def __init__(self, folder: Path, *, every: float = 0.0, **other: str) -> None:
        self.notes: list[str] = []
        self.checkpoints = Checkpoints(
            folder, every=every, fingerprint=lambda: MINE | other, note=self.notes.append
        )

    def stage(self, seen: list[float]) -> Stage:
        return Stage(lambda **values: seen.append(values["loss"]), "a stage", self.checkpoints)


def train(stage: Stage, *, total: int, stop: int | None = None) -> list[Any]:
    """A walk whose every step depends on all kinds of parts; the parts at its end."""
    weights = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=0.1)
    first, second = torch.Generator().manual_seed(1), np.random.default_rng(2)
    parts = {"weights": [weights, None], "optimizer": optimizer, "draws": [first, second]}
    for epoch in stage.epochs(total, parts):
        if epoch == stop:
            raise KeyboardInterrupt
        target = torch.randn(3, generator=first) + float(second.normal())
        optimizer.zero_grad()
        (weights - target).square().sum().backward()
        optimizer.step()
        stage(loss=float(weights.detach().sum()))
    return [*weights.tolist(), float(torch.randn(1, generator=first)), second.integers(2**62)]


def test_a_loop_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    losses: list[float] = []
    whole = train(Stage(lambda **values: losses.append(values["loss"])), total=9)
    for stop in (0, 4, 8):
        with pytest.raises(KeyboardInterrupt):
            train(Kept(tmp_path).stage([]), total=9, stop=stop)
    seen: list[float] = []
    assert train(Kept(tmp_path).stage(seen), total=9) == whole
    assert seen == losses
    again: list[float] = []
    assert train(Kept(tmp_path).stage(again), total=9, stop=0) == whole  # nothing is left to run
    assert again == losses
    assert [path.name for path in tmp_path.iterdir()] == ["a-stage.safetensors"]


def test_a_short_run_keeps_nothing_and_a_resumed_one_its_stages(tmp_path: Path) -> None:
    train(Kept(tmp_path, every=3600).stage([]), total=3)
    assert not list(tmp_path.iterdir())
    kept = Kept(tmp_path, every=3600)
    kept.checkpoints.resumed = True
    train(kept.stage([]), total=3)
    assert [path.name for path in tmp_path.iterdir()] == ["a-stage.safetensors"]


@pytest.mark.parametrize("what", MINE)
def test_a_checkpoint_of_something_else_is_refused(what: str, tmp_path: Path) -> None:
    train(Kept(tmp_path).stage([]), total=3)
    with pytest.raises(InputError, match=f"of other {what}.*a-stage"):
        train(Kept(tmp_path, **{what: "another"}).stage([]), total=3)


def test_a_damaged_checkpoint_is_named_and_never_loaded(tmp_path: Path) -> None:
    seen: list[float] = []
    whole = train(Kept(tmp_path).stage(seen), total=5)
    path = tmp_path / "a-stage.safetensors"
    sound = path.read_bytes()
    rng = random.Random(0)
    for case in range(40):
        data = bytearray(sound)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data if case % 2 else sound[: rng.randrange(len(sound))])
        kept, again = Kept(tmp_path), list[float]()
        assert kept.checkpoints.load("a stage") is None
        assert str(path) in kept.notes[0] and "damaged checkpoint" in kept.notes[0]
    assert train(kept.stage(again), total=5) == whole
    assert again == seen


def test_every_bit_of_a_tensor_file_counts(tmp_path: Path) -> None:
    path = tmp_path / "file"
    tensors = {"a": torch.randn(2, 3), "none": torch.zeros(0, 4), "count": torch.arange(3)}
    header = {"number": float("inf"), "text": "sha256"}
    write_tensors(path, tensors, header)
    found, its_header = read_tensors(path)
    assert its_header == header and found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    sound = path.read_bytes()
    for place in range(len(sound)):
        data = bytearray(sound)
        data[place] ^= 1 << place % 8
        for damaged in (data, sound[:place]):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match="checksum"):
                read_tensors(path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_failure_to_write_keeps_the_older_checkpoint(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(Kept(tmp_path).stage([]), total=9, stop=3)
    older = (tmp_path / "a-stage.safetensors").read_bytes()

    def fail(opened: int) -> None:
        raise OSError(number, os.strerror(number))

    kept = Kept(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        whole = train(kept.stage([]), total=9)
    assert kept.notes[1:] == [f"no checkpoint could be written: {os.strerror(number)} ({tmp_path})"]
    assert [path.name for path in tmp_path.iterdir()] == ["a-stage.safetensors"]
    assert (tmp_path / "a-stage.safetensors").read_bytes() == older
    assert train(Kept(tmp_path).stage([]), total=9) == whole


@contextmanager
def without_rights() -> Iterator[None]:
    """As a user whom permissions bind, which root is not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def read_only() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield folder
        folder.chmod(0o700)


def test_a_read_only_folder_is_one_line(read_only: Path) -> None:
    read_only.chmod(0o555)
    with (
        without_rights(),
        pytest.raises(InputError, match=r"can't be created: Permission denied \(.*run\)"),
        whole_folder(read_only / "run"),
    ):
        raise AssertionError
    assert not list(read_only.iterdir())


def test_a_folder_that_becomes_read_only_keeps_the_older_checkpoint(read_only: Path) -> None:
    train(Kept(read_only).stage([]), total=3)
    older = (read_only / "a-stage.safetensors").read_bytes()
    read_only.chmod(0o555)
    kept = Kept(read_only)
    with without_rights():
        train(kept.stage([]), total=9)
    assert "no checkpoint could be written: Permission denied" in kept.notes[1]
    assert [path.read_bytes() for path in read_only.iterdir()] == [older]
