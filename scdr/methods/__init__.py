"""The methods of Table II, the controls, and the registry that names them."""

from scdr.methods.base import FactorPredictor, FitContext, Method
from scdr.methods.controls import BIAS_TRANSFER, BIAS_TRANSFER_WEIGHTED, GLOBAL_MEAN, ITEM_MEAN
from scdr.methods.emcdr import EMCDR
from scdr.methods.scdr import SCDR, SCDR_MINUS, TASK_MAPPING
from scdr.methods.tgt import TGT

METHODS: dict[str, Method] = {
    method.name: method for method in (TGT, EMCDR, TASK_MAPPING, SCDR_MINUS, SCDR)
}
"""Methods that train something, by name, in the order of the tables."""

CONTROLS: dict[str, Method] = {
    method.name: method
    for method in (GLOBAL_MEAN, ITEM_MEAN, BIAS_TRANSFER, BIAS_TRANSFER_WEIGHTED)
}
"""Controls, by name; part of every report."""

__all__ = ["CONTROLS", "METHODS", "FactorPredictor", "FitContext", "Method"]
