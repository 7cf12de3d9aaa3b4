from __future__ import annotations

import pytest
import torch
from torch import nn

from scdr.models import Factors
from scdr.models.dense_adam import DenseAdamEpoch
from scdr.ops.mf_sgd_epoch import SpoiltTablesError

USERS, ITEMS, N = 12, 9, 70
PENALTIES = {"user": 0.3, "item": 0.2, "user_bias": 0.1, "item_bias": 0.05}


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize(("steps", "clip_norm"), [(0, None), (2, None), (0, 1.0)])
def test_it_is_torch_adam_on_dense_embeddings(
    biases: bool, steps: int, clip_norm: float | None
) -> None:
    """Also with batches that leave rows out, whose moments move them all the same."""
    generator = torch.Generator().manual_seed(0)
    users = torch.randint(0, USERS, (N,), generator=generator)
    items = torch.randint(0, ITEMS, (N,), generator=generator)
    ratings = torch.randint(1, 6, (N,), generator=generator).float()
    shapes = [(USERS, 4), (ITEMS, 4), *([(USERS,), (ITEMS,)] if biases else [])]
    tables = [torch.randn(shape, generator=generator) for shape in shapes]
    inverse = [1 / torch.bincount(index, minlength=9).clamp_min(1) for index in (users, items)]
    offset, step_size, radius = 3.0 if biases else 0.0, 0.1, 0.15

    modules = nn.ModuleList(
        nn.Embedding.from_pretrained(table.double().reshape(len(table), -1), freeze=False)
        for table in tables
    )
    optimizer = torch.optim.Adam(modules.parameters(), lr=0.05)
    factors = Factors(*(table.clone() for table in tables), offset=offset)
    epoch = DenseAdamEpoch(factors)
    for _ in range(3):
        order = torch.randperm(N, generator=generator)
        expected = 0.0
        for rows in order.split(8):
            index = (users[rows], items[rows])
            u, v, *b = (module(index[k % 2]) for k, module in enumerate(modules))
            residual = ratings[rows].double() - offset - sum(bias[:, 0] for bias in b)
            error = (u * v).sum(1) - residual
            if steps:
                size = min(steps * step_size, radius / 2)  # closed form, four coordinates
                delta = size * (error.sign()[:, None] * v.sign()).detach()
                error = ((u + delta) * v).sum(1) - residual
            pull = sum(
                (penalty * inverse[k % 2][index[k % 2]] * part.square().sum(1)).mean()
                for k, part, penalty in zip(range(4), (u, v, *b), PENALTIES.values(), strict=False)
            )
            optimizer.zero_grad()
            (error.square().mean() + pull).backward()
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(modules.parameters(), clip_norm)
            optimizer.step()
            expected += float(error.detach().square().sum())
        total = epoch(
            factors.user,
            factors.item,
            users,
            items,
            ratings,
            order,
            lr=0.05,
            batch_size=8,
            user_bias=factors.user_bias,
            item_bias=factors.item_bias,
            offset=offset,
            steps=steps,
            step_size=step_size,
            radius=radius,
            inner="pgd",
            user_inverse_count=inverse[0],
            item_inverse_count=inverse[1],
            clip_norm=clip_norm,
            progress=None,
            **{f"{name}_penalty": value for name, value in PENALTIES.items()},
        )
        assert float(total) == pytest.approx(expected, rel=1e-4)
    trained = [factors.user, factors.item, factors.user_bias, factors.item_bias]
    for module, table in zip(modules, trained[: len(tables)], strict=True):
        expected_table = module.weight.detach().reshape(table.shape)
        torch.testing.assert_close(table.double(), expected_table, rtol=1e-4, atol=1e-4)


def test_an_overflow_is_an_error() -> None:
    factors = Factors(torch.full((2, 1), 1e30), torch.full((2, 1), 1e30))
    row = torch.tensor([0])
    with pytest.raises(SpoiltTablesError):
        DenseAdamEpoch(factors)(
            factors.user,
            factors.item,
            row,
            row,
            torch.tensor([3.0]),
            row,
            lr=0.01,
            batch_size=1,
            user_bias=None,
            item_bias=None,
            offset=0.0,
            steps=0,
            step_size=None,
            radius=0.0,
            inner="pgd",
            user_penalty=0.0,
            item_penalty=0.0,
            user_bias_penalty=0.0,
            item_bias_penalty=0.0,
            user_inverse_count=None,
            item_inverse_count=None,
            clip_norm=None,
            progress=None,
        )
