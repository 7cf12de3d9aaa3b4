"""Attacks on user vectors: perturbations within a ball that raise the error of each rating.

All are given the true rating, as Eq. 19 is. The white-box ones know the weights too; the black-box
ones know another model's (`transfer`) or only see predictions (`random_search`, `nes`).

FGSM: I. Goodfellow, J. Shlens, C. Szegedy, "Explaining and harnessing adversarial examples", ICLR
2015. PGD: A. Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR
2018. Search along coordinates: C. Guo et al., "Simple black-box adversarial attacks", ICML 2019.
NES: A. Ilyas et al., "Black-box adversarial attacks with limited queries and information", ICML
2018.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from scdr.analysis.rating_errors import RatingErrors
from scdr.ops import fgsm_perturb
from scdr.ops.perturbation import row_norms
from scdr.ops.reference import project
from scdr.ops.threads import one_thread

Norm = Literal["l2", "linf"]


@one_thread()
def fgsm(errors: RatingErrors, eps: float) -> Tensor:
    """`eps sgn(grad_u (r - <f(u), v>)^2)` (Eq. 19), `[n, d_source]`.

    Raises:
        ValueError: `eps` is negative or not finite.
    """
    return fgsm_perturb(
        errors.vectors, errors.items, errors.residuals, errors.mapping, eps=_checked(eps)
    )


def pgd(
    errors: RatingErrors,
    radius: float,
    *,
    norm: Norm,
    steps: int = 10,
    starts: int = 3,
    seed: int = 0,
    start: Tensor | None = None,
) -> Tensor:
    """The worst perturbation that projected gradient ascent meets in a ball.

    From each starting point `steps` steps raise the error and as many lower it, since either may
    end with the larger absolute error; every point on the way counts, and no perturbation too. Step
    t of T, from 0, is `radius (1 - t / T)` long: along each coordinate by the sign of the gradient
    in an l-infinity ball, in the direction of the gradient in an l2 ball. The first starting point
    is the unperturbed vector, so that on a linear map the first step is the true maximum; the
    others are random in the cube that the ball holds.

    Args:
        errors: of the ratings.
        radius: of the ball, in its norm and in the units of the user vectors.
        norm: "l2" or "linf".
        steps: in each of the two directions.
        starts: starting points.
        seed: of the random ones, drawn on the CPU whatever the device.
        start: `[n, d_source]`, perturbations within the ball that the result must not be weaker
            than: those of another attack, or of a smaller ball.

    Returns:
        `[n, d_source]`.

    Raises:
        ValueError: an argument out of range, or a `start` of another shape, by name.
    """
    _checked(radius, name="radius")
    if norm not in ("l2", "linf"):
        raise ValueError(f'norm is {norm!r}; it must be "l2" or "linf"')
    for name, count in (("steps", steps), ("starts", starts)):
        if count < 1:
            raise ValueError(f"{name} is {count}; it must be 1 or more")
    worst = _Worst(errors)
    if start is not None:
        if start.shape != errors.vectors.shape:
            raise ValueError(
                f"start is {list(start.shape)}, the vectors are {list(errors.vectors.shape)}"
            )
        worst.offer(start)
    generator = torch.Generator().manual_seed(seed)
    cube = radius if norm == "linf" else radius / math.sqrt(errors.vectors.shape[1])
    for index in range(starts):
        first = torch.zeros_like(errors.vectors)
        if index > 0:
            drawn = torch.rand(errors.vectors.shape, generator=generator).to(first)
            first = cube * (2 * drawn - 1)
        for direction in (1.0, -1.0):
            delta = first
            for step in range(steps):
                error, slope = errors.with_slopes_at(errors.vectors + delta)  # [n], [n, d_source]
                worst.offer(delta, error)
                length = direction * radius * (1 - step / steps)
                if norm == "linf":
                    delta = (delta + length * slope.sgn()).clamp(-radius, radius)
                else:
                    delta = project(delta + length * slope / row_norms(slope), radius)
            worst.offer(delta)
    return worst.delta


def transfer(
    surrogate: RatingErrors, eps: float, *, steps: int = 10, starts: int = 3, seed: int = 0
) -> Tensor:
    """The perturbation within +-eps that PGD finds on another model, `[n, d_source]`.

    Args:
        surrogate: errors of the other model as a function of the attacked model's user vectors
            (`surrogate_errors`).
        eps: the most that a coordinate moves.
        steps: of PGD, in each direction.
        starts: of PGD.
        seed: of PGD.

    Raises:
        ValueError: an argument out of range, by name.
    """
    return pgd(surrogate, eps, norm="linf", steps=steps, starts=starts, seed=seed)


def random_search(
    errors: RatingErrors, eps: float, *, queries: Sequence[int], seed: int
) -> list[Tensor]:
    """Search among the corners of the ball +-eps by predictions alone.

    The first query is a random corner. Each other one turns the sign of one coordinate, in a random
    order of each row's own that begins anew after d, and is kept where the absolute error rises.

    Args:
        errors: of the ratings.
        eps: the most that a coordinate moves.
        queries: budgets, growing: predictions asked for each rating; the unperturbed one is known.
        seed: of what is random; on the CPU whatever the device.

    Returns:
        For each budget the worst perturbation met, `[n, d_source]`, with none at all among them.

    Raises:
        ValueError: an argument out of range, by name.
    """
    _check_queries(queries)
    generator = torch.Generator().manual_seed(seed)
    shape = errors.vectors.shape
    corner = torch.randint(0, 2, shape, generator=generator).to(errors.vectors) * 2 - 1
    corner = _checked(eps) * corner  # [n, d_source]
    reached = errors.at(errors.vectors + corner).abs()  # [n]
    worst = _Worst(errors)
    worst.offer(corner, reached)
    found = {1: worst.delta}
    for query in range(queries[-1] - 1):
        place = query % shape[1]
        if place == 0:
            order = torch.rand(shape, generator=generator).argsort(1).to(corner.device)
        coordinate = order[:, place, None]
        turned = corner.scatter(1, coordinate, -corner.gather(1, coordinate))
        error = errors.at(errors.vectors + turned).abs()
        higher = error > reached
        corner = torch.where(higher[:, None], turned, corner)
        reached = torch.where(higher, error, reached)
        worst.offer(turned, error)
        if query + 2 in queries:
            found[query + 2] = worst.delta
    return [found[budget] for budget in queries]


def nes(
    errors: RatingErrors, eps: float, *, queries: Sequence[int], seed: int, samples: int = 10
) -> list[Tensor]:
    """Sign ascent by gradients that natural evolution strategies estimate from predictions.

    A step asks for `2 samples` predictions at `+-sigma z`, z ~ N(0, I), sigma = eps / 10, takes
    `sum (|e(x + sigma z)| - |e(x - sigma z)|) z` for the gradient, moves each coordinate by eps / 4
    along its sign within +-eps, and asks for the prediction there.

    Args:
        errors: of the ratings.
        eps: the most that a coordinate moves.
        queries: budgets, growing: predictions asked for each rating at most; fewer than a step
            needs find nothing.
        seed: of what is random; on the CPU whatever the device.
        samples: pairs of predictions for an estimate.

    Returns:
        For each budget the worst perturbation in the ball that a step ended at, `[n, d_source]`,
        with none at all among them.

    Raises:
        ValueError: an argument out of range, by name.
    """
    _check_queries(queries)
    if samples < 1:
        raise ValueError(f"samples is {samples}; it must be 1 or more")
    generator = torch.Generator().manual_seed(seed)
    worst = _Worst(errors)
    sigma = _checked(eps) / 10
    delta = torch.zeros_like(errors.vectors)
    found = [worst.delta]
    for _ in range(queries[-1] // (2 * samples + 1)):
        estimate = torch.zeros_like(delta)
        at = errors.vectors + delta
        for _ in range(samples):
            z = torch.randn(delta.shape, generator=generator).to(delta)
            gain = errors.at(at + sigma * z).abs() - errors.at(at - sigma * z).abs()  # [n]
            estimate += gain[:, None] * z
        delta = (delta + eps / 4 * estimate.sgn()).clamp(-eps, eps)
        worst.offer(delta)
        found.append(worst.delta)
    return [found[budget // (2 * samples + 1)] for budget in queries]


class _Worst:
    """The perturbation with the largest absolute error so far, for each rating."""

    def __init__(self, errors: RatingErrors) -> None:
        self.errors = errors
        self.delta = torch.zeros_like(errors.vectors)
        self.error = errors.at(errors.vectors).abs()  # [n]

    def offer(self, delta: Tensor, error: Tensor | None = None) -> None:
        """Take the perturbations that are worse; `error` is `[n]`, signed or not, if known."""
        error = self.errors.at(self.errors.vectors + delta) if error is None else error
        error = error.abs()
        worse = error > self.error
        self.delta = torch.where(worse[:, None], delta, self.delta)
        self.error = torch.where(worse, error, self.error)


def _checked(length: float, *, name: str = "eps") -> float:
    if not (length >= 0 and math.isfinite(length)):
        raise ValueError(f"{name} is {length}; it must be finite and 0 or more")
    return length


def _check_queries(queries: Sequence[int]) -> None:
    if not queries or queries[0] < 1 or list(queries) != sorted(set(queries)):
        raise ValueError(f"queries is {list(queries)}; it must hold growing budgets from 1 up")
