"""Perturbation of user vectors that raises the rating loss the most within an l2 ball."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scdr import _native
from scdr.ops import reference
from scdr.ops.perturbation import (
    WIDEST,
    Inner,
    MappingFunction,
    check_finite,
    check_perturbation,
    check_rows,
    check_widths,
    resolve_step_size,
    row_norms,
    tanh_layers,
)

OP = "pgd_perturb_mlp: "
# A library built without CUDA has the native op for the CPU only.
DEVICES = ("cpu", "cuda") if _native._C.build_facts()["cuda_architectures"] else ("cpu",)

_perturb = torch.ops.scdr.pgd_perturb_mlp.default


@torch.library.register_fake("scdr::pgd_perturb_mlp")
def _fake(user: Tensor, *_arguments: object, **_options: object) -> Tensor:
    return torch.empty_like(user)


@torch.library.register_fake("scdr::tanh")
def _fake_tanh(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def pgd_perturb(
    user: Tensor,
    item: Tensor,
    rating: Tensor,
    mapping: MappingFunction | None = None,
    *,
    steps: int,
    step_size: float | None = None,
    radius: float,
    inner: Inner = "pgd",
) -> Tensor:
    """Perturb each user vector by projected sign gradient ascent on the rating loss (Eq. 12, 13).

    From `delta_0 = 0`, for each row on its own and `steps` times:
    `delta <- project(delta + step_size * sgn(grad_u (<f(u + delta), v> - r)^2))`, where `project`
    is onto the l2 ball of `radius` around 0, `sgn(0) = 0`, and f is `mapping`.

    The identity and a linear map have a closed form. For `Linear - Tanh - Linear` the item is
    folded into the readout; with float32 tensors and widths up to 257 all steps are one native op,
    whose result does not depend on the number of threads or on the other rows, and which works
    inside `torch.compile(fullgraph=True)`. Any other callable goes through autograd, with the same
    result.

    Args:
        user: source user vectors `[B, d_source]`, float32 or float64.
        item: target item vectors `[B, d_target]`.
        rating: ratings `[B]`, less everything that is added to the inner product.
        mapping: f_U, row by row from `[B, d_source]` to `[B, d_target]`; `None` is the identity.
        steps: number k of ascent steps; 0 gives zeros.
        step_size: alpha, the length of a step along each coordinate; `None` is `1/sqrt(d_source)`.
        radius: rho, the largest l2 norm of a perturbation.
        inner: "pgd", or "exact" for the true maximum over the ball (`steps` and `step_size` are
            then not used, except that `steps=0` still gives zeros); identity and linear maps only.

    Returns:
        delta `[B, d_source]`, `||delta||_2 <= radius` up to 1e-6 relative. It carries no gradient:
        Eq. 15 treats it as a constant.

    Raises:
        ValueError: a wrong shape, dtype, device or range, or a value that is not finite, by name.
    """
    layers = tanh_layers(mapping)
    if layers is not None and inner == "pgd" and fits_native(user, item, layers):
        return _native_tanh_mlp(user, item, rating, *layers, steps, step_size, radius)
    check_perturbation(steps, step_size, radius, inner)
    check_rows(user, item, rating, same_width=mapping is None)
    if layers is not None:
        check_widths(user, item, *layers)
    step_size = resolve_step_size(step_size, user.shape[1])
    check_finite(user, item, rating)
    with torch.no_grad():
        if steps == 0 or radius == 0 or user.numel() == 0:
            return torch.zeros_like(user)
        if mapping is None:
            error = (user * item).sum(1) - rating  # [B]
            return _closed_form(error, item, steps, step_size, radius, inner)
        if type(mapping) is nn.Linear:
            direction = item @ mapping.weight  # [B, d_source]
            error = (user * direction).sum(1) - rating
            if mapping.bias is not None:
                error = error + item @ mapping.bias
            return _closed_form(error, direction, steps, step_size, radius, inner)
        if inner == "exact":
            raise ValueError('inner="exact" needs mapping=None or a torch.nn.Linear')
        if layers is not None:
            return _through_tanh_mlp(
                user, item, rating, *layers, steps=steps, step_size=step_size, radius=radius
            )
    return reference.pgd_perturb(
        user, item, rating, mapping, steps=steps, step_size=step_size, radius=radius
    )


def _closed_form(
    error: Tensor, direction: Tensor, steps: int, step_size: float, radius: float, inner: Inner
) -> Tensor:
    """All steps at once where the loss is `(error + <delta, direction>)^2`.

    A step along the gradient's sign raises |error|, so the sign never turns, and every step goes
    the same way until the ball stops it.
    """
    toward = torch.sgn(error)[:, None]  # [B, 1]
    if inner == "exact":
        return radius * toward * direction / row_norms(direction)
    signs = torch.sgn(direction)  # [B, d]
    at_the_ball = radius / row_norms(signs)  # [B, 1]
    return at_the_ball.clamp_max(steps * step_size) * toward * signs


def fits_native(user: Tensor, item: Tensor, layers: tuple[nn.Linear, nn.Linear]) -> bool:
    """Whether these go to a native op, which then checks them; of two dimensions if so."""
    first, second = layers
    return (
        isinstance(user, Tensor)
        and isinstance(item, Tensor)
        and user.dtype is torch.float32
        and user.device.type in DEVICES
        and user.dim() == item.dim() == 2
        and user.shape[1] == first.in_features <= WIDEST
        and item.shape[1] == second.out_features <= WIDEST
        and 1 <= first.out_features <= WIDEST
        and min(first.in_features, second.out_features) >= 1
    )


def _native_tanh_mlp(
    user: Tensor,
    item: Tensor,
    rating: Tensor,
    first: nn.Linear,
    second: nn.Linear,
    steps: int,
    step_size: float | None,
    radius: float,
) -> Tensor:
    weights = first.weight, first.bias, second.weight, second.bias
    try:
        with torch.no_grad():
            delta: Tensor = _perturb(
                user, item, rating, *weights, steps=steps, step_size=step_size, radius=radius
            )
    except RuntimeError as error:
        _native.raise_named(error, OP)
        raise
    return delta


def _through_tanh_mlp(
    user: Tensor,
    item: Tensor,
    rating: Tensor,
    first: nn.Linear,
    second: nn.Linear,
    *,
    steps: int,
    step_size: float,
    radius: float,
) -> Tensor:
    """With `c = W2' v` and `s = b2 . v - r`, the error is `c . tanh(W1 (u + delta) + b1) + s`."""
    readout = item @ second.weight  # [B, H]
    shift = -rating if second.bias is None else item @ second.bias - rating  # [B]
    at_user = first(user)  # [B, H]
    delta = torch.zeros_like(user)  # [B, d_source]
    for _ in range(steps):
        hidden = torch.tanh(torch.addmm(at_user, delta, first.weight.T))  # [B, H]
        error = (readout * hidden).sum(1) + shift  # [B]
        slope = (readout * (1 - hidden * hidden)) @ first.weight  # [B, d_source]
        delta = delta + step_size * torch.sgn(error)[:, None] * torch.sgn(slope)
        delta = reference.project(delta, radius)
    return delta
