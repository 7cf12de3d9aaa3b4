"""Models of one domain, and the mapping between two."""

from scdr.models.backbones import Backbone
from scdr.models.biases import Biases, fit_biases
from scdr.models.factors import Factors, TargetItems, target_items
from scdr.models.graph_training import pretrain_graph
from scdr.models.mapping import MappingConfig, train_mapping
from scdr.models.mf import PretrainConfig, pretrain

__all__ = [
    "Backbone",
    "Biases",
    "Factors",
    "MappingConfig",
    "PretrainConfig",
    "TargetItems",
    "fit_biases",
    "pretrain",
    "pretrain_graph",
    "target_items",
    "train_mapping",
]
