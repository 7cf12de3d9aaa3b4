"""SCDR-B, SCDR with biases: an empirical-Bayes hierarchy, a bilinear mapping, a distribution.

1. Each domain: `r = mu + b_u + b_i + <u, v> + e` with Gaussian priors learned from the domain
   (`scdr.models.empirical_bayes`). Where the ratings hold no factors, these switch themselves off.
2. A source user is `z = (profile, u)`: the bias and six numbers of rating style, standardised over
   training and validation users, and the factors over their prior deviation. No target rating
   enters z.
3. A target item is `y = (1, b_i / s_b, v_i / s_v)`, s the prior deviations. For training, the
   posterior of the item is taken without the very rating that is predicted, in closed form: with
   it, the mapping would learn too steep a slope.
4. Mapping: `r = mu + b_i + (1, z)' A y` by ridge regression over the ratings of training users,
   weights `n_0 / (n_u + n_0)` with n_0 = 100, minimised against perturbations of the factors in a
   ball (Eq. 9) where `radius` is not 0 (`scdr.models.bilinear_mapping`).
5. The distribution of a rating around its linear prediction (`scdr.models.rating_distribution`) is
   fitted to predictions of training ratings by mappings that were trained without their users. From
   it come the median, the mean, what lies between, and a standard deviation.

6. Feedback: the first mapping gives training users a prior mean in the target, `A' (1, z)`; a few
   sweeps of the target's model later, steps 3 to 5 are done with its better items.

The penalties of step 4 count ratings, since all coordinates have deviation 1: a user's bias moves
all items (30), style does so less (300), and hardly changes how much an item's own bias or factors
count (3000). That on what source factors do is chosen once, before step 6, as the one with which
training users are predicted best by mappings trained without them: where taste does not transfer,
factors are worth less than they are within a domain.

After G. Zeng, Q. Zhang, G. Zhang, J. Lu, "Sharpness-Aware Cross-Domain Recommendation to Cold-Start
Users"; D. Agarwal, B.-C. Chen, "Regression-based latent factor models", KDD 2009.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scdr.data import Interactions, TrainingData, source_users
from scdr.hyperparameters import (
    STRICT,
    Count,
    NonNegative,
    Positive,
    PositiveCount,
    Real,
    SearchSpace,
    within,
)
from scdr.methods.base import FactorPredictor, FitContext, Method, TargetUsers
from scdr.models import TargetItems
from scdr.models.bilinear_mapping import (
    BilinearRows,
    NormalEquations,
    normal_equations,
    sharp_coefficients,
)
from scdr.models.empirical_bayes import EmpiricalBayes, FactorConfig, fit_factors
from scdr.models.profile_fold_in import ProfileFoldIn
from scdr.models.rating_distribution import (
    Optimise,
    fit_rating_distribution,
)
from scdr.models.user_profile import PROFILE, UserProfiles
from scdr.ops.threads import one_thread

_INTERCEPT_PENALTY = 1e-3
FACTOR_PENALTIES = (1e3, 1e4, 1e5)
"""Penalties on the map between factors to choose from."""


@dataclass(frozen=True, kw_only=True)
class BilinearMappingConfig:
    """The mapping, between vectors of deviation 1, so that penalties count ratings."""

    __pydantic_config__ = STRICT

    radius: NonNegative = 0.0
    """Radius rho of the perturbation of a source user's factors, in prior deviations; 0: none."""
    bias_penalty: NonNegative = 30.0
    """Penalty on the target bias that goes with a source bias."""
    style_penalty: NonNegative = 300.0
    """Penalty on the target bias that goes with style, and on what all users share in item bias and
    item factors."""
    interaction_penalty: NonNegative = 3000.0
    """Penalty on how profiles change the weight of item bias and item factors, and factors that
    of item bias."""
    factor_penalty: Positive | None = None
    """Penalty on the map from source factors to target bias and factors; None: 1,000, 10,000 or
    100,000, whichever predicts training users best without their own ratings."""
    full_weight: Positive = 100.0
    """n_0: a user of n_u ratings has the weight of `n_u n_0 / (n_u + n_0)` ratings."""
    folds: PositiveCount = 20
    """Groups of training users; each is predicted without its own ratings."""


MAPPING_SPACE: SearchSpace = {
    "radius": Real(0.01, 0.5),
    "bias_penalty": Real(5.0, 500.0),
    "style_penalty": Real(50.0, 5000.0),
    "interaction_penalty": Real(300.0, 30_000.0),
}
"""What a search may vary; the first trial is the preset, without sharpness."""


@dataclass(frozen=True, kw_only=True)
class ScdrBConfig:
    """Hyper-parameters of SCDR-B."""

    __pydantic_config__ = STRICT

    optimise: Optimise = "both"
    """What predictions are made for: mae (the median), rmse (the mean), or both (between them)."""
    feedback_sweeps: Count = 6
    """Updates of the target's factor model once its training users have the mapped source as their
    prior mean."""
    factors: FactorConfig = field(default_factory=FactorConfig)
    mapping: BilinearMappingConfig = field(default_factory=BilinearMappingConfig)


