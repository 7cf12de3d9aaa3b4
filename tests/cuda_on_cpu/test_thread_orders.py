"""The CUDA code of the ops through a mapping gives the same bits in any order of threads."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from cuda_on_cpu.ops import cuda_code_on_cpu, seed
from scdr.ops import mapping_sgd_epoch_, sharp_mapping_loss, sharp_mf_loss
from scdr.ops.adam import AdamState


@pytest.fixture(autouse=True)
def cuda_code() -> Iterator[None]:
    with cuda_code_on_cpu():
        yield


def mlp(d: int, hidden: int) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(d, hidden), nn.Tanh(), nn.Linear(hidden, d))


def assert_same_bits(work: Callable[[], list[Tensor]]) -> None:
    results = []
    for value in range(3):
        seed(value)
        results.append(work())
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


@pytest.mark.parametrize("d", [8, 10, 20])
def test_sharp_losses(d: int) -> None:
    mapping = mlp(d, 7)
    rows = [torch.randn(300, d), torch.randn(300, d), torch.randn(300)]

    def work() -> list[Tensor]:
        leaves = [t.detach().clone().requires_grad_() for t in rows]
        mapped = sharp_mapping_loss(*leaves, mapping, steps=2, radius=1.0)
        plain = sharp_mf_loss(*leaves, steps=2, radius=1.0)
        gradients = torch.autograd.grad((mapped + plain).sum(), [*leaves, *mapping.parameters()])
        return [mapped, plain, *gradients]

    assert_same_bits(work)


# In one block, and as a launch for each phase.
@pytest.mark.parametrize("batch_size", [90, 1100])
@pytest.mark.parametrize("d", [8, 10, 11, 16, 20])  # the last has no kernel of its own
def test_mapping_epoch(d: int, batch_size: int) -> None:
    n = 1300
    user, item, mapping = torch.randn(40, d), torch.randn(30, d), mlp(d, 6)
    users, items = (torch.randint(size, (n,), dtype=torch.int32) for size in (40, 30))
    ratings = torch.randn(n)

    def work() -> list[Tensor]:
        trained, moved = copy.deepcopy(mapping), user.clone()
        w1, b1, w2, b2 = trained.parameters()
        adam = AdamState.zeros(w1=w1.data, b1=b1.data, w2=w2.data, b2=b2.data, user=moved)
        loss = mapping_sgd_epoch_(
            moved,
            item,
            trained,
            users,
            items,
            ratings,
            torch.arange(n),
            lr=1e-3,
            batch_size=batch_size,
            steps=2,
            radius=1.0,
            clip_norm=1.0,
            adam=adam,
        )
        return [loss, moved, *(p.data for p in trained.parameters()), *adam.second.values()]

    assert_same_bits(work)
