"""The mapping f_U from source to target user vectors, trained on ratings (Eq. 8, 9)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from scdr.checkpoints import Stage
from scdr.errors import DivergenceError
from scdr.hyperparameters import (
    STRICT,
    Count,
    NonNegative,
    Positive,
    PositiveCount,
    Real,
    SearchSpace,
)
from scdr.models.best import BestEpoch
from scdr.models.factors import TargetItems
from scdr.models.standardise import Standardisation
from scdr.ops import mapping_sgd_epoch_
from scdr.ops.adam import AdamState
from scdr.ops.mf_sgd_epoch import SpoiltTablesError
from scdr.ops.threads import one_thread
from scdr.progress import Advance


@dataclass(frozen=True, kw_only=True)
class MappingConfig:
    """Training of the mapping: Eq. 8 to 15."""

    __pydantic_config__ = STRICT

    hidden: Annotated[int, Field(ge=1, le=256)] = 50
    """Hidden units of the d - hidden - d tanh network, at most 256."""
    epochs: Count = 40
    """Passes over the target ratings of training users, at most."""
    optimizer: Literal["sgd", "adam"] = "adam"
    """Optimiser of the mapping and of the training users' source vectors; of these, adam updates
    in a batch those that occur in it."""
    learning_rate: Positive = 0.001
    """Learning rate on the mean over a batch."""
    batch_size: PositiveCount = 256
    """Ratings a batch."""
    weight_decay: NonNegative = 0.02
    """Penalty on the mapping's weights: weight_decay * ||W||^2 is added to a batch's loss."""
    radius: NonNegative = 0.1
    """Radius rho of the perturbation of source user vectors, in their own units."""
    steps: Count = 5
    """Number k of sign gradient ascent steps; 0 is task mapping."""
    step_size: Positive | None = None
    """Step size alpha along each coordinate; None is 1/sqrt(width of a source vector)."""
    train_user: bool = True
    """Also train the source vectors of training users (Eq. 8), not the mapping alone."""
    standardise: bool = True
    """Scale each coordinate of the source vectors to mean 0 and deviation 1; radius and step size
    are then in those units."""
    zero_readout: bool = True
    """Start the last layer at zero, so that training starts from the item biases."""
    clip_norm: Positive | None = 5.0
    """Gradients of a batch are scaled down to this l2 norm; None leaves them."""
    patience: PositiveCount = 5
    """Stop after so many epochs without a better result on validation users."""
    select: Literal["validation", "last"] = "validation"
    """Keep the epoch with the lowest RMSE on validation users, or the last."""


PAPER_MAPPING = MappingConfig(
    epochs=10,
    optimizer="sgd",
    learning_rate=0.01,
    weight_decay=0.0,
    radius=5.0,
    standardise=False,
    zero_readout=False,
    clip_norm=None,
    select="last",
)
"""The paper's mapping; what it leaves open is closed as in docs/protocol.md, P5 to P7."""

MAPPING_SPACE: SearchSpace = {
    "learning_rate": Real(0.0003, 0.03),
    "weight_decay": Real(0.001, 0.3),
}
SHARP_MAPPING_SPACE: SearchSpace = {**MAPPING_SPACE, "radius": Real(0.01, 5.0)}
"""What a search may vary where k > 0."""


@dataclass(frozen=True, slots=True)
class MappingRows:
    """Target ratings of the users a mapping is trained or validated on.

    Attributes:
        users: `[n]` int64, source user of each rating.
        items: `[n]` int64, target item of each rating.
        ratings: `[n]` float32.
    """

    users: Tensor
    items: Tensor
    ratings: Tensor


