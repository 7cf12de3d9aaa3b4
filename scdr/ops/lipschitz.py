"""How much a mapping stretches a perturbation: measured, and at most."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scdr.ops.perturbation import MappingFunction


@torch.no_grad()
def lipschitz_ratio(user: Tensor, delta: Tensor, mapping: MappingFunction) -> Tensor:
    """`||f(u) - f(u + delta)||_2 / ||delta||_2` for each row, a term of the mean of Eq. 22.

    It is the least L with `||f(u) - f(u + delta)|| <= L ||delta||`, and so 0 for a row whose delta
    is 0. Where such rows should not count in a mean, leave them out by `delta.any(1)`.

    Args:
        user: source user vectors `[B, d_source]`, float32 or float64.
        delta: perturbations `[B, d_source]`.
        mapping: f_U, row by row from `[B, d_source]` to `[B, d_target]`.

    Returns:
        ratios `[B]`, without a gradient. `user + delta` is rounded as its dtype rounds it: a delta
        of a millionth of u or less needs float64.

    Raises:
        ValueError: a wrong shape, dtype or device, or a value that is not finite, by name.
    """
    for name, tensor in (("user", user), ("delta", delta)):
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} is a {type(tensor).__name__}; it must be a tensor")
        if tensor.dim() != 2:
            raise ValueError(f"{name} has {tensor.dim()} dimensions; it must have 2")
        if not tensor.is_floating_point():
            raise ValueError(f"{name} has dtype {tensor.dtype}; it must be floating point")
        if (tensor.shape, tensor.dtype, tensor.device) != (user.shape, user.dtype, user.device):
            raise ValueError(
                f"{name} is {tensor.dtype} {list(tensor.shape)} on {tensor.device}, user is "
                f"{user.dtype} {list(user.shape)} on {user.device}; they must agree"
            )
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds a value that is not finite")
    # Squares in float64 neither overflow nor vanish.
    moved = torch.linalg.vector_norm(
        mapping(user) - mapping(user + delta), dim=1, dtype=torch.float64
    )
    length = torch.linalg.vector_norm(delta, dim=1, dtype=torch.float64)
    return torch.where(length > 0, moved / length, 0.0).to(user.dtype)


@torch.no_grad()
def lipschitz_bound(mapping: MappingFunction | None) -> float:
    """An L that no `lipschitz_ratio` of the mapping exceeds: the product of its spectral norms.

    For a linear map it is the Lipschitz constant itself. tanh has the constant 1, so for
    `W2 tanh(W1 x + b1) + b2` it is `||W2||_2 ||W1||_2`, by singular values in float64.

    Args:
        mapping: a `torch.nn.Linear`, a `torch.nn.Sequential` of `Linear` and `Tanh`, or `None` for
            the identity.

    Raises:
        ValueError: for any other mapping, and for weights that are not finite.
    """
    layers = [] if mapping is None else [mapping]
    if type(mapping) is nn.Sequential:
        layers = list(mapping)
    bound = 1.0
    for layer in layers:
        if type(layer) is nn.Tanh:
            continue
        if type(layer) is not nn.Linear:
            raise ValueError(
                f"mapping has a {type(layer).__name__}; its bound is known for torch.nn.Linear and "
                "torch.nn.Tanh only"
            )
        if not torch.isfinite(layer.weight).all():
            raise ValueError("mapping holds a weight that is not finite")
        bound *= float(torch.linalg.matrix_norm(layer.weight.double(), 2))
    return bound
