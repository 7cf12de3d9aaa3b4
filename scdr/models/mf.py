"""Pretraining: probabilistic matrix factorisation (PMF) and its sharpness-aware form (SMF)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from scdr.checkpoints import Stage
from scdr.data import Interactions
from scdr.errors import DivergenceError
from scdr.hyperparameters import (
    STRICT,
    Count,
    NonNegative,
    Positive,
    PositiveCount,
    Real,
    SearchSpace,
    Whole,
)
from scdr.models.backbones import Backbone, GraphConfig
from scdr.models.biases import fit_biases
from scdr.models.dense_adam import DenseAdamEpoch
from scdr.models.factors import Factors
from scdr.ops import mf_sgd_epoch_
from scdr.ops.adam import AdamState
from scdr.ops.mf_sgd_epoch import SpoiltTablesError
from scdr.ops.slices import SliceProgress
from scdr.progress import Advance


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Factors of each domain: Eq. 2, then Eq. 10.

    With a graph backbone its section `graph` says how it is trained; of the options here those on
    dimension, perturbation and biases count as well, and `keep_untrained`.
    """

    __pydantic_config__ = STRICT

    backbone: Annotated[Backbone, tyro.conf.arg(prefix_name=False)] = "mf"
    """What the factors come from: matrix factorisation, or a graph of users and items."""
    dimension: PositiveCount = 10
    """Width d of user and item factors."""
    epochs: Count = 60
    """Passes over the ratings, in all."""
    sharp_epochs: Count = 20
    """How many of the last epochs minimise the sharp loss (SMF); 0 is plain PMF."""
    optimizer: Literal["sgd", "adam", "dense_adam"] = "sgd"
    """Optimiser. Adam moves the users and items of a batch and their moments; dense Adam, as on
    dense embeddings, every user and item in every batch: much slower on large tables."""
    learning_rate: Positive = 0.02
    """Learning rate, on sums over a batch; of dense Adam on means."""
    final_learning_rate: Positive | None = 0.001
    """Learning rate of the last epoch, reached on a straight line; None keeps it constant."""
    batch_size: PositiveCount = 256
    """Ratings a batch; gradients are taken at its start."""
    clip_norm: Positive | None = None
    """The gradient of a batch is scaled down to this l2 norm; None leaves it."""
    radius: NonNegative = 0.05
    """Radius rho of the perturbation of user factors, in their own units."""
    steps: Count = 5
    """Number k of sign gradient ascent steps; 0 is plain PMF."""
    step_size: Positive | None = None
    """Step size alpha along each coordinate; None is 1/sqrt(dimension)."""
    inner: Literal["pgd", "exact"] = "pgd"
    """Perturbation by k steps, or the exact maximum over the ball."""
    biases: bool = True
    """Add a mean, a user bias and an item bias, started at their ridge solution."""
    user_penalty: NonNegative = 7.0
    """Penalty on a user's factors."""
    item_penalty: NonNegative = 7.0
    """Penalty on an item's factors."""
    user_bias_penalty: NonNegative = 5.0
    """Penalty on a user bias."""
    item_bias_penalty: NonNegative = 1.5
    """Penalty on an item bias."""
    penalty_per_rating: bool = False
    """Each rating pulls with the whole penalty (weight decay); otherwise all ratings of a user or
    an item share one penalty, whatever their number."""
    initial_std: Positive = 0.1
    """Standard deviation of the initial factors."""
    keep_untrained: bool = False
    """Leave target items without a training rating at their initial vectors, as published code
    does; otherwise they are treated as items never seen."""
    graph: GraphConfig = field(default_factory=GraphConfig)


PAPER_PRETRAIN = PretrainConfig(
    epochs=20,
    sharp_epochs=10,
    learning_rate=0.01,
    final_learning_rate=None,
    radius=1.0,
    biases=False,
    user_penalty=0.0,
    item_penalty=0.0,
    initial_std=1.0,
    keep_untrained=True,
)
"""The paper's pretraining; what it leaves open is closed as in docs/protocol.md, P3 and P4."""

DENSE_ADAM_PRETRAIN = dataclasses.replace(
    PAPER_PRETRAIN, optimizer="dense_adam", epochs=10, steps=0
)
"""The pretraining in the published code of PTUPCDR (github.com/easezyc/WSDM2022-PTUPCDR), which
holds EMCDR too: Adam at 0.01, batch 256, 10 epochs, no penalties, factors from N(0, 1)."""

PRETRAIN_SPACE: SearchSpace = {
    "epochs": Whole(10, 100),
    "user_penalty": Real(0.5, 50.0),
    "item_penalty": Real(0.5, 50.0),
}
SHARP_PRETRAIN_SPACE: SearchSpace = {**PRETRAIN_SPACE, "radius": Real(0.01, 1.0)}
"""What a search may vary where k > 0."""