def tanh_mlp(
    width: int, hidden: int, target_width: int, *, zero_readout: bool, generator: torch.Generator
) -> nn.Sequential:
    """A `width - hidden - target_width` network with tanh and biases.

    Weights start Kaiming-uniform as in `torch.nn.Linear`; with `zero_readout` the last layer
    starts at zero.
    """
    mapping = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, target_width))
    for layer in (mapping[0], mapping[2]):
        assert isinstance(layer, nn.Linear)
        draw_linear(layer, generator)
    if zero_readout:
        nn.init.zeros_(mapping[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(mapping[2].bias)  # type: ignore[arg-type]
    return mapping


def draw_linear(layer: nn.Linear, generator: torch.Generator) -> None:
    """Draw a layer's weights as `torch.nn.Linear` does, from a generator of our own."""
    bound = 1 / math.sqrt(layer.in_features)
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    if layer.bias is not None:
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


def train_mapping(
    source_vectors: Tensor,
    items: TargetItems,
    training: MappingRows,
    validation: MappingRows | None,
    config: MappingConfig,
    *,
    seed: tuple[int, ...],
    advance: Advance,
) -> tuple[nn.Sequential, Tensor]:
    """Minimise the mean of L_SCDR over the ratings of training users (Eq. 8).

    Args:
        source_vectors: `[U_s, d_source]` source user vectors; not changed.
        items: target items, frozen.
        training: target ratings of training users.
        validation: target ratings of validation users, for the choice of the epoch; None: the last.
        config: hyper-parameters.
        seed: of the initial weights and of the order of the ratings.
        advance: told of each epoch: `loss`, the root mean squared (perturbed) error, and the
            `validation` RMSE; a `Stage` also keeps checkpoints.

    Returns:
        The mapping, and source vectors `[U_s, d_source]` in which training users' rows are trained
        where `config.train_user` says so.

    Raises:
        DivergenceError: the loss left the finite numbers.
    """
    with one_thread():
        scale = Standardisation.of(source_vectors, enabled=config.standardise)
        vectors = scale.apply(source_vectors)  # [U_s, d_source]
    trained_users, row_user = torch.unique(training.users, return_inverse=True)  # [T], [n]
    user = vectors[trained_users]  # [T, d_source]
    generator = torch.Generator().manual_seed(_torch_seed(seed))
    mapping = tanh_mlp(
        vectors.shape[1],
        config.hidden,
        items.vectors.shape[1],
        zero_readout=config.zero_readout,
        generator=generator,
    ).to(vectors.device)
    mapping.requires_grad_(False)

    adam = _adam(mapping, user, config)
    users, rated = row_user.int(), training.items.int()  # [n]
    residual = training.ratings - items.offsets[training.items]  # [n]
    item = items.vectors.contiguous()  # [I, d_target]
    weights = [user, *mapping.parameters()]
    best = BestEpoch(weights, patience=config.patience, select=config.select)
    parts = {"weights": weights, "adam": adam, "best": best, "shuffles": generator}
    stage = Stage.of(advance)
    for epoch in stage.epochs(config.epochs, parts, ended=lambda: best.ended):
        order = torch.randperm(len(residual), generator=generator).to(vectors.device)
        try:
            total = mapping_sgd_epoch_(
                user,
                item,
                mapping,
                users,
                rated,
                residual,
                order,
                lr=config.learning_rate,
                batch_size=config.batch_size,
                steps=config.steps,
                step_size=config.step_size,
                radius=config.radius,
                weight_decay=config.weight_decay,
                clip_norm=config.clip_norm,
                train_user=config.train_user,
                adam=adam,
            )
        except SpoiltTablesError as error:
            raise DivergenceError(
                "training diverged: the loss or a weight is not finite",
                where=f"mapping, epoch {epoch + 1} of {config.epochs}",
                fix="lower --mapping.learning-rate or --mapping.radius, or set --mapping.clip-norm",
            ) from error
        values = {"loss": math.sqrt(float(total) / max(len(residual), 1))}
        if validation is not None and len(validation.ratings):
            values["validation"] = _rmse(mapping, vectors, items, validation)
        best.judge(values.get("validation"))
        stage(**values)
    best.restore()
    vectors = vectors.index_copy(0, trained_users, user)
    with one_thread():
        return scale.fold_into(mapping), scale.undo(vectors)


def _adam(mapping: nn.Sequential, user: Tensor, config: MappingConfig) -> AdamState | None:
    if config.optimizer == "sgd":
        return None
    w1, b1, w2, b2 = mapping.parameters()
    return AdamState.zeros(user=user if config.train_user else None, w1=w1, b1=b1, w2=w2, b2=b2)


@one_thread()
@torch.no_grad()
def _rmse(mapping: nn.Module, vectors: Tensor, items: TargetItems, rows: MappingRows) -> float:
    mapped = mapping(vectors[rows.users])  # [n, d_target]
    prediction = (mapped * items.vectors[rows.items]).sum(1) + items.offsets[rows.items]
    return float(((prediction - rows.ratings) ** 2).mean().sqrt())


def _torch_seed(seed: tuple[int, ...]) -> int:
    mixed = 0
    for part in seed:
        mixed = (mixed * 1_000_003 + part) % 2**63
    return mixed
