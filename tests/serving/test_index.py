"""ItemIndex against the op over all items: the same bits, whatever it leaves out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from scdr.ops import recommend_topk
from scdr.serving import index
from scdr.serving.index import ItemIndex


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_FIRST", 64)
    monkeypatch.setattr(index, "_BLOCK", 16)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


SHAPES = {
    "normal": (normal(3000, 5), torch.zeros(3000)),
    "offsets": (0.1 * normal(3000, 5), normal(3000, seed=1)),
    "far from zero": (0.01 * normal(3000, 5) + 1e4, normal(3000, seed=1)),
    "equal scores": (normal(3000, 5).round(), normal(3000, seed=1).round()),
    "all the same": (torch.ones(500, 3), torch.zeros(500)),
    "zeros": (torch.zeros(500, 3), torch.zeros(500)),
    "the longest have the lowest offsets": (
        normal(3000, 5) * torch.linspace(0, 3, 3000)[:, None],
        -torch.linspace(0, 9, 3000),
    ),
    "few": (normal(40, 5), torch.zeros(40)),
    "one": (normal(1, 5), torch.zeros(1)),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("k", [1, 20, 70])
@pytest.mark.parametrize("user_norm", [0.0, 1.0, 100.0])
def test_it_is_the_op_over_all_items(shape: str, k: int, user_norm: float) -> None:
    vectors, offsets = SHAPES[shape]
    items = ItemIndex(vectors, offsets, user_norm=user_norm)
    random = np.random.default_rng(1)
    for scale in (0.0, 0.01, 1.0, 50.0):
        users = scale * normal(6, vectors.shape[1], seed=2)
        exclude = [random.integers(len(offsets), size=n) for n in (0, 1, 2, 7, 30, 500)]
        starts = torch.from_numpy(np.cumsum([0, *map(len, exclude)]))
        for out in (None, exclude):
            expected = recommend_topk(
                users,
                vectors,
                k,
                offsets=offsets,
                exclude_offsets=None if out is None else starts,
                exclude_items=None if out is None else torch.from_numpy(np.concatenate(out)),
            )
            scores, best = items.topk(users, k, out)
            np.testing.assert_array_equal(best, expected[1].numpy())
            np.testing.assert_array_equal(scores, expected[0].numpy())


def test_it_looks_at_few_items(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = []

    def counted(users: Any, vectors: Any, *rest: Any, **named: Any) -> Any:
        looked_at.append(len(vectors))
        return recommend_topk(users, vectors, *rest, **named)

    monkeypatch.setattr(index, "recommend_topk", counted)
    vectors, offsets = normal(20_000, 5), torch.zeros(20_000)
    items = ItemIndex(vectors, offsets, user_norm=5**0.5)
    for seed in range(20):
        items.topk(normal(1, 5, seed=seed), 10)
    assert sum(looked_at) < 20 * 20_000 / 2
