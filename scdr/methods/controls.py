"""The controls: predictions without factors, that every method must beat to be worth its cost.

Biases of each domain come from `fit_biases` (penalties 5 and 1.5, 15 sweeps). `mu_t` is the mean
target rating, `b_i` the target item bias, `b_s` the source user bias.

- global mean: `mu_t`.
- item mean: `mu_t + sum(r - mu_t) / (n_i + 5)`.
- bias transfer: `mu_t + b_i + a + c b_s`, a and c by regressing the target user bias on `b_s` over
  training users, ridge 1 on c.
- bias transfer, weighted: the same form, a and c by regressing `r - mu_t - b_i` on `b_s` over all
  target ratings of training users, ridge 10 on c.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from scdr.data import TrainingData, source_users
from scdr.hyperparameters import STRICT
from scdr.methods.base import FactorPredictor, FitContext, Method
from scdr.models import TargetItems

Column = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ControlConfig:
    """The controls have no hyper-parameters to choose."""

    __pydantic_config__ = STRICT


def _global_mean(data: TrainingData, context: FitContext) -> tuple[Column, Column, float]:
    mean = float(data.target.ratings.mean(dtype=np.float64))
    return np.zeros(data.source.n_users), np.full(data.target.n_items, mean), mean


def _item_mean(data: TrainingData, context: FitContext) -> tuple[Column, Column, float]:
    target = data.target
    mean = float(target.ratings.mean(dtype=np.float64))
    count = np.bincount(target.items, minlength=target.n_items)
    total = np.bincount(target.items, target.ratings - mean, target.n_items)
    return np.zeros(data.source.n_users), mean + total / (count + 5.0), mean


def _bias_transfer(data: TrainingData, context: FitContext) -> tuple[Column, Column, float]:
    source, target = context.biases(data.source), context.biases(data.target)
    intercept, slope = ridge_line(
        source.user[data.train_pairs[:, 0]], target.user[data.train_pairs[:, 1]], penalty=1.0
    )
    return intercept + slope * source.user, target.mean + target.item, target.mean


def _bias_transfer_weighted(
    data: TrainingData, context: FitContext
) -> tuple[Column, Column, float]:
    source, target = context.biases(data.source), context.biases(data.target)
    rows = data.target.take(np.isin(data.target.users, data.train_pairs[:, 1]))
    intercept, slope = ridge_line(
        source.user[source_users(data.train_pairs, rows)],
        rows.ratings - target.mean - target.item[rows.items],
        penalty=10.0,
    )
    return intercept + slope * source.user, target.mean + target.item, target.mean


def ridge_line(x: Column, y: Column, *, penalty: float) -> tuple[float, float]:
    """Intercept and slope of `y` on `x`, both `[n]`; the penalty is on the slope alone."""
    if len(x) == 0:
        return 0.0, 0.0
    centred = x - x.mean()
    slope = float((centred * (y - y.mean())).sum() / ((centred * centred).sum() + penalty))
    return float(y.mean() - slope * x.mean()), slope


def _control(
    name: str,
    title: str,
    offsets: Callable[[TrainingData, FitContext], tuple[Column, Column, float]],
    *,
    cross_domain: bool,
) -> Method:
    def fit(data: TrainingData, config: ControlConfig, context: FitContext) -> FactorPredictor:
        user, item, unseen = offsets(data, context)
        item_offsets = torch.from_numpy(np.append(item, unseen).astype(np.float32))  # [I + 1]
        items = TargetItems(
            vectors=torch.ones(len(item_offsets), 1), offsets=item_offsets, priors=item_offsets
        )
        return FactorPredictor(torch.from_numpy(user.astype(np.float32))[:, None], None, items)

    return Method(
        name=name,
        title=title,
        citation="a control",
        cross_domain=cross_domain,
        mapping_based=False,
        presets={"default": ControlConfig(), "paper": ControlConfig()},
        fit=fit,
    )


GLOBAL_MEAN = _control("global_mean", "Global mean", _global_mean, cross_domain=False)
ITEM_MEAN = _control("item_mean", "Item mean", _item_mean, cross_domain=False)
BIAS_TRANSFER = _control("bias_transfer", "Bias transfer", _bias_transfer, cross_domain=True)
BIAS_TRANSFER_WEIGHTED = _control(
    "bias_transfer_weighted",
    "Bias transfer, weighted",
    _bias_transfer_weighted,
    cross_domain=True,
)
