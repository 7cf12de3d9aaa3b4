"""Long ops can be watched and stopped."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
import torch

from scdr.ops import mf_sgd_epoch_

ROWS = 5_000_000
FACTORS = 256  # half a second of work or more on any machine


def epoch(progress: object = None) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    user = 0.1 * torch.randn(1000, FACTORS, generator=generator)
    item = 0.1 * torch.randn(1000, FACTORS, generator=generator)
    ids = torch.zeros(ROWS, dtype=torch.int32)
    mf_sgd_epoch_(
        user,
        item,
        ids,
        ids,
        torch.ones(ROWS),
        torch.arange(ROWS, dtype=torch.int32),
        lr=1e-4,
        batch_size=256,
        progress=progress,  # type: ignore[arg-type]
    )
    return user, item


def test_progress_is_told_of_rising_numbers_of_rows() -> None:
    seen: list[tuple[int, int]] = []
    epoch(lambda done, total: seen.append((done, total)))
    assert len(seen) >= 2
    assert seen == sorted(set(seen))
    assert all(0 < done <= ROWS == total and done % 256 in (0, ROWS % 256) for done, total in seen)


def test_what_progress_raises_ends_the_epoch() -> None:
    class EnoughError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise EnoughError(done)

    with pytest.raises(EnoughError) as caught:
        epoch(stop)
    assert 0 < caught.value.args[0] < ROWS


def test_ctrl_c_ends_the_epoch() -> None:
    timer = threading.Timer(0.15, os.kill, (os.getpid(), signal.SIGINT))
    started = time.perf_counter()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        epoch()
        time.sleep(10)  # where the epoch was over first, the signal comes here
    assert time.perf_counter() - started < 8
