"""Loads scdr._C once, after torch, whose libraries it needs in the process."""

import torch  # noqa: F401

from scdr import _C

__all__ = ["_C"]
