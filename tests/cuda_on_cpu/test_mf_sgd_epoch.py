"""What the CUDA side of mf_sgd_epoch_ does beyond the tests it shares with the CPU's."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from cuda_on_cpu.ops import cuda_code_on_cpu, seed
from scdr.ops import mf_sgd_epoch_
from scdr.ops.adam import AdamState


@pytest.fixture(autouse=True)
def cuda_code() -> Iterator[None]:
    with cuda_code_on_cpu():
        yield


def problem(n: int, d: int) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    tables = {"user": torch.randn(40, d, generator=random) * d**-0.5}
    tables |= {"item": torch.randn(30, d, generator=random) * d**-0.5}
    tables |= {"user_bias": torch.randn(40), "item_bias": torch.randn(30)}
    users = torch.randint(40, (n,), generator=random, dtype=torch.int32)
    items = torch.randint(30, (n,), generator=random, dtype=torch.int32)
    ratings = torch.randint(1, 6, (n,), generator=random).float()
    return {**tables, "users": users, "items": items, "ratings": ratings, "order": torch.arange(n)}


def train(tensors: dict[str, Tensor], *, adam: bool, **settings: Any) -> list[Tensor]:
    """The loss, the tables and the moments after an epoch."""
    arguments: dict[str, Any] = copy.deepcopy(tensors)
    tables = {name: arguments[name] for name in ("user", "item", "user_bias", "item_bias")}
    state = AdamState.zeros(**tables) if adam else None
    loss = mf_sgd_epoch_(**arguments, **settings, lr=1e-3, steps=5, radius=1.0, adam=state)
    moments = [*state.first.values(), *state.second.values()] if state else []
    return [loss, *tables.values(), *moments]


def assert_same_bits(first: list[Tensor], second: list[Tensor]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# The first four in one block, the others on the grid.
@pytest.mark.parametrize(
    ("d", "batch_size"),
    [(10, 50), (10, 511), (7, 90), (16, 150), (10, 600), (20, 90), (33, 300)],
)
@pytest.mark.parametrize("adam", [False, True], ids=["sgd", "adam"])
@pytest.mark.parametrize("clip_norm", [None, 1.0], ids=["free", "clipped"])
def test_same_bits_in_any_order_of_threads(
    d: int, batch_size: int, adam: bool, clip_norm: float | None
) -> None:
    tensors = problem(1000, d)
    results = []
    for value in range(3):
        seed(value)
        results.append(train(tensors, adam=adam, batch_size=batch_size, clip_norm=clip_norm))
    for result in results[1:]:
        assert_same_bits(results[0], result)


def test_trainings_side_by_side() -> None:
    problems = [problem(400, 10), problem(300, 33)]
    expected = [train(tensors, adam=True, batch_size=64) for tensors in problems]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda t: train(t, adam=True, batch_size=64), problems))
    for one, other in zip(expected, results, strict=True):
        assert_same_bits(one, other)


def test_progress_between_slices_ends_the_epoch() -> None:
    tensors = problem(30_000, 1)
    del tensors["user_bias"], tensors["item_bias"]
    adam = AdamState.zeros(user=tensors["user"], item=tensors["item"])
    seen: list[int] = []

    def stop(done: int, total: int) -> None:
        assert total == 30_000
        seen.append(done)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mf_sgd_epoch_(**tensors, lr=1e-4, batch_size=1, adam=adam, progress=stop)
    assert 0 < seen[0] < seen[1] < 30_000
    assert adam.step == seen[1]
