"""The sharpness-aware loss of the mapping between domains."""

from __future__ import annotations

from torch import Tensor

from scdr.ops.perturbation import Inner, MappingFunction
from scdr.ops.pgd_perturb import pgd_perturb


def sharp_mapping_loss(
    user: Tensor,
    item: Tensor,
    rating: Tensor,
    mapping: MappingFunction,
    *,
    steps: int,
    step_size: float | None = None,
    radius: float,
    inner: Inner = "pgd",
) -> Tensor:
    """L_SCDR of Eq. 9 for each row: `(<f_U(u + delta*), v> - r)^2`, delta* by `pgd_perturb`.

    The perturbation is inside f_U, as in Eq. 7, 12 and 22.

    Args:
        user: source user vectors `[B, d_source]`, float32 or float64.
        item: target item vectors `[B, d_target]`.
        rating: ratings `[B]`, less everything that is added to the inner product.
        mapping: f_U, row by row from `[B, d_source]` to `[B, d_target]`.
        steps: number k of ascent steps; 0 is the unperturbed loss (task mapping).
        step_size: alpha; `None` is `1/sqrt(d_source)`.
        radius: rho, the largest l2 norm of a perturbation.
        inner: "pgd", or "exact" for the true maximum over the ball (linear maps only).

    Returns:
        Losses `[B]`, differentiable in `user`, `item` and the weights of `mapping` by Eq. 15:
        delta* is a constant.

    Raises:
        ValueError: a wrong shape, dtype, device or range, or a value that is not finite, by name.
    """
    delta = pgd_perturb(
        user, item, rating, mapping, steps=steps, step_size=step_size, radius=radius, inner=inner
    )
    return ((mapping(user + delta) * item).sum(1) - rating) ** 2
