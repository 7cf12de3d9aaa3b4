"""An epoch of SGD on L_MF and L_SMF: d = 10, batch 256, on the shapes of Table III.

Every implementation visits the same ratings in the same order from the same tables, and its result
is compared before it is timed. LIBMF sets its own start and step sizes and does not work in
minibatches: it must have learnt (its training error is under half that of predicting 0), and the
errors that it and `scdr` reach after as many epochs are in `extra_info`. Its times are those of an
iteration: the difference between fits of many and of one, which leaves out what it does once.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import statistics
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch
from shapes import SHORT, Ratings, benched, ratings_like
from torch import Tensor

from scdr.ops import mf_sgd_epoch_

D, BATCH, LR = 10, 256, 0.002
CHECKED = 20 * BATCH
SMF: dict[str, Any] = {"steps": 5, "radius": 1.0}
Epoch = Callable[[Tensor, Tensor, Ratings, Tensor], object]  # user, item, data, order


def scdr_epoch(user: Tensor, item: Tensor, data: Ratings, order: Tensor, **smf: Any) -> None:
    mf_sgd_epoch_(
        user, item, data.users, data.items, data.ratings, order, lr=LR, batch_size=BATCH, **smf
    )


def closed_form(error: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The perturbed error [B] and delta [B, d] of L_SMF; item vectors hold no zero here."""
    length = min(SMF["steps"] * D**-0.5, SMF["radius"] * D**-0.5)
    return error + length * error.sgn() * v.abs().sum(1), length * error.sgn()[:, None] * v.sgn()


def torch_index_add(
    user: Tensor, item: Tensor, data: Ratings, order: Tensor, *, smf: bool = False
) -> None:
    for rows in order.split(BATCH):
        i, j = data.users[rows], data.items[rows]  # [B]
        u, v = user[i], item[j]  # [B, d]
        error = (u * v).sum(1) - data.ratings[rows]  # [B]
        if smf:
            error, delta = closed_form(error, v)
            u = u + delta
        gain = (error * (-2 * LR))[:, None]
        user.index_add_(0, i, gain * v)
        item.index_add_(0, j, gain * u)


@cache
def compiled_step(smf: bool) -> Callable[..., None]:
    """A batch of torch_index_add by torch.compile, as one graph."""
    if shutil.which("c++") is None:
        pytest.skip("torch.compile needs a C++ compiler")

    def step(user: Tensor, item: Tensor, i: Tensor, j: Tensor, ratings: Tensor) -> None:
        u, v = user[i], item[j]  # [B, d]
        error = (u * v).sum(1) - ratings  # [B]
        if smf:
            error, delta = closed_form(error, v)
            u = u + delta
        gain = (error * (-2 * LR))[:, None]
        user.index_add_(0, i, gain * v)
        item.index_add_(0, j, gain * u)

    return torch.compile(step, fullgraph=True, dynamic=False)


def torch_compile_index_add(
    user: Tensor, item: Tensor, data: Ratings, order: Tensor, *, smf: bool = False
) -> None:
    step = compiled_step(smf)
    for rows in order.split(BATCH):
        step(user, item, data.users[rows], data.items[rows], data.ratings[rows])


@cache
def compiled_numba_epoch() -> Callable[..., None]:
    numba = pytest.importorskip("numba")
    import numpy as np

    @numba.njit(fastmath=True, error_model="numpy", boundscheck=False)
    def epoch(user, item, users, items, ratings, order, lr, batch, length):  # type: ignore
        d = user.shape[1]
        u_step = np.empty((batch, d), np.float32)
        v_step = np.empty((batch, d), np.float32)
        for begin in range(0, len(order), batch):
            end = min(begin + batch, len(order))
            for at in range(begin, end):
                row = order[at]
                u, v = user[users[row]], item[items[row]]
                error, size = -ratings[row], np.float32(0)
                for k in range(d):
                    error += u[k] * v[k]
                    size += abs(v[k])
                along = length * np.sign(error)
                gain = 2 * lr * (error + along * size)
                for k in range(d):
                    u_step[at - begin, k] = gain * v[k]
                    v_step[at - begin, k] = gain * (u[k] + along * np.sign(v[k]))
            for at in range(begin, end):
                row = order[at]
                u, v = user[users[row]], item[items[row]]
                for k in range(d):
                    u[k] -= u_step[at - begin, k]
                    v[k] -= v_step[at - begin, k]

    return epoch


def numba_epoch(
    user: Tensor, item: Tensor, data: Ratings, order: Tensor, *, smf: bool = False
) -> None:
    import numpy as np

    length = np.float32(min(SMF["steps"], SMF["radius"]) * D**-0.5 if smf else 0)
    columns = (data.users, data.items, data.ratings, order)
    arrays = [tensor.numpy() for tensor in (user, item, *columns)]
    compiled_numba_epoch()(*arrays, np.float32(LR), BATCH, length)


