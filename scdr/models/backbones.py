"""Graph backbones: user and item vectors from the ratings of their neighbours (Table VI).

X. He, K. Deng, X. Wang, Y. Li, Y. Zhang, M. Wang, "LightGCN: simplifying and powering graph
convolution network for recommendation", SIGIR 2020, pages 639-648; X. Wang, X. He, M. Wang,
F. Feng, T.-S. Chua, "Neural graph collaborative filtering", SIGIR 2019, pages 165-174.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from scdr.hyperparameters import STRICT, Count, NonNegative, Positive, PositiveCount
from scdr.models.graph import BipartiteGraph

Backbone = Literal["mf", "ngcf", "lightgcn"]
"""What gives a domain its user and item vectors."""

_SLOPE = 0.2
"""Slope of NGCF's leaky ReLU below zero, as its authors have it."""


@dataclass(frozen=True, kw_only=True)
class GraphConfig:
    """Graph backbones and their training, by Adam on all initial vectors."""

    __pydantic_config__ = STRICT

    layers: PositiveCount = 3
    """Number L of propagations; NGCF's vectors are (L + 1) * dimension wide, 256 at most."""
    epochs: Count = 100
    """Passes over the ratings by the plain loss, at most."""
    sharp_epochs: Count = 20
    """Passes by the sharp loss after them, at most; 0 is the plain loss alone."""
    learning_rate: Positive = 0.03
    """Learning rate of Adam, on the mean over a batch."""
    batch_size: PositiveCount | None = None
    """Ratings a batch, each of which propagates over the whole graph; None is a sixteenth of the
    ratings, at most 65,536."""
    penalty: NonNegative = 1.0
    """Penalty on each initial vector, whatever its number of ratings."""
    initial_std: Positive = 0.1
    """Standard deviation of the initial vectors."""
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the training ratings that are held out, from the graph too, to end the training."""
    patience: PositiveCount = 3
    """Stop after so many epochs without a lower loss on held-out ratings, and keep the best."""

    def batch_of(self, n: int) -> int:
        """Ratings a batch, of n in all."""
        return self.batch_size or min(-(-n // 16), 65_536) or 1


class LightGCN(nn.Module):
    """The mean of the initial vectors and of what L propagations make of them.

    `E_0` is trained, `E_l = D^-1/2 A D^-1/2 E_(l-1)`, and the vectors are
    `(E_0 + ... + E_L) / (L + 1)`.
    """

    def __init__(self, graph: BipartiteGraph, user: Tensor, item: Tensor, *, layers: int) -> None:
        """Start from initial user vectors `[U, d]` and item vectors `[I, d]`."""
        super().__init__()
        self.graph, self.layers = graph, layers
        self.user, self.item = nn.Parameter(user), nn.Parameter(item)

    def forward(self) -> tuple[Tensor, Tensor]:
        """User vectors `[U, d]` and item vectors `[I, d]`."""
        layer: tuple[Tensor, Tensor] = self.user, self.item
        users, items = layer
        for _ in range(self.layers):
            layer = self.graph.propagate(*layer)
            users, items = users + layer[0], items + layer[1]
        return users / (self.layers + 1), items / (self.layers + 1)


class NGCF(nn.Module):
    """The initial vectors and those of L layers with weights, side by side.

    With `N = D^-1/2 A D^-1/2 E_(l-1)`, layer l is
    `E_l = LeakyReLU(N W1_l + (N * E_(l-1)) W2_l)`, and the vectors are `[E_0, ..., E_L]`. No
    dropout, and no layer is scaled to length 1, which is for rankings.
    """

    def __init__(
        self,
        graph: BipartiteGraph,
        user: Tensor,
        item: Tensor,
        *,
        layers: int,
        generator: torch.Generator,
    ) -> None:
        """Start from initial vectors `[U, d]` and `[I, d]`, and from weights drawn after Xavier."""
        super().__init__()
        self.graph = graph
        self.user, self.item = nn.Parameter(user), nn.Parameter(item)
        width = user.shape[1]
        weights = torch.empty(layers, 2, width, width)  # W1 and W2 of each layer
        for matrix in weights.view(-1, width, width):
            nn.init.xavier_uniform_(matrix, generator=generator)
        self.weights = nn.Parameter(weights.to(user.device))

    def forward(self) -> tuple[Tensor, Tensor]:
        """User vectors `[U, d (L + 1)]` and item vectors `[I, d (L + 1)]`."""
        layers: list[tuple[Tensor, Tensor]] = [(self.user, self.item)]
        for w1, w2 in self.weights:
            before = layers[-1]
            around = self.graph.propagate(*before)
            user, item = (
                nn.functional.leaky_relu(near @ w1 + (near * own) @ w2, _SLOPE)
                for near, own in zip(around, before, strict=True)
            )
            layers.append((user, item))
        users, items = zip(*layers, strict=True)
        return torch.cat(users, dim=1), torch.cat(items, dim=1)
