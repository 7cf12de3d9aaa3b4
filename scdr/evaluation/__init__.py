"""Rating metrics over ratings and over users, with intervals, and tests of their differences."""

from scdr.evaluation.metrics import RatingMetrics, UserErrors, rating_metrics, user_errors
from scdr.evaluation.significance import holm, paired_p_value
from scdr.evaluation.slices import slice_errors

__all__ = [
    "RatingMetrics",
    "UserErrors",
    "holm",
    "paired_p_value",
    "rating_metrics",
    "slice_errors",
    "user_errors",
]