IMPLEMENTATIONS: dict[str, tuple[Epoch, Epoch]] = {  # L_MF and L_SMF
    "scdr": (scdr_epoch, partial(scdr_epoch, **SMF)),
    "torch": (torch_index_add, partial(torch_index_add, smf=True)),
    "torch_compile": (torch_compile_index_add, partial(torch_compile_index_add, smf=True)),
    "numba": (numba_epoch, partial(numba_epoch, smf=True)),
}
WORKS = [("mf_epoch", "movies"), ("smf_epoch", "movies"), ("mf_epoch", "books")]
CASES = [
    pytest.param(kind, shape, name, threads, id=f"{kind}/{shape}-{name}-{threads}")
    for kind, shape in WORKS
    for name in benched(IMPLEMENTATIONS)
    for threads in ((1,) if name == "numba" or (shape == "books" and name != "scdr") else (1, 2))
]


def tables(data: Ratings) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    user = torch.randn(data.n_users, D, generator=random) * 0.3  # [U, d]
    return user, torch.randn(data.n_items, D, generator=random) * 0.3  # [I, d]


def report(benchmark: Any, work: str, name: str, threads: int, ns_per_rating: float) -> None:
    benchmark.extra_info.update(
        work=work, implementation=name, threads=threads, ns_per_rating=ns_per_rating
    )


@pytest.mark.parametrize(
    ("kind", "shape", "name", "torch_threads"), CASES, indirect=["torch_threads"]
)
def test_epoch(
    benchmark: Any,
    kind: str,
    shape: str,
    name: str,
    torch_threads: int,
) -> None:
    data = ratings_like(shape)
    epoch = IMPLEMENTATIONS[name][kind == "smf_epoch"]
    ours = IMPLEMENTATIONS["scdr"][kind == "smf_epoch"]
    start = tables(data)
    expected, actual = [[t.clone() for t in start] for _ in range(2)]
    ours(*expected, data, data.order[:CHECKED])
    epoch(*actual, data, data.order[:CHECKED])
    for mine, theirs in zip(expected, actual, strict=True):
        torch.testing.assert_close(theirs, mine, rtol=1e-4, atol=1e-5)  # 20 batches in float32

    user, item = (t.clone() for t in start)

    def restart() -> None:
        user.copy_(start[0])
        item.copy_(start[1])

    benchmark.group = f"{kind}/{shape}"
    rounds = 2 if SHORT else 7 if shape == "movies" else 3
    benchmark.pedantic(
        epoch, args=(user, item, data, data.order), setup=restart, rounds=rounds, warmup_rounds=1
    )
    if benchmark.stats is not None:
        median = benchmark.stats.stats.median
        report(benchmark, benchmark.group, name, torch_threads, median / len(data.order) * 1e9)


def scdr_rmse(data: Ratings, epochs: int) -> float:
    """Training error in the last of so many epochs at the protocol's learning rate."""
    columns = (data.users, data.items, data.ratings, data.order)
    user, item = tables(data)
    for _ in range(epochs):
        loss = mf_sgd_epoch_(user, item, *columns, lr=0.01, batch_size=BATCH)
    return float(loss / len(data.order)) ** 0.5


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@pytest.mark.parametrize("shape", ["movies", "books"])
@pytest.mark.parametrize("threads", [1, 2])
def test_libmf(benchmark: Any, shape: str, threads: int) -> None:
    with contextlib.redirect_stdout(io.StringIO()):  # it prints where it was found
        libmf = pytest.importorskip("libmf.mf", reason="LIBMF is not installed: pip install libmf")
    data = ratings_like(shape)
    columns = (data.users, data.items, data.ratings)
    rows = torch.stack([column.float() for column in columns], 1).numpy()  # [n, 3]
    iterations = 20 if SHORT or shape == "movies" else 6

    def fit(count: int) -> Any:
        model = libmf.MF(
            k=D, nr_threads=threads, nr_iters=count, eta=0.1, lambda_p2=0, lambda_q2=0, quiet=True
        )
        model.fit(rows)
        return model

    once = []
    for _ in range(2 if SHORT else 3):
        began = time.perf_counter()
        fit(1)
        once.append(time.perf_counter() - began)
    benchmark.group = f"mf_epoch/{shape}"
    model = benchmark.pedantic(fit, args=(1 + iterations,), rounds=2 if SHORT else 3)
    error = torch.from_numpy(model.predict(rows[:, :2])) - data.ratings
    rmse = float(error.square().mean().sqrt())
    assert rmse < 0.5 * float(data.ratings.square().mean().sqrt())
    if benchmark.stats is not None:
        stats = benchmark.stats.stats
        stats.data = [(fitting - statistics.median(once)) / iterations for fitting in stats.data]
        ns_per_rating = stats.median / len(data.ratings) * 1e9
        report(benchmark, benchmark.group, "libmf", threads, ns_per_rating)
        benchmark.extra_info.update(rmse=rmse, scdr_rmse=scdr_rmse(data, 1 + iterations))
