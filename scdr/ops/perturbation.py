"""What every op with a perturbation shares: the meaning and the checks of its arguments."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

Inner = Literal["pgd", "exact"]
MappingFunction = Callable[[Tensor], Tensor]

WIDEST = 257
"""Widest vector or hidden layer of the native ops: 256 factors and a bias."""

NORM_FLOOR = 1e-12
"""Norms are kept above this where they divide."""


def row_norms(vectors: Tensor) -> Tensor:
    """The l2 norm of each row of `[B, d]`, `[B, 1]`, kept above `NORM_FLOOR`."""
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return norms.clamp_min(NORM_FLOOR)


def tanh_layers(mapping: MappingFunction | None) -> tuple[nn.Linear, nn.Linear] | None:
    """The two linear layers of `Linear - Tanh - Linear`, None for any other mapping."""
    if type(mapping) is not nn.Sequential or len(mapping) != 3:
        return None
    first, middle, second = mapping
    if type(first) is nn.Linear and type(middle) is nn.Tanh and type(second) is nn.Linear:
        return first, second
    return None


def resolve_step_size(step_size: float | None, width: int) -> float:
    """Step size alpha of Eq. 12; `None` is 1/sqrt(width): one sign step then has length 1."""
    return 1.0 / math.sqrt(width) if step_size is None else step_size


def check_perturbation(steps: int, step_size: float | None, radius: float, inner: str) -> None:
    """Refuse a perturbation that has no meaning.

    Raises:
        ValueError: naming the argument.
    """
    if steps < 0:
        raise ValueError(f"steps is {steps}; it must be 0 or more")
    if step_size is not None and not (step_size > 0 and math.isfinite(step_size)):
        raise ValueError(f"step_size is {step_size}; it must be positive and finite, or None")
    if not (radius >= 0 and math.isfinite(radius)):
        raise ValueError(f"radius is {radius}; it must be finite and 0 or more")
    if inner not in ("pgd", "exact"):
        raise ValueError(f'inner is {inner!r}; it must be "pgd" or "exact"')


def check_rows(user: Tensor, item: Tensor, rating: Tensor, *, same_width: bool) -> None:
    """Refuse rows whose shapes, dtypes or devices differ.

    Args:
        user: `[B, d_source]`.
        item: `[B, d_target]`.
        rating: `[B]`.
        same_width: whether user and item vectors must have one width (no mapping between them).

    Raises:
        ValueError: naming the argument.
    """
    for name, tensor, rank in (("user", user, 2), ("item", item, 2), ("rating", rating, 1)):
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} is a {type(tensor).__name__}; it must be a tensor")
        if tensor.dim() != rank:
            raise ValueError(f"{name} has {tensor.dim()} dimensions; it must have {rank}")
        if not tensor.is_floating_point():
            raise ValueError(f"{name} has dtype {tensor.dtype}; it must be floating point")
        if tensor.dtype != user.dtype or tensor.device != user.device:
            raise ValueError(
                f"{name} is {tensor.dtype} on {tensor.device}, user is {user.dtype} on "
                f"{user.device}; they must agree"
            )
        if tensor.shape[0] != user.shape[0]:
            raise ValueError(f"{name} has {tensor.shape[0]} rows, user has {user.shape[0]}")
    if same_width and user.shape[1] != item.shape[1]:
        raise ValueError(
            f"item has width {item.shape[1]}, user has {user.shape[1]}; without a mapping between "
            "them they must agree"
        )


def check_widths(user: Tensor, item: Tensor, first: nn.Linear, last: nn.Linear) -> None:
    """Refuse vectors that do not fit the first and the last layer of a mapping.

    Raises:
        ValueError: naming the argument.
    """
    for name, tensor, width in (
        ("user", user, first.in_features),
        ("item", item, last.out_features),
    ):
        if tensor.shape[1] != width:
            raise ValueError(f"{name} has width {tensor.shape[1]}, mapping {width}")


def check_finite(user: Tensor, item: Tensor, rating: Tensor) -> None:
    """Refuse rows that are not finite; not inside `torch.compile`. Waits for the device.

    Raises:
        ValueError: naming the argument.
    """
    if torch.compiler.is_compiling():
        return
    for name, tensor in (("user", user), ("item", item), ("rating", rating)):
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds a value that is not finite")
