"""Loads scdr._C, for every module that uses it."""

try:
    import scdr._C as _C
except ImportError:
    # The library looks for torch's own where they were at the build, and beside scdr. Elsewhere
    # they are found once torch has loaded them; only then, since importing torch takes a second.
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
