"""The operations: every one a documented function over tensors, with a plain-torch reference."""

from scdr.ops.mf_sgd_epoch import mf_sgd_epoch_
from scdr.ops.pgd_perturb import pgd_perturb
from scdr.ops.sharp_mapping_loss import sharp_mapping_loss
from scdr.ops.sharp_mf_loss import sharp_mf_loss

__all__ = ["mf_sgd_epoch_", "pgd_perturb", "sharp_mapping_loss", "sharp_mf_loss"]
