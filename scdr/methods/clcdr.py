"""CLCDR: a mapping trained on ratings and on two contrasts.

With `s` the cosine, temperature tau, and a batch of target ratings (u, i, r) of training users:

    L = mean (r - <f(u_s), v_i>)^2
        + w_user mean_u -log( exp(s(f(u_s), u_t)/tau) / sum_u' exp(s(f(u_s), u'_t)/tau) )
        + w_item mean_(u,i) -log( exp(s(f(u_s), v_i)/tau)
                                  / (exp(s(f(u_s), v_i)/tau) + sum_j exp(s(f(u_s), v_j)/tau)) )

u' runs over the distinct users of the batch; j over its distinct items that u has no rating of in
the batch. f is the network of SCDR; the factors, from plain matrix factorisation, stay.

CLCDR is published for top-N. This is a rating form of ours (docs/protocol.md, P8), and so are the
temperature, the weights and the optimiser, which is that of the other baselines.

Y. Chen, Y. Yao, W. K. V. Chan, "CLCDR: contrastive learning for cross-domain recommendation to
cold-start users", ICONIP 2022, pages 331-342.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from scdr.data import TrainingData
from scdr.hyperparameters import STRICT, Count, NonNegative, Positive, PositiveCount, Real, within
from scdr.methods.base import (
    FactorPredictor,
    FitContext,
    Method,
    TargetUsers,
    training_rows,
    validation_rows,
)
from scdr.methods.pretraining import pretrain_domains
from scdr.models import PretrainConfig, target_items
from scdr.models.fold_in import RidgeFoldIn
from scdr.models.mapping import tanh_mlp
from scdr.models.mf import PAPER_PRETRAIN, PRETRAIN_SPACE
from scdr.models.standardise import Standardisation
from scdr.models.training import (
    NETWORK_SPACE,
    NetworkTrainingConfig,
    rating_errors,
    rating_rmse,
    train_network,
)


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig(NetworkTrainingConfig):
    """Training of CLCDR's mapping."""

    hidden: PositiveCount = 50
    """Hidden units of the d - hidden - d tanh network."""
    temperature: Positive = 0.1
    """Temperature tau of both contrasts."""
    user_weight: NonNegative = 0.1
    """Weight of the contrast between users."""
    item_weight: NonNegative = 0.1
    """Weight of the contrast between items."""
    epochs: Count = 20
    """Passes over the target ratings of training users, at most."""
    batch_size: PositiveCount = 512
    """Ratings a batch."""
    learning_rate: Positive = 0.001
    """Learning rate on the mean over a batch."""
    standardise: bool = True
    """Scale each coordinate of the source vectors to mean 0 and deviation 1."""
    zero_readout: bool = True
    """Start the last layer at zero, so that training starts from the item biases."""


@dataclass(frozen=True, kw_only=True)
class ClcdrConfig:
    """Hyper-parameters of CLCDR."""

    __pydantic_config__ = STRICT

    pretrain: PretrainConfig = field(default_factory=lambda: replace(PretrainConfig(), steps=0))
    mapping: ContrastiveConfig = field(default_factory=ContrastiveConfig)


def fit(data: TrainingData, config: ClcdrConfig, context: FitContext) -> FactorPredictor:
    """Pretrain both domains, then train the mapping.

    Raises:
        DivergenceError: a stage left the finite numbers.
    """
    source, target = pretrain_domains(data, config.pretrain, context)
    items = target_items(target, data.target, keep_untrained=config.pretrain.keep_untrained)
    raw = source.user_vectors()  # [U_s, d_source]
    scale = Standardisation.of(raw, enabled=config.mapping.standardise)
    vectors = scale.apply(raw)
    own = raw.new_zeros(len(raw), items.vectors.shape[1])  # [U_s, d_target], training users' rows
    pairs = torch.from_numpy(data.train_pairs).long().to(context.device)
    own[pairs[:, 0]] = target.user_vectors()[pairs[:, 1]]
    generator = torch.Generator().manual_seed(context.seed)
    mapping = tanh_mlp(
        raw.shape[1],
        config.mapping.hidden,
        items.vectors.shape[1],
        zero_readout=config.mapping.zero_readout,
        generator=generator,
    ).to(context.device)
    rows = training_rows(data, context.device)

    def losses() -> Iterator[Tensor]:
        order = torch.randperm(len(rows.ratings), generator=generator).to(context.device)
        for some in order.split(config.mapping.batch_size):
            users, user = torch.unique(rows.users[some], return_inverse=True)  # [K], [B]
            rated, item = torch.unique(rows.items[some], return_inverse=True)  # [J], [B]
            mapped = mapping(vectors[users])  # [K, d_target]
            errors = rating_errors(mapped[user], items, rows, some)
            yield (
                errors.square().mean()
                + config.mapping.user_weight * user_contrast(mapped, own[users], config.mapping)
                + config.mapping.item_weight
                * item_contrast(mapped, items.vectors[rated], user, item, config.mapping)
            )

    with context.mapping_stage(config.mapping.epochs) as advance:
        train_network(
            mapping,
            losses,
            config.mapping,
            generators=[generator],
            validation_rmse=rating_rmse(
                lambda users: mapping(vectors[users]), items, validation_rows(data, context.device)
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


def user_contrast(mapped: Tensor, own: Tensor, config: ContrastiveConfig) -> Tensor:
    """The contrast between users, `[]`.

    Args:
        mapped: `f(u_s)` of distinct users, `[K, d]`.
        own: their target vectors u_t, `[K, d]`.
        config: the temperature.
    """
    logits = _cosines(mapped, own) / config.temperature  # [K, K]
    return nn.functional.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def item_contrast(
    mapped: Tensor, vectors: Tensor, user: Tensor, item: Tensor, config: ContrastiveConfig
) -> Tensor:
    """The contrast between items, `[]`.

    Args:
        mapped: `f(u_s)` of distinct users, `[K, d]`.
        vectors: distinct items, `[J, d]`.
        user: `[B]` int64, the user of each rating.
        item: `[B]` int64, its item.
        config: the temperature.
    """
    logits = _cosines(mapped, vectors) / config.temperature  # [K, J]
    rated = torch.zeros_like(logits, dtype=torch.bool)
    rated[user, item] = True
    # A finite filler, so that a user who rated every item of the batch has a gradient.
    others = logits.masked_fill(rated, torch.finfo(logits.dtype).min).logsumexp(1)  # [K]
    return nn.functional.softplus(others[user] - logits[user, item]).mean()


def _cosines(first: Tensor, second: Tensor) -> Tensor:
    """Of each row of `[K, d]` with each of `[J, d]`, `[K, J]`."""
    return nn.functional.normalize(first) @ nn.functional.normalize(second).T


CLCDR = Method(
    name="clcdr",
    title="CLCDR",
    citation="Chen, Yao, Chan: CLCDR (ICONIP 2022), in a rating form of ours",
    cross_domain=True,
    mapping_based=True,
    presets={
        "default": ClcdrConfig(),
        "paper": ClcdrConfig(
            pretrain=replace(PAPER_PRETRAIN, steps=0),
            mapping=ContrastiveConfig(
                epochs=10,
                batch_size=256,
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
    | within(
        "mapping",
        {
            **NETWORK_SPACE,
            "temperature": Real(0.02, 1.0),
            "user_weight": Real(0.01, 1.0),
            "item_weight": Real(0.01, 1.0),
        },
    ),
)
