"""The bipartite graph of a domain's ratings, and propagation along its edges."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor


@dataclass(frozen=True, slots=True)
class BipartiteGraph:
    """The normalised adjacency `D^-1/2 A D^-1/2` of users and items, which has two blocks.

    The edge of user u and item i weighs `1 / sqrt(n_u n_i)`, n the numbers of edges.

    Attributes:
        from_items: `[U, I]` CSR, float32: a row holds the items of a user.
        from_users: `[I, U]` CSR, its transpose, so that no direction scatters.
    """

    from_items: Tensor
    from_users: Tensor

    @classmethod
    def of(
        cls,
        users: NDArray[np.int32],
        items: NDArray[np.int32],
        *,
        n_users: int,
        n_items: int,
        device: torch.device,
    ) -> BipartiteGraph:
        """The graph with an edge for each pair of `users` and `items`, both `[n]`.

        A pair that occurs twice is one edge. Users and items without an edge get zeros.
        """
        ones = np.ones(len(users), dtype=np.float32)
        adjacency = csr_array((ones, (users, items)), shape=(n_users, n_items))
        adjacency.sum_duplicates()
        degree = np.diff(adjacency.indptr)  # [U]
        user = np.repeat(degree, degree).astype(np.float64)  # [edges]
        item = np.bincount(adjacency.indices, minlength=n_items)[adjacency.indices]
        adjacency.data = (1.0 / np.sqrt(user * item)).astype(np.float32)
        return cls(_tensor(adjacency, device), _tensor(adjacency.T.tocsr(), device))

    def propagate(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """Each user's sum over its items, and each item's over its users, weighted by the edges.

        Args:
            user: `[U, d]` float32.
            item: `[I, d]` float32.

        Returns:
            `[U, d]` and `[I, d]`, differentiable once.
        """
        propagated: tuple[Tensor, Tensor] = _Propagate.apply(self, user, item)
        return propagated


class _Propagate(torch.autograd.Function):
    """The adjacency is symmetric, so its gradient is propagated just as a value is.

    torch's own gradient of a sparse product would transpose the matrix anew in each step.
    """

    @staticmethod
    def forward(
        ctx: Any, graph: BipartiteGraph, user: Tensor, item: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.graph = graph
        return graph.from_items @ item, graph.from_users @ user

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, Tensor]:
        user, item = gradients
        graph: BipartiteGraph = ctx.graph
        return None, graph.from_items @ item, graph.from_users @ user


def _tensor(matrix: csr_array, device: torch.device) -> Tensor:
    with warnings.catch_warnings():
        # torch calls its CSR tensors beta; products with dense matrices, all we use, work. And
        # torch 2.11 says that it does not check what is checked here.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int32)),
            # A copy in torch: of no edges at all, torch 2.11 finds NumPy's strides wrong.
            torch.from_numpy(matrix.indices.astype(np.int32)).clone(
                memory_format=torch.contiguous_format
            ),
            torch.from_numpy(matrix.data),
            size=matrix.shape,
            device=device,
            check_invariants=True,
        )
