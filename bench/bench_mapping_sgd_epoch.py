"""An epoch of the mapping stage by SGD: MLP 10-50-10, k = 5, radius 5, batch 256, users trained.

`torch` is the training loop with the item folded into the readout for PGD (see
bench_pgd_perturb.py), autograd for the loss, and torch.optim.SGD on a sparse embedding of the
users; `torch_by_hand` has its gradients and updates written out, and `torch_compile` is that,
compiled, batch by batch. numba is parallel, with fastmath, and works on blocks of rows side by
side. All do the same batches from the same start, and must reach the same loss and the same
parameters as the reference in float64 before they are timed. `extra_info["ns_per_rating"]` is the
figure to compare.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from bench_pgd_perturb import folded, numba_tanh
from shapes import SHORT, benched
from torch import Tensor, nn

from scdr.ops import mapping_sgd_epoch_, reference

D, HIDDEN, STEPS, RADIUS, BATCH, RATE = 10, 50, 5, 5.0, 256, 0.01
N_USERS, N_ITEMS, RATINGS = (500, 2000, 5000) if SHORT else (5000, 50_000, 100_000)

Problem = dict[str, Any]
Epoch = Callable[[Problem], float]


def problem() -> Problem:
    """Residual ratings of a planted structure, in random order."""
    torch.manual_seed(0)
    item = 0.3 * torch.randn(N_ITEMS, D)
    user = torch.randn(N_USERS, D)
    users = torch.randint(N_USERS, (RATINGS,), dtype=torch.int32)
    items = torch.randint(N_ITEMS, (RATINGS,), dtype=torch.int32)
    score = ((user @ torch.randn(D, D))[users] * item[items]).sum(1)
    mapping = nn.Sequential(nn.Linear(D, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, D))
    return {
        "user": user,
        "item": item,
        "mapping": mapping,
        "users": users,
        "items": items,
        "ratings": score + 0.5 * torch.randn(RATINGS),
        "order": torch.randperm(RATINGS),
    }


def scdr_epoch(data: Problem) -> float:
    loss = mapping_sgd_epoch_(**data, lr=RATE, batch_size=BATCH, steps=STEPS, radius=RADIUS)
    return float(loss)


def torch_epoch(data: Problem) -> float:
    mapping, item, ratings = data["mapping"], data["item"], data["ratings"]
    users, items = data["users"].long(), data["items"].long()
    user = nn.Embedding.from_pretrained(data["user"], freeze=False, sparse=True)
    optimizer = torch.optim.SGD([*mapping.parameters(), user.weight], lr=RATE)
    total = ratings.new_zeros((), dtype=torch.float64)
    for rows in data["order"].split(BATCH):
        u, v, r = user(users[rows]), item[items[rows]], ratings[rows]
        with torch.no_grad():
            delta = folded(u, v, r, mapping)
        loss = (torch.linalg.vecdot(mapping(u + delta), v) - r).square()
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        total += loss.detach().sum()
    return float(total)


@torch.no_grad()
def by_hand(
    u: Tensor, v: Tensor, r: Tensor, mapping: nn.Sequential
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Loss, gradient over the rows' users, gradients over the mapping; all of the mean."""
    w1, b1, w2, b2 = mapping.parameters()
    x = u + folded(u, v, r, mapping)  # [B, d]
    h = torch.addmm(b1, x, w1.T).tanh_()  # [B, H]
    c = v @ w2  # [B, H]
    e = torch.linalg.vecdot(c, h).add_(v @ b2).sub_(r)  # [B]
    gv = v * (2 / len(r) * e)[:, None]  # [B, d]
    slope = torch.addcmul(c, c * h, h, value=-1).mul_((2 / len(r) * e)[:, None])  # [B, H]
    gradients = [slope.T @ x, slope.sum(0), gv.T @ h, gv.sum(0)]
    return e.square().sum(), slope @ w1, gradients