@one_thread()
def fit(data: TrainingData, config: ScdrBConfig, context: FitContext) -> FactorPredictor:
    """Fit the hierarchy: factors of both domains, mapping, distribution."""
    source = _factors(data.source, config.factors, context, "source")
    target = _factors(data.target, config.factors, context, "target")
    return fit_between(source, target, data, config, context)


@one_thread()
def fit_between(
    source: EmpiricalBayes,
    target: EmpiricalBayes,
    data: TrainingData,
    config: ScdrBConfig,
    context: FitContext,
) -> FactorPredictor:
    """Steps 2 to 6, between fitted factor models of the two domains; the target's goes on."""
    with context.progress.timed("mapping"):
        vectors, fold_in = _user_vectors(data, source)  # [U_s, 7 + d]
        rows = _training_rows(data, target, vectors, config.mapping)
        candidates = _penalties(config.factors.dimension, config.mapping)
        with context.progress.stage("mapping", len(candidates) + 1) as advance:
            fits = _fit_mappings(rows, candidates, config.mapping, context)
            errors = [_rmse(rows.residual - unseen, rows.weight) for _, unseen in fits]
            for error in errors:
                advance(loss=error)
            chosen = int(np.argmin(errors))
            coefficients = fits[chosen][0]
            if config.feedback_sweeps:
                _expect(target, data, vectors, coefficients)
                for _ in range(config.feedback_sweeps):
                    target.sweep(learn_priors=True)
                rows = _training_rows(data, target, vectors, config.mapping)
            [(coefficients, unseen)] = _fit_mappings(
                rows, candidates[chosen : chosen + 1], config.mapping, context
            )
            advance(loss=_rmse(rows.residual - unseen, rows.weight))
        items = _target_items(target)
        ratings = data.target.ratings[_of_training_users(data)].astype(np.float64)
        distribution = fit_rating_distribution(
            ratings - (rows.residual - unseen).numpy(),
            ratings,
            rows.weight.numpy(),
            np.unique(data.target.ratings).astype(np.float64),
        )
    return FactorPredictor(
        source_vectors=vectors.float().to(context.device),
        mapping=_linear(coefficients).to(context.device),
        items=TargetItems(
            *(part.to(context.device) for part in (items.vectors, items.offsets, items.priors))
        ),
        distribution=distribution,
        optimise=config.optimise,
        fold_in=fold_in,
        target_users=TargetUsers.of(
            torch.from_numpy(_own_vectors(target)).to(context.device), data.target
        ),
    )


def _factors(
    ratings: Interactions, config: FactorConfig, context: FitContext, domain: str
) -> EmpiricalBayes:
    sweeps = config.sweeps_over(len(ratings)) * (2 if config.dimension else 1)
    with (
        context.progress.timed("pretrain"),
        context.stage(f"pretrain {domain}", sweeps) as advance,
    ):
        return fit_factors(
            ratings, config, seed=context.seed, threads=context.threads, advance=advance
        )


def _user_vectors(data: TrainingData, model: EmpiricalBayes) -> tuple[Tensor, ProfileFoldIn]:
    """Vectors z of all source users, `[U_s, 7 + d]`, and what makes those of others."""
    known = np.concatenate([data.train_pairs[:, 0], data.validation_pairs[:, 0]])
    facts, profiles = UserProfiles.of(data.source, model, known)
    factors = model.users.mean[:, 1:] / model.users.deviation[1:]
    centre = factors[known].mean(0)
    vectors = torch.from_numpy(np.concatenate([profiles, factors - centre], axis=1))
    return vectors, ProfileFoldIn.of(model, data.source, facts, centre)


def _own_vectors(model: EmpiricalBayes) -> NDArray[np.float32]:
    """What multiplies y for a target user by the target's own model, `[U_t, 2 + d]`."""
    means = model.users.mean
    factors = means[:, 1:] * model.items.deviation[1:]
    return np.concatenate([means[:, :1], np.zeros_like(means[:, :1]), factors], axis=1).astype(
        np.float32
    )


def _expect(
    target: EmpiricalBayes, data: TrainingData, vectors: Tensor, coefficients: Tensor
) -> None:
    """Give training users the mapped source vector as the prior mean of their target vector.

    What multiplies (1, b_i, v_i) is (b_u, slope, u): the slope has no place in the factor model.
    """
    source = vectors[torch.from_numpy(data.train_pairs[:, 0]).long()]
    mapped = (coefficients[0] + source @ coefficients[1:]).numpy()
    means = np.delete(mapped, 1, axis=1)
    means[:, 1:] /= target.items.deviation[1:]
    target.expect_users(data.train_pairs[:, 1], means.astype(np.float32))


def _of_training_users(data: TrainingData) -> NDArray[np.bool_]:
    return np.isin(data.target.users, data.train_pairs[:, 1])


