"""Rating metrics over ratings and over users, with intervals."""

from scdr.evaluation.metrics import RatingMetrics, rating_metrics

__all__ = ["RatingMetrics", "rating_metrics"]
