from __future__ import annotations

import hashlib
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import scdr
from scdr.ops import factor_posteriors_, reference

Arguments = dict[str, Any]


def packed(matrices: Tensor) -> Tensor:
    """Upper triangles `[N, w (w + 1) / 2]` of `[N, w, w]`."""
    rows, columns = torch.triu_indices(*matrices.shape[1:])
    return matrices[:, rows, columns]


def moments_of(mean: Tensor, covariance: Tensor) -> Tensor:
    """E[a a'] of a = (1, y), packed, for y of this mean `[N, y]` and covariance `[N, y, y]`."""
    full = torch.zeros(len(mean), mean.shape[1] + 1, mean.shape[1] + 1, dtype=mean.dtype)
    full[:, 0, 0] = 1
    full[:, 0, 1:] = mean
    full[:, 1:, 1:] = covariance + mean[:, :, None] * mean[:, None, :]
    return packed(full)


def problem(
    rows: int = 37, others: int = 11, n: int = 400, d: int = 10, *, prior_mean: bool = True
) -> Arguments:
    """In float64; some rows have no rating, some many."""
    random = torch.Generator().manual_seed(rows + n + d)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    def positive(count: int) -> Tensor:
        root = normal(count, d + 1, d + 1) / (d + 1) ** 0.5
        return root @ root.mT + 0.1 * torch.eye(d + 1, dtype=torch.float64)

    ends = torch.randint(n + 1, (max(rows - 1, 0),), generator=random).sort().values
    return {
        "moments": torch.full((rows, (d + 2) * (d + 3) // 2), torch.nan, dtype=torch.float64),
        "start": torch.cat([torch.tensor([0]), ends, torch.tensor([n])])[: rows + 1],
        "others": torch.randint(others, (n,), generator=random, dtype=torch.int32),
        "ratings": normal(n),
        "other_moments": moments_of(normal(others, d + 1), positive(others)),
        "precision": 3 * positive(2),
        "group": torch.randint(2, (rows,), generator=random),
        "prior_mean": normal(rows, d + 1) if prior_mean else None,
        "noise": 0.7,
    }


def single(arguments: Arguments) -> Arguments:
    def convert(value: object) -> object:
        wide = isinstance(value, Tensor) and value.is_floating_point()
        return value.float() if wide else value  # type: ignore[attr-defined]

    return {name: convert(value) for name, value in arguments.items()}


@pytest.mark.parametrize("d", [0, 1, 10, 33])
@pytest.mark.parametrize(("rows", "n"), [(0, 0), (1, 30), (16, 0), (37, 400), (70, 3000)])
@pytest.mark.parametrize("prior_mean", [True, False])
def test_like_reference(rows: int, n: int, d: int, prior_mean: bool) -> None:
    exact = problem(rows, n=n, d=d, prior_mean=prior_mean)
    mine = single(exact)
    error = factor_posteriors_(**mine)
    expected_error = reference.factor_posteriors_(**exact)
    assert error.dtype == torch.float64 and error.shape == ()
    # Float32 through the solution of a system of d + 1 equations, whose condition is below 1e3.
    torch.testing.assert_close(mine["moments"].double(), exact["moments"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(error, expected_error, rtol=1e-5, atol=1e-5)


def test_where_the_items_are_known_it_is_ridge_regression() -> None:
    arguments = problem(rows=20, n=300, d=4)
    generator = torch.Generator().manual_seed(1)
    item = torch.randn(11, 5, generator=generator, dtype=torch.float64)  # biases, factors
    arguments["other_moments"] = moments_of(item, torch.zeros(11, 5, 5, dtype=torch.float64))
    mine = single(arguments)
    factor_posteriors_(**mine)
    start, noise = arguments["start"], arguments["noise"]
    for row in range(20):
        rated = slice(int(start[row]), int(start[row + 1]))
        items = item[arguments["others"][rated].long()]
        design = torch.cat([torch.ones_like(items[:, :1]), items[:, 1:]], dim=1)
        root = torch.linalg.cholesky(arguments["precision"][arguments["group"][row]]).mT
        # Least squares with the prior as further observations.
        left = torch.cat([design / noise**0.5, root])
        residual = arguments["ratings"][rated] - items[:, 0]
        right = torch.cat([residual / noise**0.5, root @ arguments["prior_mean"][row]])
        solution = torch.linalg.lstsq(left, right[:, None]).solution[:, 0]
        mean = mine["moments"][row, 1:6].double()
        torch.testing.assert_close(mean, solution, rtol=1e-4, atol=1e-4)


def test_a_row_without_ratings_is_as_expected() -> None:
    mine = single(problem(rows=5, n=0, d=3))
    assert float(factor_posteriors_(**mine)) == 0.0
    covariance = torch.linalg.inv(mine["precision"])[mine["group"]]
    torch.testing.assert_close(
        mine["moments"], moments_of(mine["prior_mean"], covariance), rtol=1e-4, atol=1e-4
    )


def digest() -> str:
    mine = single(problem(rows=3000, others=50, n=20_000, d=10))
    error = factor_posteriors_(**mine)
    return hashlib.sha256(mine["moments"].numpy().data).hexdigest() + repr(float(error))


@pytest.mark.usefixtures("threads")
def test_threads_and_simd_levels_give_the_same_bits() -> None:
    found = set()
    for count in (1, 2, 7):
        torch.set_num_threads(count)
        found.add(digest())
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); "
        "from test_factor_posteriors import digest; print(digest())"
    )
    for level in scdr.build_info().simd_compiled:
        ended = subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent)],
            env={**os.environ, "SCDR_SIMD": level},
            capture_output=True,
            text=True,
            check=False,
        )
        if "no such SIMD level here" not in ended.stderr:
            found.add(ended.stdout.strip())
    assert len(found) == 1


