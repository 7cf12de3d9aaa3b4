"""What the paper's analysis measures on fitted methods: robustness, flatness, landscapes."""

from scdr.analysis.flatness import Flatness, flatness, spectral_bound
from scdr.analysis.landscape import Landscape, draw_directions, landscape
from scdr.analysis.rating_attack import ChangedRatings, rating_attack
from scdr.analysis.rating_errors import RatingErrors, cold_start_errors, errors_of
from scdr.analysis.robustness import (
    LEVELS,
    RobustError,
    robustness,
    surrogate_errors,
    violations,
)

__all__ = [
    "LEVELS",
    "ChangedRatings",
    "Flatness",
    "Landscape",
    "RatingErrors",
    "RobustError",
    "cold_start_errors",
    "draw_directions",
    "errors_of",
    "flatness",
    "landscape",
    "rating_attack",
    "robustness",
    "spectral_bound",
    "surrogate_errors",
    "violations",
]
