"""A factor model of one domain that learns its own penalties, by variational EM.

    r = mean + b_u + b_i + <u, v> + e,   e ~ N(0, noise),
    x = (b_u, u) ~ N(0, Sigma) for a user,   y = (b_i, v) ~ N(0, Psi) for an item.

The posterior is approximated by independent Gaussians, one for each user and each item. With
`phi = (1, u)`, a sweep is

    Lambda_i = Psi^-1 + sum_u E[phi phi'] / noise      over the users who rated item i
    E[y_i]   = Lambda_i^-1 sum_u (r E[phi] - E[b_u phi]) / noise,   Cov[y_i] = Lambda_i^-1,

the same for users given items, and then the values of `Sigma`, `Psi` and `noise` that maximise the
bound: `Sigma = mean of E[x x']`, `Psi = mean of E[y y']`, `noise = mean of E[e^2]`. These are the
penalties of a ridge regression, learned from the ratings alone: a dimension that the ratings do not
support loses its variance and so switches itself off.

A user's rating of item i is expected to miss by `e^2 + v' Cov[u] v`: where SMF takes the worst
perturbation of a user's vector in a ball, this takes the mean over the posterior, whose radius is
each user's own uncertainty.

The factors start at the leading singular vectors of the residuals of the same model without
factors (each residual over the root of its user's and its item's count plus ten). From small
random factors the sweeps run into the model without factors and stay there.

Y. J. Lim, Y. W. Teh, "Variational Bayesian approach to movie rating prediction", KDD Cup 2007;
S. Nakajima, M. Sugiyama, "Theoretical analysis of Bayesian matrix factorization", JMLR 2011.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_array

from scdr.checkpoints import Stage
from scdr.data import Interactions
from scdr.hyperparameters import STRICT, Count, PositiveCount
from scdr.models.moments import (
    Array,
    Moments,
    Prior,
    Wide,
    inverse,
    normal_equations,
    times,
)
from scdr.ops import factor_posteriors_
from scdr.ops.threads import one_thread, torch_threads
from scdr.progress import Advance

_BLOCK = 2048
"""Rows whose precision matrices are inverted at once: few enough for a core's cache."""
_OVERSAMPLING = 6
_POWER_ITERATIONS = 8
_PARTS = 16
"""Of a matrix of ratings, which threads multiply at the same time."""
_COUNT_PRIOR = 10.0
_START_ITEM_VARIANCE, _START_USER_VARIANCE = 0.05, 2.0
"""Of a factor, as a share of the variance of the ratings; only their product matters later."""
_FEWEST_SWEEPS = 5
_FIXED_SWEEPS = 3
"""Sweeps before the prior variances move, so that users and items agree first."""


