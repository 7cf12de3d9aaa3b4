"""SSCDR: a mapping that also keeps users near the source items they rated.

For a training user u, a source item i+ that u rated and one i- that u did not:

    min_theta sum_u ||f(u_s) - u_t||^2 + w max(0, m + ||f(i+) - u_t||^2 - ||f(i-) - u_t||^2)

with f linear, the same for users and items, and i+ and i- drawn anew, uniformly, for each user in
each epoch. A user who rated every source item has no i-, and only the first term. The factors come
from plain matrix factorisation, as those of the other methods; the authors use metric learning, and
infer a cold-start user from its neighbours too. The paper preset has w = m = 1; Adam at 0.01, 64
users a batch and 100 epochs are ours.

S. Kang, J. Hwang, D. Lee, H. Yu, "Semi-supervised learning for cross-domain recommendation to
cold-start users", CIKM 2019, pages 1563-1572.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scdr.data import Interactions, TrainingData
from scdr.hyperparameters import STRICT, Count, NonNegative, PositiveCount, Real, within
from scdr.methods.base import FactorPredictor, FitContext, Method, TargetUsers, validation_rows
from scdr.methods.pretraining import pretrain_domains
from scdr.models import PretrainConfig, target_items
from scdr.models.fold_in import RidgeFoldIn
from scdr.models.mapping import draw_linear
from scdr.models.mf import PAPER_PRETRAIN, PRETRAIN_SPACE
from scdr.models.training import NETWORK_SPACE, NetworkTrainingConfig, rating_rmse, train_network


@dataclass(frozen=True, kw_only=True)
class SemiSupervisedConfig(NetworkTrainingConfig):
    """Training of SSCDR's mapping."""

    margin: NonNegative = 1.0
    """By how much a rated item must be nearer than another, in squared distance."""
    item_weight: NonNegative = 1.0
    """Weight of the term of the items."""
    epochs: Count = 100
    """Passes over the training users, at most."""
    batch_size: PositiveCount = 64
    """Users a batch."""


@dataclass(frozen=True, kw_only=True)
class SscdrConfig:
    """Hyper-parameters of SSCDR."""

    __pydantic_config__ = STRICT

    pretrain: PretrainConfig = field(default_factory=lambda: replace(PretrainConfig(), steps=0))
    mapping: SemiSupervisedConfig = field(default_factory=SemiSupervisedConfig)


def fit(data: TrainingData, config: SscdrConfig, context: FitContext) -> FactorPredictor:
    """Pretrain both domains, then train the mapping.

    Raises:
        DivergenceError: a stage left the finite numbers.
    """
    source, target = pretrain_domains(data, config.pretrain, context)
    vectors, item_vectors = source.user_vectors(), source.item_vectors()
    items = target_items(target, data.target, keep_untrained=config.pretrain.keep_untrained)
    pairs = torch.from_numpy(data.train_pairs).long().to(context.device)  # [T, 2]
    users, own = vectors[pairs[:, 0]], target.user_vectors()[pairs[:, 1]]
    sampler = ItemSampler(data.source, data.train_pairs[:, 0])
    generator = torch.Generator().manual_seed(context.seed)
    draws = np.random.default_rng((context.seed, 2))
    mapping = nn.Linear(vectors.shape[1], own.shape[1])
    draw_linear(mapping, generator)
    mapping.to(context.device)

    def losses() -> Iterator[Tensor]:
        rated, other = (torch.from_numpy(drawn).to(context.device) for drawn in sampler.draw(draws))
        order = torch.randperm(len(users), generator=generator).to(context.device)
        for some in order.split(config.mapping.batch_size):
            yield sscdr_losses(
                mapping(users[some]),
                own[some],
                mapping(item_vectors[rated[some]]),
                mapping(item_vectors[other[some]]),
                has_other=other[some] >= 0,
                config=config.mapping,
            ).mean()

    with context.mapping_stage(config.mapping.epochs) as advance:
        train_network(
            mapping,
            losses,
            config.mapping,
            generators=[generator, draws],
            validation_rmse=rating_rmse(
                lambda some: mapping(vectors[some]), items, validation_rows(data, context.device)
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


def sscdr_losses(
    mapped_user: Tensor,
    user: Tensor,
    mapped_rated: Tensor,
    mapped_other: Tensor,
    *,
    has_other: Tensor,
    config: SemiSupervisedConfig,
) -> Tensor:
    """The loss of each user, `[B]`.

    Args:
        mapped_user: `f(u_s)`, `[B, d]`.
        user: `u_t`, `[B, d]`.
        mapped_rated: `f(i+)`, `[B, d]`.
        mapped_other: `f(i-)`, `[B, d]`.
        has_other: `[B]` bool, whether there is an i-.
        config: margin and weight.
    """

    def distance(mapped: Tensor) -> Tensor:
        return (mapped - user).square().sum(1)

    hinge = (config.margin + distance(mapped_rated) - distance(mapped_other)).clamp_min(0.0)
    return distance(mapped_user) + config.item_weight * hinge * has_other


class ItemSampler:
    """Draws for each of some users a source item that the user rated and one that it did not."""

    def __init__(self, interactions: Interactions, users: NDArray[np.int32]) -> None:
        """Take the ratings of a domain and the users `[T]` to draw for, each with a rating."""
        self._n_items = interactions.n_items
        place = np.full(interactions.n_users, -1, dtype=np.int64)
        place[users] = np.arange(len(users))
        user = place[interactions.users]
        keys = np.unique((user * self._n_items + interactions.items)[user >= 0])
        user, self._rated = keys // self._n_items, keys % self._n_items  # sorted by user, then item
        self._count = np.bincount(user, minlength=len(users))  # [T]
        self._start = np.cumsum(self._count) - self._count  # [T]
        # Before a user's j-th rated item lie so many others; it rises along the whole array.
        self._others_before = (
            user * (self._n_items + 1) + self._rated - (np.arange(len(keys)) - self._start[user])
        )

    def draw(self, generator: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each user one rated item and one other, each uniform, int64 `[T]`.

        The other is -1 where the user rated every item.
        """
        users = np.arange(len(self._count))
        rated = self._rated[self._start + generator.integers(self._count)]
        free = self._n_items - self._count
        rank = generator.integers(np.maximum(free, 1))  # among the items a user did not rate
        key = users * (self._n_items + 1) + rank
        passed = np.searchsorted(self._others_before, key, side="right") - self._start
        return rated, np.where(free > 0, rank + passed, -1)


SSCDR = Method(
    name="sscdr",
    title="SSCDR",
    citation="Kang, Hwang, Lee, Yu: Semi-supervised learning for CDR (CIKM 2019)",
    cross_domain=True,
    mapping_based=True,
    presets={
        "default": SscdrConfig(),
        "paper": SscdrConfig(
            pretrain=replace(PAPER_PRETRAIN, steps=0),
            mapping=SemiSupervisedConfig(clip_norm=None, select="last"),
        ),
    },
    fit=fit,
    search_space=within("pretrain", PRETRAIN_SPACE)
    | within(
        "mapping", {**NETWORK_SPACE, "margin": Real(0.1, 10.0), "item_weight": Real(0.01, 10.0)}
    ),
)
