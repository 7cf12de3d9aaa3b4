"""PGD through an MLP 10-50-10 with biases: k = 5, radius 5, float32.

`torch` is eager, with the item folded into the readout, all rows together; `torch_autograd` is the
reference loop, `torch_compile` the folded formulation compiled. numba is parallel, with fastmath,
works on blocks of rows side by side, and has our tanh, since its own is a call for each element.
Every result is compared with the reference in float64 before it is timed: the same perturbation in
almost all rows (a sign near a tie may differ) and the same loss. `extra_info["ns_per_row_step"]` is
the figure to compare.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from shapes import SHORT
from torch import Tensor, nn

from scdr.ops import pgd_perturb, reference

D, HIDDEN, STEPS, RADIUS = 10, 50, 5, 5.0
STEP_SIZE = D**-0.5
PGD: dict[str, Any] = {"steps": STEPS, "radius": RADIUS}
Perturb = Callable[[Tensor, Tensor, Tensor, nn.Sequential], Tensor]


def folded(user: Tensor, item: Tensor, rating: Tensor, mapping: nn.Sequential) -> Tensor:
    """The best eager formulation: with `c = W2' v`, `s = b2 . v - r`; all steps on all rows."""
    w1, b1, w2, b2 = mapping.parameters()
    c = item @ w2  # [B, H]
    s = item @ b2 - rating  # [B]
    x = user  # [B, d]
    for _ in range(STEPS):
        h = torch.addmm(b1, x, w1.T).tanh_()  # [B, H]
        e = torch.linalg.vecdot(c, h).add_(s)  # [B]
        g = torch.addcmul(c, c * h, h, value=-1) @ w1  # [B, d]
        delta = torch.addcmul(x - user, g.sign_(), e.sign_()[:, None], value=STEP_SIZE)
        norm = torch.linalg.vector_norm(delta, dim=1, keepdim=True).clamp_min_(1e-12)
        delta *= (RADIUS / norm).clamp_max_(1)
        x = user + delta
    return delta


@cache
def compiled_folded() -> Perturb:
    return torch.compile(folded, dynamic=False)


@cache
def numba_tanh() -> Callable[..., Any]:
    """Our tanh: numba's own is a call for each element."""
    numba = pytest.importorskip("numba")
    import numpy as np

    f32 = np.float32
    numerator = (f32(1.3354647e-08), f32(2.0609071e-05), f32(0.0034955873), f32(0.13381025))
    denominator = (f32(7.776552e-07), f32(0.00032856336), f32(0.025876978), f32(0.4671434))

    @numba.njit(fastmath=True, inline="always")
    def tanh(x):  # type: ignore
        x = min(max(x, f32(-9)), f32(9))
        y = x * x
        p, q = numerator[0], denominator[0]
        for k in range(1, 4):
            p = p * y + numerator[k]
            q = q * y + denominator[k]
        return x * (p * y + f32(1)) / (q * y + f32(1))

    return tanh  # type: ignore[no-any-return]


