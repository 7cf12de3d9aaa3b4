"""Planted data: two domains whose best possible prediction is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scdr.data.interactions import Interactions, Rows, core_rows, restrict
from scdr.data.scenario import CrossDomain, cross_domain
from scdr.errors import InputError

OFFSET = 3.8
NOISE = 0.6
SHARED_USER_BIAS = 0.35 * 0.7
OWN_USER_BIAS = 0.2
ITEM_BIAS = 0.4
LOWEST, HIGHEST = 1.0, 5.0
CHUNK_ROWS = 1 << 20
CHUNK_CELLS = 1 << 23

Generator = np.random.Generator


@dataclass(frozen=True, slots=True, eq=False)
class Planted:
    """Two domains and what a perfect model would predict in the target.

    Attributes:
        domains: the pair.
        target_means: float32 [n], for each row of ``domains.target`` the rating without noise,
            clipped to the rating scale.
        signal: how much of a rating is taste: the standard deviation of ``<taste, item>``.
    """

    domains: CrossDomain
    target_means: NDArray[np.float32]
    signal: float

    def best_rmse(self, rows: Rows | None = None) -> float:
        """RMSE of the noise-free means, which no model can beat but by chance.

        Args:
            rows: target rows, a mask or indices such as ``ColdStartSplit.test_rows``; all if None.
        """
        chosen = slice(None) if rows is None else rows
        errors = self.domains.target.ratings[chosen] - self.target_means[chosen]
        return float(np.sqrt(np.mean(errors.astype(np.float64) ** 2)))


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """What the users of both domains bring along, P users in all.

    Attributes:
        bias: float32 [P], the part of the user bias that both domains share.
        taste: float32 [P, d].
        rotation: float32 [d, d], how the target sees a taste.
    """

    bias: NDArray[np.float32]
    taste: NDArray[np.float32]
    rotation: NDArray[np.float32]

    @classmethod
    def draw(cls, n: int, d_true: int, rng: Generator) -> People:
        """Draw n users: tastes N(0, I), and a random rotation."""
        q, r = np.linalg.qr(rng.standard_normal((d_true, d_true)))
        return cls(
            bias=(SHARED_USER_BIAS * rng.standard_normal(n)).astype(np.float32),
            taste=rng.standard_normal((n, d_true), dtype=np.float32),
            rotation=(q * np.sign(np.diag(r))).astype(np.float32),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Taste:
    """The truth of one domain with U users and I items.

    Attributes:
        user_bias: float32 [U].
        item_bias: float32 [I].
        user: float32 [U, d].
        item: float32 [I, d].
    """

    user_bias: NDArray[np.float32]
    item_bias: NDArray[np.float32]
    user: NDArray[np.float32]
    item: NDArray[np.float32]

    @classmethod
    def draw(
        cls,
        bias: NDArray[np.float32],
        user: NDArray[np.float32],
        n_items: int,
        signal: float,
        rng: Generator,
    ) -> Taste:
        """Draw a domain's items and its own part of the user biases."""
        d_true = user.shape[1]
        own = OWN_USER_BIAS * rng.standard_normal(len(bias), dtype=np.float32)
        scale = np.float32(signal / np.sqrt(d_true))
        return cls(
            user_bias=bias + own,
            item_bias=ITEM_BIAS * rng.standard_normal(n_items, dtype=np.float32),
            user=user,
            item=scale * rng.standard_normal((n_items, d_true), dtype=np.float32),
        )

    def rate(
        self, users: NDArray[np.int32], items: NDArray[np.int32], rng: Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Rate (user, item) pairs.

        Returns:
            The ratings, whole numbers from 1 to 5, and the clipped means without noise; both
            float32 [n].
        """
        means = np.empty(len(users), dtype=np.float32)
        for start in range(0, len(users), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            u, i = users[rows], items[rows]
            taste = np.einsum("nd,nd->n", self.user[u], self.item[i])
            means[rows] = OFFSET + self.user_bias[u] + self.item_bias[i] + taste
        noisy = means + NOISE * rng.standard_normal(len(users), dtype=np.float32)
        return np.clip(np.rint(noisy), LOWEST, HIGHEST), np.clip(means, LOWEST, HIGHEST)


def planted(
    *,
    source_users: int = 3000,
    overlap_users: int = 1500,
    target_only_users: int = 1500,
    source_items: int = 1500,
    target_items: int = 1000,
    source_ratings_per_user: int = 60,
    target_ratings_per_user: int = 30,
    d_true: int = 5,
    signal: float = 0.6,
    related: bool = True,
    seed: int = 0,
    core: int = 5,
) -> Planted:
    """Draw two domains in which the target sees a user's source taste rotated.

    A rating is ``3.8 + user bias + item bias + <taste, item> + N(0, 0.6)``, rounded and clipped
    to 1 to 5, with ``taste ~ N(0, I)``, ``item ~ N(0, signal^2 / d_true I)``, item bias
    N(0, 0.4), and a user bias of 0.7 N(0, 0.35) in both domains plus N(0, 0.2) in each. Every
    user rates a random choice of items.

    Args:
        source_users: users of the source, overlap users included.
        overlap_users: users of both domains.
        target_only_users: users of the target alone.
        source_items: items of the source.
        target_items: items of the target.
        source_ratings_per_user: different items that each source user rates.
        target_ratings_per_user: different items that each target user rates.
        d_true: length of a taste.
        signal: standard deviation of ``<taste, item>``.
        related: False draws tastes in the target anew, so that no mapping can carry taste; the
            biases are still shared.
        seed: of the random numbers.
        core: k of the k-core taken at the end; 0 for none.

    Raises:
        InputError: the sizes don't fit together, or the core leaves nothing.
    """
    if not 0 <= overlap_users <= source_users:
        raise InputError(
            f"{overlap_users} overlap users among {source_users} source users",
            fix="take at most as many as source users",
        )
    for count, items in (
        (source_ratings_per_user, source_items),
        (target_ratings_per_user, target_items),
    ):
        if not 0 < count <= items:
            raise InputError(
                f"{count} ratings of a user over {items} items",
                fix="take at most as many as items, and at least one",
            )
    rng = np.random.default_rng(seed)
    people = People.draw(source_users + target_only_users, d_true, rng)
    ids = sorted_ids("U", len(people.bias), rng)
    order = rng.permutation(len(ids))
    source, _ = _planted_domain(
        people.bias, people.taste, np.sort(order[:source_users]), ids,
        sorted_ids("S", source_items, rng), source_ratings_per_user, signal, core, rng,
    )  # fmt: skip
    tastes = people.taste @ people.rotation
    if not related:
        tastes = rng.standard_normal(tastes.shape, dtype=np.float32)
    target, means = _planted_domain(
        people.bias, tastes, np.sort(order[source_users - overlap_users :]), ids,
        sorted_ids("T", target_items, rng), target_ratings_per_user, signal, core, rng,
    )  # fmt: skip
    return Planted(cross_domain(source, target, "planted"), means, signal)


def _planted_domain(
    bias: NDArray[np.float32],
    tastes: NDArray[np.float32],
    persons: NDArray[np.int64],
    ids: NDArray[np.object_],
    item_ids: NDArray[np.object_],
    ratings_per_user: int,
    signal: float,
    core: int,
    rng: Generator,
) -> tuple[Interactions, NDArray[np.float32]]:
    """Draw one domain; returns its ratings and their clipped means."""
    truth = Taste.draw(bias[persons], tastes[persons], len(item_ids), signal, rng)
    items = _choices(len(persons), len(item_ids), ratings_per_user, rng)
    users = np.repeat(np.arange(len(persons), dtype=np.int32), ratings_per_user)
    ratings, means = truth.rate(users, items, rng)
    drawn = Interactions(
        users, items, ratings, np.zeros(len(users), np.int64), ids[persons], item_ids
    )
    kept = core_rows(drawn, core)
    if not kept.any():
        raise InputError(
            f"the {core}-core removes all {len(kept)} ratings drawn",
            fix="take more ratings of each user, or fewer items",
        )
    return restrict(drawn, kept), means[kept]


def _choices(n_users: int, n_items: int, count: int, rng: Generator) -> NDArray[np.int32]:
    """Give each user ``count`` different items, int32 [n_users * count]."""
    users_at_once = max(1, CHUNK_CELLS // n_items)
    parts = []
    for start in range(0, n_users, users_at_once):
        users = min(users_at_once, n_users - start)
        keys = rng.random((users, n_items), dtype=np.float32)
        parts.append(np.argpartition(keys, count - 1, axis=1)[:, :count].astype(np.int32))
    return np.concatenate(parts).ravel()


def sorted_ids(prefix: str, n: int, rng: Generator) -> NDArray[np.object_]:
    """Draw n different ids in order, such as ``"A0H4K..."``: a prefix and capitals and digits."""
    length = 12
    numbers = np.unique(rng.integers(0, 36**length, n))
    while len(numbers) < n:
        numbers = np.unique(np.append(numbers, rng.integers(0, 36**length, n - len(numbers))))
    alphabet = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", dtype=np.uint8)
    letters = np.empty((n, length), dtype=np.uint8)
    for place in reversed(range(length)):
        numbers, digits = np.divmod(numbers, 36)
        letters[:, place] = alphabet[digits]
    return np.array(
        [prefix + row.decode() for row in letters.view(f"S{length}").ravel()], dtype=object
    )
