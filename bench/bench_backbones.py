"""LightGCN with three layers, d = 10: a step, forward and backward, and an epoch in its products.

Peers of a step are PyTorch Geometric's LGConv on edges, which gathers and scatters, and on a CSR
matrix, whose products are torch's as ours are; both have their edges normalised once. All results
and gradients are compared before they are timed. A step is the forward and backward pass over the
whole graph, without loss and optimiser.

The epoch has batches of 65,536 ratings; `products` are its sparse products alone, two for each
layer, direction of the graph and batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from shapes import SHORT, ratings_like
from torch import Tensor

from scdr.data import Interactions, from_columns
from scdr.models.backbones import GraphConfig, LightGCN
from scdr.models.graph import BipartiteGraph
from scdr.models.graph_training import GraphTraining
from scdr.models.mf import PAPER_PRETRAIN

D, LAYERS = 10, 3
BATCH = 65_536 if not SHORT else 4_096
CPU = torch.device("cpu")
Step = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""From user vectors, item vectors and the output's gradient to output and input's gradient."""


@cache
def edges() -> tuple[np.ndarray, np.ndarray, int, int]:
    """Users and items in the shape of Movies, each pair once."""
    made = ratings_like("movies")
    pairs = torch.unique(made.users.long() * made.n_items + made.items).numpy()
    users, items = pairs // made.n_items, pairs % made.n_items
    return users.astype(np.int32), items.astype(np.int32), made.n_users, made.n_items


@cache
def scdr() -> Step:
    users, items, n_users, n_items = edges()
    graph = BipartiteGraph.of(users, items, n_users=n_users, n_items=n_items, device=CPU)

    def step(user: Tensor, item: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        backbone = LightGCN(graph, user, item, layers=LAYERS)
        output = torch.cat(backbone())
        output.backward(gradient)
        assert backbone.user.grad is not None and backbone.item.grad is not None
        return output.detach(), torch.cat([backbone.user.grad, backbone.item.grad])

    return step


@cache
def edge_index() -> Tensor:
    users, items, n_users, _ = edges()
    one_way = torch.stack([torch.from_numpy(users), n_users + torch.from_numpy(items)]).long()
    return torch.cat([one_way, one_way.flip(0)], dim=1)


@cache
def normalised() -> tuple[Tensor, Tensor]:
    """PyTorch Geometric's normalised edges and their weights, made once and not in each step."""
    from torch_geometric.nn.conv.gcn_conv import gcn_norm

    _, _, n_users, n_items = edges()
    index, weight = gcn_norm(edge_index(), None, n_users + n_items, add_self_loops=False)
    return index, weight


def geometric(adjacency: Tensor, weight: Tensor | None) -> Step:
    from torch_geometric.nn import LGConv

    conv = LGConv(normalize=False)

    def step(user: Tensor, item: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        table = torch.cat([user, item]).requires_grad_()
        layer, output = table, table
        for _ in range(LAYERS):
            layer = conv(layer, adjacency, weight)
            output = output + layer
        output = output / (LAYERS + 1)
        output.backward(gradient)
        assert table.grad is not None
        return output.detach(), table.grad

    return step


@cache
def pyg_edges() -> Step:
    pytest.importorskip("torch_geometric")
    return geometric(*normalised())


@cache
def pyg_csr() -> Step:
    pytest.importorskip("torch_geometric")
    _, _, n_users, n_items = edges()
    size = (n_users + n_items, n_users + n_items)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        matrix = torch.sparse_coo_tensor(*normalised(), size, check_invariants=True)
        return geometric(matrix.to_sparse_csr(), None)


STEPS = {"scdr": scdr, "pyg_edges": pyg_edges, "pyg_csr": pyg_csr}


@pytest.mark.parametrize("torch_threads", [1, 2], indirect=True)
@pytest.mark.parametrize("implementation", STEPS)
def test_step(benchmark, torch_threads: int, implementation: str) -> None:  # type: ignore
    users, _, n_users, n_items = edges()
    generator = torch.Generator().manual_seed(0)
    user, item, gradient = (
        torch.randn(rows, D, generator=generator) for rows in (n_users, n_items, n_users + n_items)
    )
    step = STEPS[implementation]()
    for ours, theirs in zip(step(user, item, gradient), scdr()(user, item, gradient), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    benchmark.pedantic(step, (user, item, gradient), rounds=3 if SHORT else 10, warmup_rounds=1)
    benchmark.extra_info.update(
        work=f"LightGCN step, forward and backward, d = {D}, {LAYERS} layers",
        implementation=implementation,
        threads=torch_threads,
        ns_per_edge=benchmark.stats.stats.min / len(users) * 1e9,
    )


def ratings() -> Interactions:
    users, items, _, _ = edges()
    values = np.random.default_rng(0).integers(1, 6, len(users)).astype(np.float32)
    return from_columns(users, items, values)


@pytest.mark.parametrize("torch_threads", [1], indirect=True)
@pytest.mark.parametrize("implementation", ["scdr", "products"])
def test_epoch(benchmark, torch_threads: int, implementation: str) -> None:  # type: ignore
    data = ratings()
    graph = GraphConfig(batch_size=BATCH, validation_fraction=0.0, layers=LAYERS)
    config = replace(PAPER_PRETRAIN, backbone="lightgcn", steps=0, graph=graph)
    training = GraphTraining(data, config, seed=(0,), device=CPU)
    backbone = training._backbone
    user, item = backbone.user.detach(), backbone.item.detach()

    @torch.no_grad()
    def products() -> None:
        for _ in range(2 * LAYERS * -(-len(data) // BATCH)):
            backbone.graph.propagate(user, item)

    run = training.epoch if implementation == "scdr" else products
    benchmark.pedantic(run, rounds=1 if SHORT else 3, warmup_rounds=1)
    benchmark.extra_info.update(
        work=f"LightGCN epoch, batch {BATCH:,}, d = {D}, {LAYERS} layers",
        implementation=implementation,
        threads=torch_threads,
        ns_per_edge=benchmark.stats.stats.min / len(data) * 1e9,
    )
