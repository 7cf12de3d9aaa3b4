"""EMCDR: a mapping to the target user's own vector (Eq. 3).

`min_theta sum_u ||f_U(u_s; theta) - u_t||^2 / d` over training users, f_U a linear map without
bias, or a tanh network; factors from plain matrix factorisation.

The paper preset is the recipe of the code that its results are usually taken from, that of PTUPCDR:
Adam at 0.01 in all stages, 10 epochs each, 64 users a batch, the last epoch. That code reports the
best epoch on the test users; no preset does.

T. Man, H. Shen, X. Jin, X. Cheng, "Cross-domain recommendation: an embedding and mapping approach",
IJCAI 2017, pages 2464-2470.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from scdr.data import TrainingData
from scdr.hyperparameters import STRICT, Count, Positive, PositiveCount, within
from scdr.methods.base import FactorPredictor, FitContext, Method, TargetUsers, validation_rows
from scdr.methods.pretraining import pretrain_domains
from scdr.models import PretrainConfig, target_items
from scdr.models.fold_in import RidgeFoldIn
from scdr.models.mapping import draw_linear, tanh_mlp
from scdr.models.mf import DENSE_ADAM_PRETRAIN, PRETRAIN_SPACE
from scdr.models.training import NETWORK_SPACE, NetworkTrainingConfig, rating_rmse, train_network


@dataclass(frozen=True, kw_only=True)
class VectorMappingConfig(NetworkTrainingConfig):
    """Training of a mapping on user vectors (Eq. 3)."""

    kind: Literal["linear", "mlp"] = "linear"
    """A linear map without bias, or a d - hidden - d tanh network."""
    hidden: PositiveCount = 50
    """Hidden units of the network."""
    epochs: Count = 100
    """Passes over the training users, at most."""
    batch_size: PositiveCount = 64
    """Users a batch."""
    clip_norm: Positive | None = None
    """Gradients of a batch are scaled down to this l2 norm; None leaves them."""


@dataclass(frozen=True, kw_only=True)
class EmcdrConfig:
    """Hyper-parameters of EMCDR."""

    __pydantic_config__ = STRICT

    pretrain: PretrainConfig = field(default_factory=lambda: replace(PretrainConfig(), steps=0))
    mapping: VectorMappingConfig = field(default_factory=VectorMappingConfig)


def fit(data: TrainingData, config: EmcdrConfig, context: FitContext) -> FactorPredictor:
    """Pretrain both domains, then fit the mapping between the two vectors of training users.

    Raises:
        DivergenceError: a stage left the finite numbers.
    """
    source, target = pretrain_domains(data, config.pretrain, context)
    vectors = source.user_vectors()  # [U_s, d_source]
    items = target_items(target, data.target, keep_untrained=config.pretrain.keep_untrained)
    pairs = torch.from_numpy(data.train_pairs).long().to(context.device)  # [T, 2]
    own = target.user_vectors()[pairs[:, 1]]  # [T, d_target]
    generator = torch.Generator().manual_seed(context.seed)
    mapping = new_mapping(vectors.shape[1], own.shape[1], config.mapping, generator)
    mapping.to(context.device)
    with context.mapping_stage(config.mapping.epochs) as advance:
        train_network(
            mapping,
            lambda: vector_losses(mapping, vectors[pairs[:, 0]], own, config.mapping, generator),
            config.mapping,
            generators=[generator],
            validation_rmse=rating_rmse(
                lambda users: mapping(vectors[users]), items, validation_rows(data, context.device)
            ),
            advance=advance,
        )
    return FactorPredictor(
        vectors,
        mapping,
        items,
        fold_in=RidgeFoldIn.as_pretrained(source, config.pretrain),
        target_users=TargetUsers.of(target.user_vectors(), data.target),
    )


def new_mapping(
    width: int, target_width: int, config: VectorMappingConfig, generator: torch.Generator
) -> nn.Module:
    """A mapping at its initial weights."""
    if config.kind == "mlp":
        return tanh_mlp(width, config.hidden, target_width, zero_readout=False, generator=generator)
    mapping = nn.Linear(width, target_width, bias=False)
    draw_linear(mapping, generator)
    return mapping


def vector_losses(
    mapping: nn.Module,
    source: Tensor,
    target: Tensor,
    config: VectorMappingConfig,
    generator: torch.Generator,
) -> Iterator[Tensor]:
    """Eq. 3 for each batch of an epoch, from source `[T, d_source]` to target `[T, d_target]`."""
    order = torch.randperm(len(source), generator=generator).to(source.device)
    for users in order.split(config.batch_size):
        yield nn.functional.mse_loss(mapping(source[users]), target[users])


EMCDR = Method(
    name="emcdr",
    title="EMCDR",
    citation="Man, Shen, Jin, Cheng: Cross-domain recommendation (IJCAI 2017)",
    cross_domain=True,
    mapping_based=True,
    presets={
        "default": EmcdrConfig(),
        "paper": EmcdrConfig(
            pretrain=DENSE_ADAM_PRETRAIN, mapping=VectorMappingConfig(epochs=10, select="last")
        ),
    },
    fit=fit,
    search_space=within("pretrain", PRETRAIN_SPACE) | within("mapping", NETWORK_SPACE),
)