def _training_rows(
    data: TrainingData, model: EmpiricalBayes, vectors: Tensor, config: BilinearMappingConfig
) -> BilinearRows:
    """The target ratings of training users, each with its item's posterior without it."""
    ratings = data.target.take(_of_training_users(data))
    items = model.items_without(ratings.users, ratings.items, ratings.ratings)
    asked, user = np.unique(source_users(data.train_pairs, ratings), return_inverse=True)
    count = np.bincount(user)[user]
    return BilinearRows(
        user=torch.from_numpy(user),
        users=vectors[torch.from_numpy(asked).long()],
        items=torch.from_numpy(_item_vectors(items, model)),
        residual=torch.from_numpy(ratings.ratings.astype(np.float64) - model.mean - items[:, 0]),
        weight=torch.from_numpy(config.full_weight / (count + config.full_weight)),
    )


def _item_vectors(means: NDArray[np.floating], model: EmpiricalBayes) -> NDArray[np.float64]:
    """Vectors y `[n, 2 + d]` of posterior means `[n, 1 + d]`."""
    return np.concatenate([np.ones((len(means), 1)), means / model.items.deviation], axis=1)


def _target_items(model: EmpiricalBayes) -> TargetItems:
    """All target items, an unrated one and the last as an item of which nothing is known."""
    means = np.concatenate([model.items.mean, np.zeros_like(model.items.mean[:1])])
    offsets = torch.from_numpy((model.mean + means[:, 0]).astype(np.float32))
    vectors = torch.from_numpy(_item_vectors(means, model).astype(np.float32))
    return TargetItems(vectors=vectors, offsets=offsets, priors=offsets)


def _penalties(dimension: int, config: BilinearMappingConfig) -> list[Tensor]:
    """Penalties to choose from; there is nothing to choose without factors."""
    if config.factor_penalty is not None:
        return [_penalty(dimension, config, config.factor_penalty)]
    if not dimension:
        return [_penalty(dimension, config, FACTOR_PENALTIES[0])]
    return [_penalty(dimension, config, factor_penalty) for factor_penalty in FACTOR_PENALTIES]


def _penalty(dimension: int, config: BilinearMappingConfig, factor_penalty: float) -> Tensor:
    """The penalty on each entry of A: rows (1, bias, style, factors), columns (1, b_i, v_i)."""
    profile = len(PROFILE)
    penalty = torch.full((1 + profile + dimension, 2 + dimension), config.interaction_penalty)
    penalty[0] = config.style_penalty
    penalty[:, 0] = config.style_penalty
    penalty[0, 0] = _INTERCEPT_PENALTY
    penalty[1, 0] = config.bias_penalty
    penalty[1 + profile :, 0] = factor_penalty
    penalty[1 + profile :, 2:] = factor_penalty
    return penalty.double()


def _solve(
    equations: NormalEquations,
    rows: BilinearRows,
    penalty: Tensor,
    config: BilinearMappingConfig,
) -> Tensor:
    """A for these rows, whose normal equations are at hand."""
    ridge = equations.solve(penalty)
    factors = slice(len(PROFILE), rows.users.shape[1])
    if config.radius == 0 or factors.start == factors.stop:
        return ridge
    return sharp_coefficients(rows, ridge, penalty, radius=config.radius, moved=factors)


def _fit_mappings(
    rows: BilinearRows,
    penalties: Sequence[Tensor],
    config: BilinearMappingConfig,
    context: FitContext,
) -> list[tuple[Tensor, Tensor]]:
    """For each penalty A, and each rating `[n]` as predicted by a mapping without its user."""
    folds = min(config.folds, len(rows.users))
    order = np.random.default_rng((context.seed, 3)).permutation(len(rows.users))
    fold = torch.from_numpy(order % folds)[rows.user]
    everything = normal_equations(rows)
    fits = [
        (_solve(everything, rows, penalty, config), torch.zeros_like(rows.residual))
        for penalty in penalties
    ]
    for number in range(folds):
        inside, outside = rows.take(fold == number), rows.take(fold != number)
        others = everything - normal_equations(inside)
        for penalty, (_, unseen) in zip(penalties, fits, strict=True):
            unseen[fold == number] = inside.predict(_solve(others, outside, penalty, config))
    return fits


def _rmse(error: Tensor, weight: Tensor) -> float:
    return float(((weight * error**2).sum() / weight.sum()).sqrt())


def _linear(coefficients: Tensor) -> nn.Linear:
    mapping = nn.Linear(coefficients.shape[0] - 1, coefficients.shape[1]).requires_grad_(False)
    mapping.weight.copy_(coefficients[1:].T)
    mapping.bias.copy_(coefficients[0])
    return mapping


SCDR_B = Method(
    name="scdr_b",
    title="SCDR-B",
    citation="Zeng, Zhang, Zhang, Lu: Sharpness-Aware Cross-Domain Recommendation, with biases",
    cross_domain=True,
    mapping_based=True,
    presets={"default": ScdrBConfig(), "paper": ScdrBConfig()},
    fit=fit,
    search_space=within("mapping", MAPPING_SPACE),
)
"""The paper has no such method: both presets are the same."""
