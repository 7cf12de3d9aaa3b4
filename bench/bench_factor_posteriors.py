"""All users given the items they rated, d = 10, float32: one half of a sweep of SCDR-B's model.

`torch` is a product of a sparse matrix with the moments and a batched inverse, in blocks of users;
`scipy_numpy` the same by `scipy.sparse` and Gauss-Jordan steps along many users at once. Every
result is compared with the op's before it is timed.
`extra_info["ns_per_rating"]` is the figure to compare.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from shapes import Ratings, ratings_like
from torch import Tensor

from scdr.models.moments import inverse, normal_equations, times
from scdr.ops import factor_posteriors_

D, NOISE, BLOCK = 10, 0.5, 2048
WIDTH = D + 2
UPPER = torch.triu_indices(WIDTH, WIDTH)
PHI = [0, *range(2, WIDTH)]


class Problem:
    """Ratings row by row, and random moments of the items."""

    def __init__(self, ratings: Ratings) -> None:
        rated = (ratings.ratings.numpy() - 3.8, (ratings.users.numpy(), ratings.items.numpy()))
        self.matrix = csr_array(rated, shape=(ratings.n_users, ratings.n_items))  # sums duplicates
        self.start = torch.from_numpy(self.matrix.indptr.astype(np.int64))
        self.items = torch.from_numpy(self.matrix.indices)
        self.ratings = torch.from_numpy(self.matrix.data)
        random = torch.Generator().manual_seed(0)
        a = 0.3 * torch.randn(ratings.n_items, WIDTH, generator=random)
        a[:, 0] = 1
        second = a[:, :, None] * a[:, None, :]
        second[:, 1:, 1:] += 0.1 * torch.eye(D + 1)
        self.moments = second[:, UPPER[0], UPPER[1]].contiguous()
        self.group = torch.zeros(ratings.n_users, dtype=torch.int64)
        self.precision = 2 * torch.eye(D + 1)[None]

    def blocks(self) -> list[slice]:
        rows = len(self.group)
        return [slice(at, min(at + BLOCK, rows)) for at in range(0, rows, BLOCK)]


def native(problem: Problem, out: Tensor) -> None:
    factor_posteriors_(
        out,
        problem.start,
        problem.items,
        problem.ratings,
        problem.moments,
        problem.precision,
        problem.group,
        noise=NOISE,
    )


def torch_blocks(problem: Problem, out: Tensor) -> None:
    for rows in problem.blocks():
        start = problem.start[rows.start : rows.stop + 1]
        entries = slice(int(start[0]), int(start[-1]))
        place, items = start - start[0], problem.items[entries]

        def product(values: Tensor, dense: Tensor, place: Tensor = place) -> Tensor:
            size = (len(place) - 1, len(problem.moments))
            return torch.sparse_csr_tensor(place.int(), items, values, size) @ dense  # noqa: B023

        ratings = problem.ratings[entries]
        packed = product(torch.ones_like(ratings), problem.moments)
        first = product(ratings, problem.moments[:, :WIDTH].contiguous())
        second = packed.new_zeros(len(packed), WIDTH, WIDTH)
        second[:, UPPER[0], UPPER[1]] = packed
        second[:, UPPER[1], UPPER[0]] = packed
        precision = second[:, PHI][:, :, PHI] / NOISE + problem.precision
        covariance = torch.linalg.inv(precision)
        mean = covariance @ ((first[:, PHI] - second[:, 1, PHI]) / NOISE)[:, :, None]  # [b, p, 1]
        both = torch.ones(len(mean), WIDTH, WIDTH)
        both[:, 1:, 1:] = covariance + mean * mean.mT
        both[:, 0, 1:] = mean[:, :, 0]
        out[rows] = both[:, UPPER[0], UPPER[1]]


def scipy_blocks(problem: Problem, out: Tensor) -> None:
    moments, result = problem.moments.numpy(), out.numpy()
    ones = csr_array(
        (np.ones_like(problem.matrix.data), problem.matrix.indices, problem.matrix.indptr),
        shape=problem.matrix.shape,
    )
    upper = np.triu_indices(D + 1)
    for rows in problem.blocks():
        second = ones[rows] @ moments
        first = problem.matrix[rows] @ np.ascontiguousarray(moments[:, :WIDTH])
        outer, linear = normal_equations(second, first)
        covariance = inverse(outer / np.float32(NOISE) + problem.precision.numpy()[0][:, :, None])
        mean = times(covariance, linear / np.float32(NOISE))
        covariance += mean[:, None] * mean[None]
        result[rows, 0] = 1
        result[rows, 1:WIDTH] = mean.T
        result[rows, WIDTH:] = covariance[upper].T


IMPLEMENTATIONS: dict[str, Callable[[Problem, Tensor], None]] = {
    "scdr": native,
    "torch": torch_blocks,
    "scipy_numpy": scipy_blocks,
}


@pytest.mark.parametrize("torch_threads", [1, 2], indirect=True)
@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_factor_posteriors(benchmark: Any, name: str, torch_threads: int) -> None:
    problem = Problem(ratings_like("movies"))
    size = (len(problem.group), problem.moments.shape[1])
    out, expected = torch.zeros(size), torch.zeros(size)
    native(problem, expected)
    IMPLEMENTATIONS[name](problem, out)
    torch.testing.assert_close(out, expected, rtol=1e-3, atol=1e-4)

    benchmark.group = "factor_posteriors, movies"
    benchmark.pedantic(IMPLEMENTATIONS[name], args=(problem, out), rounds=3)
    if benchmark.stats is not None:
        benchmark.extra_info.update(
            work=benchmark.group,
            implementation=name,
            threads=torch_threads,
            ns_per_rating=benchmark.stats.stats.median / len(problem.ratings) * 1e9,
        )
