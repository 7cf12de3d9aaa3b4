"""The sharpness-aware matrix factorisation loss."""

from __future__ import annotations

from torch import Tensor

from scdr.ops.perturbation import Inner
from scdr.ops.pgd_perturb import pgd_perturb


def sharp_mf_loss(
    user: Tensor,
    item: Tensor,
    rating: Tensor,
    *,
    steps: int,
    step_size: float | None = None,
    radius: float,
    inner: Inner = "pgd",
) -> Tensor:
    """L_SMF of Eq. 10 for each row: `(<u + delta*, v> - r)^2`, delta* by `pgd_perturb`.

    Args:
        user: user vectors `[B, d]`, float32 or float64.
        item: item vectors `[B, d]`.
        rating: ratings `[B]`.
        steps: number k of ascent steps; 0 is the plain loss of Eq. 2.
        step_size: alpha; `None` is `1/sqrt(d)`.
        radius: rho, the largest l2 norm of a perturbation.
        inner: "pgd", or "exact" for the true maximum over the ball.

    Returns:
        Losses `[B]`, differentiable in `user` and `item` by Eq. 15: delta* is a constant.

    Raises:
        ValueError: a wrong shape, dtype, device or range, or a value that is not finite, by name.
    """
    delta = pgd_perturb(
        user, item, rating, steps=steps, step_size=step_size, radius=radius, inner=inner
    )
    return (((user + delta) * item).sum(1) - rating) ** 2