WRONG: list[tuple[str, object, str]] = [
    ("start", torch.tensor([0, 5, 3, 10]), "must begin at 0, never fall"),
    ("start", torch.tensor([0, 3, 5, 9]), "end at the number of ratings"),
    ("others", torch.full((10,), 4, dtype=torch.int32), r"outside \[0, 4\)"),
    ("others", torch.full((10,), -1, dtype=torch.int32), r"outside \[0, 4\)"),
    ("others", torch.zeros(10), "must have dtype Int"),
    ("group", torch.tensor([0, 2, 1]), r"outside \[0, 2\)"),
    ("ratings", torch.zeros(9), r"must have shape \[10\]"),
    ("moments", torch.zeros(3, 14), r"must have shape \[3, 15\]"),
    ("moments", torch.zeros(15, 3).T, "must be contiguous"),
    ("precision", torch.zeros(2, 4, 3), r"must have shape \[2, 4, 4\]"),
    ("prior_mean", torch.zeros(3, 3), r"must have shape \[3, 4\]"),
    ("noise", 0.0, "must be finite and positive"),
    ("noise", float("nan"), "must be finite and positive"),
    ("ratings", torch.full((10,), torch.inf), "other_moments or another argument holds"),
    ("other_moments", torch.full((4, 15), torch.nan), "holds a value that is not finite"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_bad_arguments_are_named(name: str, value: object, message: str) -> None:
    arguments = single(problem(rows=3, others=4, n=10, d=3)) | {name: value}
    with pytest.raises(ValueError, match=message):
        factor_posteriors_(**arguments)


@pytest.mark.parametrize("prior_mean", [True, False])
def test_opcheck(prior_mean: bool) -> None:
    arguments = single(problem(d=3, prior_mean=prior_mean))
    noise = arguments.pop("noise")
    arguments["moments"].zero_()
    torch.library.opcheck(
        torch.ops.scdr.factor_posteriors_.default, tuple(arguments.values()), {"noise": noise}
    )


def test_function_and_reference_take_the_same_arguments() -> None:
    signature = inspect.signature(reference.factor_posteriors_)
    assert signature == inspect.signature(factor_posteriors_)
