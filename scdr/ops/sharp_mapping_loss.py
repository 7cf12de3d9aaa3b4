"""The sharpness-aware loss of the mapping between domains."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from scdr import _native
from scdr.ops.perturbation import (
    WIDEST,
    Inner,
    MappingFunction,
    check_perturbation,
    check_rows,
    check_widths,
    resolve_step_size,
    tanh_layers,
)
from scdr.ops.pgd_perturb import DEVICES, fits_native, pgd_perturb
from scdr.ops.sharp_mf_loss import native_sharp_mf_loss

OP = "sharp_mapping_loss: "


@torch.library.register_fake("scdr::sharp_mapping_loss")
def _fake(
    user: Tensor, item: Tensor, rating: Tensor, *_weights: Tensor | None, **_options: object
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(rating), torch.empty_like(user)


@torch.library.register_fake("scdr::sharp_mapping_loss_backward")
def _fake_backward(
    grad: Tensor,
    moved: Tensor,
    item: Tensor,
    rating: Tensor,
    w1: Tensor,
    b1: Tensor | None,
    w2: Tensor,
    b2: Tensor | None,
    *,
    item_too: bool,
) -> tuple[Tensor, ...]:
    return (
        torch.empty_like(moved),
        torch.empty_like(item) if item_too else item.new_empty(0),
        torch.empty_like(rating),
        torch.empty_like(w1),
        w1.new_empty(0) if b1 is None else torch.empty_like(b1),
        torch.empty_like(w2),
        w2.new_empty(0) if b2 is None else torch.empty_like(b2),
    )


def _keep(
    ctx: Any,
    inputs: tuple[Any, ...],
    keyword_only_inputs: dict[str, Any],
    output: tuple[Tensor, Tensor],
) -> None:
    _, moved = output
    ctx.mark_non_differentiable(moved)
    ctx.save_for_backward(moved, *inputs[1:])


def _gradients(ctx: Any, grad: Tensor, _of_moved: Tensor) -> tuple[Tensor | None, ...]:
    gradients = torch.ops.scdr.sharp_mapping_loss_backward(
        grad.contiguous(), *ctx.saved_tensors, item_too=ctx.needs_input_grad[1]
    )
    return tuple(
        gradient if needed else None
        for gradient, needed in zip(gradients, ctx.needs_input_grad, strict=True)
    )


torch.library.register_autograd("scdr::sharp_mapping_loss", _gradients, setup_context=_keep)


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

    The perturbation is inside f_U, as in Eq. 7, 12 and 22. In float32 with widths up to 257, loss
    and gradients are native ops for `Linear - Tanh - Linear` and (in closed form)
    `torch.nn.Linear`, which work inside `torch.compile(fullgraph=True)`, and whose results do not
    depend on the number of threads; elsewhere they are torch operators.

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
        Losses `[B]`, once differentiable in `user`, `item`, `rating` and the weights of `mapping`
        by Eq. 15: delta* is a constant.

    Raises:
        ValueError: a wrong shape, dtype, device or range, or a value that is not finite, by name.
    """
    check_perturbation(steps, step_size, radius, inner)
    check_rows(user, item, rating, same_width=False)
    if user.dtype == torch.float32 and user.device.type in DEVICES:
        if type(mapping) is nn.Linear and 1 <= user.shape[1] <= WIDEST:
            check_widths(user, item, mapping, mapping)
            # <W u + b, v> - r = <u, W' v> - (r - <b, v>)
            left = rating if mapping.bias is None else rating - item @ mapping.bias
            direction = item @ mapping.weight
            return native_sharp_mf_loss(user, direction, left, steps, step_size, radius, inner)
        layers = tanh_layers(mapping)
        if layers is not None and inner == "pgd" and fits_native(user, item, layers):
            return _native_loss(user, item, rating, *layers, steps, step_size, radius)
    delta = pgd_perturb(
        user, item, rating, mapping, steps=steps, step_size=step_size, radius=radius, inner=inner
    )
    return ((mapping(user + delta) * item).sum(1) - rating) ** 2


def _native_loss(
    user: Tensor,
    item: Tensor,
    rating: Tensor,
    first: nn.Linear,
    second: nn.Linear,
    steps: int,
    step_size: float | None,
    radius: float,
) -> Tensor:
    tensors = (user, item, rating, first.weight, first.bias, second.weight, second.bias)
    try:
        loss: Tensor = torch.ops.scdr.sharp_mapping_loss(
            *[t if t is None else t.contiguous() for t in tensors],
            steps=steps,
            step_size=resolve_step_size(step_size, user.shape[1]),
            radius=radius,
        )[0]
    except RuntimeError as error:
        _native.raise_named(error, OP)
        raise
    return loss
