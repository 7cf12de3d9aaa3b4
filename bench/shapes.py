"""Ratings to bench on: self-made, in the shapes of Table III."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

SHORT = os.environ.get("SCDR_BENCH_SHORT", "") not in ("", "0")
"""Small shapes, for a smoke test: the ratios then mean little."""


def benched(implementations: Iterable[str]) -> list[str]:
    """Those to bench; compiling takes longer than all else of the short mode."""
    return [name for name in implementations if not (SHORT and name == "torch_compile")]


SHAPES = {"movies": (123_960, 50_052, 1_700_000), "books": (603_668, 367_982, 8_900_000)}


@dataclass(frozen=True)
class Ratings:
    """Ratings in the shape of a domain of Table III, and an order to visit them in."""

    n_users: int
    n_items: int
    users: Tensor  # int32 [n]
    items: Tensor  # int32 [n]
    ratings: Tensor  # float32 [n]
    order: Tensor  # int32 [n]


def draw(random: np.random.Generator, n: int, size: int, exponent: float) -> np.ndarray:
    """n indices below `size`, index of rank k with probability ~ (k + 20)^-exponent, shuffled."""
    cumulative = np.cumsum((np.arange(size) + 20.0) ** -exponent)
    ranks = np.searchsorted(cumulative, random.random(n) * cumulative[-1])
    return random.permutation(size).astype(np.int32)[ranks.clip(0, size - 1)]


@cache
def ratings_like(shape: str) -> Ratings:
    """Power-law ratings of a planted rank-5 structure."""
    n_users, n_items, n = (size // 40 if SHORT else size for size in SHAPES[shape])
    random = np.random.default_rng(0)
    users, items = draw(random, n, n_users, 0.6), draw(random, n, n_items, 0.8)
    taste = random.normal(size=(n_users, 5)).astype(np.float32)
    trait = random.normal(size=(n_items, 5)).astype(np.float32) * 0.3
    score = 3.8 + np.einsum("nd,nd->n", taste[users], trait[items])
    score += random.normal(scale=0.6, size=n)
    return Ratings(
        n_users,
        n_items,
        torch.from_numpy(users),
        torch.from_numpy(items),
        torch.from_numpy(score.round().clip(1, 5).astype(np.float32)),
        torch.from_numpy(random.permutation(n).astype(np.int32)),
    )
