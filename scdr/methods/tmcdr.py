"""TMCDR: the mapping of SCDR, trained by meta-learning (MAML).

Each step takes two disjoint groups of training users, a and b, with the rating loss
`L_g(theta) = mean over g's target ratings of (r - <f(u_s; theta), v_t>)^2`:

    theta' = theta - alpha grad L_a(theta)
    theta <- theta - Adam(d L_b(theta') / d theta),
    d L_b(theta') / d theta = (I - alpha H_a(theta)) grad L_b(theta')

H_a is the Hessian of L_a; first order leaves it out. A cold-start user is `f(u_s; theta)`. The
factors, from plain matrix factorisation, stay.

The authors published no code that could be found. Group size, alpha and epochs are ours, the
optimiser and its rate those of their later PTUPCDR.

Y. Zhu, K. Ge, F. Zhuang, R. Xie, D. Xi, X. Zhang, L. Lin, Q. He, "Transfer-meta framework for
cross-domain recommendation to cold-start users", SIGIR 2021, pages 1813-1817.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from scdr.data import TrainingData
from scdr.hyperparameters import STRICT, Count, Positive, PositiveCount, Real, within
from scdr.methods.base import (
    FactorPredictor,
    FitContext,
    Method,
    TargetUsers,
    training_rows,
    validation_rows,
)
from scdr.methods.pretraining import pretrain_domains
from scdr.models import PretrainConfig, TargetItems, target_items
from scdr.models.fold_in import RidgeFoldIn
from scdr.models.mapping import MappingRows, tanh_mlp
from scdr.models.mf import PAPER_PRETRAIN, PRETRAIN_SPACE
from scdr.models.standardise import Standardisation
from scdr.models.training import NETWORK_SPACE, NetworkTrainingConfig, rating_rmse, train_network


@dataclass(frozen=True, kw_only=True)
class MetaLearningConfig(NetworkTrainingConfig):
    """Training of TMCDR's mapping."""

    hidden: PositiveCount = 50
    """Hidden units of the d - hidden - d tanh network."""
    group_size: PositiveCount = 16
    """Users in each of the two groups of a step; fewer where there are not so many."""
    inner_learning_rate: Positive = 0.01
    """Learning rate alpha of the step on the first group."""
    first_order: bool = False
    """Leave out the Hessian of the first group's loss."""
    epochs: Count = 60
    """Passes over the training users, at most."""
    patience: PositiveCount = 10
    """Stop after so many epochs without a better result on validation users."""
    learning_rate: Positive = 0.003
    """Learning rate on the loss of the second group."""
    standardise: bool = True
    """Scale each coordinate of the source vectors to mean 0 and deviation 1."""
    zero_readout: bool = True
    """Start the last layer at zero, so that training starts from the item biases."""


@dataclass(frozen=True, kw_only=True)
class TmcdrConfig:
    """Hyper-parameters of TMCDR."""

    __pydantic_config__ = STRICT

    pretrain: PretrainConfig = field(default_factory=lambda: replace(PretrainConfig(), steps=0))
    mapping: MetaLearningConfig = field(default_factory=MetaLearningConfig)


def fit(data: TrainingData, config: TmcdrConfig, context: FitContext) -> FactorPredictor:
    """Pretrain both domains, then train the mapping.

    Raises:
        DivergenceError: a stage left the finite numbers.
    """
    source, target = pretrain_domains(data, config.pretrain, context)
    items = target_items(target, data.target, keep_untrained=config.pretrain.keep_untrained)
    raw = source.user_vectors()  # [U_s, d_source]
    scale = Standardisation.of(raw, enabled=config.mapping.standardise)
    vectors = scale.apply(raw)
    generator = torch.Generator().manual_seed(context.seed)
    mapping = tanh_mlp(
        raw.shape[1],
        config.mapping.hidden,
        items.vectors.shape[1],
        zero_readout=config.mapping.zero_readout,
        generator=generator,
    ).to(context.device)
    users = Users(vectors, items, training_rows(data, context.device))

    def losses() -> Iterator[Tensor]:
        for first, second in group_pairs(len(users), config.mapping.group_size, generator):
            yield meta_loss(mapping, users.take(first), users.take(second), config=config.mapping)

    with context.mapping_stage(config.mapping.epochs) as advance:
        train_network(
            mapping,
            losses,
            config.mapping,
            generators=[generator],
            validation_rmse=rating_rmse(
                lambda some: mapping(vectors[some]), items, validation_rows(data, context.device)
            ),
            advance=advance,
        )
    return FactorPredictor(
        raw,
        scale.fold_into(mapping),
        items,
        fold_in=RidgeFoldIn.as_pretrained(source, config.pretrain),
        target_users=TargetUsers.of(target.user_vectors(), data.target),
    )


