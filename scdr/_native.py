"""Loads scdr._C, for every module that uses it, after torch.

The library needs torch's own in the process, and torch must be the one to load them: where they
come in by themselves, without its CUDA ones, importing torch afterwards ends the process.
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
