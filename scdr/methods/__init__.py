"""The methods of Table II, the controls, and the registry that names them."""

from scdr.methods.base import FactorPredictor, FitContext, Method
from scdr.methods.clcdr import CLCDR
from scdr.methods.cmf import CMF
from scdr.methods.controls import BIAS_TRANSFER, BIAS_TRANSFER_WEIGHTED, GLOBAL_MEAN, ITEM_MEAN
from scdr.methods.emcdr import EMCDR
from scdr.methods.ptupcdr import PTUPCDR
from scdr.methods.registry import GROUP, Methods
from scdr.methods.scdr import SCDR, SCDR_MINUS, TASK_MAPPING
from scdr.methods.scdr_b import SCDR_B
from scdr.methods.sscdr import SSCDR
from scdr.methods.tgt import TGT
from scdr.methods.tmcdr import TMCDR

METHODS = Methods(
    (
        TGT,
        CMF,
        EMCDR,
        SSCDR,
        CLCDR,
        PTUPCDR,
        TMCDR,
        TASK_MAPPING,
        SCDR_MINUS,
        SCDR,
        SCDR_B,
    ),
    group=GROUP,
)
"""Methods that train something, by name, in the order of the tables."""

CONTROLS = Methods((GLOBAL_MEAN, ITEM_MEAN, BIAS_TRANSFER, BIAS_TRANSFER_WEIGHTED))
"""Controls, by name; part of every report."""

__all__ = ["CONTROLS", "METHODS", "FactorPredictor", "FitContext", "Method"]
