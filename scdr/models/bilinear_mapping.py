"""The mapping of SCDR-B: linear in the user, bilinear with the item, by (sharp) ridge regression.

    r - offset_i = (1, z)' A y + e,   z a source user's vector, y a target item's

    min_A sum_n w_n (|e_n| + radius ||A_f y_n||_2)^2 + sum_jk P_jk A_jk^2

`A_f` are the rows of A for the coordinates of z that the perturbation moves, and the loss is the
exact maximum of `w_n e_n^2` over a ball of that radius (Eq. 9 for a linear map). With radius 0 it
is a ridge regression in closed form. Otherwise, since `(|e| + s)^2 = min over 0 < h < 1 of
e^2 / h + s^2 / (1 - h)` with its minimum at `h = |e| / (|e| + s)`, it is a sequence of ridge
regressions with a weight `1 / h` and a penalty `1 / (1 - h)` for each row, each of which lowers the
loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ITERATIONS = 25
_LEAST_SHARE = 1e-3
"""h is kept this far from 0 and 1, where a weight would be infinite."""
_BLOCK = 8192


@dataclass(frozen=True, slots=True)
class BilinearRows:
    """What the mapping is trained on, float64.

    Attributes:
        user: `[n]` int64, the row of `users` that belongs to each rating.
        users: `[K, d_source]` vectors z.
        items: `[n, d_target]` vectors y, which may differ between ratings of one item.
        residual: `[n]` rating less the item's offset.
        weight: `[n]`.
    """

    user: Tensor
    users: Tensor
    items: Tensor
    residual: Tensor
    weight: Tensor

    def take(self, rows: Tensor) -> BilinearRows:
        """Some of the rows, by mask or index."""
        return BilinearRows(
            self.user[rows], self.users, self.items[rows], self.residual[rows], self.weight[rows]
        )

    def predict(self, coefficients: Tensor) -> Tensor:
        """`(1, z)' A y` `[n]` for A `[1 + d_source, d_target]`."""
        mapped = coefficients[0] + self.users @ coefficients[1:]
        return (mapped[self.user] * self.items).sum(1)


@dataclass(frozen=True, slots=True)
class NormalEquations:
    """`sum w x x'` and `sum w x residual` of `x = (1, z) kron y`; they add up over rows."""

    matrix: Tensor
    vector: Tensor

    def __sub__(self, other: NormalEquations) -> NormalEquations:
        return NormalEquations(self.matrix - other.matrix, self.vector - other.vector)

    def solve(self, penalty: Tensor) -> Tensor:
        """A `[1 + d_source, d_target]` for a penalty of that shape on each of its entries."""
        factor = torch.linalg.cholesky(self.matrix + torch.diag(penalty.flatten()))
        return torch.cholesky_solve(self.vector[:, None], factor).reshape(penalty.shape)


def normal_equations(rows: BilinearRows) -> NormalEquations:
    """The normal equations of the ridge regression over all rows.

    What a user's rows have in common is taken out of their sum: with `x = (1, z)` they are
    `sum over users of x x' kron (sum over the user's rows of w y y')` and likewise
    `x kron (sum of w y residual)`.
    """
    rated, user = rows.user.unique(return_inverse=True)
    width = rows.items.shape[1]
    seconds = rows.items.new_zeros(len(rated), width * width)
    firsts = rows.items.new_zeros(len(rated), width)
    for part in torch.arange(len(user)).split(_BLOCK):
        items, weighted = rows.items[part], rows.items[part] * rows.weight[part, None]
        seconds.index_add_(0, user[part], (weighted[:, :, None] * items[:, None, :]).flatten(1))
        firsts.index_add_(0, user[part], weighted * rows.residual[part, None])
    users = torch.nn.functional.pad(rows.users[rated], (1, 0), value=1.0)  # [K, 1 + d_source]
    height = users.shape[1]
    blocks = rows.items.new_zeros(height * height, width * width)
    for part in torch.arange(len(rated)).split(_BLOCK):
        some = users[part]
        blocks += (some[:, :, None] * some[:, None, :]).flatten(1).T @ seconds[part]
    matrix = blocks.view(height, height, width, width).transpose(1, 2)
    return NormalEquations(
        matrix.reshape(height * width, height * width), (users.T @ firsts).flatten()
    )


def sharp_coefficients(
    rows: BilinearRows, start: Tensor, penalty: Tensor, *, radius: float, moved: slice
) -> Tensor:
    """The minimum of the sharp loss, from the ridge solution on.

    Args:
        rows: what to train on.
        start: A of the ridge regression.
        penalty: P, of the shape of A.
        radius: radius of the ball, in units of z.
        moved: the coordinates of z that the perturbation moves.

    Returns:
        A `[1 + d_source, d_target]`.
    """
    coefficients = start
    moved = slice(1 + moved.start, 1 + moved.stop)
    n_moved, width = moved.stop - moved.start, rows.items.shape[1]
    for _ in range(_ITERATIONS):
        error = (rows.residual - rows.predict(coefficients)).abs()
        spread = radius * (rows.items @ coefficients[moved].T).norm(dim=1)
        share = error / (error + spread).clamp_min(1e-12)
        share = share.clamp(_LEAST_SHARE, 1 - _LEAST_SHARE)  # h
        weighted = BilinearRows(
            rows.user, rows.users, rows.items, rows.residual, rows.weight / share
        )
        equations = normal_equations(weighted)
        inflated = rows.items * (rows.weight / (1 - share))[:, None]
        outer = radius**2 * (inflated.T @ rows.items)  # [d_target, d_target]
        block = slice(moved.start * width, moved.stop * width)
        equations.matrix[block, block] += torch.block_diag(*[outer] * n_moved)
        coefficients = equations.solve(penalty)
    return coefficients