@dataclass(frozen=True, slots=True)
class Group:
    """Some users and all their target ratings.

    Attributes:
        vectors: `[K, d_source]`, the users' source vectors.
        position: `[B]` int64, the user of each rating among them.
        items: `[B, d_target]`, the vector of each rating's item.
        residuals: `[B]`, ratings less what does not depend on the user.
    """

    vectors: Tensor
    position: Tensor
    items: Tensor
    residuals: Tensor

    def loss(self, mapped: Tensor) -> Tensor:
        """Mean squared error over the ratings, `[]`, from mapped vectors `[K, d_target]`."""
        prediction = (mapped[self.position] * self.items).sum(1)
        return (prediction - self.residuals).square().mean()


class Users:
    """Training users with at least one target rating."""

    def __init__(self, vectors: Tensor, items: TargetItems, rows: MappingRows) -> None:
        """Sort the ratings `[n]` by user."""
        order = torch.argsort(rows.users, stable=True)
        users, self._counts = torch.unique(rows.users[order], return_counts=True)  # [T], [T]
        self._vectors = vectors[users]  # [T, d_source]
        self._item_vectors, self._items = items.vectors, rows.items[order]
        self._residuals = (rows.ratings - items.offsets[rows.items])[order]  # [n]
        self._starts = self._counts.cumsum(0) - self._counts  # [T]

    def __len__(self) -> int:
        """How many there are."""
        return len(self._counts)

    def take(self, users: Tensor) -> Group:
        """The group of some of them, `[K]` int64 on any device."""
        users = users.to(self._counts.device)
        counts = self._counts[users]
        position = torch.repeat_interleave(torch.arange(len(users), device=users.device), counts)
        within = (
            torch.arange(len(position), device=users.device) - (counts.cumsum(0) - counts)[position]
        )
        rows = self._starts[users][position] + within
        return Group(
            self._vectors[users],
            position,
            self._item_vectors[self._items[rows]],
            self._residuals[rows],
        )


def group_pairs(
    users: int, size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Disjoint pairs of groups that together hold every user once; the last may be smaller.

    A single user left over is in no pair.
    """
    for both in torch.randperm(users, generator=generator).split(2 * size):
        half = len(both) // 2
        if half:
            yield both[:half], both[half:]


def meta_loss(
    mapping: nn.Module, first: Group, second: Group, *, config: MetaLearningConfig
) -> Tensor:
    """The loss of the second group after a gradient step on the first, `[]`.

    Its gradient in the mapping's weights is of second order unless `config.first_order`.
    """
    theta: dict[str, Tensor] = dict(mapping.named_parameters())
    loss = first.loss(torch.func.functional_call(mapping, theta, first.vectors))
    gradients = torch.autograd.grad(loss, list(theta.values()), create_graph=not config.first_order)
    adapted = {
        name: weight - config.inner_learning_rate * gradient
        for (name, weight), gradient in zip(theta.items(), gradients, strict=True)
    }
    return second.loss(torch.func.functional_call(mapping, adapted, second.vectors))


TMCDR = Method(
    name="tmcdr",
    title="TMCDR",
    citation="Zhu et al.: Transfer-meta framework for CDR (SIGIR 2021)",
    cross_domain=True,
    mapping_based=True,
    presets={
        "default": TmcdrConfig(),
        "paper": TmcdrConfig(
            pretrain=replace(PAPER_PRETRAIN, steps=0),
            mapping=MetaLearningConfig(
                learning_rate=0.01,
                clip_norm=None,
                standardise=False,
                zero_readout=False,
                select="last",
            ),
        ),
    },
    fit=fit,
    search_space=within("pretrain", PRETRAIN_SPACE)
    | within("mapping", {**NETWORK_SPACE, "inner_learning_rate": Real(0.001, 0.1)}),
)