@cache
def compiled_numba() -> Callable[..., Any]:
    numba = pytest.importorskip("numba")
    import numpy as np

    width = 64
    f32 = np.float32
    tanh = numba_tanh()

    @numba.njit(parallel=True, fastmath=True, error_model="numpy", boundscheck=False)
    def perturb(user, item, rating, w1, b1, w2, b2, step_size, radius, steps):  # type: ignore
        rows, d = user.shape
        hidden = len(b1)
        out = np.empty_like(user)
        for block in numba.prange((rows + width - 1) // width):
            begin = block * width
            n = min(width, rows - begin)
            u = np.zeros((d, width), np.float32)
            delta = np.zeros((d, width), np.float32)
            g = np.empty((d, width), np.float32)
            c = np.zeros((hidden, width), np.float32)
            s = np.zeros(width, np.float32)
            e = np.empty(width, np.float32)
            z = np.empty(width, np.float32)
            scale = np.empty(width, np.float32)
            for i in range(n):
                s[i] = -rating[begin + i]
                for k in range(d):
                    u[k, i] = user[begin + i, k]
                for t in range(item.shape[1]):
                    v = item[begin + i, t]
                    s[i] += b2[t] * v
                    for j in range(hidden):
                        c[j, i] += w2[t, j] * v
            for _ in range(steps):
                e[:] = s
                g[:] = 0
                for j in range(hidden):
                    z[:] = b1[j]
                    for k in range(d):
                        for i in range(width):
                            z[i] += w1[j, k] * (u[k, i] + delta[k, i])
                    for i in range(width):
                        h = tanh(z[i])
                        e[i] += c[j, i] * h
                        z[i] = c[j, i] * (f32(1) - h * h)
                    for k in range(d):
                        for i in range(width):
                            g[k, i] += w1[j, k] * z[i]
                scale[:] = 0
                for k in range(d):
                    for i in range(width):
                        delta[k, i] += step_size * np.sign(e[i]) * np.sign(g[k, i])
                        scale[i] += delta[k, i] * delta[k, i]
                for i in range(width):
                    scale[i] = min(np.float32(1), radius / max(np.sqrt(scale[i]), 1e-12))
                for k in range(d):
                    for i in range(width):
                        delta[k, i] *= scale[i]
            for i in range(n):
                for k in range(d):
                    out[begin + i, k] = delta[k, i]
        return out

    return perturb


def numba_perturb(user: Tensor, item: Tensor, rating: Tensor, mapping: nn.Sequential) -> Tensor:
    import numba
    import numpy as np

    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
    arrays = [t.detach().numpy() for t in (user, item, rating, *mapping.parameters())]
    lengths = np.float32(STEP_SIZE), np.float32(RADIUS)
    return torch.from_numpy(compiled_numba()(*arrays, *lengths, STEPS))


def scdr_perturb(user: Tensor, item: Tensor, rating: Tensor, mapping: nn.Sequential) -> Tensor:
    return pgd_perturb(user, item, rating, mapping, **PGD)


def autograd(user: Tensor, item: Tensor, rating: Tensor, mapping: nn.Sequential) -> Tensor:
    return reference.pgd_perturb(user, item, rating, mapping, **PGD)


def torch_compile(user: Tensor, item: Tensor, rating: Tensor, mapping: nn.Sequential) -> Tensor:
    return compiled_folded()(user, item, rating, mapping)


IMPLEMENTATIONS: dict[str, Perturb] = {
    "scdr": scdr_perturb,
    "torch": folded,
    "torch_autograd": autograd,
    "torch_compile": torch_compile,
    "numba": numba_perturb,
}


@pytest.mark.parametrize("torch_threads", [1, 2], indirect=True)
@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@pytest.mark.parametrize("batch", [256] if SHORT else [256, 4096, 65536])
def test_pgd_mlp(benchmark: Any, batch: int, name: str, torch_threads: int) -> None:
    torch.manual_seed(0)
    mapping = nn.Sequential(nn.Linear(D, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, D))
    mapping.requires_grad_(False)
    rows = torch.randn(batch, D), torch.randn(batch, D), 5 * torch.rand(batch)
    perturb = IMPLEMENTATIONS[name]
    check(perturb(*rows, mapping), rows, mapping)

    benchmark.group = f"pgd_mlp/{batch}"
    rounds, calls = (20, 1) if SHORT else {256: (60, 20), 4096: (30, 4), 65536: (12, 1)}[batch]
    benchmark.pedantic(
        perturb, args=(*rows, mapping), rounds=rounds, iterations=calls, warmup_rounds=3
    )
    if benchmark.stats is not None:
        benchmark.extra_info.update(
            work=benchmark.group,
            implementation=name,
            threads=torch_threads,
            ns_per_row_step=benchmark.stats.stats.median / (batch * STEPS) * 1e9,
        )


def check(delta: Tensor, rows: tuple[Tensor, Tensor, Tensor], mapping: nn.Sequential) -> None:
    user, item, rating = (t.double() for t in rows)
    exact = nn.Sequential(nn.Linear(D, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, D)).double()
    exact.requires_grad_(False).load_state_dict(mapping.state_dict())
    expected = reference.pgd_perturb(user, item, rating, exact, **PGD)
    same = ((delta - expected).abs() < 1e-4).all(1)
    assert same.double().mean() > 0.98
    losses = [(((exact(user + d) * item).sum(1) - rating) ** 2).sum() for d in (delta, expected)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-3, atol=0)
