"""Loads scdr._C, for every module that uses it, after torch.

The library is linked to torch's own, which it finds where torch has loaded them: their folder at
the time of the build, which it knows too, may be another machine's.
"""

import torch  # noqa: F401

import scdr._C as _C

__all__ = ["_C", "raise_named"]


def raise_named(error: RuntimeError, op: str) -> None:
    """Raise what an op says of its arguments as ValueError; `op` is how its messages begin.

    The stable ABI turns every exception of native code into a RuntimeError.
    """
    message = str(error)
    if message.startswith(op):
        raise ValueError(message.removeprefix(op)) from error