def pretrain(
    interactions: Interactions,
    config: PretrainConfig,
    *,
    seed: tuple[int, ...],
    device: torch.device,
    advance: Advance,
    stage: str,
    between_slices: SliceProgress | None = None,
) -> Factors:
    """Train the factors of one domain.

    Args:
        interactions: training ratings; users and items without one keep their initial factors.
        config: hyper-parameters.
        seed: of the initial factors and of the order of the ratings.
        device: where to train.
        advance: told of each epoch and its `loss`, the root mean squared (perturbed) error; a
            `Stage` also keeps checkpoints.
        stage: name of this training in error messages.
        between_slices: called about ten times a second within an epoch; may raise to end it.

    Raises:
        DivergenceError: the factors left the finite numbers.
    """
    generator = np.random.default_rng(seed)
    factors = _initial(interactions, config, generator, device)
    # Where the epochs are: on a GPU one would wait for the CPU's shuffling, many times as long as
    # it takes. On the CPU NumPy would take twice as long as torch, and longer than an epoch.
    shuffles = torch.Generator(device).manual_seed(int(generator.integers(2**63)))
    users = torch.from_numpy(interactions.users).to(device)  # [n]
    items = torch.from_numpy(interactions.items).to(device)  # [n]
    ratings = torch.from_numpy(interactions.ratings).to(device)  # [n]
    inverse_counts = (
        (None, None)
        if config.penalty_per_rating
        else (
            _inverse_counts(interactions.users, interactions.n_users, device),
            _inverse_counts(interactions.items, interactions.n_items, device),
        )
    )
    adam = None
    if config.optimizer == "adam":
        adam = AdamState.zeros(
            user=factors.user,
            item=factors.item,
            user_bias=factors.user_bias,
            item_bias=factors.item_bias,
        )
    dense = config.optimizer == "dense_adam"
    dense_epoch = DenseAdamEpoch(factors) if dense else None
    train_epoch = dense_epoch or partial(mf_sgd_epoch_, adam=adam)
    tables = [factors.user, factors.item, factors.user_bias, factors.item_bias]
    parts = {"tables": tables, "adam": adam, "dense_adam": dense_epoch, "shuffles": shuffles}
    epochs = Stage.of(advance)
    for epoch in epochs.epochs(config.epochs, parts):
        order = torch.randperm(
            len(interactions), generator=shuffles, dtype=torch.int32, device=device
        )
        sharp = epoch >= config.epochs - config.sharp_epochs
        try:
            squared_error = train_epoch(
                factors.user,
                factors.item,
                users,
                items,
                ratings,
                order,
                lr=_learning_rate(config, epoch),
                batch_size=config.batch_size,
                user_bias=factors.user_bias,
                item_bias=factors.item_bias,
                offset=factors.offset,
                steps=config.steps if sharp else 0,
                step_size=config.step_size,
                radius=config.radius,
                inner=config.inner,
                user_penalty=config.user_penalty,
                item_penalty=config.item_penalty,
                user_bias_penalty=config.user_bias_penalty,
                item_bias_penalty=config.item_bias_penalty,
                user_inverse_count=inverse_counts[0],
                item_inverse_count=inverse_counts[1],
                clip_norm=config.clip_norm,
                progress=between_slices,
            )
        except SpoiltTablesError as error:
            raise DivergenceError(
                "training diverged: an error is not finite",
                where=f"{stage}, epoch {epoch + 1} of {config.epochs}",
                fix="lower --pretrain.learning-rate or --pretrain.radius",
            ) from error
        epochs(loss=float(squared_error / max(len(interactions), 1)) ** 0.5)
    return factors


def _initial(
    interactions: Interactions,
    config: PretrainConfig,
    generator: np.random.Generator,
    device: torch.device,
) -> Factors:
    def normal(rows: int) -> Tensor:
        values = generator.standard_normal((rows, config.dimension), dtype=np.float32)
        return torch.from_numpy(values * np.float32(config.initial_std)).to(device)

    factors = Factors(user=normal(interactions.n_users), item=normal(interactions.n_items))
    if not config.biases:
        return factors
    biases = fit_biases(
        interactions,
        user_penalty=config.user_bias_penalty,
        item_penalty=config.item_bias_penalty,
    )
    return dataclasses.replace(
        factors,
        user_bias=torch.from_numpy(biases.user.astype(np.float32)).to(device),
        item_bias=torch.from_numpy(biases.item.astype(np.float32)).to(device),
        offset=biases.mean,
    )


def _inverse_counts(index: np.ndarray, size: int, device: torch.device) -> Tensor:
    counts = np.bincount(index, minlength=size)
    return torch.from_numpy((1.0 / np.maximum(counts, 1)).astype(np.float32)).to(device)


def _learning_rate(config: PretrainConfig, epoch: int) -> float:
    if config.final_learning_rate is None or config.epochs < 2:
        return config.learning_rate
    share = epoch / (config.epochs - 1)
    return (1 - share) * config.learning_rate + share * config.final_learning_rate