@dataclass(frozen=True, kw_only=True)
class FactorConfig:
    """The factor model of each domain."""

    __pydantic_config__ = STRICT

    dimension: Annotated[int, Field(ge=0, le=256)] = 10
    """Width d of user and item factors, at most: the model switches off what it does not need."""
    sweeps: Count = 15
    """Updates of all users, items and variances."""
    most_rating_updates: PositiveCount = 50_000_000
    """Ratings times sweeps, at most: a domain of millions of ratings takes fewer sweeps, five or
    more."""

    def sweeps_over(self, n_ratings: int) -> int:
        """How many sweeps a domain of so many ratings takes."""
        affordable = max(self.most_rating_updates // max(n_ratings, 1), _FEWEST_SWEEPS)
        return min(self.sweeps, affordable)


class EmpiricalBayes:
    """The factor model of one domain.

    Attributes:
        mean: mean rating.
        noise: variance of a rating around its expectation.
        users: moments of the users `[U]`; the prior's for a user without a rating.
        items: moments of the items `[I]`.
    """

    def __init__(self, ratings: Interactions, dimension: int, *, threads: int = 1) -> None:
        """Prepare the model; `fit_factors` makes one and runs its sweeps.

        Args:
            ratings: training ratings of the domain, each user and item pair once.
            dimension: d.
            threads: cores to use; results do not depend on it.
        """
        self.dimension, self.threads = dimension, threads
        self.mean = float(ratings.ratings.mean(dtype=np.float64))
        centred = ratings.ratings - np.float32(self.mean)  # [n]
        shape = (ratings.n_users, ratings.n_items)
        by_user = csr_array((centred, (ratings.users, ratings.items)), shape=shape)
        self._by_user = _Ratings(by_user)
        self._by_item = _Ratings(by_user.T.tocsr())
        self.variance = max(float(centred.var(dtype=np.float64)), 1e-30)
        self.noise = 0.7 * self.variance
        start = np.full(dimension + 1, 0.2 * self.variance)
        self.users = Moments.expected(Prior.centred(ratings.n_users, start))
        self.items = Moments.expected(Prior.centred(ratings.n_items, start))

    def sweep(self, *, learn_priors: bool) -> float:
        """Update users, items, the noise and, where wanted, both priors; the RMSE expected."""
        self.users, _ = self._update(self._by_user, self.users, self.items, learn_priors)
        self.items, squared_error = self._update(
            self._by_item, self.items, self.users, learn_priors
        )
        floor = 1e-6 * self.variance
        self.noise = max(squared_error / max(self._by_user.total, 1), floor)
        return float(np.sqrt(self.noise))

    def state_dict(self) -> dict[str, Any]:
        """All that sweeps change."""
        sides = {"users": self.users.state_dict(), "items": self.items.state_dict()}
        return {"noise": self.noise, **sides}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave for the same ratings."""
        self.noise = state["noise"]
        self.users = Moments.from_state(state["users"])
        self.items = Moments.from_state(state["items"])

    def leading_factors(self, dimension: int, seed: int) -> Array:
        """Item factors `[I, dimension]`: singular vectors of the residuals of the biases."""
        residuals = self._by_user.residuals(self.users.mean[:, 0], self.items.mean[:, 0])
        return _leading_factors(residuals, dimension, seed, self.threads)

    def start_factors(self, biases: EmpiricalBayes, factors: Array) -> None:
        """Take over a fitted model without factors, and item factors.

        Args:
            biases: the model without factors.
            factors: `[I, d]`, whose scale does not matter.
        """
        self.noise = biases.noise
        size = np.float32(np.sqrt((factors.astype(np.float64) ** 2).mean()))
        unit = factors / size if size > 0 else factors
        width = self.dimension + 1
        item_variances = np.full(width, _START_ITEM_VARIANCE * self.variance)
        user_variances = np.full(width, _START_USER_VARIANCE)
        item_variances[0] = biases.items.prior.covariance[0, 0, 0]
        user_variances[0] = biases.users.prior.covariance[0, 0, 0]
        scale = np.float32(np.sqrt(item_variances[-1]))
        means = np.concatenate([biases.items.mean, unit * scale], axis=1)
        self.items = Moments.certain(means, Prior.centred(len(means), item_variances))
        self.items.packed[:, width + 1] = biases.items.packed[:, 2]  # E[b_i^2], with its variance
        self.users = Moments.expected(Prior.centred(len(self.users.packed), user_variances))

    def expect_users(self, users: NDArray[np.integer], means: Array) -> None:
        """Give some users a prior mean of their own, and a prior covariance that they share.

        Args:
            users: `[k]` which users.
            means: `[k, d + 1]` their biases and factors as expected from elsewhere.
        """
        prior = self.users.prior
        mean = np.zeros_like(self.users.mean)
        mean[users] = means
        group = np.zeros_like(prior.group)
        group[users] = 1
        covariance = np.concatenate([prior.covariance[:1]] * 2)
        self.users = Moments(self.users.packed, Prior(covariance, group, mean))

    def items_without(
        self, users: NDArray[np.integer], items: NDArray[np.integer], ratings: Array
    ) -> Wide:
        """Posterior means of items as if one of their ratings had not been given.

        `Lambda_i - E[phi phi'] / noise` is inverted for each rating: what a rating says of its
        item must not come back when a mapping is trained on that rating.

        Args:
            users: `[m]` user of each rating, which must be among those the model was fitted on.
            items: `[m]` item of each rating.
            ratings: `[m]` the ratings.

        Returns:
            `[m, d + 1]`, the bias first.
        """
        result = np.empty((len(items), self.dimension + 1))
        prior = np.linalg.inv(self.items.prior.covariance[0])
        sums = self._by_item.sums_of(
            np.arange(self._by_item.n_rows), self.users.packed, self.users.with_one
        )
        for rows in _blocks(len(items)):
            user, item = self.users.packed[users[rows]], items[rows]
            centred = (ratings[rows] - np.float32(self.mean))[:, None]
            outer, linear = normal_equations(
                sums[0][item].astype(np.float64) - user,
                sums[1][item].astype(np.float64) - centred * user[:, : self.dimension + 2],
            )
            covariance = inverse(outer / self.noise + prior[:, :, None])
            result[rows] = times(covariance, linear / self.noise).T
        return result

    def _update(
        self, ratings: _Ratings, rows: Moments, others: Moments, learn_prior: bool
    ) -> tuple[Moments, float]:
        """New moments of `rows` given those of `others`, and the squared error expected."""
        prior = rows.learn_prior(ratings.rated) if learn_prior else rows.prior
        updated = torch.empty(rows.packed.shape)
        with torch_threads(self.threads):
            squared_error = factor_posteriors_(
                updated,
                ratings.start,
                torch.from_numpy(ratings.matrix.indices),
                torch.from_numpy(ratings.matrix.data),
                torch.from_numpy(others.packed),
                torch.from_numpy(np.linalg.inv(prior.covariance).astype(np.float32)),
                torch.from_numpy(prior.group),
                None if prior.mean is None else torch.from_numpy(prior.mean),
                noise=self.noise,
            )
        return Moments(updated.numpy(), prior), float(squared_error)


@one_thread()
def fit_factors(
    ratings: Interactions,
    config: FactorConfig,
    *,
    seed: int,
    threads: int,
    advance: Advance,
    start: Array | None = None,
) -> EmpiricalBayes:
    """Fit the model of biases, then the model with factors.

    Args:
        ratings: training ratings of one domain.
        config: hyper-parameters.
        seed: of the start of the search for singular vectors.
        threads: cores to use; results do not depend on it.
        advance: told of each sweep's `loss`, the root mean squared error expected; a `Stage` also
            keeps checkpoints.
        start: item factors `[I, d]` to start from; None: singular vectors.
    """
    sweeps = config.sweeps_over(len(ratings))
    stage = Stage.of(advance)
    biases = EmpiricalBayes(ratings, 0, threads=threads)
    model = EmpiricalBayes(ratings, config.dimension, threads=threads)
    total = 2 * sweeps if config.dimension else sweeps
    for sweep in stage.epochs(total, {"biases": biases, "model": model}):
        if sweep < sweeps:
            loss = biases.sweep(learn_priors=True)
        else:
            if sweep == sweeps:
                start = biases.leading_factors(config.dimension, seed) if start is None else start
                model.start_factors(biases, start)
            loss = model.sweep(learn_priors=sweep >= sweeps + _FIXED_SWEEPS)
        stage(loss=loss)
    return model if config.dimension else biases


class _Ratings:
    """Centred ratings row by row: of each user, or of each item."""

    def __init__(self, matrix: csr_array) -> None:
        self.matrix = matrix
        self.n_rows = int(matrix.shape[0])
        self.total = int(matrix.nnz)
        self.counts: NDArray[np.int64] = np.diff(matrix.indptr)
        self.rated = self.counts > 0
        self.start = torch.from_numpy(matrix.indptr.astype(np.int64))
        self._ones = np.ones(self.total, dtype=np.float32)

    def sums_of(self, rows: NDArray[np.int64], second: Array, first: Array) -> tuple[Array, Array]:
        """Sums over the ratings of each of some consecutive rows.

        Args:
            rows: which rows.
            second: `E[a a']` of the other side, packed.
            first: `E[a]` of it, `[N, d + 2]`.

        Returns:
            `sum E[a a']`, packed, and `sum r E[a]` `[len(rows), d + 2]`.
        """
        start, end = self.matrix.indptr[[rows[0], rows[-1] + 1]]
        pointers = self.matrix.indptr[rows[0] : rows[-1] + 2] - start
        indices = self.matrix.indices[start:end]
        shape = (len(rows), self.matrix.shape[1])
        plain = csr_array((self._ones[start:end], indices, pointers), shape=shape)
        rated = csr_array((self.matrix.data[start:end], indices, pointers), shape=shape)
        return plain @ second, rated @ first

    def residuals(self, row_bias: Array, column_bias: Array) -> csr_array:
        """Ratings less both biases, over the root of (count + 10) of their row and their column."""
        indptr, indices = self.matrix.indptr, self.matrix.indices
        columns = np.bincount(indices, minlength=self.matrix.shape[1])
        row_scale = (1 / np.sqrt(self.counts + _COUNT_PRIOR)).astype(np.float32)
        column_scale = (1 / np.sqrt(columns + _COUNT_PRIOR)).astype(np.float32)
        data = self.matrix.data - np.repeat(row_bias, self.counts) - column_bias[indices]
        data *= np.repeat(row_scale, self.counts) * column_scale[indices]
        return csr_array((data, indices, indptr), shape=self.matrix.shape)


def _leading_factors(residuals: csr_array, dimension: int, seed: int, threads: int) -> Array:
    """Item factors `[I, d]` from the leading right singular vectors.

    By subspace iteration: N. Halko, P. G. Martinsson, J. A. Tropp, "Finding structure with
    randomness", SIAM Review 2011.
    """
    n_items = residuals.shape[1]
    width = min(dimension + _OVERSAMPLING, n_items)
    generator = np.random.default_rng(seed)
    basis = generator.standard_normal((n_items, width), dtype=np.float32)
    by_row, by_column = _row_blocks(residuals), _row_blocks(residuals.T.tocsr())
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_POWER_ITERATIONS):
            product = _product(by_column, _product(by_row, basis, pool), pool)
            basis = torch.linalg.qr(torch.from_numpy(product))[0].numpy()
        spanned = torch.from_numpy(_product(by_row, basis, pool))
    _, _, directions = torch.linalg.svd(spanned, full_matrices=False)
    factors = np.zeros((n_items, dimension), dtype=np.float32)
    kept = min(dimension, width)
    factors[:, :kept] = (torch.from_numpy(basis) @ directions[:kept].T).numpy()
    columns = np.bincount(residuals.indices, minlength=n_items)
    factors *= np.sqrt(columns + _COUNT_PRIOR).astype(np.float32)[:, None]
    return factors


def _row_blocks(matrix: csr_array) -> list[csr_array]:
    """The matrix cut between rows into parts of about equally many entries."""
    total = matrix.indptr[-1]
    cuts = np.searchsorted(matrix.indptr, np.linspace(0, total, _PARTS + 1)[1:-1])
    parts = []
    for first, last in pairwise((0, *cuts.tolist(), matrix.shape[0])):
        start, end = matrix.indptr[[first, last]]
        entries = matrix.data[start:end], matrix.indices[start:end]
        pointers = matrix.indptr[first : last + 1] - start
        parts.append(csr_array((*entries, pointers), shape=(last - first, matrix.shape[1])))
    return parts


def _product(parts: list[csr_array], dense: Array, pool: ThreadPoolExecutor) -> Array:
    """A matrix in parts times a dense one; SciPy works without Python's lock."""
    product: Array = np.concatenate(list(pool.map(lambda part: part @ dense, parts)))
    return product


def _blocks(n: int) -> Iterator[NDArray[np.int64]]:
    edges = [*range(0, n, _BLOCK), n]
    for start, end in pairwise(edges):
        if end > start:
            yield np.arange(start, end)
