"""Propagation against dense float64 matrices and PyTorch Geometric."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.nn import LGConv

from scdr.models.backbones import NGCF, LightGCN
from scdr.models.graph import BipartiteGraph
from scdr.ops.threads import torch_threads

CPU = torch.device("cpu")


def random_edges(
    n_users: int, n_items: int, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    chosen = np.random.default_rng(seed).random((n_users, n_items)) < share
    users, items = np.nonzero(chosen)
    return users.astype(np.int32), items.astype(np.int32)


def graph_of(
    edges: tuple[np.ndarray, np.ndarray], n_users: int, n_items: int, device: torch.device = CPU
) -> BipartiteGraph:
    return BipartiteGraph.of(*edges, n_users=n_users, n_items=n_items, device=device)


def dense(edges: tuple[np.ndarray, np.ndarray], n_users: int, n_items: int) -> Tensor:
    """`D^-1/2 A D^-1/2` over users, then items, float64 `[U + I, U + I]`; 1/0 counts as 0."""
    a = np.zeros((n_users + n_items, n_users + n_items))
    users, items = edges
    a[users, n_users + items] = a[n_users + items, users] = 1
    degree = a.sum(1)
    scale = np.divide(1, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)
    return torch.from_numpy(scale[:, None] * a * scale)


def vectors(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None)
@given(
    n_users=st.integers(1, 12),
    n_items=st.integers(1, 12),
    d=st.sampled_from([1, 3, 10, 16, 33]),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 1000),
)
def test_propagation_is_the_product_with_the_normalised_adjacency(
    n_users: int, n_items: int, d: int, share: float, seed: int
) -> None:
    edges = random_edges(n_users, n_items, share, seed)
    user, item = vectors(n_users, d, seed), vectors(n_items, d, seed + 1)
    propagated = torch.cat(graph_of(edges, n_users, n_items).propagate(user, item))
    expected = dense(edges, n_users, n_items) @ torch.cat([user, item]).double()
    torch.testing.assert_close(propagated, expected.float(), rtol=1e-5, atol=1e-6)


def test_an_edge_given_twice_counts_once() -> None:
    once = graph_of((np.array([0, 1], np.int32), np.array([0, 0], np.int32)), 2, 1)
    twice = graph_of((np.array([0, 1, 0], np.int32), np.array([0, 0, 0], np.int32)), 2, 1)
    user, item = vectors(2, 3, 0), vectors(1, 3, 1)
    for a, b in zip(once.propagate(user, item), twice.propagate(user, item), strict=True):
        assert torch.equal(a, b)


def test_propagation_is_that_of_pytorch_geometric_forward_and_backward() -> None:
    edges = random_edges(40, 30, 0.2, 3)
    edge_index = torch.stack([torch.from_numpy(edges[0]), 40 + torch.from_numpy(edges[1])]).long()
    both_ways = torch.cat([edge_index, edge_index.flip(0)], dim=1)
    table = vectors(70, 10, 0).requires_grad_()
    weight = vectors(70, 10, 1)
    conv = LGConv()
    theirs = conv(conv(table, both_ways), both_ways)
    (theirs * weight).sum().backward()
    user, item = table.detach().split([40, 30])
    user.requires_grad_()
    item.requires_grad_()
    graph = graph_of(edges, 40, 30)
    ours = torch.cat(graph.propagate(*graph.propagate(user, item)))
    (ours * weight).sum().backward()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert user.grad is not None and item.grad is not None
    torch.testing.assert_close(torch.cat([user.grad, item.grad]), table.grad, rtol=1e-5, atol=1e-6)


def dense_lightgcn(adjacency: Tensor, table: Tensor, layers: int) -> Tensor:
    powers = [table]
    for _ in range(layers):
        powers.append(adjacency @ powers[-1])
    return torch.stack(powers).mean(0)


def dense_ngcf(adjacency: Tensor, table: Tensor, weights: Tensor) -> Tensor:
    layers = [table]
    for w1, w2 in weights:
        e = layers[-1]
        x = adjacency @ e @ w1 + ((adjacency @ e) * e) @ w2
        layers.append(torch.where(x > 0, x, 0.2 * x))
    return torch.cat(layers, dim=1)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("kind", ["lightgcn", "ngcf"])
def test_vectors_and_gradients_are_those_of_dense_matrices(kind: str, layers: int) -> None:
    edges = random_edges(15, 12, 0.3, 5)
    adjacency = dense(edges, 15, 12)
    user, item = vectors(15, 6, 0), vectors(12, 6, 1)
    graph = graph_of(edges, 15, 12)
    table = torch.cat([user, item]).double().requires_grad_()
    backbone: LightGCN | NGCF
    weights = None
    if kind == "lightgcn":
        backbone = LightGCN(graph, user, item, layers=layers)
        expected = dense_lightgcn(adjacency, table, layers)
    else:
        generator = torch.Generator().manual_seed(2)
        backbone = NGCF(graph, user, item, layers=layers, generator=generator)
        weights = backbone.weights.detach().double().requires_grad_()
        expected = dense_ngcf(adjacency, table, weights)
        assert expected.shape[1] == 6 * (layers + 1)
    ours = torch.cat(backbone())
    torch.testing.assert_close(ours, expected.float(), rtol=1e-5, atol=1e-5)
    (ours**2).sum().backward()
    (expected**2).sum().backward()
    assert backbone.user.grad is not None and table.grad is not None
    torch.testing.assert_close(backbone.user.grad, table.grad[:15].float(), rtol=1e-4, atol=1e-5)
    if weights is not None:
        assert weights.grad is not None
        gradient = backbone.weights.grad
        torch.testing.assert_close(gradient, weights.grad.float(), rtol=1e-4, atol=1e-4)


def test_propagation_is_the_same_to_the_bit_at_any_number_of_threads() -> None:
    random = np.random.default_rng(0)
    users = random.integers(0, 3000, 100_000).astype(np.int32)
    items = (2000 * random.random(100_000) ** 3).astype(np.int32)
    graph = graph_of((users, items), 3000, 2000)
    user, item = vectors(3000, 10, 0), vectors(2000, 10, 1)
    results = []
    for threads in (1, 2, 3):
        with torch_threads(threads):
            results.append(torch.cat(graph.propagate(user, item)))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no usable GPU")
def test_propagation_on_a_gpu_is_that_on_the_cpu() -> None:
    edges = random_edges(300, 200, 0.1, 3)
    user, item = vectors(300, 10, 0), vectors(200, 10, 1)
    here = graph_of(edges, 300, 200).propagate(user, item)
    there = graph_of(edges, 300, 200, torch.device("cuda")).propagate(user.cuda(), item.cuda())
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(a, b.cpu(), rtol=1e-5, atol=1e-6)
