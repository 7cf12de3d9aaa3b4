"""Standardised user vectors while a mapping trains; afterwards the mapping takes raw ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Standardisation:
    """Each coordinate to mean 0 and deviation 1.

    Attributes:
        mean: `[d]`.
        deviation: `[d]`.
    """

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, vectors: Tensor, *, enabled: bool) -> Standardisation:
        """That of the rows of `vectors` `[n, d]`; the identity where it is not enabled."""
        if not enabled:
            width = vectors.shape[1]
            return cls(vectors.new_zeros(width), vectors.new_ones(width))
        return cls(vectors.mean(0), vectors.std(0).clamp_min(1e-6))

    def apply(self, vectors: Tensor) -> Tensor:
        """Raw to standardised vectors, `[n, d]`."""
        return (vectors - self.mean) / self.deviation

    def undo(self, vectors: Tensor) -> Tensor:
        """Standardised to raw vectors, `[n, d]`."""
        return vectors * self.deviation + self.mean

    @torch.no_grad()
    def fold_into(self, mapping: nn.Sequential) -> nn.Sequential:
        """Make a mapping that was trained on standardised vectors take raw ones, in place.

        Args:
            mapping: its first layer is linear, with a bias.
        """
        first = mapping[0]
        assert isinstance(first, nn.Linear)
        first.weight.div_(self.deviation)
        first.bias.sub_(first.weight @ self.mean)
        return mapping.requires_grad_(False)
