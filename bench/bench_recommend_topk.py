"""Top 20 of all items for each user: the Books shape, 368,000 items, d = 10, float32.

Vectors are normal. `torch` is the product and `torch.topk` in blocks of users, into one buffer, of
the fastest size; `torch_compile` is the same, compiled. numba is parallel over users, has fastmath
and compares the best score of a stretch of items with the worst of the best. Every result is
compared with float64 before it is timed: the same scores, and items that have them.
`extra_info["ns_per_user"]` is the figure to compare; `extra_info["extra_mib"]`, on Linux, is by how
much one call raises the peak of the memory of a process of its own, the results not counted.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from shapes import SHAPES, SHORT, benched
from torch import Tensor

from scdr.ops import recommend_topk

D, K = 10, 20
N_ITEMS = SHAPES["books"][1] // (40 if SHORT else 1)
N_USERS = 200 if SHORT else 10_000
BLOCK = 16
"""Users at a time: of powers of 2, the fastest on 2 threads, and within 5 % of it on 1."""

Result = tuple[Tensor, Tensor]
Recommend = Callable[[Tensor, Tensor], Result]


def block_topk(users: Tensor, items: Tensor, buffer: Tensor) -> Result:
    torch.mm(users, items.T, out=buffer)
    return torch.topk(buffer, K)


def in_blocks(
    block: Callable[[Tensor, Tensor, Tensor], Result], users_at_once: int = BLOCK
) -> Recommend:
    def recommend(users: Tensor, items: Tensor) -> Result:
        scores = users.new_empty(len(users), K)
        best = users.new_empty(len(users), K, dtype=torch.int64)
        buffer = users.new_empty(users_at_once, len(items))
        for begin in range(0, len(users), users_at_once):
            some = users[begin : begin + users_at_once]
            found = block(some, items, buffer[: len(some)])
            scores[begin : begin + users_at_once], best[begin : begin + users_at_once] = found
        return scores, best

    return recommend


@cache
def compiled_block() -> Callable[[Tensor, Tensor, Tensor], Result]:
    return torch.compile(block_topk)


@cache
def compiled_numba() -> Callable[..., Any]:
    numba = pytest.importorskip("numba")
    import numpy as np

    stretch = 512

    @numba.njit(parallel=True, fastmath=True, boundscheck=False)
    def recommend(users, items, k):  # type: ignore
        n_users, d = users.shape
        n_items = items.shape[1]
        scores = np.empty((n_users, k), np.float32)
        best = np.empty((n_users, k), np.int64)
        for user in numba.prange(n_users):
            block = np.empty(stretch, np.float32)
            top = np.full(k, np.float32(-3e38))  # ascending; fastmath knows no infinity
            which = np.full(k, -1, np.int64)
            for begin in range(0, n_items, stretch):
                n = min(stretch, n_items - begin)
                block[:] = 0
                for j in range(d):
                    factor, column = users[user, j], items[j, begin : begin + n]
                    for i in range(n):
                        block[i] += factor * column[i]
                highest = block[0]
                for i in range(n):
                    highest = max(highest, block[i])
                if highest <= top[0]:
                    continue
                for i in range(n):
                    if block[i] > top[0]:
                        at = 0
                        while at + 1 < k and top[at + 1] < block[i]:
                            top[at], which[at] = top[at + 1], which[at + 1]
                            at += 1
                        top[at], which[at] = block[i], begin + i
            scores[user] = top[::-1]
            best[user] = which[::-1]
        return scores, best

    return recommend


def numba_recommend(users: Tensor, items: Tensor) -> Result:
    import numba

    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
    columns = items.T.contiguous().numpy()
    scores, best = compiled_numba()(users.numpy(), columns, K)
    return torch.from_numpy(scores), torch.from_numpy(best)


def scdr_recommend(users: Tensor, items: Tensor) -> Result:
    return recommend_topk(users, items, K)


def torch_compile(users: Tensor, items: Tensor) -> Result:
    return in_blocks(compiled_block())(users, items)


IMPLEMENTATIONS: dict[str, Recommend] = {
    "scdr": scdr_recommend,
    "torch": in_blocks(block_topk),
    "torch_compile": torch_compile,
    "numba": numba_recommend,
}


def vectors(n_users: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    items = torch.randn(N_ITEMS, D, generator=random)
    return torch.randn(n_users, D, generator=random), items


@pytest.mark.parametrize("torch_threads", [1, 2], indirect=True)
@pytest.mark.parametrize("name", benched(IMPLEMENTATIONS))
def test_recommend_topk(benchmark: Any, name: str, torch_threads: int) -> None:
    users, items = vectors(N_USERS)
    recommend = IMPLEMENTATIONS[name]
    check(recommend(users[:100], items), users[:100], items)

    benchmark.group = "recommend_topk"
    benchmark.pedantic(recommend, args=(users, items), rounds=3 if SHORT else 5)
    if benchmark.stats is not None:
        benchmark.extra_info.update(
            work=benchmark.group,
            implementation=name,
            threads=torch_threads,
            ns_per_user=benchmark.stats.stats.median / N_USERS * 1e9,
            extra_mib=extra_mib(name, torch_threads),
        )


def check(result: Result, users: Tensor, items: Tensor) -> None:
    scores, best = result
    expected = users.double() @ items.double().T
    torch.testing.assert_close(scores.double(), expected.topk(K).values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(expected.gather(1, best), scores.double(), rtol=1e-5, atol=1e-5)
    assert (best.sort().values.diff() > 0).all()


def extra_mib(name: str, threads: int) -> float | None:
    """Measured in a process of its own, after a first call on few items has loaded everything."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure_extra_mib, (name, threads))


def measure_extra_mib(name: str, threads: int) -> float:
    torch.set_num_threads(threads)
    users, items = vectors(1000)
    recommend = IMPLEMENTATIONS[name]
    recommend(users[:200], items[:9000].contiguous())
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is held now
    before = status_kib("VmRSS")
    result = recommend(users, items)
    results = sum(t.numel() * t.element_size() for t in result) / 1024
    return (status_kib("VmHWM") - before - results) / 1024


def status_kib(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))
