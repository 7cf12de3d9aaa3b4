"""Loads scdr._C once, after torch, whose libraries it needs in the process."""

import torch  # noqa: F401

from scdr import _C

__all__ = ["_C", "raise_named"]


def raise_named(error: RuntimeError, op: str) -> None:
    """Raise what an op says of its arguments as ValueError; `op` is how its messages begin.

    The stable ABI turns every exception of native code into a RuntimeError.
    """
    message = str(error)
    if message.startswith(op):
        raise ValueError(message.removeprefix(op)) from error
