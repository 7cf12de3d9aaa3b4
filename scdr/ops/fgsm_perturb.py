"""The perturbation of one sign step: the attack of the robustness analysis."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scdr.ops.perturbation import MappingFunction
from scdr.ops.pgd_perturb import pgd_perturb


def fgsm_perturb(
    user: Tensor,
    item: Tensor,
    rating: Tensor,
    mapping: MappingFunction | None = None,
    *,
    eps: float,
) -> Tensor:
    """Perturb each user vector by the fast gradient sign method (Eq. 19).

    `eta = eps * sgn(grad_u (<f(u), v> - r)^2)` for each row on its own, with `sgn(0) = 0` and f the
    mapping: the first step of `pgd_perturb`, without a ball, computed by the same code.

    Args:
        user: source user vectors `[B, d_source]`, float32 or float64.
        item: target item vectors `[B, d_target]`.
        rating: ratings `[B]`, less everything that is added to the inner product.
        mapping: f_U, row by row from `[B, d_source]` to `[B, d_target]`; `None` is the identity.
        eps: length of the perturbation along each coordinate, in the units of the user vectors; 0
            or more.

    Returns:
        eta `[B, d_source]`; each entry is eps, -eps or 0, as its dtype rounds it. It carries no
        gradient.

    Raises:
        ValueError: a wrong shape, dtype, device or range, or a value that is not finite, by name.
    """
    if not (eps >= 0 and math.isfinite(eps)):
        raise ValueError(f"eps is {eps}; it must be finite and 0 or more")
    # The signs alone: a step of length 1, in a ball that it does not reach.
    radius = 2.0 * math.sqrt(user.shape[-1]) if isinstance(user, Tensor) and user.dim() else 0.0
    signs = pgd_perturb(user, item, rating, mapping, steps=1, step_size=1.0, radius=radius)
    if eps > torch.finfo(user.dtype).max:
        raise ValueError(f"eps is {eps}; {user.dtype} does not hold it")
    return eps * signs
