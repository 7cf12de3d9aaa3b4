"""Models of one domain, and the mapping between two."""

from scdr.models.biases import Biases, fit_biases
from scdr.models.factors import Factors, TargetItems, target_items
from scdr.models.mapping import MappingConfig, train_mapping
from scdr.models.mf import PretrainConfig, pretrain

__all__ = [
    "Biases",
    "Factors",
    "MappingConfig",
    "PretrainConfig",
    "TargetItems",
    "fit_biases",
    "pretrain",
    "target_items",
    "train_mapping",
]
