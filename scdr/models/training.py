"""Training of a mapping network by batches, whatever its loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
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
from scdr.models.mapping import MappingRows
from scdr.ops.threads import one_thread
from scdr.progress import Advance


@dataclass(frozen=True, kw_only=True)
class NetworkTrainingConfig:
    """What all methods that train a network between fixed factors can choose."""

    __pydantic_config__ = STRICT

    epochs: Count = 40
    """Passes over the training data, at most."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimiser of the network."""
    learning_rate: Positive = 0.01
    """Learning rate on the mean over a batch."""
    weight_decay: NonNegative = 0.0
    """Penalty on the weights: weight_decay * ||W||^2 is added to a batch's loss."""
    clip_norm: Positive | None = 5.0
    """Gradients of a batch are scaled down to this l2 norm; None leaves them."""
    patience: PositiveCount = 5
    """Stop after so many epochs without a better result on validation users."""
    select: Literal["validation", "last"] = "validation"
    """Keep the epoch with the lowest RMSE on validation users, or the last."""


NETWORK_SPACE: SearchSpace = {
    "learning_rate": Real(0.0003, 0.03),
    "weight_decay": Real(0.0001, 0.3),
}


@one_thread()
def train_network(
    network: nn.Module,
    batch_losses: Callable[[], Iterator[Tensor]],
    config: NetworkTrainingConfig,
    *,
    generators: Sequence[torch.Generator | np.random.Generator],
    validation_rmse: Callable[[], float] | None,
    advance: Advance,
) -> None:
    """Take one step of the optimiser for each loss of each epoch; the best weights are left.

    Args:
        network: what is trained; its weights ask for no gradient afterwards.
        batch_losses: called once an epoch; yields the losses of its batches one by one, each `[]`
            and computed with the weights of that moment.
        config: hyper-parameters.
        generators: all that `batch_losses` draws from; a resumed run finds them as they were.
        validation_rmse: error of the network as it is on validation users, called after each epoch;
            None where there are none: the last epoch is kept.
        advance: told of each epoch: `objective`, the mean over its batches, and `validation`; a
            `Stage` also keeps checkpoints.

    Raises:
        DivergenceError: the loss or a weight left the finite numbers.
    """
    parameters = list(network.parameters())
    # torch adds weight_decay * W to the gradient of what is here weight_decay * ||W||^2.
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.SGD
    optimizer = kind(
        parameters, lr=config.learning_rate, weight_decay=2 * config.weight_decay, fused=True
    )
    best = BestEpoch(parameters, patience=config.patience, select=config.select)
    parts = {
        "weights": parameters,
        "optimizer": optimizer,
        "best": best,
        "generators": list(generators),
    }
    stage = Stage.of(advance)
    for epoch in stage.epochs(config.epochs, parts, ended=lambda: best.ended):
        losses = []
        for loss in batch_losses():
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if config.clip_norm is not None:
                nn.utils.clip_grad_norm_(parameters, config.clip_norm)
            optimizer.step()
            losses.append(loss.detach())
        mean = float(torch.stack(losses).mean()) if losses else 0.0
        weights_finite = all(bool(parameter.isfinite().all()) for parameter in parameters)
        if not (math.isfinite(mean) and weights_finite):
            raise DivergenceError(
                "training diverged: the loss or a weight is not finite",
                where=f"mapping, epoch {epoch + 1} of {config.epochs}",
                fix="lower --mapping.learning-rate or --mapping.clip-norm",
            )
        values = {"objective": mean}
        if validation_rmse is not None:
            values["validation"] = validation_rmse()
        best.judge(values.get("validation"))
        stage(**values)
    network.requires_grad_(False)
    best.restore()


def rating_errors(mapped: Tensor, items: TargetItems, rows: MappingRows, some: Tensor) -> Tensor:
    """Predicted minus true ratings.

    Args:
        mapped: `[B, d]`, the mapped vector of each row's user.
        items: target items.
        rows: ratings `[n]`.
        some: `[B]` int64, which of them.
    """
    item = rows.items[some]
    return items.offsets[item] + (mapped * items.vectors[item]).sum(1) - rows.ratings[some]


def rating_rmse(
    user_vectors: Callable[[Tensor], Tensor], items: TargetItems, rows: MappingRows
) -> Callable[[], float] | None:
    """The RMSE over some ratings, to be asked again and again while a mapping trains.

    Args:
        user_vectors: from source users `[K]` int64 to mapped vectors `[K, d]`.
        items: target items.
        rows: the ratings; None is returned where there are none.
    """
    if not len(rows.ratings):
        return None
    users, position = torch.unique(rows.users, return_inverse=True)  # [K], [n]
    every = torch.arange(len(position), device=position.device)

    @torch.no_grad()
    def rmse() -> float:
        errors = rating_errors(user_vectors(users)[position], items, rows, every)
        return float(errors.square().mean().sqrt())

    return rmse
