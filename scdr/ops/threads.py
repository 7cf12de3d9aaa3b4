"""Number of threads that torch's operators use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run torch's operators on so many threads, here and on Python threads that start inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch's own operators on one thread.

    Their matrix products may round differently with another number of threads, and ours are too
    small to gain from more.
    """
    with torch_threads(1):
        yield
