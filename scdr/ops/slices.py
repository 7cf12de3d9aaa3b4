"""Watching and stopping a native op while it works."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scdr import _native

SliceProgress = Callable[[int, int], None]
"""Called about ten times a second with the rows done and the rows in all; may raise to stop."""


def in_slices(work: Callable[[], Tensor], progress: SliceProgress | None) -> Tensor:
    """`work()`, an op that can be interrupted: by Ctrl-C on the main thread, or by `progress`.

    Inside `torch.compile` it is just `work()`.

    Raises:
        BaseException: what a signal handler or `progress` raises; the op has then ended after a
            whole batch.
    """
    if torch.compiler.is_compiling():
        return work()
    result: Tensor = _native._C.in_slices(work, progress)
    return result
