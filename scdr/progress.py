"""What a user sees of long work: progress bars, a line an epoch on disk, seconds by stage."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Protocol

import orjson
import rich.progress
from rich.console import Console


class Advance(Protocol):
    """Told of each finished epoch."""

    def __call__(self, **values: float) -> None:
        """Record one epoch with its named values, such as `loss`."""


class CancelledError(Exception):
    """A stage ended because another thread asked for it."""


class Progress:
    """Progress of one run. Safe to use from several threads at once.

    Usage:

        with Progress(show=True) as progress:
            progress.log_to(folder / "progress.jsonl")
            with progress.timed("pretrain"), progress.stage("pretrain source", 20) as advance:
                advance(loss=0.9)
    """

    def __init__(self, *, show: bool = False) -> None:
        """Silent unless asked: `show` draws progress bars on standard error."""
        self._finished: dict[str, float] = {}
        self._running: dict[str, float] = {}
        self._cancelled = threading.Event()
        self._bars = rich.progress.Progress(
            rich.progress.TextColumn("{task.description:<15}"),
            rich.progress.BarColumn(bar_width=12),
            rich.progress.TextColumn("{task.fields[done]:>9}"),
            rich.progress.TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            rich.progress.TextColumn("{task.fields[values]}"),
            console=Console(stderr=True),
            disable=not show,
            speed_estimate_period=3600,  # runs of a comparison are minutes apart
        )
        self._log: FileIO | None = None
        self._unwritten = b""
        self._lock = threading.Lock()

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._bars.stop()
        else:  # an error is one line and stands alone
            self._bars.live.transient = True
            self._bars.live.stop()
        if self._log:
            self._log.close()

    def log_to(self, path: Path) -> None:
        """Write a JSON line for each epoch from now on: stage, epoch, seconds, values."""
        self._log = path.open("wb", buffering=0)

    def end_log(self) -> None:
        """Write what a full disk has held back.

        Raises:
            OSError: it is full still.
        """
        with self._lock:
            self._flush()

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Count the seconds of the block under a name."""
        self._running[name] = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - self._running.pop(name)
            self._finished[name] = self._finished.get(name, 0.0) + elapsed

    def elapsed(self, name: str) -> float:
        """Seconds under a name so far, a block that still runs included; 0 if it never ran."""
        started = self._running.get(name)
        running = 0.0 if started is None else time.perf_counter() - started
        return self._finished.get(name, 0.0) + running

    def cancel(self) -> None:
        """Make every stage end at its next epoch or slice of one, in whatever thread it runs."""
        self._cancelled.set()

    def end_if_cancelled(self, stage: str) -> None:
        """For a stage to call within long epochs.

        Raises:
            CancelledError: `cancel` was called.
        """
        if self._cancelled.is_set():
            raise CancelledError(stage)

    @contextmanager
    def stage(self, name: str, epochs: int) -> Iterator[Advance]:
        """One bar; the block calls what it is given once an epoch."""
        task = self._bars.add_task(name, total=epochs, values="", done=f"0/{epochs}")
        started = time.perf_counter()
        epoch = 0

        def advance(**values: float) -> None:
            nonlocal epoch
            self.end_if_cancelled(name)
            epoch += 1
            shown = "  ".join(f"{key} {value:.4f}" for key, value in values.items())
            self._bars.update(task, advance=1, values=shown, done=f"{epoch}/{epochs}")
            elapsed = time.perf_counter() - started
            self._write({"stage": name, "epoch": epoch, "seconds": round(elapsed, 4), **values})

        yield advance
        # A stage may stop early; its bar is full all the same.
        self._bars.update(task, total=max(epoch, 1), completed=max(epoch, 1))

    @contextmanager
    def reading(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """One bar over bytes; the block calls what it is given with bytes done and in all."""
        task = self._bars.add_task(name, total=1, values="", done="")

        def advance(done: int, total: int) -> None:
            self._bars.update(task, completed=done, total=total, done=f"{done / 1e6:.1f} MB")

        yield advance

    @contextmanager
    def rows(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """One bar over rows; the block calls what it is given with rows done."""
        task = self._bars.add_task(name, total=total, values="", done="")

        def advance(done: int) -> None:
            self._bars.update(task, completed=done, done=f"{done:,}")

        yield advance

    @contextmanager
    def runs(self, total: int, done: int) -> Iterator[Callable[[bool], None]]:
        """One bar over runs, some done before; the block tells of each whether it failed."""
        task = self._bars.add_task("runs", total=total, completed=done, values="", done="")
        failed = 0

        def advance(failure: bool) -> None:
            nonlocal done, failed
            done, failed = done + 1, failed + failure
            values = f"{failed} failed" if failed else ""
            self._bars.update(task, completed=done, values=values, done=f"{done}/{total}")

        self._bars.update(task, done=f"{done}/{total}")
        yield advance

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(text, soft_wrap=True, highlight=False, markup=False)

    def _write(self, line: dict[str, object]) -> None:
        if self._log is None:
            return
        with self._lock:
            self._unwritten += orjson.dumps(line) + b"\n"
            # A disk that is full for a while is no reason to lose the training.
            with suppress(OSError):
                self._flush()

    def _flush(self) -> None:
        while self._log and self._unwritten:
            self._unwritten = self._unwritten[self._log.write(self._unwritten) :]
