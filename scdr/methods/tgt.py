"""TGT: probabilistic matrix factorisation of the target domain alone (Eq. 2).

A cold-start user has no target rating, so its vector stays what it was at the start.

R. Salakhutdinov, A. Mnih, "Probabilistic matrix factorization", NIPS 2007.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from scdr.data import TrainingData
from scdr.hyperparameters import STRICT, within
from scdr.methods.base import FactorPredictor, FitContext, Method, TargetUsers
from scdr.methods.pretraining import pretrain_domain
from scdr.models import PretrainConfig, target_items
from scdr.models.mf import PAPER_PRETRAIN, PRETRAIN_SPACE


@dataclass(frozen=True, kw_only=True)
class TgtConfig:
    """Hyper-parameters of TGT."""

    __pydantic_config__ = STRICT

    pretrain: PretrainConfig = field(default_factory=lambda: replace(PretrainConfig(), steps=0))


def fit(data: TrainingData, config: TgtConfig, context: FitContext) -> FactorPredictor:
    """Train the target's factors; each source user gets an initial target vector.

    Raises:
        DivergenceError: the factors left the finite numbers.
    """
    with context.progress.timed("pretrain"):
        target = pretrain_domain(data.target, config.pretrain, context, "target")
    items = target_items(target, data.target, keep_untrained=config.pretrain.keep_untrained)
    vectors = np.zeros((data.source.n_users, items.vectors.shape[1]), dtype=np.float32)
    generator = np.random.default_rng((context.seed, 2))
    vectors[:, : config.pretrain.dimension] = config.pretrain.initial_std * (
        generator.standard_normal((len(vectors), config.pretrain.dimension), dtype=np.float32)
    )
    return FactorPredictor(
        torch.from_numpy(vectors).to(context.device),
        None,
        items,
        target_users=TargetUsers.of(target.user_vectors(), data.target),
    )


TGT = Method(
    name="tgt",
    title="TGT (MF)",
    citation="Salakhutdinov, Mnih: Probabilistic matrix factorization (NIPS 2007)",
    cross_domain=False,
    mapping_based=False,
    presets={
        "default": TgtConfig(),
        "paper": TgtConfig(pretrain=replace(PAPER_PRETRAIN, steps=0)),
    },
    fit=fit,
    search_space=within("pretrain", PRETRAIN_SPACE),
)
