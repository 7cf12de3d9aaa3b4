"""Synthetic pairs in the sizes of the paper's Table III."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from scdr.data.interactions import Interactions
from scdr.data.scenario import cross_domain
from scdr.data.synthetic import Generator, People, Planted, Taste, sorted_ids
from scdr.errors import InputError

CORE = 5
D_TRUE = 5
FIRST_TIME, LAST_TIME = 1_000_000_000, 1_400_000_000  # seconds
# Tail exponents of the Lomax weights by which ratings beyond the fifth are handed out.
USER_TAIL, ITEM_TAIL = 1.6, 1.2


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of a domain."""

    users: int
    items: int
    ratings: int

    def scaled(self, scale: float) -> Shape:
        """Shrink all three counts by one factor."""
        return Shape(*(round(scale * count) for count in (self.users, self.items, self.ratings)))


MOVIES = Shape(123_960, 50_052, 1_700_000)
MUSIC = Shape(75_258, 64_443, 1_100_000)
BOOKS = Shape(603_668, 367_982, 8_900_000)

# source, target, overlap users
PRESETS = {
    "movies-music": (MOVIES, MUSIC, 18_031),
    "books-movies": (BOOKS, MOVIES, 37_388),
    "books-music": (BOOKS, MUSIC, 16_738),
}


def preset(name: str, *, scale: float = 1.0, signal: float = 0.6, seed: int = 0) -> Planted:
    """Draw a pair with the users, items, ratings and overlap of a scenario of Table III.

    Truth as in :func:`scdr.data.synthetic.planted`. Activity of users and popularity of items
    follow a power law, and everyone has at least five ratings, so that a 5-core keeps all and
    the counts hold exactly.

    Args:
        name: a key of ``PRESETS``.
        scale: factor on all counts, in (0, 1].
        signal: standard deviation of ``<taste, item>``.
        seed: of the random numbers.

    Raises:
        InputError: unknown name, or a scale out of range or too small for the density.
    """
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r}", fix=f"use {', '.join(PRESETS)}")
    if not 0 < scale <= 1:
        raise InputError(f"scale {scale} is not in (0, 1]", where="scale", fix="take 0.1")
    source, target = (shape.scaled(scale) for shape in PRESETS[name][:2])
    overlap = round(scale * PRESETS[name][2])
    for shape in (source, target):
        # above this density the power law no longer fits into the table
        if shape.ratings > 0.2 * shape.users * shape.items:
            raise InputError(
                f"scale {scale} leaves {shape.users} users and {shape.items} items for "
                f"{shape.ratings} ratings",
                where="scale",
                fix="take at least 0.002",
            )
    rng = np.random.default_rng(seed)
    total = source.users + target.users - overlap
    people = People.draw(total, D_TRUE, rng)
    ids = sorted_ids("A", total, rng)
    order = rng.permutation(total)
    source_persons = np.sort(order[: source.users])
    target_persons = np.sort(order[source.users - overlap :])
    source_truth = Taste.draw(
        people.bias[source_persons], people.taste[source_persons], source.items, signal, rng
    )
    target_truth = Taste.draw(
        people.bias[target_persons],
        people.taste[target_persons] @ people.rotation,
        target.items,
        signal,
        rng,
    )
    source_ratings, _ = _draw(source, source_truth, ids[source_persons], rng)
    target_ratings, means = _draw(target, target_truth, ids[target_persons], rng)
    return Planted(cross_domain(source_ratings, target_ratings, name), means, signal)


def _draw(
    shape: Shape, truth: Taste, user_ids: NDArray[np.object_], rng: Generator
) -> tuple[Interactions, NDArray[np.float32]]:
    """Draw the ratings of one domain in order of time, and their clipped means."""
    users, items = distinct_pairs(shape, rng)
    ratings, means = truth.rate(users, items, rng)
    times = np.sort(rng.integers(FIRST_TIME, LAST_TIME, shape.ratings))
    item_ids = sorted_ids("B", shape.items, rng)
    return Interactions(users, items, ratings, times, user_ids, item_ids), means


def distinct_pairs(shape: Shape, rng: Generator) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Draw different (user, item) pairs in random order, at least five for every user and item.

    Users and items are matched at random by their numbers of ratings; where a pair comes up
    twice, one of the two swaps its item with a random other pair until all are different.

    Returns:
        users and items, int32 [ratings].
    """
    cap = int(np.sqrt(shape.ratings))  # of two such heads one common rating is to be expected
    user_counts = degrees(shape.users, shape.ratings, USER_TAIL, min(cap, shape.items // 2), rng)
    item_counts = degrees(shape.items, shape.ratings, ITEM_TAIL, min(cap, shape.users // 2), rng)
    users = np.repeat(np.arange(shape.users, dtype=np.int32), user_counts)
    items = np.repeat(np.arange(shape.items, dtype=np.int32), item_counts)
    rng.shuffle(users)
    rng.shuffle(items)
    while True:
        pairs = users.astype(np.int64) * shape.items + items
        repeated = np.flatnonzero(~pl.Series(pairs).is_first_distinct().to_numpy())
        if not len(repeated):
            return users, items
        partners = np.unique(rng.integers(0, shape.ratings, len(repeated)))
        partners = np.setdiff1d(partners, repeated)
        repeated = rng.permutation(repeated)[: len(partners)]
        items[repeated], items[partners] = items[partners], items[repeated]


def degrees(n: int, total: int, tail: float, cap: int, rng: Generator) -> NDArray[np.int64]:
    """Hand out ``total`` ratings to n users or items by a power law, int64 [n].

    Each gets at least five and at most ``cap``; what is left over goes by Lomax weights with
    the tail exponent ``tail``.
    """
    counts = np.full(n, CORE, dtype=np.int64)
    weights = rng.pareto(tail, n)
    while left := total - int(counts.sum()):
        open_ones = np.flatnonzero(counts < cap)
        share = left * weights[open_ones] / weights[open_ones].sum()
        whole = np.minimum(share.astype(np.int64), cap - counts[open_ones])
        if whole.any():
            counts[open_ones] += whole
        else:
            counts[rng.choice(open_ones, min(left, len(open_ones)), replace=False)] += 1
    return counts