def epoch_by(step: Callable[..., tuple[Tensor, Tensor, list[Tensor]]]) -> Epoch:
    @torch.no_grad()
    def epoch(data: Problem) -> float:
        user, item, mapping, ratings = (data[k] for k in ("user", "item", "mapping", "ratings"))
        users, items = data["users"].long(), data["items"].long()
        weights = list(mapping.parameters())
        total = ratings.new_zeros((), dtype=torch.float64)
        for rows in data["order"].split(BATCH):
            at = users[rows]
            loss, over_user, gradients = step(user[at], item[items[rows]], ratings[rows], mapping)
            total += loss
            torch._foreach_add_(weights, gradients, alpha=-RATE)
            user.index_add_(0, at, over_user, alpha=-RATE)
        return float(total)

    return epoch


@cache
def compiled_step() -> Callable[..., Any]:
    return torch.compile(by_hand, dynamic=False)


@cache
def compiled_numba() -> Callable[..., Any]:
    numba = pytest.importorskip("numba")
    import numpy as np

    width = 64
    f32 = np.float32
    tanh = numba_tanh()

    @numba.njit(fastmath=True, inline="always")
    def forward(x, w1, b1, c, s, e, z, g, h, keep):  # type: ignore
        hidden, d = w1.shape
        e[:] = s
        g[:] = 0
        for j in range(hidden):
            z[:] = b1[j]
            for k in range(d):
                for i in range(width):
                    z[i] += w1[j, k] * x[k, i]
            for i in range(width):
                t = tanh(z[i])
                e[i] += c[j, i] * t
                z[i] = c[j, i] * (f32(1) - t * t)
                if keep:
                    h[j, i] = t
            if keep:  # the readout is done with
                c[j] = z
            for k in range(d):
                for i in range(width):
                    g[k, i] += w1[j, k] * z[i]

    @numba.njit(parallel=True, fastmath=True, error_model="numpy", boundscheck=False)
    def epoch(
        user, item, users, items, ratings, order, w1, b1, w2, b2, size, alpha, radius, steps, rate
    ):  # type: ignore
        d, hidden = user.shape[1], len(b1)
        blocks = (size + width - 1) // width
        row_gradient = np.empty((size, d), np.float32)
        losses = np.zeros(blocks, np.float64)
        dw1 = np.empty((blocks, hidden, d), np.float32)
        db1 = np.empty((blocks, hidden), np.float32)
        dw2 = np.empty((blocks, d, hidden), np.float32)
        db2 = np.empty((blocks, d), np.float32)
        total = 0.0
        for first in range(0, len(order), size):
            count = min(size, len(order) - first)
            for block in numba.prange((count + width - 1) // width):
                begin = block * width
                n = min(width, count - begin)
                u = np.zeros((d, width), np.float32)
                v = np.zeros((d, width), np.float32)
                x = np.zeros((d, width), np.float32)
                delta = np.zeros((d, width), np.float32)
                g = np.empty((d, width), np.float32)
                c = np.zeros((hidden, width), np.float32)
                h = np.empty((hidden, width), np.float32)
                s = np.zeros(width, np.float32)
                e = np.empty(width, np.float32)
                z = np.empty(width, np.float32)
                scale = np.empty(width, np.float32)
                for i in range(n):
                    row = order[first + begin + i]
                    s[i] = -ratings[row]
                    for k in range(d):
                        u[k, i] = user[users[row], k]
                        v[k, i] = item[items[row], k]
                for t in range(d):
                    for i in range(width):
                        s[i] += b2[t] * v[t, i]
                    for j in range(hidden):
                        for i in range(width):
                            c[j, i] += w2[t, j] * v[t, i]
                for _ in range(steps):
                    for k in range(d):
                        for i in range(width):
                            x[k, i] = u[k, i] + delta[k, i]
                    forward(x, w1, b1, c, s, e, z, g, h, False)
                    scale[:] = 0
                    for k in range(d):
                        for i in range(width):
                            delta[k, i] += alpha * np.sign(e[i]) * np.sign(g[k, i])
                            scale[i] += delta[k, i] * delta[k, i]
                    for i in range(width):
                        scale[i] = min(f32(1), radius / max(np.sqrt(scale[i]), f32(1e-12)))
                    for k in range(d):
                        for i in range(width):
                            delta[k, i] *= scale[i]
                for k in range(d):
                    for i in range(width):
                        x[k, i] = u[k, i] + delta[k, i]
                forward(x, w1, b1, c, s, e, z, g, h, True)
                loss = f32(0)
                for i in range(width):
                    loss += e[i] * e[i]
                    e[i] *= f32(2) / f32(count)
                losses[block] = loss
                for k in range(d):
                    for i in range(n):
                        row_gradient[begin + i, k] = e[i] * g[k, i]
                    for i in range(width):
                        x[k, i] *= e[i]
                        v[k, i] *= e[i]
                for j in range(hidden):
                    bias = f32(0)
                    for i in range(width):
                        bias += c[j, i] * e[i]
                    db1[block, j] = bias
                    for k in range(d):
                        one, two = f32(0), f32(0)
                        for i in range(width):
                            one += c[j, i] * x[k, i]
                            two += h[j, i] * v[k, i]
                        dw1[block, j, k] = one
                        dw2[block, k, j] = two
                for k in range(d):
                    bias = f32(0)
                    for i in range(width):
                        bias += v[k, i]
                    db2[block, k] = bias
            for block in range((count + width - 1) // width):
                total += losses[block]
                w1 -= rate * dw1[block]
                b1 -= rate * db1[block]
                w2 -= rate * dw2[block]
                b2 -= rate * db2[block]
            for i in range(count):
                at = users[order[first + i]]
                for k in range(d):
                    user[at, k] -= rate * row_gradient[i, k]
        return total

    return epoch


def numba_epoch(data: Problem) -> float:
    import numba
    import numpy as np

    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
    names = ("user", "item", "users", "items", "ratings", "order")
    arrays = [data[name].numpy() for name in names]
    weights = [weight.detach().numpy() for weight in data["mapping"].parameters()]
    lengths = np.float32(D**-0.5), np.float32(RADIUS), STEPS, np.float32(RATE)
    return float(compiled_numba()(*arrays, *weights, BATCH, *lengths))


def torch_compile(data: Problem) -> float:
    return epoch_by(compiled_step())(data)


IMPLEMENTATIONS: dict[str, Epoch] = {
    "scdr": scdr_epoch,
    "torch": torch_epoch,
    "torch_by_hand": epoch_by(by_hand),
    "torch_compile": torch_compile,
    "numba": numba_epoch,
}


@pytest.mark.parametrize("torch_threads", [1, 2], indirect=True)
@pytest.mark.parametrize("name", benched(IMPLEMENTATIONS))
def test_mapping_epoch(benchmark: Any, name: str, torch_threads: int) -> None:
    epoch = IMPLEMENTATIONS[name]
    check(epoch)

    benchmark.group = "mapping_epoch"
    rounds = 3 if SHORT else 5 if name.startswith("torch") else 15
    benchmark.pedantic(
        epoch, setup=lambda: ((problem(),), {}), rounds=rounds, iterations=1, warmup_rounds=1
    )
    if benchmark.stats is not None:
        benchmark.extra_info.update(
            work=benchmark.group,
            implementation=name,
            threads=torch_threads,
            ns_per_rating=benchmark.stats.stats.median / RATINGS * 1e9,
        )


def first_batches() -> Problem:
    """So few batches that a sign near a tie, which rounding decides, changes little after it."""
    data = problem()
    data["order"] = data["order"][: 20 * BATCH]
    return data


@cache
def expected() -> tuple[float, Problem]:
    data = first_batches()
    exact = {
        k: v.double() if v.is_floating_point() else v for k, v in data.items() if k != "mapping"
    }
    exact["mapping"] = copy.deepcopy(data["mapping"]).double()
    loss = reference.mapping_sgd_epoch_(
        **exact, lr=RATE, batch_size=BATCH, steps=STEPS, radius=RADIUS
    )
    return float(loss), exact


def check(epoch: Epoch) -> None:
    loss, exact = expected()
    data = first_batches()
    assert epoch(data) == pytest.approx(loss, rel=1e-3)
    close = {"rtol": 0.0, "atol": 3e-3}
    torch.testing.assert_close(data["user"].double(), exact["user"], **close)
    for mine, theirs in zip(
        data["mapping"].parameters(), exact["mapping"].parameters(), strict=True
    ):
        torch.testing.assert_close(mine.double(), theirs, **close)
