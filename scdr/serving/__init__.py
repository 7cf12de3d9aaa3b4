"""A trained model as a service: predictions and recommendations by id or by history."""

from scdr.serving.answers import AnsweredAs, Prediction, Recommendation
from scdr.serving.predictor import Predictor

__all__ = ["AnsweredAs", "Prediction", "Predictor", "Recommendation"]
