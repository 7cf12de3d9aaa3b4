"""PTUPCDR: a bridge of each user's own from source to target vectors.

A meta network generates it from the last source items that the user liked (v_i, at most 20):

    a_i = w . relu(A v_i + b),  p_u = sum_i softmax(a)_i v_i          (characteristic encoder)
    M_u = reshape(W2 relu(W1 p_u + b1) + b2)                          (meta network, d x d)
    f_u(u_s) = u_s M_u

It is trained on the task itself, `min sum (r - <f_u(u_s), v_t>)^2` over target ratings of training
users; the factors, from plain matrix factorisation, stay.

The paper preset is the recipe of the authors' code (github.com/easezyc/WSDM2022-PTUPCDR): Adam at
0.01 in all stages, 10 epochs each, 128 ratings a batch, 50 hidden units, ratings above 3 are
likings. It differs in three places. That code reports the best epoch on the test users; here it is
the last. That code pads histories with item 0, which so gets no attention where it was liked; here
it does. A user who liked nothing has the untrained vector of an item that does not exist as its
characteristic there, and the zero vector here, so that all such users share one bridge.

Y. Zhu, Z. Tang, Y. Liu, F. Zhuang, R. Xie, X. Zhang, L. Lin, Q. He, "Personalized transfer of user
preferences for cross-domain recommendation", WSDM 2022, pages 1507-1515.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from scdr.data import TrainingData
from scdr.hyperparameters import STRICT, Count, Positive, PositiveCount, within
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
from scdr.models.mapping import MappingRows
from scdr.models.mf import DENSE_ADAM_PRETRAIN, PRETRAIN_SPACE
from scdr.models.personal import PersonalMapping, liked_history
from scdr.models.training import (
    NETWORK_SPACE,
    NetworkTrainingConfig,
    rating_errors,
    rating_rmse,
    train_network,
)


@dataclass(frozen=True, kw_only=True)
class MetaNetworkConfig(NetworkTrainingConfig):
    """The meta network of PTUPCDR and its training."""

    hidden: PositiveCount = 50
    """Hidden units of the network that decodes a characteristic into a bridge."""
    history: PositiveCount = 20
    """Last liked source items of a user that are attended to, at most."""
    liked_above: float = 3.0
    """A source item rated above this is liked, in the units of the ratings."""
    epochs: Count = 20
    """Passes over the target ratings of training users, at most."""
    batch_size: PositiveCount = 256
    """Ratings a batch."""
    learning_rate: Positive = 0.001
    """Learning rate on the mean over a batch."""
    zero_readout: bool = True
    """Start the last layer at zero, so that training starts from the item biases."""


@dataclass(frozen=True, kw_only=True)
class PtupcdrConfig:
    """Hyper-parameters of PTUPCDR."""

    __pydantic_config__ = STRICT

    pretrain: PretrainConfig = field(default_factory=lambda: replace(PretrainConfig(), steps=0))
    mapping: MetaNetworkConfig = field(default_factory=MetaNetworkConfig)


def fit(data: TrainingData, config: PtupcdrConfig, context: FitContext) -> FactorPredictor:
    """Pretrain both domains, then train the meta network.

    Raises:
        DivergenceError: a stage left the finite numbers.
    """
    source, target = pretrain_domains(data, config.pretrain, context)
    items = target_items(target, data.target, keep_untrained=config.pretrain.keep_untrained)
    vectors = source.user_vectors()  # [U_s, d_source]
    history = liked_history(
        data.source, length=config.mapping.history, liked_above=config.mapping.liked_above
    )
    generator = torch.Generator().manual_seed(context.seed)
    mapping = PersonalMapping(
        source.item_vectors(),
        torch.from_numpy(history).to(context.device),
        source_width=vectors.shape[1],
        target_width=items.vectors.shape[1],
        hidden=config.mapping.hidden,
        liked_above=config.mapping.liked_above,
        zero_readout=config.mapping.zero_readout,
        generator=generator,
    )

    def mapped(users: Tensor) -> Tensor:
        result: Tensor = mapping(vectors[users], users)
        return result

    training = training_rows(data, context.device)
    with context.mapping_stage(config.mapping.epochs) as advance:
        train_network(
            mapping,
            lambda: rating_losses(mapped, items, training, config.mapping.batch_size, generator),
            config.mapping,
            generators=[generator],
            validation_rmse=rating_rmse(mapped, items, validation_rows(data, context.device)),
            advance=advance,
        )
    return FactorPredictor(
        vectors,
        mapping,
        items,
        fold_in=RidgeFoldIn.as_pretrained(source, config.pretrain),
        target_users=TargetUsers.of(target.user_vectors(), data.target),
    )


def rating_losses(
    mapped: Callable[[Tensor], Tensor],
    items: TargetItems,
    rows: MappingRows,
    batch_size: int,
    generator: torch.Generator,
) -> Iterator[Tensor]:
    """Mean squared error of each batch of an epoch; `mapped` maps source users `[B]`."""
    order = torch.randperm(len(rows.ratings), generator=generator).to(rows.ratings.device)
    for some in order.split(batch_size):
        yield rating_errors(mapped(rows.users[some]), items, rows, some).square().mean()


PTUPCDR = Method(
    name="ptupcdr",
    title="PTUPCDR",
    citation="Zhu et al.: Personalized transfer of user preferences (WSDM 2022)",
    cross_domain=True,
    mapping_based=True,
    presets={
        "default": PtupcdrConfig(),
        "paper": PtupcdrConfig(
            pretrain=DENSE_ADAM_PRETRAIN,
            mapping=MetaNetworkConfig(
                epochs=10,
                batch_size=128,
                learning_rate=0.01,
                clip_norm=None,
                zero_readout=False,
                select="last",
            ),
        ),
    },
    fit=fit,
    search_space=within("pretrain", PRETRAIN_SPACE) | within("mapping", NETWORK_SPACE),
)
