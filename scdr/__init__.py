"""Sharpness-aware cross-domain recommendation to cold-start users."""

from __future__ import annotations

from importlib.metadata import version

from scdr.build import build_info

__version__ = version("scdr")
__all__ = ["__version__", "build_info"]
