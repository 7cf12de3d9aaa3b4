"""EMCDR: a mapping to the target user's own vector (Eq. 3).

`min_theta sum_u ||f_U(u_s; theta) - u_t||^2 / d` over training users, f_U a linear map without
bias, or a tanh network; factors from plain matrix factorisation.

T. Man, H. Shen, X. Jin, X. Cheng, "Cross-domain recommendation: an embedding and mapping approach",
IJCAI 2017.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from scdr.data import TrainingData
from scdr.errors import DivergenceError
from scdr.hyperparameters import STRICT, Count, NonNegative, Positive, PositiveCount
from scdr.methods.base import FactorPredictor, FitContext, Method
from scdr.methods.pretraining import pretrain_domains
from scdr.models import PretrainConfig, target_items
from scdr.models.mapping import draw_linear, tanh_mlp
from scdr.models.mf import PAPER_PRETRAIN
from scdr.ops.threads import one_thread
from scdr.progress import Advance


@dataclass(frozen=True, kw_only=True)
class VectorMappingConfig:
    """Training of a mapping on user vectors (Eq. 3)."""

    __pydantic_config__ = STRICT

    kind: Literal["linear", "mlp"] = "linear"
    """A linear map without bias, or a d - hidden - d tanh network."""
    hidden: PositiveCount = 50
    """Hidden units of the network."""
    epochs: Count = 100
    """Passes over the training users."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimiser of the mapping."""
    learning_rate: Positive = 0.01
    """Learning rate on the mean over a batch."""
    batch_size: PositiveCount = 64
    """Users a batch."""
    weight_decay: NonNegative = 0.0
    """Penalty on the weights: weight_decay * ||W||^2 is added to a batch's loss."""


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
    source_vectors = source.user_vectors()
    pairs = torch.from_numpy(data.train_pairs).long().to(context.device)  # [T, 2]
    with (
        context.progress.timed("mapping"),
        context.progress.stage("mapping", config.mapping.epochs) as advance,
    ):
        mapping = _train(
            source_vectors[pairs[:, 0]],
            target.user_vectors()[pairs[:, 1]],
            config.mapping,
            seed=context.seed,
            advance=advance,
        )
    items = target_items(target, data.target, keep_untrained=config.pretrain.keep_untrained)
    return FactorPredictor(source_vectors, mapping, items)


@one_thread()
def _train(
    source: Tensor, target: Tensor, config: VectorMappingConfig, *, seed: int, advance: Advance
) -> nn.Module:
    """From source vectors `[T, d_source]` to target vectors `[T, d_target]`."""
    generator = torch.Generator().manual_seed(seed)
    mapping: nn.Module
    if config.kind == "linear":
        mapping = nn.Linear(source.shape[1], target.shape[1], bias=False)
        draw_linear(mapping, generator)
    else:
        mapping = tanh_mlp(
            source.shape[1], config.hidden, target.shape[1], zero_readout=False, generator=generator
        )
    mapping.to(source.device)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.SGD
    optimizer = kind(
        mapping.parameters(), lr=config.learning_rate, weight_decay=2 * config.weight_decay
    )
    for epoch in range(config.epochs):
        order = torch.randperm(len(source), generator=generator).to(source.device)
        total = 0.0
        for rows in order.split(config.batch_size):
            loss = nn.functional.mse_loss(mapping(source[rows]), target[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(rows)
        advance(loss=total / len(source))
        if not all(bool(p.isfinite().all()) for p in mapping.parameters()):
            raise DivergenceError(
                "training diverged: a weight is not finite",
                where=f"mapping, epoch {epoch + 1} of {config.epochs}",
                fix="lower --mapping.learning-rate",
            )
    return mapping.requires_grad_(False)


EMCDR = Method(
    name="emcdr",
    title="EMCDR",
    citation="Man, Shen, Jin, Cheng: Cross-domain recommendation (IJCAI 2017)",
    cross_domain=True,
    mapping_based=True,
    presets={
        "default": EmcdrConfig(),
        "paper": EmcdrConfig(pretrain=replace(PAPER_PRETRAIN, steps=0)),
    },
    fit=fit,
)
