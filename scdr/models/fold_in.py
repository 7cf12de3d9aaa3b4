"""A source vector for a user whom training has not seen, from the user's source ratings.

The source items stay as they are, and the user is a ridge regression on them, the user bias
included:

    u = argmin sum_j (t_j - <u, y_j>)^2 + u' L u = A^-1 sum_j t_j y_j,  A = sum_j y_j y_j' + L

with `t_j = r_j - offset - b_j`, y_j the item factors and a one for the user bias, L diagonal: what
matrix factorisation minimises over one user.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from scdr.data import Interactions
from scdr.models.factors import Factors
from scdr.models.mf import PretrainConfig

_USERS_AT_ONCE = 512

Table = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Histories:
    """The source ratings of K users, one user's after the other's.

    Attributes:
        starts: int64 `[K + 1]`, user k's are those from `starts[k]` to `starts[k + 1]`.
        items: int64 `[n]`, source items; a user rates each once.
        ratings: float64 `[n]`. Those of one user are in order of time, the last at the end.
    """

    starts: NDArray[np.int64]
    items: NDArray[np.int64]
    ratings: NDArray[np.float64]

    @classmethod
    def of(cls, interactions: Interactions, users: NDArray[np.integer[Any]]) -> Histories:
        """Those of some distinct users of a domain, in the order of `users` `[K]`."""
        place = np.full(interactions.n_users, -1, dtype=np.int64)
        place[users] = np.arange(len(users))
        owner = place[interactions.users]
        rows = np.flatnonzero(owner >= 0)
        rows = rows[np.argsort(owner[rows], kind="stable")]
        counts = np.bincount(owner[rows], minlength=len(users))
        return cls(
            starts=np.append(0, np.cumsum(counts)),
            items=interactions.items[rows].astype(np.int64),
            ratings=interactions.ratings[rows].astype(np.float64),
        )

    def __len__(self) -> int:
        """Return the number of users, K."""
        return len(self.starts) - 1

    @property
    def counts(self) -> NDArray[np.int64]:
        """Ratings of each user, `[K]`."""
        return np.diff(self.starts)

    @property
    def users(self) -> NDArray[np.int64]:
        """Whose rating each is, int64 `[n]`."""
        return np.repeat(np.arange(len(self)), self.counts)

    def sums(self, of_rating: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums `[K, ...]` over each user's ratings of values `[n, ...]`."""
        n = len(self.items)
        adds = csr_array((np.ones(n), np.arange(n), self.starts), shape=(len(self), n))
        flat = of_rating.reshape(n, math.prod(of_rating.shape[1:]))
        sums: NDArray[np.float64] = adds @ flat
        return sums.reshape(len(self), *of_rating.shape[1:])

    def take(self, users: NDArray[np.integer[Any]]) -> Histories:
        """Those of some users `[m]`, in that order."""
        counts = self.counts[users]
        starts = np.append(0, np.cumsum(counts))
        rows = np.repeat(self.starts[users] - starts[:-1], counts) + np.arange(starts[-1])
        return Histories(starts, self.items[rows], self.ratings[rows])

    def parts(self) -> Iterator[Histories]:
        """Some users after the other, few enough for matrices of all their ratings in memory."""
        for first in range(0, len(self), _USERS_AT_ONCE):
            starts = self.starts[first : first + _USERS_AT_ONCE + 1]
            rows = slice(starts[0], starts[-1])
            yield Histories(starts - starts[0], self.items[rows], self.ratings[rows])


class FoldIn(Protocol):
    """What makes source vectors of histories."""

    def vectors(self, histories: Histories) -> NDArray[np.float32]:
        """Source vectors, `[K, d_source]`; a user without a rating has that of the prior."""

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """What `from_state` makes the same fold-in of: values that JSON holds, and arrays."""

    @classmethod
    def from_state(cls, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The fold-in that `state` describes."""


@dataclass(frozen=True, slots=True)
class RidgeFoldIn:
    """Ridge regression on the source items of a matrix factorisation.

    Attributes:
        items: `[I_s, d]` y_j.
        known: `[I_s]` `offset + b_j`.
        penalties: float64 `[d]`, the diagonal of L.
        per_rating: L counts once for each rating of the user.
    """

    items: Table
    known: Table
    penalties: NDArray[np.float64]
    per_rating: bool = False

    @classmethod
    def of(cls, factors: Factors, *, user_penalty: float, user_bias_penalty: float) -> RidgeFoldIn:
        """The fold-in into some factors.

        Args:
            factors: of the source domain.
            user_penalty: on each factor; positive, since users may have fewer ratings than factors.
            user_bias_penalty: on the user bias, where the factors have one.

        Raises:
            ValueError: a penalty is not positive.
        """
        for name, penalty in (
            ("user_penalty", user_penalty),
            ("user_bias_penalty", user_bias_penalty),
        ):
            if not penalty > 0:
                raise ValueError(f"{name} is {penalty}; it must be positive")
        items = factors.item.cpu().numpy()
        penalties = np.full(items.shape[1], float(user_penalty))
        known = np.full(len(items), factors.offset, dtype=items.dtype)
        if factors.item_bias is not None:
            items = np.concatenate([items, np.ones_like(items[:, :1])], axis=1)
            penalties = np.append(penalties, float(user_bias_penalty))
            known = known + factors.item_bias.cpu().numpy()
        return cls(items, known, penalties)

    @classmethod
    def as_pretrained(cls, factors: Factors, config: PretrainConfig) -> RidgeFoldIn:
        """The fold-in with the penalties that the factors were pretrained with.

        Where there was none, with the one that stands for the normal prior the factors started
        from: the variance of a rating's error over theirs, taken as 1.
        """
        prior = 1 / config.initial_std**2
        fold_in = cls.of(
            factors,
            user_penalty=config.user_penalty or prior,
            user_bias_penalty=config.user_bias_penalty or prior,
        )
        return cls(fold_in.items, fold_in.known, fold_in.penalties, config.penalty_per_rating)

    def vectors(self, histories: Histories) -> NDArray[np.float32]:
        """Folded-in users, `[K, d]`."""
        solved: list[Table] = [np.zeros((0, len(self.penalties)))]
        for part in histories.parts():
            residuals = part.ratings - self.known[part.items]
            right = part.sums(residuals[:, None] * self.items[part.items])
            solved.append(np.linalg.solve(self.systems(part), right[:, :, None])[:, :, 0])
        return np.concatenate(solved).astype(np.float32)

    def systems(self, histories: Histories) -> NDArray[np.float64]:
        """A of each user, `[K, d, d]`."""
        items = self.items[histories.items].astype(np.float64)
        gram = histories.sums(items[:, :, None] * items[:, None, :])
        weight = np.maximum(histories.counts, 1) if self.per_rating else np.ones(len(histories))
        diagonal = np.arange(len(self.penalties))
        gram[:, diagonal, diagonal] += weight[:, None] * self.penalties
        return gram

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Values and arrays by name."""
        arrays = {"items": self.items, "known": self.known, "penalties": self.penalties}
        return {"per_rating": self.per_rating}, arrays

    @classmethod
    def from_state(cls, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The fold-in that `state` describes."""
        return cls(arrays["items"], arrays["known"], arrays["penalties"], values["per_rating"])
