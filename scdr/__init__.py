"""Sharpness-aware cross-domain recommendation to cold-start users."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from scdr.build import build_info

if TYPE_CHECKING:
    from scdr.serving import Predictor

__version__ = version("scdr")
__all__ = ["Predictor", "__version__", "build_info"]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import what needs torch when it is first asked for."""
        if name == "Predictor":
            from scdr.serving import Predictor

            return Predictor
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
