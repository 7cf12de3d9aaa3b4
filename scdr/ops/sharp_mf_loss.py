"""The sharpness-aware matrix factorisation loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scdr import _native
from scdr.ops.perturbation import (
    WIDEST,
    Inner,
    check_perturbation,
    check_rows,
    resolve_step_size,
)
from scdr.ops.pgd_perturb import DEVICES, pgd_perturb

OP = "sharp_mf_loss: "


@torch.library.register_fake("scdr::sharp_mf_loss")
def _fake(
    user: Tensor, item: Tensor, rating: Tensor, **_options: object
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(rating), torch.empty_like(rating), torch.empty_like(rating)


@torch.library.register_fake("scdr::sharp_mf_loss_backward")
def _fake_backward(
    grad: Tensor, user: Tensor, item: Tensor, error: Tensor, along: Tensor, **_options: object
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(user), torch.empty_like(item), torch.empty_like(grad)


def _keep(
    ctx: Any,
    inputs: tuple[Any, ...],
    keyword_only_inputs: dict[str, Any],
    output: tuple[Tensor, Tensor, Tensor],
) -> None:
    user, item, _ = inputs
    _, error, along = output
    ctx.mark_non_differentiable(error, along)
    ctx.save_for_backward(user, item, error, along)
    ctx.inner = keyword_only_inputs["inner"]


def _gradients(ctx: Any, grad: Tensor, *_of_the_rest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.scdr.sharp_mf_loss_backward(
        grad.contiguous(), *ctx.saved_tensors, inner=ctx.inner
    )
    return gradients


torch.library.register_autograd("scdr::sharp_mf_loss", _gradients, setup_context=_keep)


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

    In float32 with widths up to 257, loss and gradients are native ops, which work inside
    `torch.compile(fullgraph=True)`; elsewhere they are torch operators.

    Args:
        user: user vectors `[B, d]`, float32 or float64.
        item: item vectors `[B, d]`.
        rating: ratings `[B]`.
        steps: number k of ascent steps; 0 is the plain loss of Eq. 2.
        step_size: alpha; `None` is `1/sqrt(d)`.
        radius: rho, the largest l2 norm of a perturbation.
        inner: "pgd", or "exact" for the true maximum over the ball.

    Returns:
        Losses `[B]`, once differentiable in `user`, `item` and `rating` by Eq. 15: delta* is a
        constant.

    Raises:
        ValueError: a wrong shape, dtype, device or range, or a value that is not finite, by name.
    """
    check_perturbation(steps, step_size, radius, inner)
    check_rows(user, item, rating, same_width=True)
    native = user.dtype == torch.float32 and user.device.type in DEVICES
    if native and 1 <= user.shape[1] <= WIDEST:
        return native_sharp_mf_loss(user, item, rating, steps, step_size, radius, inner)
    delta = pgd_perturb(
        user, item, rating, steps=steps, step_size=step_size, radius=radius, inner=inner
    )
    return (((user + delta) * item).sum(1) - rating) ** 2


def native_sharp_mf_loss(
    user: Tensor,
    item: Tensor,
    rating: Tensor,
    steps: int,
    step_size: float | None,
    radius: float,
    inner: Inner,
) -> Tensor:
    """The same by the native op; arguments are checked."""
    try:
        loss: Tensor = torch.ops.scdr.sharp_mf_loss(
            user.contiguous(),
            item.contiguous(),
            rating.contiguous(),
            steps=steps,
            step_size=resolve_step_size(step_size, user.shape[1]),
            radius=radius,
            inner=inner,
        )[0]
    except RuntimeError as error:
        _native.raise_named(error, OP)
        raise
    return loss
