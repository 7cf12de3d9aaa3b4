"""The error over a plane around each user's vector (Algorithm 2, Fig. 2 and 4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scdr.analysis.rating_errors import RatingErrors, apply_layer, layers_of
from scdr.ops.threads import one_thread

_ROWS_AT_ONCE = 256
"""Ratings whose hidden units along one line of the grid stay in a core's cache."""


@dataclass(frozen=True, slots=True, eq=False)
class Landscape:
    """Mean absolute error over a plane.

    Attributes:
        zeta: `[G]` float64, coordinates along the first direction, in norms of each user's vector.
        gamma: `[G]` float64, along the second.
        mae: `[G, G]` float64, at `mae[i, j]` that of `zeta[i]` and `gamma[j]`.
    """

    zeta: NDArray[np.float64]
    gamma: NDArray[np.float64]
    mae: NDArray[np.float64]


def draw_directions(width: int, *, seed: int) -> NDArray[np.float64]:
    """Two directions `g_1, g_2 ~ N(0, I)` scaled to length 1, `[2, width]`.

    All methods of one figure take the same two, and so must have one width of source vectors.

    Args:
        width: d_source.
        seed: of the draw.
    """
    drawn = np.random.default_rng(seed).standard_normal((2, width))
    directions: NDArray[np.float64] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return directions


@one_thread()
@torch.no_grad()
def landscape(
    errors: RatingErrors, directions: NDArray[np.float64], *, size: int = 51
) -> Landscape:
    """Mean over ratings of `|e_i(u + ||u|| (zeta g_1 + gamma g_2))|` for zeta, gamma in [-1, 1].

    Line 8 of Algorithm 2 prints `u^t` for the vector that moves; it is that of the source.

    With a first layer `W_1 x + b_1` the whole plane needs three products, `W_1 u + b_1`, `W_1 g_1`
    and `W_1 g_2`, and the last layer is folded into the item.

    Args:
        errors: of the ratings, at least one.
        directions: `[2, d_source]`, each of length 1 (`draw_directions`).
        size: G, points along each side; odd, so that the unperturbed vectors are among them.

    Raises:
        ValueError: no rating, directions of another shape, or an even or negative size.
    """
    if len(errors) == 0:
        raise ValueError("errors holds no rating")
    width = errors.vectors.shape[1]
    if directions.shape != (2, width):
        raise ValueError(
            f"directions is {list(directions.shape)}; user vectors of width {width} need "
            f"{[2, width]}"
        )
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size is {size}; it must be odd and positive")
    grid = np.linspace(-1.0, 1.0, size)
    plane = _Plane.of(errors.mapping, torch.from_numpy(directions).to(errors.vectors))
    total = torch.zeros(size, size, dtype=torch.float64, device=errors.vectors.device)
    for _, part in errors.parts(_ROWS_AT_ONCE):
        total += plane.absolute_errors(part, torch.from_numpy(grid).to(errors.vectors))
    return Landscape(zeta=grid, gamma=grid, mae=(total / len(errors)).cpu().numpy())


@dataclass(frozen=True, slots=True)
class _Plane:
    """A mapping as `last(between(first(x)))`, and the two directions behind the first layer.

    Attributes:
        first: linear or None for the identity.
        between: layers on any leading dimensions; none where the mapping is affine.
        last: linear or None for the identity.
        directions: `[2, H]`, H the width behind the first layer.
    """

    first: nn.Linear | None
    between: list[nn.Module]
    last: nn.Linear | None
    directions: Tensor

    @classmethod
    def of(cls, mapping: nn.Module | None, directions: Tensor) -> _Plane:
        first = last = None
        layers = layers_of(mapping)
        if layers and isinstance(layers[-1], nn.Linear):
            last = layers[-1]
            layers = layers[:-1]
        if layers and isinstance(layers[0], nn.Linear):
            first = layers[0]
            layers = layers[1:]
            directions = directions @ first.weight.T
        return cls(first, layers, last, directions)

    def absolute_errors(self, errors: RatingErrors, grid: Tensor) -> Tensor:
        """Sums over ratings, `[G, G]` float64, for coordinates `[G]`."""
        readout, shift = errors.items, -errors.residuals  # [B, H'], [B]
        if self.last is not None:
            if self.last.bias is not None:
                shift = shift + readout @ self.last.bias
            readout = readout @ self.last.weight
        centre = errors.vectors if self.first is None else self.first(errors.vectors)  # [B, H]
        length = torch.linalg.vector_norm(errors.vectors, dim=1)  # [B]
        toward = length[:, None, None] * self.directions  # [B, 2, H]
        if not self.between:
            slope = (toward * readout[:, None]).sum(2)  # [B, 2]
            along = slope[:, :1] * grid + ((centre * readout).sum(1) + shift)[:, None]  # [B, G]
            across = slope[:, 1:] * grid  # [B, G]
            on_grid: Tensor = (along[:, :, None] + across[:, None]).abs_().sum(0)
            return on_grid
        sums = torch.empty(len(grid), len(grid), dtype=torch.float64, device=grid.device)
        across = grid[:, None] * toward[:, 1, None]  # [B, G, H]
        for line, zeta in zip(sums, grid, strict=True):
            hidden = across + (centre + zeta * toward[:, 0])[:, None]  # [B, G, H]
            for layer in self.between:
                hidden = apply_layer(layer, hidden)
            found = torch.bmm(readout[:, None], hidden.transpose(1, 2))[:, 0]  # [B, G]
            line.copy_(found.add_(shift[:, None]).abs_().sum(0))
        return sums
