"""Several trainings on one GPU at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Run what this thread asks of a CUDA device on a stream of its own; on the CPU, nothing.

    Ops wait for each other within a stream, and only there: trainings in several Python threads run
    side by side where each has a stream. What was asked for before is over when the first op here
    starts; what is asked for after it starts when the last op here is over.

    Args:
        device: where the ops inside work.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.current_stream(device)
    own = torch.cuda.Stream(device)
    own.wait_stream(before)
    try:
        with torch.cuda.stream(own):
            yield
    finally:
        before.wait_stream(own)
