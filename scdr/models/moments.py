"""Posteriors of users and items as first and second moments, and the small systems they come from.

Systems are laid out `[d + 1, d + 1, n]`, the rows last, so that each step of their solution runs
along many rows at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Wide = NDArray[np.float64]
_A = TypeVar("_A", Array, Wide)


@dataclass(frozen=True, slots=True)
class Prior:
    """What is expected of each user (or item) before any rating: `N(mean, covariance)`.

    Attributes:
        covariance: `[G, d + 1, d + 1]` float64, of bias and factors, one for each group of rows.
        group: `[N]` the group of each row.
        mean: `[N, d + 1]` float32, or None for zeros.
    """

    covariance: Wide
    group: NDArray[np.intp]
    mean: Array | None = None

    @classmethod
    def centred(cls, n: int, variances: Wide) -> Prior:
        """One group of n rows, coordinates independent with these variances."""
        return cls(np.diag(variances)[None], np.zeros(n, dtype=np.intp))


@dataclass(frozen=True, slots=True)
class Moments:
    """First and second moments of users (or items) under their posterior.

    Attributes:
        packed: `[N, (d + 2)(d + 3) / 2]` float32, the upper triangle of `E[a a']`, row by row,
            where `a = (1, bias, factors)`; so columns 1 to d + 1 are the posterior means.
        prior: what they were expected to be.
    """

    packed: Array
    prior: Prior

    @classmethod
    def expected(cls, prior: Prior) -> Moments:
        """The moments of a centred prior, before any rating."""
        one = np.pad(prior.covariance[0], (1, 0))
        one[0, 0] = 1.0
        packed = one[np.triu_indices(len(one))].astype(np.float32)
        return cls(np.tile(packed, (len(prior.group), 1)), prior)

    @classmethod
    def certain(cls, means: Array, prior: Prior) -> Moments:
        """The moments of means `[N, d + 1]` that are known without error."""
        with_one = np.pad(means, ((0, 0), (1, 0)), constant_values=1.0)
        rows, columns = np.triu_indices(with_one.shape[1])
        return cls(np.ascontiguousarray(with_one[:, rows] * with_one[:, columns]), prior)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Moments:
        """What gave this `state_dict`."""
        return cls(state["packed"], Prior(**state["prior"]))

    def state_dict(self) -> dict[str, Any]:
        """Everything, as named arrays."""
        names = ("covariance", "group", "mean")
        prior = {name: getattr(self.prior, name) for name in names}
        return {"packed": self.packed, "prior": prior}

    @property
    def width(self) -> int:
        """Bias and factors: d + 1."""
        return int(self.prior.covariance.shape[-1])

    @property
    def mean(self) -> Array:
        """Posterior means `[N, d + 1]`, the bias first."""
        return self.packed[:, 1 : self.width + 1]

    @property
    def with_one(self) -> Array:
        """Posterior means of `a`, `[N, d + 2]`."""
        return np.ascontiguousarray(self.packed[:, : self.width + 1])

    @property
    def deviation(self) -> Wide:
        """Prior deviations `[d + 1]` of the first group, those switched off kept above zero."""
        variance = np.diag(self.prior.covariance[0])
        deviation: Wide = np.sqrt(np.maximum(variance, 1e-12 * variance.max(initial=1e-12)))
        return deviation

    def second_of_phi(self, weight: NDArray[np.integer]) -> Wide:
        """The weighted mean of `E[phi phi']` over the rows, `[d + 1, d + 1]`; weights are `[N]`."""
        width = self.width + 1
        mean = np.zeros((width, width))
        mean[np.triu_indices(width)] = weight @ self.packed / max(int(weight.sum()), 1)
        phi = np.r_[0, 2:width]
        upper: Wide = mean[np.ix_(phi, phi)]
        return np.triu(upper) + np.triu(upper, 1).T

    def learn_prior(self, rated: NDArray[np.bool_]) -> Prior:
        """The prior covariances of greatest likelihood: `mean of E[(x - m)(x - m)']`.

        Args:
            rated: `[N]` rows with a rating, the others say nothing.
        """
        covariance = self.prior.covariance.copy()
        upper = np.triu_indices(self.width)
        for group, matrix in enumerate(covariance):
            rows = np.flatnonzero(rated & (self.prior.group == group))
            if not len(rows):
                continue
            second = self.packed[rows, self.width + 1 :].mean(0, dtype=np.float64)
            if self.prior.mean is not None:
                mean, expected = self.mean[rows].astype(np.float64), self.prior.mean[rows]
                cross = [(mean[:, j] * expected[:, k]).mean() for j, k in zip(*upper, strict=True)]
                other = [(mean[:, k] * expected[:, j]).mean() for j, k in zip(*upper, strict=True)]
                own = [
                    (expected[:, j] * expected[:, k]).mean() for j, k in zip(*upper, strict=True)
                ]
                second = second - cross - other + own
            matrix[upper] = second
            matrix.T[upper] = second
        return Prior(covariance, self.prior.group, self.prior.mean)


def normal_equations(second: _A, first: _A) -> tuple[_A, _A]:
    """The normal equations of n rows.

    Args:
        second: `[n, (d + 2)(d + 3) / 2]` `sum E[a a']` over a row's ratings, packed.
        first: `[n, d + 2]` `sum r E[a]`.

    Returns:
        `sum E[phi phi']` `[d + 1, d + 1, n]` and `sum (r E[phi] - E[b phi])` `[d + 1, n]`, where
        `phi` is `a` without the bias b.
    """
    width = first.shape[1]  # d + 2
    position = np.zeros((width, width), dtype=np.intp)
    position[np.triu_indices(width)] = np.arange(second.shape[1])
    position = np.maximum(position, position.T)
    phi = np.r_[0, 2:width]
    columns = np.ascontiguousarray(second.T)
    return columns[position[np.ix_(phi, phi)]], first.T[phi] - columns[position[1, phi]]


def inverse(matrices: _A) -> _A:
    """Invert symmetric positive definite matrices `[p, p, n]` in place, by Gauss-Jordan steps."""
    for k in range(len(matrices)):
        pivot = 1 / matrices[k, k]
        column = matrices[:, k].copy()
        row = matrices[k] * pivot
        matrices -= column[:, None] * row[None]
        matrices[k] = row
        matrices[:, k] = -column * pivot
        matrices[k, k] = pivot
    return matrices


def times(matrices: _A, vectors: _A) -> _A:
    """`[p, p, n]` times `[p, n]`."""
    product: _A = (matrices * vectors[None]).sum(1)
    return product
