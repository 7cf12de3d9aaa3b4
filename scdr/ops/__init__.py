"""The operations: every one a documented function over tensors, with a plain-torch reference."""

from scdr.ops.factor_posteriors import factor_posteriors_
from scdr.ops.fgsm_perturb import fgsm_perturb
from scdr.ops.lipschitz import lipschitz_bound, lipschitz_ratio
from scdr.ops.mapping_sgd_epoch import mapping_sgd_epoch_
from scdr.ops.mf_sgd_epoch import mf_sgd_epoch_
from scdr.ops.pgd_perturb import pgd_perturb
from scdr.ops.recommend_topk import recommend_topk
from scdr.ops.sharp_mapping_loss import sharp_mapping_loss
from scdr.ops.sharp_mf_loss import sharp_mf_loss

__all__ = [
    "factor_posteriors_",
    "fgsm_perturb",
    "lipschitz_bound",
    "lipschitz_ratio",
    "mapping_sgd_epoch_",
    "mf_sgd_epoch_",
    "pgd_perturb",
    "recommend_topk",
    "sharp_mapping_loss",
    "sharp_mf_loss",
]
