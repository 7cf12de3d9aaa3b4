"""Rating metrics over ratings and over users, with intervals."""

from scdr.evaluation.metrics import RatingMetrics, rating_metrics
from scdr.evaluation.slices import slice_errors

__all__ = ["RatingMetrics", "rating_metrics", "slice_errors"]
