"""How flat a fitted method is around its users: Lipschitz ratio (Eq. 22) and sharpness (Eq. 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scdr.analysis.attacks import pgd
from scdr.analysis.rating_errors import RatingErrors, first_rows
from scdr.methods import FactorPredictor
from scdr.models.personal import PersonalMapping
from scdr.ops import lipschitz_bound, lipschitz_ratio, pgd_perturb
from scdr.ops.threads import one_thread


@dataclass(frozen=True, slots=True)
class Flatness:
    """Flatness of one method at one k and rho.

    Attributes:
        lipschitz_mean: mean over users of the mean over a user's ratings of
            `||f(u) - f(u + delta)|| / ||delta||`; nan if no rating has a perturbation.
        lipschitz_max: the largest of these ratios; nan as above.
        spectral_bound: what no ratio exceeds, None for a mapping whose bound is not known.
        loss: mean over ratings of the squared error.
        sharpness: mean over ratings of the worst squared error in the ball, less `loss`.
    """

    lipschitz_mean: float
    lipschitz_max: float
    spectral_bound: float | None
    loss: float
    sharpness: float


@one_thread()
@torch.no_grad()
def flatness(
    predictor: FactorPredictor,
    errors: RatingErrors,
    *,
    steps: int,
    radius: float,
    step_size: float | None = None,
) -> Flatness:
    """Lipschitz ratios of the mapping, and how much the loss rises in the ball at worst.

    Ratios are at the perturbation of Eq. 12 and 13, which a rating of 0 gradient lacks; such
    ratings are left out. Sharpness is at the worst perturbation that `pgd` meets in the same ball,
    whatever k.

    Args:
        predictor: a fitted method.
        errors: its errors on test ratings (`cold_start_errors`).
        steps: number k of sign gradient ascent steps, for the ratios.
        radius: rho, of the ball, in the units of the user vectors.
        step_size: alpha of Eq. 12; None is `1/sqrt(d_source)`.

    Raises:
        ValueError: an argument out of range, by name.
    """
    delta = pgd_perturb(
        errors.vectors,
        errors.items,
        errors.residuals,
        errors.mapping,
        steps=steps,
        step_size=step_size,
        radius=radius,
    )
    moved = delta.any(1)  # [n]
    users = errors.users[moved]
    ratios = lipschitz_ratio(
        errors.vectors[moved], delta[moved], lambda vectors: predictor.map_vectors(vectors, users)
    ).double()
    worst = pgd(errors, radius, norm="l2", start=delta)
    loss = float(errors.at(errors.vectors).double().square().mean())
    worst_loss = float(errors.at(errors.vectors + worst).double().square().mean())
    return Flatness(
        lipschitz_mean=_mean_over_users(ratios, users),
        lipschitz_max=float(ratios.max()) if len(ratios) else float("nan"),
        spectral_bound=spectral_bound(predictor, errors.users),
        loss=loss,
        sharpness=worst_loss - loss,
    )


@one_thread()
@torch.no_grad()
def spectral_bound(predictor: FactorPredictor, users: Tensor) -> float | None:
    """What no Lipschitz ratio of the mapping exceeds.

    The product of the spectral norms of its layers, and the largest spectral norm of a bridge where
    each user has their own.

    Args:
        predictor: a fitted method.
        users: `[n]` int64, the source users whose bridges count.

    Returns:
        None for a mapping of layers whose bound is not known.
    """
    mapping = predictor.mapping
    if isinstance(mapping, PersonalMapping):
        return max(
            float(torch.linalg.matrix_norm(mapping.bridges(history).double(), 2).max())
            for history in mapping.history[users[first_rows(users)]].split(4096)
        )
    layers = [] if mapping is None else list(mapping.modules())
    if any(type(layer) not in (nn.Sequential, nn.Linear, nn.Tanh) for layer in layers):
        return None
    return lipschitz_bound(mapping)


def _mean_over_users(values: Tensor, users: Tensor) -> float:
    """The mean over distinct users of each one's mean, in float64."""
    _, position, count = torch.unique(users, return_inverse=True, return_counts=True)
    sums = torch.zeros(len(count), dtype=torch.float64).index_add_(0, position.cpu(), values.cpu())
    return float((sums / count.cpu()).mean())
