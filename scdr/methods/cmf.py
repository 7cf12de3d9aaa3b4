"""CMF: one table of user factors for both domains.

`min_{U,V_s,V_t} sum_source (r - <u, v_s>)^2 + sum_target (r - <u, v_t>)^2`: an overlap user has one
vector u in both sums, so that a cold-start user is its source vector. It is matrix factorisation of
the concatenated rows. With biases each domain has a mean of its own, and a user one bias in both.

A. P. Singh, G. J. Gordon, "Relational learning via collective matrix factorization", KDD 2008,
pages 650-658.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from scdr.data import Interactions, TrainingData
from scdr.hyperparameters import STRICT, within
from scdr.methods.base import FactorPredictor, FitContext, Method, TargetUsers
from scdr.methods.pretraining import pretrain_domain
from scdr.models import Factors, PretrainConfig, target_items
from scdr.models.fold_in import RidgeFoldIn
from scdr.models.mf import PAPER_PRETRAIN, PRETRAIN_SPACE


@dataclass(frozen=True, kw_only=True)
class CmfConfig:
    """Hyper-parameters of CMF."""

    __pydantic_config__ = STRICT

    pretrain: PretrainConfig = field(default_factory=lambda: replace(PretrainConfig(), steps=0))


def fit(data: TrainingData, config: CmfConfig, context: FitContext) -> FactorPredictor:
    """Train the factors of both domains at once.

    Raises:
        DivergenceError: the factors left the finite numbers.
    """
    joint, means = joint_interactions(data, centred=config.pretrain.biases)
    with context.progress.timed("pretrain"):
        factors = pretrain_domain(joint, config.pretrain, context, "joint")

    def domain(items: slice, mean: float) -> Factors:
        bias = factors.item_bias
        return replace(
            factors,
            item=factors.item[items],
            item_bias=None if bias is None else bias[items],
            offset=mean,
        )

    source = domain(slice(data.source.n_items), means[0])
    target = domain(slice(data.source.n_items, None), means[1])
    items = target_items(target, data.target, keep_untrained=config.pretrain.keep_untrained)
    vectors = factors.user_vectors()
    own = vectors[torch.from_numpy(joint_users(data)).long().to(context.device)]
    return FactorPredictor(
        vectors[: data.source.n_users].clone(),
        None,
        items,
        fold_in=RidgeFoldIn.as_pretrained(source, config.pretrain),
        target_users=TargetUsers.of(own, data.target),
    )


def joint_users(data: TrainingData) -> NDArray[np.int32]:
    """The user of the joint table that each target user is, int32 `[U_t]`."""
    to_joint = np.full(data.target.n_users, -1, dtype=np.int32)
    to_joint[data.train_pairs[:, 1]] = data.train_pairs[:, 0]
    own = np.flatnonzero(to_joint < 0)
    to_joint[own] = np.arange(data.source.n_users, data.source.n_users + len(own))
    return to_joint


def joint_interactions(
    data: TrainingData, *, centred: bool
) -> tuple[Interactions, tuple[float, float]]:
    """The rows of both domains over one table of users and one of items.

    Users are the source's, then the target's own in their order; items the source's, then the
    target's. A training user is its source user in both domains.

    Args:
        data: training data.
        centred: take off each domain's mean rating.

    Returns:
        The rows, source first, and what was taken off those of the source and of the target.
    """
    source, target = data.source, data.target
    to_joint = joint_users(data)
    own = to_joint >= source.n_users
    means = [float(rows.ratings.mean(dtype=np.float64)) * centred for rows in (source, target)]
    joint = Interactions(
        users=np.concatenate([source.users, to_joint[target.users]]),
        items=np.concatenate([source.items, target.items + np.int32(source.n_items)]),
        ratings=np.concatenate(
            [
                (rows.ratings - mean).astype(np.float32)
                for rows, mean in zip((source, target), means, strict=True)
            ]
        ),
        times=np.concatenate([source.times, target.times]),
        user_ids=np.concatenate([source.user_ids, target.user_ids[own]]),
        item_ids=np.concatenate([source.item_ids, target.item_ids]),
    )
    return joint, (means[0], means[1])


CMF = Method(
    name="cmf",
    title="CMF",
    citation="Singh, Gordon: Collective matrix factorization (KDD 2008)",
    cross_domain=True,
    mapping_based=False,
    presets={
        "default": CmfConfig(),
        "paper": CmfConfig(pretrain=replace(PAPER_PRETRAIN, steps=0)),
    },
    fit=fit,
    search_space=within("pretrain", PRETRAIN_SPACE),
)
